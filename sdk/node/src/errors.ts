/** Errors of handlers, calls, streams, starts and stops. */

import { inspect } from "node:util";

import { shown } from "./check.js";

/** Codes of failures that mean the same for every plugin. */
export const failureCode = {
  unknownCommand: "unknown_command",
  refused: "refused",
  overloaded: "overloaded",
  cancelled: "cancelled",
  deadline: "deadline",
  tooLarge: "too_large",
  panicked: "panicked",
  unanswered: "unanswered",
  methodError: "method_error",
  invalidArgument: "invalid_argument",
  invalidResult: "invalid_result",
  // Of this side's own errors, which no peer sends.
  closed: "closed",
  unsupported: "unsupported",
  invalid: "invalid",
} as const;

/** Error that a handler throws: code for programs, message for people, and JSON data. */
export class Failure extends Error {
  override readonly name = "Failure";
  /** Lowercase words joined by `_`. Empty for none. */
  readonly code: string;
  /** Any JSON that belongs to the code. */
  readonly data: unknown;

  constructor(code: string, message: string, data?: unknown) {
    if (typeof code !== "string" || !CODE.test(code)) {
      throw new TypeError(`the code of a Failure has to be lowercase words joined by "_", not ${shown(code)}`);
    }
    super(message);
    this.code = code;
    this.data = data;
  }

  override toString(): string {
    return withCode(super.toString(), this.code, this.data);
  }
}

const CODE = /^([a-z][a-z0-9]*(_[a-z0-9]+)*)?$/;

/** Adds code and data to the text of an error, as `String(error)` gives it. */
function withCode(text: string, code: string, data: unknown): string {
  let json: string | undefined;
  try {
    json = JSON.stringify(data);
  } catch {
    // It is sent without, too.
  }
  const words = [code, json].filter((word) => word !== undefined && word !== "");
  return words.length === 0 ? text : `${text} (${words.join(", ")})`;
}

/** Reason that a call has no result. */
export type CallErrorKind =
  /** The other side answered with an error. */
  | "remote"
  /** The time-out passed. */
  | "timedOut"
  /** The connection ended. */
  | "closed"
  /** The reply was over this side's limit. */
  | "tooLarge"
  /** The command belongs to the protocol. */
  | "reserved"
  /** The other side does not name the feature that is needed. */
  | "unsupported"
  /** The request cannot be written in this format, or its context is too long. */
  | "invalid";

/** Codes of this side's own errors, as the host in Rust has them. */
const CODES: Readonly<Record<CallErrorKind, string>> = {
  remote: "",
  timedOut: failureCode.deadline,
  closed: failureCode.closed,
  tooLarge: failureCode.tooLarge,
  reserved: failureCode.invalid,
  unsupported: failureCode.unsupported,
  invalid: failureCode.invalid,
};

/** Error of a call or one-way. A call that its `AbortSignal` ends rejects with the signal's reason. */
export class CallError extends Error {
  override readonly name = "CallError";
  readonly kind: CallErrorKind;
  readonly command: string;
  /** Code of the other side's failure, empty if it has none; a `failureCode` if the error is of another kind. */
  readonly code: string;
  /** Data of the other side's failure. */
  readonly data: unknown;
  /** False if the other side has certainly not seen the request. */
  readonly sent: boolean;

  constructor(
    kind: CallErrorKind,
    command: string,
    message: string,
    rest: { code?: string; data?: unknown; sent?: boolean } = {},
  ) {
    super(message);
    this.kind = kind;
    this.command = command;
    this.code = rest.code ?? CODES[kind];
    this.data = rest.data;
    this.sent = rest.sent ?? true;
  }

  override toString(): string {
    return withCode(super.toString(), this.code, this.data);
  }
}

/** Reason that a direction of a stream ended early. */
export type StreamErrorKind = "aborted" | "enough" | "cancelled" | "deadline" | "closed" | "tooLarge";

/** Error of sending or receiving parts. */
export class StreamError extends Error {
  override readonly name = "StreamError";
  readonly kind: StreamErrorKind;

  constructor(kind: StreamErrorKind, message: string) {
    super(message);
    this.kind = kind;
  }
}

