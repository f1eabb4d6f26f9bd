/** Connection of either side: calls in flight, requests that are handled, flow, and the end. */

import { type Context, NO_CONTEXT, parseContext } from "./context.js";
import {
  DEFAULT_LIMITS,
  Decoder,
  type Format,
  type Limits,
  ONE_WAY,
  REQUEST,
  RESPONSE,
  type Sink,
  type Skipped,
  type ThreadId,
} from "./decoder.js";
import { Encoder, type Payload } from "./encoder.js";
import { CallError, failureCode, ProtocolError, StreamError } from "./errors.js";
import { Incoming, type IncomingOwner, WEIGHT } from "./incoming.js";
import { cut, FAILURE_LIMIT, failureText, parseFailure, parseProgress } from "./messages.js";
import { DEFAULT_STREAM_WINDOW, DEFAULT_WINDOW, NOTHING, type Offer, parseNumber } from "./negotiation.js";
import type { CloseReason, Options } from "./options.js";
import type { Handler, Progress } from "./request.js";
import { byteLength, type PartSender, type Parts } from "./stream.js";
import { type Ends, type Input, Transport } from "./transport.js";

/** What differs between a guest's and a host's connection. */
export interface Side {
  /** Answers a request; undefined if there are no commands. */
  handler: Handler;
  /** Names of the commands, for the error of an unknown one. */
  commands: readonly string[];
  /** Answers a command of the protocol: `GetMetadata`, `GetServices`. Returns false if it is none. */
  protocol(threadId: ThreadId, command: string, buffer: Buffer): boolean;
  /** Takes a one-way of the protocol that is not a connection's own matter: `cmd.stop`, `cmd.log_level`. */
  notice(command: string, buffer: Buffer): void;
  /** The connection has ended. */
  closed(reason: CloseReason): void;
  /** Logs what the other side has done wrong, for people. */
  warn(message: string): void;
}

/** Part of a call that few calls have. */
export interface CallExtra {
  /** Parts of the reply. */
  parts?: Parts;
  sender?: PartSender;
  onProgress?: (progress: Progress) => void;
  /** Ends timer and listeners. */
  done?: () => void;
  /** Gives the call up with an error. */
  giveUp?: (error: unknown) => void;
  /** Gives the call up if its time is over. Returns true then. */
  isLate?: () => boolean;
}

export interface OpenCall {
  command: string;
  resolve: (reply: Buffer) => void;
  reject: (error: unknown) => void;
  extra: CallExtra | undefined;
}

/** Chunks that are written together, at most: the other side begins with them while this one makes the next. */
const BATCH = 16;
/** Milliseconds in which a peer that does not read any more may still be read from. */
const LAST_WORDS = 100;

export class Connection implements Sink, Input, IncomingOwner {
  readonly streamWindow: number;
  readonly window: number;
  readonly side: Side;
  peer: Offer = NOTHING;
  /** Calls and streams wait no longer for an answer. */
  reason: CloseReason | undefined;
  private readonly transport: Transport;
  private readonly decoder: Decoder;
  private readonly encoder: Encoder;
  private readonly outgoing: number;
  private readonly unread: number;
  private readonly limits: Limits;
  private isFlushing = false;
  private unflushed = 0;
  /** Bytes of answers that no handler has given, since the other side has stopped to read. */
  private unreadBytes = 0;
  private readonly doFlush = (): void => this.flush();

  // Calls of this side.
  private readonly calls = new Map<ThreadId, OpenCall>();
  private readonly oneWayStreams = new Map<ThreadId, PartSender>();
  private nextId = 1;
  private sent = 0;
  private credited = 0;
  /** Calls and one-ways that wait for credit or room. */
  private room: (() => void)[] = [];
  /** Parts of streams that wait for room to write. */
  private partRoom: (() => void)[] = [];

  private readonly incoming: Incoming;
  private context: { threadId: ThreadId; context: Context } | undefined;
  private written: (() => void)[] = [];
  private isReaderGone = false;
  private isFormatOpen: boolean;
  private readonly isHost: boolean;
  private isNegotiated = false;

