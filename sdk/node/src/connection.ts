/** Connection of either side: calls in flight, requests that are handled, flow, and the end. */

import {
  DEFAULT_LIMITS,
  type Format,
  type Limits,
  ONE_WAY,
  REQUEST,
  RESPONSE,
  type Sink,
  type Skipped,
  type ThreadId,
} from "./chunk.js";
import { type Context, NO_CONTEXT, parseContext } from "./context.js";
import { Decoder } from "./decoder.js";
import { Encoder, type Payload } from "./encoder.js";
import { failureCode, ProtocolError, StreamError } from "./errors.js";
import { Incoming, type IncomingOwner, WEIGHT } from "./incoming.js";
import { cut, FAILURE_LIMIT, failureText, isReserved, readCredit } from "./messages.js";
import { DEFAULT_STREAM_WINDOW, DEFAULT_WINDOW, NOTHING, type Offer } from "./negotiation.js";
import type { CloseReason, Options } from "./options.js";
import { type OpenCall, Outgoing, type OutgoingOwner } from "./outgoing.js";
import { Pace } from "./pace.js";
import type { Handler } from "./request.js";
import { byteLength, type PartSender } from "./stream.js";
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

/** Chunks that are written together, at most: the other side begins with them while this one makes the next. */
const BATCH = 16;
/** Milliseconds in which a peer that does not read any more may still be read from. */
const LAST_WORDS = 100;

export class Connection implements Sink, Input, IncomingOwner, OutgoingOwner {
  readonly streamWindow: number;
  readonly window: number;
  readonly side: Side;
  peer: Offer = NOTHING;
  /** Calls and streams wait no longer for an answer. */
  reason: CloseReason | undefined;
  private readonly transport: Transport;
  private readonly decoder: Decoder;
  private readonly encoder: Encoder;
  private readonly room: number;
  private readonly unread: number;
  private readonly limits: Limits;
  private isFlushing = false;
  private unflushed = 0;
  /** Bytes of answers that no handler has given, since the other side has stopped to read. */
  private unreadBytes = 0;
  private readonly doFlush = (): void => this.flush();

  // Calls of this side.
  private readonly outgoing: Outgoing;
  private nextId = 1;
  private readonly pace = new Pace(() => this.isFull());

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
    this.room = options.outgoing ?? 4 * 1024 * 1024;
    this.outgoing = new Outgoing(this);
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

  /** True once a chunk has come. */
  get hasHeard(): boolean {
    return this.decoder.format !== undefined;
  }

  get format(): Format {
    return this.encoder.format;
  }

  get hasOpenCalls(): boolean {
    return this.outgoing.isWaiting;
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
    this.outgoing.widen(offer.streamWindow);
    this.incoming.credit();
    this.pump();
  }

  has(feature: string): boolean {
    return this.peer.features.has(feature);
  }

  // OutgoingOwner.

  warn(message: string): void {
    this.side.warn(message);
  }

  release(): void {
    this.incoming.release();
  }

  // Calls of this side.

  /** True if a call may be sent at once. */
  canSend(): boolean {
    return this.pace.maySend(this.peer);
  }

  /** Sends a request at once, and returns its number. */
  sendRequest(command: string, payload: Payload, call: OpenCall): number {
    const id = this.nextId++;
    this.outgoing.open(id, call);
    this.pace.count(WEIGHT + this.encoder.add(id, REQUEST, command, payload));
    this.schedule();
    return id;
  }

  /** Sends a ping, which has no weight. */
  sendPing(call: OpenCall): number {
    const id = this.nextId++;
    this.outgoing.open(id, call);
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
    this.pace.count(WEIGHT + this.encoder.add(id, ONE_WAY, command, payload));
    this.schedule();
    return id;
  }

  /** Calls back when a call may be sent: in the order of the calls. Returns a function that takes it back. */
  whenSendable(call: () => void): () => void {
    return this.pace.whenSendable(call);
  }

  /** Takes a call out that was given up; its response is ignored. */
  giveUp(id: ThreadId): void {
    if (!this.outgoing.take(id)) return;
    if (this.has("cancel")) this.send(id, ONE_WAY, "cmd.cancel", undefined);
    this.incoming.release();
  }

  openOneWayStream(id: ThreadId, sender: PartSender): void {
    this.outgoing.openOneWayStream(id, sender);
  }

  closeOneWayStream(id: ThreadId): void {
    this.outgoing.closeOneWayStream(id);
  }

  // RequestOwner, and all other chunks.

  send(threadId: ThreadId, direction: number, command: string, payload: Payload): void {
    if (!this.isWritable) return;
    this.encoder.add(threadId, direction, command, payload);
    this.schedule();
  }

  isFull(): boolean {
    return this.transport.waiting + this.encoder.pending > this.room;
  }

  /** True if answers would only wait, since the other side does not read. */
  isHeldUp(): boolean {
    return this.reason === undefined && this.isFull();
  }

  whenRoom(call: () => void): void {
    if (this.reason === undefined) this.pace.whenRoom(call);
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
    this.outgoing.end(reason);
    this.pace.end();
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
    if (direction === RESPONSE) this.outgoing.response(threadId, command, buffer);
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
        direction === ONE_WAY ? this.incoming.requests.get(threadId)?.openParts : this.outgoing.partsOf(threadId);
      parts?.end(new StreamError("tooLarge", text));
    } else if (direction === RESPONSE) {
      this.outgoing.skipped(chunk, text);
    } else {
      this.side.warn(`a one-way was skipped: ${text}`);
    }
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
        this.takeCredit(buffer);
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
        if (request?.sender !== undefined) readCredit(buffer, (total) => request.sender?.credit(total), this);
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

  private takeCredit(buffer: Buffer): void {
    const take = (total: number): void => {
      if (!this.pace.credit(total)) this.warn(`a credit of ${total} is ignored`);
    };
    readCredit(buffer, take, this);
  }

  private pump(): void {
    this.pace.wakeWriters();
    if (this.incoming.isWaiting) this.incoming.work();
    this.pace.wakeSenders(this.peer);
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
    if (this.pace.isAwaited || this.incoming.isWaiting) this.pump();
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
