/** Calls and one-ways: what a host does with a plugin, and a plugin with its host. */

import { onAbort } from "./abort.js";
import {
  checkOptions,
  FUNCTION,
  type Kind,
  MILLISECONDS,
  type Shape,
  SIGNAL,
  shown,
  TEXT_BY_NAME,
  timerTime,
} from "./check.js";
import { ONE_WAY } from "./chunk.js";
import type { Connection } from "./connection.js";
import { type ContextValues, currentScope } from "./context.js";
import { isPayload, type Payload } from "./encoder.js";
import { CallError, isError, messageOf, StreamError } from "./errors.js";
import { isReserved } from "./messages.js";
import type { CallExtra, OpenCall } from "./outgoing.js";
import { notSent, type Prepared, prepare, reservedError, sendContext } from "./prepared.js";
import { type Progress, textOf } from "./request.js";
import { PartSender, Parts } from "./stream.js";

/** Options of a one-way. */
export interface NotifyOptions {
  /** Values for the handler, such as `traceparent`; its own calls carry them on. */
  context?: ContextValues;
  /** Ends the wait for room. */
  signal?: AbortSignal;
}

/** Options of a call. */
export interface CallOptions extends NotifyOptions {
  /** Gives the call up, and tells the handler. The call rejects with the signal's reason. */
  signal?: AbortSignal;
  /** Milliseconds until the call is given up. The handler knows, and its own calls inherit it. */
  timeout?: number;
  /** Takes reports of how far the work is. */
  onProgress?: (progress: Progress) => void;
}

const NOTICE: Shape = {
  of: "a one-way",
  options: { context: TEXT_BY_NAME, signal: SIGNAL } satisfies Record<keyof NotifyOptions, Kind>,
};
const CALL: Shape = {
  of: "a call",
  options: { ...NOTICE.options, timeout: MILLISECONDS, onProgress: FUNCTION } satisfies Record<
    Exclude<keyof CallOptions, keyof NotifyOptions>,
    Kind
  >,
};

/** Call with parts: an async iterable of the parts of the reply, and the sender of those of the request. */
export interface StreamCall extends AsyncIterable<Buffer> {
  /** Parts of the reply. */
  readonly parts: Parts;
  /** Reply that follows the parts. */
  readonly reply: Promise<Buffer>;
  /** Sender of the parts of the request. */
  readonly sender: PartSender;
  /** Sends a part. Resolves once there was room for it. */
  send(part: Payload): Promise<void>;
  /** Tells the handler that the parts are complete. */
  finish(): Promise<void>;
}

/** Side of a connection that is called. */
export abstract class Caller {
  /** @internal */
  protected readonly connection: Connection;

  /** @internal */
  protected constructor(connection: Connection) {
    this.connection = connection;
  }

  /** Calls a command, and resolves to the data of its reply. */
  call(command: string, payload?: Payload, options?: CallOptions): Promise<Buffer> {
    const { connection } = this;
    if (options === undefined && currentScope() === undefined) {
      const isOpen = connection.reason === undefined && typeof command === "string" && isPayload(payload);
      const isPlain = isOpen && connection.canSend() && !isReserved(command);
      if (isPlain && connection.format === "standard") {
        return new Promise((resolve, reject) => {
          connection.sendRequest(command, payload, { command, resolve, reject, extra: undefined });
        });
      }
    }
    return new Promise((resolve, reject) => {
      const call: OpenCall = { command, resolve, reject, extra: undefined };
      checkCall(command, payload, options, CALL);
      if (command === "cmd.ping") reject(reservedError(command));
      else this.begin(call, payload, options ?? {}, "", undefined);
    });
  }

  /** Calls a command, and resolves to its reply as text. */
  async callText(command: string, payload?: Payload, options?: CallOptions): Promise<string> {
    return textOf(command, await this.call(command, payload, options));
  }

  /** Calls a command with a value as JSON, and resolves to the value of its reply; undefined if that is empty. */
  async callJson<T = unknown>(command: string, value?: unknown, options?: CallOptions): Promise<T> {
    const payload = value === undefined ? undefined : JSON.stringify(value);
    const reply = await this.call(command, payload, options);
    if (reply.length === 0) return undefined as T;
    try {
      return JSON.parse(textOf(command, reply)) as T;
    } catch (error) {
      if (error instanceof CallError) throw error;
      throw new CallError(
        "invalid",
        command,
        `the reply to ${JSON.stringify(command)} is no JSON: ${(error as Error).message}`,
      );
    }
  }