  constructor(ends: Ends, format: Format | undefined, side: Side, options: Options, isReady: boolean) {
    this.side = side;
    this.limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.window = Math.max(1, options.window ?? DEFAULT_WINDOW);
    this.streamWindow = Math.max(1, options.streamWindow ?? DEFAULT_STREAM_WINDOW);
    this.outgoing = options.outgoing ?? 4 * 1024 * 1024;
    this.unread = options.unread ?? 64 * 1024 * 1024;
    this.incoming = new Incoming(this, this.window, options, isReady);
    this.isFormatOpen = format === undefined;
    this.isHost = isReady;
    this.decoder = new Decoder(format, this.limits, this);
    this.transport = new Transport(ends, this, options.spin ?? 50);
    this.encoder = new Encoder(format ?? "standard", this.transport);
    this.transport.atomic = format === "classic";
  }

  get commands(): readonly string[] {
    return this.side.commands;
  }

  /** Until a host has its guest's answer, one part. */
  get peerStreamWindow(): number {
    return this.isNegotiated ? this.peer.streamWindow : 1;
  }

  get format(): Format {
    return this.encoder.format;
  }

  get hasOpenCalls(): boolean {
    return this.calls.size > 0;
  }

  pauseReading(): void {
    this.transport.pause();
  }

  resumeReading(): void {
    this.transport.resume();
  }

  /** Takes what the other side has named. */
  negotiate(offer: Offer): void {
    this.peer = offer;
    this.isNegotiated = true;
    for (const request of this.incoming.requests.values()) request.sender?.widen(offer.streamWindow);
    for (const call of this.calls.values()) call.extra?.sender?.widen(offer.streamWindow);
    this.incoming.credit();
    this.pump();
  }

  has(feature: string): boolean {
    return this.peer.features.has(feature);
  }

  // Calls of this side.

  /** True if a call may be sent at once. */
  canSend(): boolean {
    if (this.room.length > 0 || this.isFull()) return false;
    return !this.peer.features.has("flow") || this.sent - this.credited < this.peer.window;
  }

  /** Sends a request at once, and returns its number. */
  sendRequest(command: string, payload: Payload, call: OpenCall): number {
    const id = this.nextId++;
    this.calls.set(id, call);
    this.sent += WEIGHT + this.encoder.add(id, REQUEST, command, payload);
    this.schedule();
    return id;
  }

  /** Sends a ping, which has no weight. */
  sendPing(call: OpenCall): number {
    const id = this.nextId++;
    this.calls.set(id, call);
    this.send(id, REQUEST, call.command, undefined);
    return id;
  }

  /** Sends the context of the request or one-way that follows, with the number that this one will have. */
  sendContext(text: string): void {
    this.encoder.add(this.nextId, ONE_WAY, "cmd.context", text);
  }

  /** Sends a one-way at once: with a number if it has a context or a stream. Returns that. */
  sendOneWay(command: string, payload: Payload, isNumbered: boolean): number {
    const id = isNumbered ? this.nextId++ : 0;
    this.sent += WEIGHT + this.encoder.add(id, ONE_WAY, command, payload);
    this.schedule();
    return id;
  }

  /** Calls back when a call may be sent: in the order of the calls. Returns a function that takes it back. */
  whenSendable(call: () => void): () => void {
    this.room.push(call);
    return () => {
      const index = this.room.indexOf(call);
      if (index >= 0) this.room.splice(index, 1);
    };
  }

  /** Takes a call out that was given up; its response is ignored. */
  giveUp(id: ThreadId): void {
    const call = this.calls.get(id);
    if (call === undefined) return;
    this.calls.delete(id);
    call.extra?.done?.();
    if (this.has("cancel")) this.send(id, ONE_WAY, "cmd.cancel", undefined);
    this.incoming.release();
  }

