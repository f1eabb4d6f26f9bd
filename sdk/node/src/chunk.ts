/** Chunks, as they are decoded, and their limits. */

/** Number that relates a response to its request. A `bigint` above 2^53-1. */
export type ThreadId = number | bigint;

/** Form of all chunks of a connection. */
export type Format = "standard" | "classic";

/** Largest cmd and buffer that this side takes, in bytes. */
export interface Limits {
  command: number;
  buffer: number;
}

export const DEFAULT_LIMITS: Readonly<Limits> = { command: 65536, buffer: 256 * 1024 * 1024 };

export const ONE_WAY = 1;
export const REQUEST = 2;
export const RESPONSE = 3;

/** Reason that a chunk is read and discarded. */
export type SkipReason = "unknown-direction" | "command-too-long" | "buffer-too-long";

/** Chunk that is read and discarded. */
export interface Skipped {
  threadId: ThreadId;
  direction: ThreadId;
  reason: SkipReason;
  /** The cmd, if that is within its limit. */
  command: string | undefined;
  commandLength: ThreadId;
  bufferLength: ThreadId;
  limit: number | undefined;
  /** True if the cmd begins with `cmd.`. */
  reserved: boolean;
}

/** Receiver of what is decoded. */
export interface Sink {
  chunk(threadId: ThreadId, direction: number, command: string, buffer: Buffer): void;
  skipped(chunk: Skipped): void;
}
