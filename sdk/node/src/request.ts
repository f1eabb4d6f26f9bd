/** Request or one-way that a handler answers. */

import { shown } from "./check.js";
import { RESPONSE, type ThreadId } from "./chunk.js";
import { type Context, type ContextValues, NO_CONTEXT } from "./context.js";
import type { Payload } from "./encoder.js";
import { CallError, Failure, failureCode, StreamError } from "./errors.js";
import { PartSender, Parts, refused } from "./stream.js";

/** What a request needs of its connection. */
export interface RequestOwner {
  send(threadId: ThreadId, direction: number, command: string, payload: Payload): void;
  readonly streamWindow: number;
  readonly peerStreamWindow: number;
  readonly commands: readonly string[];
  isFull(): boolean;
  whenRoom(call: () => void): void;
}

/** Report of how far the work on a request is. */
export interface Progress {
  done: number;
  total?: number;
  message?: string;
}

/** Shortest time between two reports of progress, in milliseconds. */
const PROGRESS_PAUSE = 50;
const PROGRESS_LIMIT = 4096;

/** Result of a handler: the data of the response, or an async generator that yields parts and returns that data. */
export type HandlerResult = Payload | undefined | AsyncIterable<Payload>;

/** Function that answers a request. What it throws is the caller's error. */
// biome-ignore lint/suspicious/noConfusingVoidType: a handler without a result returns nothing.
export type Handler = (request: Request) => HandlerResult | void | Promise<HandlerResult | void>;

/** Request or one-way of the other side. */
export class Request {
  /** Name of the command. */
  readonly command: string;
  /** Data, as it was sent. It is the handler's to keep and change. */
  readonly buffer: Buffer;
  /** True if it has no response. */
  readonly isOneWay: boolean;
  private readonly owner: RequestOwner;
  private readonly threadId: ThreadId;
  private readonly properties: Context;
  /** Time of `performance.now()` at which the caller gives up. */
  private readonly until: number;
  private controller: AbortController | undefined;
  private deadlineTimer: NodeJS.Timeout | undefined;
  private given: Error | undefined;
  private incoming: Parts | undefined;
  private areTaken = false;
  private outgoing: PartSender | undefined;
  private report: Progress | undefined;
  private reportTimer: NodeJS.Timeout | undefined;
  private isAnswered = false;

  /** Made by the library. */
  constructor(
    owner: RequestOwner,
    threadId: ThreadId,
    isOneWay: boolean,
    command: string,
    buffer: Buffer,
    context: Context,
  ) {
    this.owner = owner;
    this.threadId = threadId;
    this.isOneWay = isOneWay;
    this.command = command;
    this.buffer = buffer;
    this.properties = context;
    this.until = Number.POSITIVE_INFINITY;
    if (context === NO_CONTEXT) return;
    if (context.deadline !== undefined) this.until = performance.now() + context.deadline;
    if (context.sends) {
      const peer = {
        credit: (total: number) => owner.send(threadId, RESPONSE, "cmd.part.credit", String(total)),
        enough: (reason: string) => owner.send(threadId, RESPONSE, "cmd.enough", reason),
      };
      this.incoming = new Parts(peer, owner.streamWindow);
    }
    if (context.receives && !isOneWay) {
      const peer = {
        part: (payload: Payload) => owner.send(threadId, RESPONSE, "cmd.part", payload),
        // The response ends the parts of a reply.
        end: () => {},
        isFull: () => owner.isFull(),
        whenRoom: (call: () => void) => owner.whenRoom(call),
      };
      this.outgoing = new PartSender(peer, owner.peerStreamWindow);
    }
  }

  /** Data as text. Throws if it is not UTF-8. */
  text(): string {
    try {
      return UTF8.decode(this.buffer);
    } catch {
      throw new Failure(failureCode.invalidArgument, `the data of ${JSON.stringify(this.command)} is not UTF-8`);
    }
  }

  /** Data as JSON; undefined if it is empty. */
  json<T = unknown>(): T {
    if (this.buffer.length === 0) return undefined as T;
    try {
      return JSON.parse(this.text()) as T;
    } catch (error) {
      if (error instanceof Failure) throw error;
      const text = `the data of ${JSON.stringify(this.command)} is no JSON: ${(error as Error).message}`;
      throw new Failure(failureCode.invalidArgument, text);
    }
  }

  /** Values that the caller has supplied, such as `traceparent`. Calls of this handler carry them on. */
  get context(): ContextValues {
    return this.properties.values;
  }

  /** Milliseconds that are left until the caller gives up; undefined if it has named no deadline. */
  get timeLeft(): number | undefined {
    return this.until === Number.POSITIVE_INFINITY ? undefined : Math.max(0, this.until - performance.now());
  }

  /** Aborted when the caller has given up, its deadline has passed, or the connection has ended. */
  get signal(): AbortSignal {
    if (this.controller === undefined) {
      this.controller = new AbortController();
      if (this.given !== undefined) this.controller.abort(this.given);
      else if (this.timeLeft !== undefined && !this.isAnswered) this.watchDeadline();
    }
    return this.controller.signal;
  }

  /** Parts that follow the request. Empty if the caller sends none. */
  get parts(): Parts {
    this.areTaken = true;
    if (this.incoming === undefined) {
      this.incoming = new Parts({ credit: () => {}, enough: () => {} }, 1);
      this.incoming.end();
    }
    if (this.timeLeft !== undefined && this.deadlineTimer === undefined && !this.isAnswered) this.watchDeadline();
    return this.incoming;
  }