  /** Sends a one-way. Resolves once there was room for it. */
  notify(command: string, payload?: Payload, options: NotifyOptions = {}): Promise<void> {
    return new Promise((resolve, reject) => {
      checkCall(command, payload, options, NOTICE);
      this.sendNotice(command, payload, options, "", () => resolve(), reject);
    });
  }

  /** Calls a command with parts in both directions. */
  stream(command: string, payload?: Payload, options: CallOptions = {}): StreamCall {
    const { connection } = this;
    checkCall(command, payload, options, CALL);
    let id = 0;
    const parts = new Parts(
      {
        credit: (total) => connection.send(id, ONE_WAY, "cmd.part.credit", String(total)),
        enough: (reason) => connection.send(id, ONE_WAY, "cmd.enough", reason),
      },
      connection.streamWindow,
    );
    const sender = this.partSender(() => id);
    const reply = new Promise<Buffer>((resolve, reject) => {
      const failed = (error: unknown): void => {
        // The reason of a signal may be anything.
        const own = isError(error) ? error : undefined;
        const cause = own instanceof CallError ? own : new StreamError("cancelled", "the call was given up");
        parts.end(own ?? cause);
        sender.fail(cause instanceof StreamError ? cause : new StreamError("closed", cause.message));
        reject(error);
      };
      if (!connection.has("stream")) {
        failed(
          new CallError(
            "unsupported",
            command,
            "the other side takes no streams: it does not name the feature `stream`",
            { sent: false },
          ),
        );
        return;
      }
      sender.hold();
      const call: OpenCall = { command, resolve, reject: failed, extra: { parts, sender } };
      this.begin(call, payload, options, "send receive", (number) => {
        id = number;
        sender.widen(connection.peerStreamWindow);
      });
    });
    // Whoever takes the parts has the error from them.
    reply.catch(() => {});
    return {
      parts,
      reply,
      sender,
      send: (part) => sender.send(part),
      finish: () => sender.finish(),
      [Symbol.asyncIterator]: () => parts,
    };
  }

  /** Sends a one-way that is followed by parts. */
  notifyStream(command: string, payload?: Payload, options: NotifyOptions = {}): PartSender {
    const { connection } = this;
    checkCall(command, payload, options, NOTICE);
    let id = 0;
    const sender = this.partSender(
      () => id,
      () => connection.outgoing.closeOneWayStream(id),
    );
    if (!connection.has("stream")) {
      sender.fail(new StreamError("closed", "the other side takes no streams: it does not name the feature `stream`"));
      return sender;
    }
    sender.hold();
    const sent = (number: number): void => {
      id = number;
      connection.outgoing.openOneWayStream(id, sender);
      sender.widen(connection.peerStreamWindow);
    };
    const failed = (error: unknown): void => {
      sender.fail(new StreamError("cancelled", messageOf(error)));
    };
    this.sendNotice(command, payload, options, "send", sent, failed);
    return sender;
  }

  /** Asks whether the other side reads and answers. */
  ping(options: CallOptions = {}): Promise<void> {
    return new Promise((resolve, reject) => {
      checkOptions(options, CALL);
      const call: OpenCall = { command: "cmd.ping", resolve: () => resolve(), reject, extra: undefined };
      this.begin(call, undefined, options, "", undefined);
    });
  }

  private partSender(id: () => number, ended?: () => void): PartSender {
    const { connection } = this;
    return new PartSender(
      {
        part: (payload) => connection.send(id(), ONE_WAY, "cmd.part", payload),
        end: (reason) => {
          connection.send(id(), ONE_WAY, "cmd.end", reason);
          ended?.();
        },
        isFull: () => connection.isFull(),
        whenRoom: (call) => connection.whenRoom(call),
      },
      connection.peerStreamWindow,
    );
  }