  openOneWayStream(id: ThreadId, sender: PartSender): void {
    this.oneWayStreams.set(id, sender);
  }

  closeOneWayStream(id: ThreadId): void {
    this.oneWayStreams.delete(id);
  }

  // RequestOwner, and all other chunks.

  send(threadId: ThreadId, direction: number, command: string, payload: Payload): void {
    if (!this.isWritable) return;
    this.encoder.add(threadId, direction, command, payload);
    this.schedule();
  }

  isFull(): boolean {
    return this.transport.waiting + this.encoder.pending > this.outgoing;
  }

  /** True if answers would only wait, since the other side does not read. */
  isHeldUp(): boolean {
    return this.reason === undefined && this.isFull();
  }

  whenRoom(call: () => void): void {
    if (this.reason === undefined) this.partRoom.push(call);
  }

  /** True while answers can be written: a peer that sends no more may still read, as the end of a pipeline. */
  private get isWritable(): boolean {
    return this.reason === undefined || this.reason.kind === "endOfFile";
  }

  /** Answers a request with its result. */
  answer(threadId: ThreadId, command: string, payload: Payload): void {
    this.send(threadId, RESPONSE, command, payload);
  }

  /** Answers a request without a handler, which nothing holds up. */
  private answerAtOnce(threadId: ThreadId, command: string, payload: Payload): void {
    if (this.isFull()) this.unreadBytes += WEIGHT + byteLength(payload);
    this.answer(threadId, command, payload);
    if (this.unreadBytes <= this.unread) return;
    const text = `the other side does not read: ${this.unreadBytes} bytes of answers wait for it, the limit is ${this.unread}`;
    this.close({ kind: "unread", message: text });
  }

  /** Answers a request with an error. */
  fail(threadId: ThreadId, code: string, message: string, data?: unknown): void {
    if (code === "" || !this.has("failure")) {
      this.answerAtOnce(threadId, "cmd.error", cut(message, FAILURE_LIMIT));
      return;
    }
    let text = failureText(code, message, data);
    if (Buffer.byteLength(text) > FAILURE_LIMIT) text = failureText(code, message, undefined);
    for (let length = FAILURE_LIMIT; Buffer.byteLength(text) > FAILURE_LIMIT; length = length >> 1) {
      text = failureText(code, cut(message, length >> 1), undefined);
    }
    this.answerAtOnce(threadId, "cmd.failure", text);
  }

  /** Lets requests and one-ways be handled. */
  ready(): void {
    this.incoming.ready();
  }

  /** Calls back once when a request or one-way waits for `ready`. */
  whenHeld(call: () => void): void {
    this.incoming.whenHeld = call;
  }

  /** True if requests or one-ways wait. */
  get holds(): boolean {
    return this.incoming.isWaiting;
  }

  /** Resolves once no request is handled or waits. */
  whenIdle(): Promise<void> {
    return this.incoming.whenIdle();
  }

  /** Resolves once everything is written, or cannot be. */
  whenWritten(): Promise<void> {
    this.flush();
    if (this.transport.waiting === 0) return Promise.resolve();
    return new Promise((resolve) => this.written.push(resolve));
  }

  /** Ends the connection. What was sent is still written. */
  close(reason: CloseReason): void {
    if (this.reason !== undefined) return;
    this.flush();
    this.reason = reason;
    const calls = [...this.calls.values()];
    this.calls.clear();
    for (const call of calls) {
      call.extra?.done?.();
      const text = `no reply to ${JSON.stringify(call.command)}: ${reason.message}`;
      this.endCall(call, new CallError("closed", call.command, text));
    }
    for (const sender of this.oneWayStreams.values()) sender.fail(new StreamError("closed", reason.message));
    this.oneWayStreams.clear();
    const rooms = [...this.room, ...this.partRoom];
    this.room = [];
    this.partRoom = [];
    for (const call of rooms) call();
    this.incoming.end(reason.message, this.isWritable);
    this.side.closed(reason);
  }

