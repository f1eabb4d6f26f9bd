/** Buffers of the protocol's own responses. */

import { parseNumber } from "./negotiation.js";
import type { Progress } from "./request.js";

/** Longest `cmd.failure`, and longest message of the other side that is kept, in bytes. */
export const FAILURE_LIMIT = 65536;

/** Returns the text of a `cmd.failure`; without data that is no JSON, or throws while it is written. */
export function failureText(code: string, message: string, data: unknown): string {
  try {
    return JSON.stringify({ code, message, data });
  } catch {
    return JSON.stringify({ code, message });
  }
}

/** Reads a `cmd.failure`. One that is none counts as a message. */
export function parseFailure(buffer: Buffer): { code: string; message: string; data: unknown } {
  const text = buffer.toString("utf8");
  const none = { code: "", message: cut(text, FAILURE_LIMIT), data: undefined };
  if (buffer.length > FAILURE_LIMIT) return none;
  try {
    const value = JSON.parse(text) as { code: unknown; message: unknown; data: unknown } | null;
    if (typeof value?.code !== "string" || typeof value.message !== "string") return none;
    return { code: value.code, message: value.message, data: value.data ?? undefined };
  } catch {
    return none;
  }
}

/** Reads a report of progress; undefined if it is none. */
export function parseProgress(buffer: Buffer): Progress | undefined {
  if (buffer.length > 4096) return undefined;
  let value: Record<string, unknown>;
  try {
    value = JSON.parse(buffer.toString("utf8")) as Record<string, unknown>;
  } catch {
    return undefined;
  }
  const isWhole = (item: unknown): item is number => typeof item === "number" && item >= 0 && Math.trunc(item) === item;
  if (typeof value !== "object" || value === null || !isWhole(value.done)) return undefined;
  const progress: Progress = { done: value.done };
  if (value.total !== undefined) {
    if (!isWhole(value.total)) return undefined;
    progress.total = value.total;
  }
  if (value.message !== undefined) {
    if (typeof value.message !== "string") return undefined;
    progress.message = value.message;
  }
  return progress;
}

/** Returns the beginning of a text, at most so many bytes. */
export function cut(text: string, length: number): string {
  if (text.length * 3 <= length || Buffer.byteLength(text) <= length) return text;
  const bytes = Buffer.from(text).subarray(0, length);
  return bytes.toString("utf8").replace(/\ufffd+$/, "");
}

/** Reads a credit, and gives its total on. One that is no number is ignored. */
export function readCredit(buffer: Buffer, take: (total: number) => void, log: { warn(message: string): void }): void {
  const total = buffer.length <= 20 ? parseNumber(buffer.toString("latin1")) : undefined;
  if (total === undefined) log.warn("a credit is ignored: it is no number");
  else take(total);
}

/** Returns true for a command that belongs to the protocol. */
export function isReserved(command: string): boolean {
  // Most commands differ in the first letter.
  const first = command.charCodeAt(0);
  if (first === 0x63) return command.startsWith("cmd.");
  return first === 0x47 && (command === "GetMetadata" || command === "GetServices");
}
