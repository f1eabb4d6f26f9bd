/** Connection of either side: calls in flight, requests that are handled, flow, and the end. */

import { Answers, type AnswersOwner, WEIGHT } from "./answers.js";
import { DEFAULT_LIMITS, type Format, ONE_WAY, REQUEST, type ThreadId } from "./chunk.js";
import { Decoder } from "./decoder.js";
import { Dispatch } from "./dispatch.js";
import { Encoder, type Payload } from "./encoder.js";
import { ProtocolError } from "./errors.js";
import { Incoming, type IncomingOwner } from "./incoming.js";
import { DEFAULT_STREAM_WINDOW, DEFAULT_WINDOW, NOTHING, type Offer } from "./negotiation.js";
import type { CloseReason, Options } from "./options.js";
import { type OpenCall, Outgoing, type OutgoingOwner } from "./outgoing.js";
import { Pace } from "./pace.js";
import type { Handler } from "./request.js";
import { byteLength } from "./stream.js";
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
  /** Says more of an end that was not this side's wish. Until then calls wait. */
  explain?(reason: CloseReason): Promise<CloseReason>;
  /** The connection has ended. */
  closed(reason: CloseReason): void;
  /** Logs what the other side has done wrong, for people. */
  warn(message: string): void;
}

/** Chunks that are written together, at most: the other side begins with them while this one makes the next. */
const BATCH = 16;
/** Milliseconds in which a peer that does not read any more may still be read from. */
const LAST_WORDS = 100;
/** Bytes that an empty pipe takes in one write. */
const PIPE_SIZE = 65536;
/** Bytes of a header of the classic format without its cmd, at most. */
const CLASSIC_HEADER = 48;

export class Connection implements Input, IncomingOwner, OutgoingOwner, AnswersOwner {
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
  private isFlushing = false;
  private unflushed = 0;
  private readonly doFlush = (): void => this.flush();

  // Calls of this side.
  readonly outgoing: Outgoing;
  private nextId = 1;
  private readonly pace = new Pace(() => this.isFull());

  readonly incoming: Incoming;
  readonly answers: Answers;
  private written: (() => void)[] = [];
  private isReaderGone = false;
  private isNegotiated = false;
  /** True for a peer that may lose what does not come in one read. */
  isOneRead = false;
  /** Set with `reason`, or before, while the side explains it. */
  isOver = false;

  constructor(ends: Ends, format: Format | undefined, side: Side, options: Options, isReady: boolean) {
    this.side = side;
    this.window = Math.max(1, options.window ?? DEFAULT_WINDOW);
    this.streamWindow = Math.max(1, options.streamWindow ?? DEFAULT_STREAM_WINDOW);
    this.room = options.outgoing ?? 4 * 1024 * 1024;
    this.outgoing = new Outgoing(this);
    this.answers = new Answers(this, options.unread ?? 64 * 1024 * 1024);
    this.incoming = new Incoming(this, this.answers, this.window, options, isReady);
    const dispatch = new Dispatch(this, this.incoming, this.outgoing, format === undefined, isReady);
    this.decoder = new Decoder(format, { ...DEFAULT_LIMITS, ...options.limits }, dispatch);
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
    this.isOneRead = this.format === "classic" && offer.features.size === 0;
    for (const request of this.incoming.requests.values()) request.sender?.widen(offer.streamWindow);
    this.outgoing.widen(offer.streamWindow);
    this.incoming.credit();
    this.pump();
  }

  /** True if the other side may lose a part of so large a chunk. */
  mayCut(command: string, payload: Payload): boolean {
    return this.isOneRead && CLASSIC_HEADER + Buffer.byteLength(command) + byteLength(payload) > PIPE_SIZE;
  }

  /** True once a host has its guest's answer, and a guest its host's question. */
  get hasNegotiated(): boolean {
    return this.isNegotiated;
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
    return !this.isOver && this.pace.maySend(this.peer);
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
    return !this.isOver || this.reason?.kind === "endOfFile";
  }

  /** Resolves once everything is written, or cannot be. */
  whenWritten(): Promise<void> {
    this.flush();
    if (this.transport.waiting === 0) return Promise.resolve();
    return new Promise((resolve) => this.written.push(resolve));
  }

  /** Ends the connection. What was sent is still written. */
  close(reason: CloseReason): void {
    const mayExplain = reason.kind !== "closed" && this.side.explain !== undefined;
    if (this.reason !== undefined || (this.isOver && mayExplain)) return;
    this.flush();
    this.isOver = true;
    if (mayExplain) this.side.explain?.(reason).then((explained) => this.end(explained));
    else this.end(reason);
  }

  private end(reason: CloseReason): void {
    if (this.reason !== undefined) return;
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
    if (this.isOver) return;
    try {
      this.decoder.push(bytes, count);
      this.afterRead();
    } catch (error) {
      this.broken(error);
    }
  }

  place(): Buffer | undefined {
    return this.isOver ? undefined : this.decoder.place();
  }

  readInPlace(count: number): void {
    if (this.isOver) return;
    try {
      this.decoder.filledInPlace(count);
      this.afterRead();
    } catch (error) {
      this.broken(error);
    }
  }

  ended(error: Error | undefined): void {
    if (this.isOver) return;
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
    this.answers.unreadBytes = 0;
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

  /** Takes a total of the other side's credit. Returns false for one that cannot be. */
  takeCredit(total: number): boolean {
    return this.pace.credit(total);
  }

  /** Goes on with all that may have waited. */
  pump(): void {
    if (this.isOver) return;
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
  showFormat(): void {
    const format = this.decoder.format ?? "standard";
    this.encoder.format = format;
    // Until the host has named a feature.
    this.isOneRead = format === "classic";
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