  /** Closes the descriptors, once what was sent is written. */
  destroy(): void {
    this.transport.close();
    this.wakeWritten();
  }

  unref(): void {
    this.transport.unref();
  }

  // Input: what the transport reads.

  read(bytes: Buffer, count: number): void {
    try {
      this.decoder.push(bytes, count);
      this.afterRead();
    } catch (error) {
      this.broken(error);
    }
  }

  place(): Buffer | undefined {
    return this.decoder.place();
  }

  readInPlace(count: number): void {
    try {
      this.decoder.filledInPlace(count);
      this.afterRead();
    } catch (error) {
      this.broken(error);
    }
  }

  ended(error: Error | undefined): void {
    if (this.reason !== undefined) return;
    if (error !== undefined) {
      this.close({ kind: "system", message: `the pipe cannot be read: ${error.message}` });
      return;
    }
    try {
      this.decoder.end();
      this.close({ kind: "endOfFile", message: "the other side closed the pipe" });
    } catch (broken) {
      this.broken(broken);
    }
  }

  drained(): void {
    this.flush();
    if (this.transport.waiting > 0) return;
    this.unreadBytes = 0;
    this.wakeWritten();
    this.pump();
  }

  writeFailed(error: Error): void {
    this.wakeWritten();
    const isGone = ["EPIPE", "ECONNRESET"].includes((error as NodeJS.ErrnoException).code ?? "");
    if (!isGone) {
      this.close({ kind: "system", message: `the pipe cannot be written: ${error.message}` });
      return;
    }
    if (this.isReaderGone) return;
    this.isReaderGone = true;
    // Its last words may still be in the other pipe, which ends then.
    const close = (): void => this.close({ kind: "readerGone", message: "the other side does not read any more" });
    setTimeout(close, LAST_WORDS);
  }

  // Sink: what the decoder finds.

  chunk(threadId: ThreadId, direction: number, command: string, buffer: Buffer): void {
    if (this.reason !== undefined) return;
    if (this.isFormatOpen) this.showFormat();
    let context = NO_CONTEXT;
    if (this.context !== undefined) {
      if (this.context.threadId === threadId && direction !== RESPONSE) context = this.context.context;
      this.context = undefined;
    }
    if (direction === RESPONSE) this.response(threadId, command, buffer);
    else if (isReserved(command)) this.reserved(threadId, direction, command, buffer);
    else this.incoming.take(threadId, direction === ONE_WAY, command, buffer, context);
  }

  skipped(chunk: Skipped): void {
    this.context = undefined;
    if (this.reason !== undefined || chunk.reason === "unknown-direction") return;
    if (this.isFormatOpen) this.showFormat();
    const { threadId, direction } = chunk;
    const isCommand = chunk.reason === "command-too-long";
    const [what, length] = isCommand ? ["command", chunk.commandLength] : ["buffer", chunk.bufferLength];
    const text = `the ${what} is ${length} bytes long, the limit is ${chunk.limit}`;
    if (direction !== RESPONSE && !chunk.reserved) {
      this.incoming.took(WEIGHT + Number(chunk.commandLength) + Number(chunk.bufferLength));
    }
    if (direction === REQUEST) {
      this.fail(threadId, failureCode.tooLarge, text);
    } else if (chunk.command === "cmd.part") {
      const parts =
        direction === ONE_WAY
          ? this.incoming.requests.get(threadId)?.openParts
          : this.calls.get(threadId)?.extra?.parts;
      parts?.end(new StreamError("tooLarge", text));
    } else if (direction === RESPONSE) {
      const call = this.calls.get(threadId);
      const isFinal = !chunk.reserved || chunk.command === "cmd.error" || chunk.command === "cmd.failure" || isCommand;
      if (call === undefined || !isFinal) return;
      this.settle(
        threadId,
        call,
        new CallError("tooLarge", call.command, `the reply to ${JSON.stringify(call.command)} was skipped: ${text}`),
      );
    } else {
      this.side.warn(`a one-way was skipped: ${text}`);
    }
  }

