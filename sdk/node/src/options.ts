/** Options of a connection, and the reason of its end. */

import { BYTES, COUNT, type Kind, MICROSECONDS, nested, ORDER } from "./check.js";
import type { Limits } from "./chunk.js";

/** Limits and times of a connection. */
export interface Options {
  /** Largest cmd and buffer that this side takes, in bytes. Default: 64 KiB and 256 MiB. */
  limits?: Partial<Limits>;
  /** Requests and one-ways that this side holds until they are handled, in bytes. Default: 4 MiB. */
  window?: number;
  /** Parts of one stream that this side holds until they are taken, in bytes. Default: 1 MiB. */
  streamWindow?: number;
  /** Streams that the other side may have open. Default: 1,024. */
  streams?: number;
  /** Handlers that run at once. Default: 1,024. */
  handlers?: number;
  /** Bytes that wait to be written, from which on calls and one-ways wait. Default: 4 MiB. */
  outgoing?: number;
  /** Bytes of responses that the other side does not read, from which on the connection ends. Default: 64 MiB. */
  unread?: number;
  /**
   * Microseconds to look for an answer, or for the next request, before the event loop sleeps. Adapts to what
   * comes. 0 disables it. Default: 50.
   */
  spin?: number;
  /**
   * Commands that are handled one at a time, in the order in which they were sent: all of them (`true`), or
   * lists of commands, each list by itself.
   */
  inOrder?: true | readonly (readonly string[])[];
}

export const CONNECTION: Readonly<Record<keyof Options, Kind>> = {
  limits: nested({
    of: "the limits",
    options: { command: BYTES, buffer: BYTES } satisfies Record<keyof Limits, Kind>,
  }),
  window: BYTES,
  streamWindow: BYTES,
  streams: COUNT,
  handlers: COUNT,
  outgoing: BYTES,
  unread: BYTES,
  spin: MICROSECONDS,
  inOrder: ORDER,
};

/** Reason that a connection has ended. */
export interface CloseReason {
  kind: "endOfFile" | "broken" | "readerGone" | "unread" | "system" | "closed";
  message: string;
}
