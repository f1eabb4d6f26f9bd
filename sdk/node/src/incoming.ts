/** Requests and one-ways of the other side: their order, their handlers, and the credit for them. */

import { types } from "node:util";

import { type Answers, WEIGHT } from "./answers.js";
import { shown } from "./check.js";
import { ONE_WAY, RESPONSE, type ThreadId } from "./chunk.js";
import { type Context, NO_CONTEXT, runInScope } from "./context.js";
import { isPayload, type Payload } from "./encoder.js";
import { failureCode, failureOf, isError, messageOf, StreamError } from "./errors.js";
import type { Options } from "./options.js";
import { type Handler, type HandlerResult, Request, type RequestOwner } from "./request.js";

/** Connection of the requests. */
export interface IncomingOwner extends RequestOwner {
  readonly side: { readonly handler: Handler; warn(message: string): void };
  /** True while a call of this side waits for its reply. */
  readonly hasOpenCalls: boolean;
  has(feature: string): boolean;
  /** True if answers would only wait, since the other side does not read. */
  isHeldUp(): boolean;
  pauseReading(): void;
  resumeReading(): void;
}

interface Waiting {
  threadId: ThreadId;
  isOneWay: boolean;
  command: string;
  buffer: Buffer;
  context: Context;
  weight: number;
  /** Made at once for one with a context: its time runs, and its parts come. */
  request: Request | undefined;
}

/** Bytes held for a peer without `flow`, in windows, while calls are open. */
const OVERRUN = 16;

/** Requests and one-ways that wait or are handled. */
export class Incoming {
  /** Those with a stream, and those whose handler goes on. */
  readonly requests = new Map<ThreadId, Request>();
  private readonly connection: IncomingOwner;
  private readonly answers: Answers;
  private readonly window: number;
  private readonly handlers: number;
  private readonly streams: number;
  private isReady: boolean;
  private queue: Waiting[] = [];
  private held = 0;
  private running = 0;
  private openStreams = 0;
  private taken = 0;
  private creditSent = 0;
  private readonly sequences = new Map<string, Sequence>();
  private readonly allInOrder: Sequence | undefined;
  private idle: (() => void)[] = [];
  private isHeldBack = false;
  /** Called once when something waits that has come before the start was over. */
  whenHeld: (() => void) | undefined;

  constructor(connection: IncomingOwner, answers: Answers, window: number, options: Options, isReady: boolean) {
    this.connection = connection;
    this.answers = answers;
    this.window = window;
    this.handlers = Math.max(1, options.handlers ?? 1024);
    this.streams = options.streams ?? 1024;
    this.isReady = isReady;
    if (options.inOrder === true) {
      this.allInOrder = new Sequence();
    } else {
      for (const commands of options.inOrder ?? []) {
        const sequence = new Sequence();
        for (const command of commands) this.sequences.set(command, sequence);
      }
    }
  }

  /** Lets requests and one-ways be handled. */
  ready(): void {
    if (this.isReady) return;
    this.isReady = true;
    this.work();
  }

  /** Resolves once no request is handled or waits. */
  whenIdle(): Promise<void> {
    if (this.isIdle()) return Promise.resolve();
    return new Promise((resolve) => this.idle.push(resolve));
  }

  /** Ends the work: the caller is gone. What waits is handled only if it may still be answered. */
  end(reason: string, isWritable: boolean): void {
    for (const request of this.requests.values()) request.giveUp(new StreamError("closed", reason));
    if (!isWritable) this.queue = [];
    if (this.isIdle()) this.wakeIdle();
  }

  cancelled(threadId: ThreadId, request: Request | undefined): void {
    request?.giveUp(new StreamError("cancelled", "the caller has given the request up"));
    const index = this.queue.findIndex((waiting) => waiting.threadId === threadId && !waiting.isOneWay);
    if (index < 0) return;
    const [waiting] = this.queue.splice(index, 1);
    if (waiting === undefined) return;
    this.held -= waiting.weight;
    this.took(waiting.weight);
    if (waiting.request !== undefined) this.forget(waiting.request);
    this.answers.fail(threadId, failureCode.cancelled, "the caller has given the request up");
  }

  // Requests and one-ways.

