/** Keys of the `GetMetadata` exchange. */

/** What one side has named. */
export interface Offer {
  features: ReadonlySet<string>;
  window: number;
  streamWindow: number;
  interfaceVersions: number[] | undefined;
  services: string;
  /** JSON text. */
  config: string | undefined;
  logLevel: string | undefined;
}

export const DEFAULT_WINDOW = 4 * 1024 * 1024;
export const DEFAULT_STREAM_WINDOW = 1024 * 1024;
/** Longest metadata and configuration, in bytes. */
export const METADATA_LIMIT = 1024 * 1024;

const FEATURES = ["flow", "cancel", "context", "stream", "failure", "progress"];

/** Keys of the protocol that a program sets by itself, for the log. */
const OWN_KEYS: readonly string[] = ["pipeplug.name", "pipeplug.version"];

/** Features of a peer that has named none. */
export const NOTHING: Offer = {
  features: new Set(),
  window: DEFAULT_WINDOW,
  streamWindow: DEFAULT_STREAM_WINDOW,
  interfaceVersions: undefined,
  services: "",
  config: undefined,
  logLevel: undefined,
};

/** Returns the number that a text of the grammar is, or undefined. */
export function parseNumber(text: string | undefined): number | undefined {
  if (text === undefined || !/^(0|[1-9][0-9]{0,19})$/.test(text)) return undefined;
  return BigInt(text) > 0xffff_ffff_ffff_ffffn ? undefined : Number(text);
}

/** Reads a JSON object of metadata; values that are no strings become their JSON text. Undefined if it is none. */
export function parseMetadata(buffer: Buffer): Record<string, string> | undefined {
  let value: unknown;
  try {
    value = JSON.parse(buffer.toString("utf8"));
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  const entries = Object.entries(value).map(([key, item]) => [
    key,
    typeof item === "string" ? item : JSON.stringify(item),
  ]);
  return Object.fromEntries(entries) as Record<string, string>;
}

/** Reads the protocol's keys of metadata. */
export function parseOffer(metadata: Record<string, string>): Offer {
  const versions = metadata["pipeplug.interface_versions"];
  return {
    features: new Set((metadata["pipeplug.features"] ?? "").split(" ").filter((word) => word !== "")),
    window: Math.max(1, parseNumber(metadata["pipeplug.window"]) ?? DEFAULT_WINDOW),
    streamWindow: Math.max(1, parseNumber(metadata["pipeplug.stream_window"]) ?? DEFAULT_STREAM_WINDOW),
    interfaceVersions: versions === undefined ? undefined : parseVersions(versions),
    services: metadata["pipeplug.services"] ?? "",
    config: metadata["pipeplug.config"],
    logLevel: metadata["pipeplug.log_level"],
  };
}

function parseVersions(text: string): number[] {
  return text
    .split(" ")
    .map((word) => parseNumber(word))
    .filter((number): number is number => number !== undefined && number < 2 ** 32);
}

/** Versions that both lists have: the highest. `null` if they have none in common, undefined without lists. */
export function commonVersion(
  own: readonly number[] | undefined,
  peer: readonly number[] | undefined,
): number | null | undefined {
  if (own === undefined || peer === undefined) return undefined;
  const common = own.filter((version) => peer.includes(version));
  return common.length === 0 ? null : Math.max(...common);
}

/** Metadata of this side, with the protocol's keys. */
export function offer(
  own: Record<string, string>,
  side: {
    features: readonly string[];
    window: number;
    streamWindow: number;
    interfaceVersions?: readonly number[] | undefined;
    services: string;
  },
): Record<string, string> {
  const result: Record<string, string> = {};
  for (const [key, value] of Object.entries(own)) {
    if (!key.startsWith("pipeplug.") || OWN_KEYS.includes(key)) result[key] = value;
  }
  result["pipeplug.protocol"] = "1";
  result["pipeplug.features"] = [...FEATURES, ...side.features].join(" ");
  result["pipeplug.window"] = String(side.window);
  result["pipeplug.stream_window"] = String(side.streamWindow);
  if (side.interfaceVersions !== undefined) {
    result["pipeplug.interface_versions"] = side.interfaceVersions.join(" ");
  }
  if (side.services !== "") result["pipeplug.services"] = side.services;
  return result;
}