  // Responses.

  private response(threadId: ThreadId, command: string, buffer: Buffer): void {
    const call = this.calls.get(threadId);
    if (command.startsWith("cmd.")) {
      this.reservedResponse(threadId, call, command, buffer);
      return;
    }
    if (call === undefined) return;
    this.calls.delete(threadId);
    if (call.extra !== undefined) this.finish(call.extra);
    call.resolve(buffer);
    this.incoming.release();
  }

  private reservedResponse(threadId: ThreadId, call: OpenCall | undefined, command: string, buffer: Buffer): void {
    const sender = call?.extra?.sender ?? this.oneWayStreams.get(threadId);
    switch (command) {
      case "cmd.part":
        call?.extra?.parts?.push(buffer);
        return;
      case "cmd.part.credit":
        if (sender !== undefined) this.creditOf(buffer, (total) => sender.credit(total));
        return;
      case "cmd.enough":
        sender?.fail(new StreamError("enough", cut(buffer.toString("utf8"), FAILURE_LIMIT)));
        this.oneWayStreams.delete(threadId);
        return;
      case "cmd.progress":
        if (call?.extra?.onProgress !== undefined) this.progress(call.extra, call.extra.onProgress, buffer);
        return;
      case "cmd.end":
        return;
    }
    if (call === undefined) return;
    if ((command === "cmd.error" || command === "cmd.failure") && call.extra?.isLate?.()) return;
    if (command === "cmd.error") {
      const message = cut(buffer.toString("utf8"), FAILURE_LIMIT);
      this.settle(threadId, call, new CallError("remote", call.command, message));
    } else if (command === "cmd.failure") {
      const { code, message, data } = parseFailure(buffer);
      this.settle(threadId, call, new CallError("remote", call.command, message, { code, data }));
    } else {
      // The answer to a ping, or a response with another cmd: it is found by its number.
      this.calls.delete(threadId);
      if (call.extra !== undefined) this.finish(call.extra);
      call.resolve(buffer);
    }
  }

  private settle(threadId: ThreadId, call: OpenCall, error: CallError): void {
    this.calls.delete(threadId);
    call.extra?.done?.();
    this.endCall(call, error);
    this.incoming.release();
  }

  private endCall(call: OpenCall, error: CallError): void {
    call.extra?.parts?.end(error);
    call.extra?.sender?.fail(new StreamError(error.kind === "closed" ? "closed" : "enough", error.message));
    call.reject(error);
  }

  private finish(extra: CallExtra): void {
    extra.done?.();
    extra.parts?.end();
    extra.sender?.fail(new StreamError("enough", "the request has been answered"));
  }

  private progress(extra: CallExtra, report: (progress: Progress) => void, buffer: Buffer): void {
    const progress = parseProgress(buffer);
    if (progress === undefined) {
      this.side.warn("a report of progress is ignored: it is none");
      return;
    }
    try {
      report(progress);
    } catch (error) {
      // It must not end the decoder in the middle of what was read: it is the error of the call.
      extra.giveUp?.(error);
    }
  }

  private creditOf(buffer: Buffer, take: (total: number) => void): void {
    const total = buffer.length <= 20 ? parseNumber(buffer.toString("latin1")) : undefined;
    if (total === undefined) this.side.warn("a credit is ignored: it is no number");
    else take(total);
  }

  // Commands of the protocol.