  take(threadId: ThreadId, isOneWay: boolean, command: string, buffer: Buffer, context: Context): void {
    const weight = WEIGHT + commandLength(command) + buffer.length;
    let request: Request | undefined;
    if (context !== NO_CONTEXT) {
      if (context.sends || context.receives) {
        if (this.openStreams >= this.streams) {
          this.took(weight);
          this.refuseStream(threadId, isOneWay);
          return;
        }
        this.openStreams++;
      }
      // Its time runs, and its parts come, while it waits.
      request = new Request(this.connection, threadId, isOneWay, command, buffer, context);
      if (context.sends || context.receives) this.requests.set(threadId, request);
    }
    const sequence = this.allInOrder ?? (this.sequences.size > 0 ? this.sequences.get(command) : undefined);
    const mayRun = this.queue.length === 0 && this.running < this.handlers && this.isReady;
    if (mayRun && (sequence === undefined || !sequence.isBusy) && !this.connection.isHeldUp()) {
      this.took(weight);
      this.handle(request ?? new Request(this.connection, threadId, isOneWay, command, buffer, NO_CONTEXT), sequence);
      return;
    }
    this.held += weight;
    this.queue.push({ threadId, isOneWay, command, buffer, context, weight, request });
    if (!this.isReady && this.whenHeld !== undefined) {
      this.whenHeld();
      this.whenHeld = undefined;
    }
    // One chunk may exceed the window.
    if (this.held - weight >= this.window) this.holdBack();
  }

  private refuseStream(threadId: ThreadId, isOneWay: boolean): void {
    const text = `${this.streams} streams are open, which is the limit`;
    if (isOneWay) this.connection.send(threadId, RESPONSE, "cmd.enough", text);
    else this.answers.fail(threadId, failureCode.overloaded, text);
  }

  /** True if requests or one-ways wait. */
  get isWaiting(): boolean {
    return this.queue.length > 0;
  }

  /** Handles what waits, as far as it may be. */
  work(): void {
    if (!this.isReady) return;
    for (let i = 0; i < this.queue.length && this.running < this.handlers && !this.connection.isHeldUp(); ) {
      const waiting = this.queue[i] as Waiting;
      const sequence = this.allInOrder ?? this.sequences.get(waiting.command);
      if (sequence?.isBusy) {
        if (this.allInOrder !== undefined) break;
        i++;
        continue;
      }
      if (i === 0) this.queue.shift();
      else this.queue.splice(i, 1);
      this.held -= waiting.weight;
      this.took(waiting.weight);
      const { threadId, isOneWay, command, buffer } = waiting;
      this.handle(
        waiting.request ?? new Request(this.connection, threadId, isOneWay, command, buffer, NO_CONTEXT),
        sequence,
      );
    }
    if (this.isHeldBack) this.release();
    if (this.idle.length > 0 && this.isIdle()) this.wakeIdle();
  }

  private handle(request: Request, sequence: Sequence | undefined): void {
    if (request.isLate) {
      if (!request.isOneWay)
        this.answers.fail(request.id, failureCode.deadline, "the deadline of the request has passed");
      this.forget(request);
      return;
    }
    let result: ReturnType<Handler>;
    let settled: Promise<unknown> | undefined;
    try {
      const scope = request.scope;
      result =
        scope === undefined
          ? this.connection.side.handler(request)
          : runInScope(scope, () => this.connection.side.handler(request));
      if (isPromise(result)) settled = toPromise(result);
      else if (isIterable(result)) settled = sendParts(request, result);
    } catch (error) {
      this.failed(request, error);
      return;
    }
    if (settled === undefined) {
      this.completed(request, result as Payload);
      return;
    }
    if (sequence !== undefined) sequence.isBusy = true;
    this.running++;
    if (!request.isOneWay) this.requests.set(request.id, request);
    settled.then(
      (value) => {
        if (isIterable(value)) {
          sendParts(request, value).then(
            (last) => this.finished(request, sequence, last),
            (error) => this.finishedBadly(request, sequence, error),
          );
        } else {
          this.finished(request, sequence, value as Payload);
        }
      },
      (error) => this.finishedBadly(request, sequence, error),
    );
  }

  private finished(request: Request, sequence: Sequence | undefined, value: Payload): void {
    if (!request.isOneWay && this.connection.isHeldUp()) {
      // The answers that wait have a limit: that of the handlers.
      this.connection.whenRoom(() => this.finished(request, sequence, value));
      return;
    }
    this.completed(request, value);
    this.left(sequence);
  }

  private finishedBadly(request: Request, sequence: Sequence | undefined, error: unknown): void {
    this.failed(request, error);
    this.left(sequence);
  }

  private left(sequence: Sequence | undefined): void {
    this.running--;
    if (sequence !== undefined) sequence.isBusy = false;
    if (this.queue.length > 0) this.work();
    if (this.idle.length > 0 && this.isIdle()) this.wakeIdle();
  }

