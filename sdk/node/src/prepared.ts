/** Preparation of a call or one-way: what it may not be, and its context. */

import type { CallOptions } from "./caller.js";
import type { Connection } from "./connection.js";
import { CONTEXT_LIMIT, currentScope, type Scope } from "./context.js";
import { isWritable, type Payload } from "./encoder.js";
import { CallError } from "./errors.js";
import { isReserved } from "./messages.js";
import type { CloseReason } from "./options.js";
import { byteLength } from "./stream.js";

/** Call or one-way without a context, or with the text of one and the time of its deadline. */
export type Prepared = { kind: "plain" } | { kind: "context"; text: string; until: number };

/** Checks a call or one-way, and assembles its context. */
export function prepare(
  connection: Connection,
  command: string,
  payload: Payload,
  options: CallOptions,
  stream: string,
  isCall: boolean,
): Prepared {
  // `ping` is the only call that this side makes of the protocol's.
  const isPing = isCall && stream === "" && command === "cmd.ping";
  if (isReserved(command) && !isPing) throw reservedError(command);
  if (!isWritable(connection.format, command)) {
    throw invalid(command, "the classic format can write neither a space nor a NUL in a command");
  }
  if (connection.reason !== undefined) throw notSent(command, connection.reason);
  if (connection.mayCut(command, payload)) throw invalid(command, cutText(byteLength(payload)));
  const scope: Scope | undefined = currentScope();
  let until = Number.POSITIVE_INFINITY;
  if (options.timeout !== undefined) until = performance.now() + Math.max(0, options.timeout);
  if (isCall && scope?.deadline !== undefined) until = Math.min(until, scope.deadline);
  const values = { ...scope?.values, ...options.context };
  const object: Record<string, unknown> = {};
  if (stream !== "") object.stream = stream;
  if (options.onProgress !== undefined && connection.has("progress")) object.progress = true;
  if (Object.keys(values).length > 0) object.values = values;
  if (until === Number.POSITIVE_INFINITY && Object.keys(object).length === 0) return { kind: "plain" };
  return { kind: "context", text: JSON.stringify(object), until };
}

/** Sends the context, with the time that is left. Returns true if there was one to send. */
export function sendContext(connection: Connection, command: string, prepared: Prepared): boolean {
  if (prepared.kind === "plain" || !connection.has("context")) return false;
  let text = prepared.text;
  if (prepared.until !== Number.POSITIVE_INFINITY) {
    const left = Math.min(Number.MAX_SAFE_INTEGER, Math.max(0, Math.ceil(prepared.until - performance.now())));
    text = `{"deadline_ms":${left}${text === "{}" ? "" : `,${text.slice(1, -1)}`}}`;
  }
  if (text === "{}") return false;
  const length = Buffer.byteLength(text);
  if (length > CONTEXT_LIMIT) throw invalid(command, `its context has ${length} bytes, the limit is ${CONTEXT_LIMIT}`);
  connection.sendContext(text);
  return true;
}

/** Error of a call or one-way for which the connection has ended. */
export function notSent(command: string, reason: CloseReason): CallError {
  return new CallError("closed", command, `${JSON.stringify(command)} was not sent: ${reason.message}`, {
    sent: false,
  });
}

export function reservedError(command: string): CallError {
  const text = `${JSON.stringify(command)} belongs to the protocol: use ping, stop or the metadata`;
  return new CallError("reserved", command, text, { sent: false });
}

function invalid(command: string, text: string): CallError {
  return new CallError("invalid", command, `${JSON.stringify(command)} was not sent: ${text}`, { sent: false });
}

/** Reason that so many bytes are not sent. */
export function cutText(length: number): string {
  return (
    `${length} bytes do not fit into a pipe, and the other side may lose what it does not get in one read: ` +
    "it talks the classic format and names no features, as the Go package does"
  );
}