/** Error of starting a plugin. */
export class StartError extends Error {
  override readonly name = "StartError";
  /** Last lines that the plugin wrote to its standard error. */
  readonly stderr: readonly string[];

  constructor(message: string, stderr: readonly string[] = []) {
    super(message);
    this.stderr = stderr;
  }
}

/** Field of a chunk that broke the protocol. */
export type Field = "threadID" | "direction" | "len(cmd)" | "cmd" | "len(buffer)" | "buffer";

/** Rule of the protocol that was broken. */
export type BrokenKind =
  | "no-digits"
  | "not-a-digit"
  | "leading-zero"
  | "too-large"
  | "no-nul"
  | "nul-in-cmd"
  | "not-utf8"
  | "end";

const EXPECTED: Record<BrokenKind, string> = {
  "no-digits": "expected at least one digit, found NUL",
  "not-a-digit": "expected digits up to a NUL",
  "leading-zero": "expected NUL behind a leading zero",
  "too-large": "expected a number of at most 18446744073709551615",
  "no-nul": "expected NUL behind the announced length",
  "nul-in-cmd": "expected a cmd up to a space, found NUL",
  "not-utf8": "expected UTF-8",
  end: "expected further bytes, found the end of the stream",
};

/** Error of a stream that breaks the protocol, or ends inside a chunk. */
export class ProtocolError extends Error {
  override readonly name = "ProtocolError";
  readonly field: Field;
  /** Position in the stream of the byte that broke the rule. */
  readonly offset: number;
  readonly kind: BrokenKind;

  constructor(field: Field, offset: number, kind: BrokenKind, found?: number) {
    const seen =
      found === undefined || kind === "no-digits" || kind === "end"
        ? ""
        : `, found 0x${found.toString(16).padStart(2, "0")}`;
    super(`broken chunk at byte ${offset} of the stream, in its ${field}: ${EXPECTED[kind]}${seen}`);
    this.field = field;
    this.offset = offset;
    this.kind = kind;
  }
}

/** Returns the text of anything that was thrown, with the texts of its causes. Never throws. */
export function messageOf(error: unknown): string {
  let text = ownMessage(error);
  let cause = causeOf(error);
  for (let depth = 0; depth < 8 && cause !== undefined; depth++) {
    text += `: ${ownMessage(cause)}`;
    cause = causeOf(cause);
  }
  // JSON of half a character is none for other languages.
  return text.replace(/\p{Surrogate}/gu, "\ufffd");
}

/** Returns the first line of that text: some of JSON.stringify have more. */
export function firstLine(error: unknown): string {
  return messageOf(error).split("\n", 1)[0] as string;
}

/** True for an error of this program. Never throws, as `instanceof` does for some proxies. */
export function isError(value: unknown): value is Error {
  try {
    return value instanceof Error;
  } catch {
    return false;
  }
}

function ownMessage(error: unknown): string {
  try {
    if (!isError(error)) return textOfAny(error);
    const { message, name } = error as { message: unknown; name: unknown };
    if (message === undefined || message === "") return typeof name === "string" ? name : "Error";
    return textOfAny(message);
  } catch {
    // A getter that throws.
    return UNREADABLE;
  }
}

const UNREADABLE = "an error that has no readable message";

/** Text of a value that may have no `toString`, or one that throws. */
function textOfAny(value: unknown): string {
  try {
    const text = String(value);
    if (!text.startsWith("[object ") || typeof value === "string") return text;
  } catch {
    // What it has inside may be shown.
  }
  try {
    return inspect(value, { depth: 1, breakLength: Number.POSITIVE_INFINITY });
  } catch {
    return UNREADABLE;
  }
}

function causeOf(error: unknown): unknown {
  try {
    return isError(error) ? error.cause : undefined;
  } catch {
    return undefined;
  }
}

/** Finds code and data of the `Failure` in an error or its causes. Never throws. */
export function failureOf(error: unknown): { code: string; data: unknown } | undefined {
  let found = error;
  try {
    for (let depth = 0; depth < 8 && found instanceof Error; depth++) {
      if (found instanceof Failure) return { code: String(found.code), data: found.data };
      found = found.cause;
    }
  } catch {
    // A getter that throws.
  }
  return undefined;
}