  private reserved(threadId: ThreadId, direction: number, command: string, buffer: Buffer): void {
    if (direction === REQUEST) {
      if (command === "cmd.ping") this.answerAtOnce(threadId, command, undefined);
      else if (!command.startsWith("cmd.")) this.getServicesOrMetadata(threadId, command, buffer);
      else this.fail(threadId, failureCode.unknownCommand, `${JSON.stringify(command)} is no request of the protocol`);
      return;
    }
    const request = this.incoming.requests.get(threadId);
    switch (command) {
      case "cmd.context":
        this.takeContext(threadId, buffer);
        return;
      case "cmd.cancel":
        this.incoming.cancelled(threadId, request);
        return;
      case "cmd.credit":
        this.creditOf(buffer, (total) => {
          if (total > this.sent || total < this.credited) this.side.warn(`a credit of ${total} is ignored`);
          else this.credited = total;
        });
        this.pump();
        return;
      case "cmd.part":
        request?.openParts?.push(buffer);
        return;
      case "cmd.end": {
        const reason = cut(buffer.toString("utf8"), FAILURE_LIMIT);
        request?.openParts?.end(reason === "" ? undefined : new StreamError("aborted", reason));
        return;
      }
      case "cmd.enough":
        request?.sender?.fail(new StreamError("enough", cut(buffer.toString("utf8"), FAILURE_LIMIT)));
        return;
      case "cmd.part.credit":
        if (request?.sender !== undefined) this.creditOf(buffer, (total) => request.sender?.credit(total));
        return;
      default:
        this.side.notice(command, buffer);
    }
  }

  private getServicesOrMetadata(threadId: ThreadId, command: string, buffer: Buffer): void {
    const weight = WEIGHT + command.length + buffer.length;
    this.incoming.took(weight);
    if (!this.side.protocol(threadId, command, buffer)) {
      this.fail(threadId, failureCode.unknownCommand, `unknown command ${JSON.stringify(command)}`);
    }
  }

  private takeContext(threadId: ThreadId, buffer: Buffer): void {
    // A host takes what it has named from its request on.
    const isAgreed = this.has("context") || (!this.isNegotiated && this.isHost);
    const context = isAgreed ? parseContext(buffer) : undefined;
    if (context === undefined) this.side.warn("a context is ignored: it was not agreed on, or has other values");
    else this.context = { threadId, context };
  }

  private pump(): void {
    while (this.partRoom.length > 0 && !this.isFull()) (this.partRoom.shift() as () => void)();
    if (this.incoming.isWaiting) this.incoming.work();
    while (this.room.length > 0 && !this.isFull()) {
      if (this.peer.features.has("flow") && this.sent - this.credited >= this.peer.window) return;
      (this.room.shift() as () => void)();
    }
  }

  // Writing.

  private schedule(): void {
    if (++this.unflushed >= BATCH) {
      this.flushNow();
      return;
    }
    if (this.isFlushing) return;
    this.isFlushing = true;
    process.nextTick(this.doFlush);
  }

  private flushNow(): void {
    this.unflushed = 0;
    this.encoder.flush();
    this.transport.expect(false);
  }

  private flush(): void {
    this.isFlushing = false;
    if (this.encoder.pending === 0) return;
    this.flushNow();
    if (this.room.length > 0 || this.partRoom.length > 0 || this.incoming.isWaiting) this.pump();
  }

  private afterRead(): void {
    if (this.isFlushing) this.flush();
    // The rest of a buffer follows soon.
    if (this.decoder.isInBuffer) this.transport.expect(true);
  }

  /** Takes the format of the first chunk, before anything is written. */
  private showFormat(): void {
    this.isFormatOpen = false;
    const format = this.decoder.format ?? "standard";
    this.encoder.format = format;
    this.transport.atomic = format === "classic";
  }

  private broken(error: unknown): void {
    if (!(error instanceof ProtocolError)) throw error;
    const how = error.kind === "end" ? "ended in the middle of a chunk" : "broke the protocol";
    // What the other side is sent now it may not understand: nothing.
    this.close({ kind: "broken", message: `the other side ${how}: ${error.message}` });
  }

  private wakeWritten(): void {
    const written = this.written;
    this.written = [];
    for (const resolve of written) resolve();
  }
}

/** Returns true for a command that belongs to the protocol. */
export function isReserved(command: string): boolean {
  // Most commands differ in the first letter.
  const first = command.charCodeAt(0);
  if (first === 0x63) return command.startsWith("cmd.");
  return first === 0x47 && (command === "GetMetadata" || command === "GetServices");
}