  /** True if the caller takes parts of the reply. */
  get wantsParts(): boolean {
    return this.outgoing !== undefined;
  }

  /** Sends a part of the reply. Resolves once there was room for it; rejects if the caller wants no more. */
  send(part: Payload): Promise<void> {
    if (this.outgoing === undefined) {
      return refused(new StreamError("closed", `the caller of ${JSON.stringify(this.command)} takes no parts`));
    }
    return this.outgoing.send(part);
  }

  /** Reports progress to a caller that wants to know. Costs next to nothing otherwise. */
  progress(done: number, total?: number, message?: string): void {
    // Here, and not in the timer: it is the handler's mistake.
    if (typeof done !== "number") throw misreported("first", "number", done);
    if (total !== undefined && typeof total !== "number") throw misreported("second", "number", total);
    if (message !== undefined && typeof message !== "string") throw misreported("third", "string", message);
    if (!this.properties.progress || this.isOneWay || this.isAnswered) return;
    this.report = { done };
    if (total !== undefined) this.report.total = total;
    if (message !== undefined) this.report.message = message;
    if (this.reportTimer !== undefined) return;
    this.sendReport();
    this.reportTimer = setTimeout(() => {
      this.reportTimer = undefined;
      const { report } = this;
      if (report !== undefined) this.progress(report.done, report.total, report.message);
    }, PROGRESS_PAUSE);
    this.reportTimer.unref();
  }

  /** Throws the error of a command that does not exist. */
  unknown(): never {
    const data = this.owner.commands.length > 0 ? { commands: this.owner.commands } : undefined;
    throw new Failure(failureCode.unknownCommand, `unknown command ${JSON.stringify(this.command)}`, data);
  }

  /** @internal */
  get id(): ThreadId {
    return this.threadId;
  }

  /** @internal */
  get isLate(): boolean {
    return this.until !== Number.POSITIVE_INFINITY && performance.now() >= this.until;
  }

  /** @internal */
  get scope(): { deadline: number | undefined; values: ContextValues } | undefined {
    const { deadline, values } = this.properties;
    if (deadline === undefined && Object.keys(values).length === 0) return undefined;
    return { deadline: deadline === undefined ? undefined : this.until, values };
  }

  /** @internal */
  get hasStream(): boolean {
    return this.properties.sends || this.properties.receives;
  }

  /** @internal Parts that were not asked for: those of a stream that its sender may go on with. */
  get openParts(): Parts | undefined {
    return this.incoming;
  }

  /** @internal */
  get sender(): PartSender | undefined {
    return this.outgoing;
  }

  /** @internal True if parts of the request came, and the handler has not looked at them. */
  get hasIgnoredParts(): boolean {
    return this.properties.sends && !this.areTaken;
  }

  /** @internal Ends the work early: the caller has given up, or is gone. */
  giveUp(error: StreamError): void {
    if (this.given !== undefined) return;
    this.given = error;
    this.controller?.abort(error);
    this.incoming?.end(error);
    this.outgoing?.fail(error);
  }

  /** @internal Last step before the response. */
  beforeAnswer(): void {
    if (this.hasIgnoredParts && this.given === undefined) {
      this.owner.send(this.threadId, RESPONSE, "cmd.enough", "the handler takes no parts");
    }
    if (this.reportTimer !== undefined) {
      clearTimeout(this.reportTimer);
      this.reportTimer = undefined;
      this.sendReport();
    }
  }

  /** @internal True after the response, or after what stands for that of a one-way. */
  get isOver(): boolean {
    return this.isAnswered;
  }

  /** @internal Ends both directions of its stream. */
  answered(): void {
    if (this.isAnswered) return;
    this.isAnswered = true;
    if (this.deadlineTimer !== undefined) clearTimeout(this.deadlineTimer);
    if (this.reportTimer !== undefined) clearTimeout(this.reportTimer);
    this.incoming?.end(new StreamError("closed", "the request has been answered"));
    this.outgoing?.fail(new StreamError("closed", "the request has been answered"));
  }

  private sendReport(): void {
    const report = this.report;
    this.report = undefined;
    if (report === undefined || this.owner.isFull()) return;
    const whole = (value: number): number => Math.max(0, Math.min(Number.MAX_SAFE_INTEGER, Math.trunc(value) || 0));
    const object: Progress = { done: whole(report.done) };
    if (report.total !== undefined) object.total = whole(report.total);
    if (report.message !== undefined) object.message = report.message;
    let text = JSON.stringify(object);
    if (Buffer.byteLength(text) > PROGRESS_LIMIT) {
      object.message = report.message?.slice(0, 500) ?? "";
      text = JSON.stringify(object);
    }
    this.owner.send(this.threadId, RESPONSE, "cmd.progress", text);
  }

  private watchDeadline(): void {
    if (this.deadlineTimer !== undefined) return;
    const left = Math.min(Math.ceil(this.timeLeft ?? 0), 0x7fff_ffff);
    this.deadlineTimer = setTimeout(() => {
      this.giveUp(new StreamError("deadline", "the deadline of the request has passed"));
    }, left);
    this.deadlineTimer.unref();
  }
}

function misreported(which: string, type: string, value: unknown): TypeError {
  return new TypeError(`the ${which} argument of progress() has to be a ${type}, not ${shown(value)}`);
}

/** Text of a reply. */
export function textOf(command: string, buffer: Uint8Array): string {
  try {
    return UTF8.decode(buffer);
  } catch {
    throw new CallError("invalid", command, `the reply to ${JSON.stringify(command)} is not UTF-8`);
  }
}

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
