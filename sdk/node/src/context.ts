/** Properties of a call beyond its chunk: `cmd.context`, and what handlers pass on. */

import { AsyncLocalStorage } from "node:async_hooks";

/** Longest context, in bytes. */
export const CONTEXT_LIMIT = 4096;

/** Values of a caller, such as `traceparent`. */
export type ContextValues = Readonly<Record<string, string>>;

/** Properties that came with a request or one-way. */
export interface Context {
  /** Milliseconds that the sender waits. */
  deadline: number | undefined;
  sends: boolean;
  receives: boolean;
  progress: boolean;
  values: ContextValues;
}

export const NO_VALUES: ContextValues = Object.freeze({});
export const NO_CONTEXT: Context = Object.freeze({
  deadline: undefined,
  sends: false,
  receives: false,
  progress: false,
  values: NO_VALUES,
});

/** Returns the context of a buffer, or undefined if it is none. */
export function parseContext(buffer: Buffer): Context | undefined {
  if (buffer.length > CONTEXT_LIMIT) return undefined;
  const text = buffer.toString("utf8");
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  const keys = value as Record<string, unknown>;
  const { deadline_ms: deadline, stream, progress, values } = keys;
  if (deadline !== undefined && !isWhole(deadline, text)) return undefined;
  if (stream !== undefined && typeof stream !== "string") return undefined;
  if (progress !== undefined && typeof progress !== "boolean") return undefined;
  if (values !== undefined && !isStrings(values)) return undefined;
  const words = stream?.split(" ") ?? [];
  return {
    deadline: deadline as number | undefined,
    sends: words.includes("send"),
    receives: words.includes("receive"),
    progress: progress === true,
    values: (values as Record<string, string> | undefined) ?? NO_VALUES,
  };
}

/** Returns true for a number from 0 to 2^64-1 that is written in digits only. */
function isWhole(value: unknown, text: string): boolean {
  if (typeof value !== "number") return false;
  // JSON.parse does not tell 1e3 and 1.0 from 1000 and 1: the last occurrence of the key counts.
  const written = [...text.matchAll(/"deadline_ms"\s*:\s*([^,}\s]*)/g)].at(-1)?.[1] ?? "";
  return /^(0|[1-9][0-9]{0,19})$/.test(written) && BigInt(written) <= 0xffff_ffff_ffff_ffffn;
}

function isStrings(value: unknown): boolean {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  return Object.values(value).every((item) => typeof item === "string");
}

/** Deadline and values that the calls of a handler carry on. */
export interface Scope {
  /** Time of `performance.now()`. */
  deadline: number | undefined;
  values: ContextValues;
}

let scopes: AsyncLocalStorage<Scope> | undefined;

/** Runs a handler whose calls carry the scope on, however many awaits are between. */
export function runInScope<T>(scope: Scope, run: () => T): T {
  // Made when it is needed first, since it makes each promise a bit slower from then on.
  scopes ??= new AsyncLocalStorage();
  return scopes.run(scope, run);
}

/** Scope of the handler that this code belongs to. */
export function currentScope(): Scope | undefined {
  return scopes?.getStore();
}