  /** Begins a call: sends it, or has it wait for room. */
  private begin(
    call: OpenCall,
    payload: Payload,
    options: CallOptions,
    stream: string,
    sent: ((id: number) => void) | undefined,
  ): void {
    const { connection } = this;
    const { signal } = options;
    if (signal?.aborted) {
      call.reject(signal.reason);
      return;
    }
    let prepared: Prepared;
    try {
      prepared = prepare(connection, call.command, payload, options, stream, true);
    } catch (error) {
      call.reject(error);
      return;
    }
    let id: number | undefined;
    let withdraw: (() => void) | undefined;
    let timer: NodeJS.Timeout | undefined;
    const giveUp = (error: unknown): void => {
      done();
      if (id === undefined) withdraw?.();
      else connection.giveUp(id);
      call.reject(error);
    };
    const aborted = (): void => giveUp(signal?.reason);
    let forget: (() => void) | undefined;
    const done = (): void => {
      forget?.();
      if (timer !== undefined) clearTimeout(timer);
    };
    const passed = (): void => {
      const wasSent = id !== undefined;
      const after = options.timeout === undefined ? "its deadline" : `${options.timeout} ms`;
      const text = wasSent
        ? `no reply to ${JSON.stringify(call.command)} within ${after}`
        : `${JSON.stringify(call.command)} was not sent within ${after}`;
      giveUp(new CallError("timedOut", call.command, text, { sent: wasSent }));
    };
    if (prepared.kind === "context" || signal !== undefined) {
      if (signal !== undefined) forget = onAbort(signal, aborted);
      const extra: CallExtra = { ...call.extra, done, giveUp };
      if (options.onProgress !== undefined) extra.onProgress = options.onProgress;
      call.extra = extra;
      if (prepared.kind === "context" && prepared.until !== Number.POSITIVE_INFINITY) {
        // The other side may notice first: the error is the same.
        const { until } = prepared;
        extra.isLate = () => {
          const isLate = performance.now() >= until;
          if (isLate) passed();
          return isLate;
        };
        timer = setTimeout(passed, timerTime(until - performance.now()));
      }
    }
    const send = (): void => {
      if (connection.reason !== undefined) {
        done();
        call.reject(notSent(call.command, connection.reason));
        return;
      }
      if (call.extra?.isLate?.()) return;
      try {
        sendContext(connection, call.command, prepared);
      } catch (error) {
        done();
        call.reject(error);
        return;
      }
      id =
        call.command === "cmd.ping" ? connection.sendPing(call) : connection.sendRequest(call.command, payload, call);
      sent?.(id);
    };
    // A ping has no weight, and is never held back.
    if (connection.canSend() || call.command === "cmd.ping") send();
    else withdraw = connection.whenSendable(send);
  }

  private sendNotice(
    command: string,
    payload: Payload,
    options: NotifyOptions,
    stream: string,
    sent: (id: number) => void,
    failed: (error: unknown) => void,
  ): void {
    const { connection } = this;
    const { signal } = options;
    if (signal?.aborted) {
      failed(signal.reason);
      return;
    }
    let prepared: Prepared;
    try {
      const { context } = options;
      prepared = prepare(connection, command, payload, context === undefined ? {} : { context }, stream, false);
    } catch (error) {
      failed(error);
      return;
    }
    let forget: (() => void) | undefined;
    const send = (): void => {
      forget?.();
      if (connection.reason !== undefined) {
        failed(notSent(command, connection.reason));
        return;
      }
      let isNumbered = false;
      try {
        isNumbered = sendContext(connection, command, prepared);
      } catch (error) {
        failed(error);
        return;
      }
      sent(connection.sendOneWay(command, payload, isNumbered));
    };
    let withdraw: (() => void) | undefined;
    const aborted = (): void => {
      withdraw?.();
      failed(signal?.reason);
    };
    if (connection.canSend()) {
      send();
      return;
    }
    if (signal !== undefined) forget = onAbort(signal, aborted);
    withdraw = connection.whenSendable(send);
  }
}

/** Throws a `TypeError` for what the types do not allow: JavaScript callers may pass anything. */
function checkCall(command: unknown, payload: unknown, options: unknown, shape: Shape): void {
  if (typeof command !== "string") {
    throw new TypeError(`the command of ${shape.of} has to be a string, not ${shown(command)}`);
  }
  if (!isPayload(payload)) {
    throw new TypeError(
      `the data of ${JSON.stringify(command)} has to be a string or a Uint8Array, not ${shown(payload)}`,
    );
  }
  checkOptions(options, shape);
}