  private completed(request: Request, value: Payload): void {
    if (!isPayload(value)) {
      const what = `has returned ${shown(value)}, not text or bytes`;
      this.failed(request, new TypeError(`the handler of ${JSON.stringify(request.command)} ${what}`));
      return;
    }
    request.beforeAnswer();
    try {
      if (!request.isOneWay) this.answers.answer(request.id, request.command, value);
    } catch (error) {
      // Bytes of a class of the program's own.
      this.answers.fail(request.id, "", messageOf(error));
    }
    this.forget(request);
  }

  private failed(request: Request, error: unknown): void {
    const failure = failureOf(error);
    const message = messageOf(error);
    request.beforeAnswer();
    if (!request.isOneWay) this.answers.fail(request.id, failure?.code ?? "", message, failure?.data);
    else this.connection.side.warn(`the one-way ${JSON.stringify(request.command)} has failed: ${message}`);
    this.forget(request);
  }

  private forget(request: Request): void {
    // A peer may give two requests the same number.
    if (this.requests.size > 0 && this.requests.get(request.id) === request) this.requests.delete(request.id);
    if (request.hasStream && !request.isOver) this.openStreams--;
    request.answered();
  }

  // Flow.

  took(weight: number): void {
    this.taken += weight;
    if (this.taken - this.creditSent >= this.window / 2) this.credit();
  }

  credit(): void {
    if (!this.connection.has("flow") || this.taken - this.creditSent < this.window / 2) return;
    this.creditSent = this.taken;
    this.connection.send(0, ONE_WAY, "cmd.credit", String(this.taken));
  }

  /** Stops reading from a peer that sends more than is handled, unless it is needed for a reply. */
  private holdBack(): void {
    if (!this.connection.hasOpenCalls && this.openStreams === 0) {
      this.isHeldBack = true;
      this.connection.pauseReading();
      return;
    }
    this.isHeldBack = true;
    if (this.held <= this.window * OVERRUN) return;
    const last = this.queue.pop() as Waiting;
    this.held -= last.weight;
    this.took(last.weight);
    if (last.request !== undefined) this.forget(last.request);
    const text = `more than ${this.window * OVERRUN} bytes of requests and one-ways wait`;
    if (last.isOneWay) this.connection.side.warn(`the one-way ${JSON.stringify(last.command)} is dropped: ${text}`);
    else this.answers.fail(last.threadId, failureCode.overloaded, text);
  }

  /** Reads again, or stops to, as what is held and the open calls have changed. */
  release(): void {
    if (!this.isHeldBack) return;
    if (this.held <= this.window) {
      this.isHeldBack = false;
      this.connection.resumeReading();
    } else if (!this.connection.hasOpenCalls && this.openStreams === 0) {
      this.connection.pauseReading();
    } else {
      this.connection.resumeReading();
    }
  }

  private isIdle(): boolean {
    return this.running === 0 && this.queue.length === 0;
  }

  private wakeIdle(): void {
    const idle = this.idle;
    this.idle = [];
    for (const resolve of idle) resolve();
  }
}

/** Commands that are handled one at a time. */
class Sequence {
  isBusy = false;
}
function commandLength(command: string): number {
  for (let i = 0; i < command.length; i++) if (command.charCodeAt(i) >= 0x80) return Buffer.byteLength(command);
  return command.length;
}

function isPromise(value: unknown): value is Promise<HandlerResult> {
  return typeof value === "object" && value !== null && typeof (value as Promise<unknown>).then === "function";
}

/** A promise that settles once, also for an object whose `then` throws, or calls back twice. */
function toPromise(value: Promise<HandlerResult>): Promise<HandlerResult> {
  const isOwn = types.isPromise(value) && value.then === Promise.prototype.then && value.constructor === Promise;
  return isOwn ? value : new Promise((resolve) => resolve(value));
}

export function isIterable<T = Payload>(value: unknown): value is AsyncIterable<T> {
  try {
    return typeof value === "object" && value !== null && Symbol.asyncIterator in value;
  } catch {
    // A proxy.
    return false;
  }
}

/** Sends what an async iterable gives as parts, and resolves to what it returns at last. */
async function sendParts(request: Request, parts: AsyncIterable<Payload>): Promise<Payload> {
  const iterator = parts[Symbol.asyncIterator]() as AsyncIterator<Payload, Payload | undefined>;
  try {
    for (;;) {
      const { done, value } = await iterator.next();
      if (done) return value;
      await request.send(value);
    }
  } catch (error) {
    try {
      await iterator.return?.();
    } catch {
      // The first error counts.
    }
    // The caller has enough, and still gets its reply.
    if (isError(error) && error instanceof StreamError && error.kind === "enough") return undefined;
    throw error;
  }
}
