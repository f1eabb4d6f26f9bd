/** Halves of a stream: parts that come, and parts that are sent. */

import { shown } from "./check.js";
import { isPayload, type Payload } from "./encoder.js";
import { messageOf, StreamError } from "./errors.js";

/** Weight of a part without its bytes: 64, and the length of `cmd.part`. */
const PART_WEIGHT = 72;

/** Number of bytes of a payload on the wire. */
export function byteLength(payload: Payload): number {
  if (payload == null) return 0;
  return typeof payload === "string" ? Buffer.byteLength(payload) : payload.length;
}

/** Chunks of the receiver of a stream. */
export interface Receiving {
  credit(total: number): void;
  enough(reason: string): void;
}

/** Parts that come, in order. */
export class Parts implements AsyncIterableIterator<Buffer> {
  private readonly peer: Receiving;
  private readonly window: number;
  private queue: Buffer[] = [];
  private head = 0;
  private held = 0;
  private taken = 0;
  private credited = 0;
  private state: "open" | "ended" = "open";
  private error: Error | undefined;
  private isEnough = false;
  private waiting: { resolve: (result: IteratorResult<Buffer>) => void; reject: (error: Error) => void }[] = [];

  /** Made by the library. */
  constructor(peer: Receiving, window: number) {
    this.peer = peer;
    this.window = window;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** Takes the next part; `done` at the end. Rejects if the parts are not complete. */
  next(): Promise<IteratorResult<Buffer>> {
    if (this.head < this.queue.length) return Promise.resolve({ done: false, value: this.shift() });
    if (this.state === "ended" || this.isEnough) {
      const error = this.error;
      // The error comes once, as that of any iterator.
      this.error = undefined;
      return error === undefined ? Promise.resolve({ done: true, value: undefined }) : Promise.reject(error);
    }
    return new Promise((resolve, reject) => this.waiting.push({ resolve, reject }));
  }

  /** Called by `break` in a loop: no more parts are wanted. */
  return(): Promise<IteratorResult<Buffer>> {
    this.enough();
    return Promise.resolve({ done: true, value: undefined });
  }

  /** Tells the sender that no more parts are wanted, with a reason. Those that were not taken are dropped. */
  enough(reason = ""): void {
    if (this.isEnough) return;
    const wasOpen = this.state === "open";
    this.isEnough = true;
    this.queue = [];
    this.head = this.held = 0;
    this.error = undefined;
    if (wasOpen) this.peer.enough(reason);
    this.settle();
  }

  /** All parts that are still to come, as one buffer. */
  async all(): Promise<Buffer> {
    const parts: Buffer[] = [];
    for await (const part of this) parts.push(part);
    return Buffer.concat(parts);
  }

  /** @internal */
  push(part: Buffer): void {
    if (this.state === "ended" || this.isEnough) return;
    const waiting = this.waiting.shift();
    if (waiting !== undefined) {
      this.take(part);
      waiting.resolve({ done: false, value: part });
      return;
    }
    // One part may exceed the window; a peer that goes on does not keep to it.
    if (this.held > this.window) {
      this.end(new StreamError("aborted", `the other side sends more than the window of ${this.window} bytes`));
      return;
    }
    this.queue.push(part);
    this.held += PART_WEIGHT + part.length;
  }

  /** @internal */
  end(error?: Error): void {
    if (this.state === "ended") return;
    this.state = "ended";
    if (!this.isEnough) this.error = error;
    this.settle();
  }

  /** @internal True if nothing more comes. */
  get isEnded(): boolean {
    return this.state === "ended" || this.isEnough;
  }

  private shift(): Buffer {
    const part = this.queue[this.head] as Buffer;
    this.queue[this.head++] = undefined as unknown as Buffer;
    if (this.head === this.queue.length) {
      this.queue = [];
      this.head = 0;
    }
    this.held -= PART_WEIGHT + part.length;
    this.take(part);
    return part;
  }

  private take(part: Buffer): void {
    this.taken += PART_WEIGHT + part.length;
    if (this.state !== "open" || this.taken - this.credited < this.window / 2) return;
    this.credited = this.taken;
    this.peer.credit(this.taken);
  }

  private settle(): void {
    const waiting = this.waiting;
    this.waiting = [];
    for (const { resolve, reject } of waiting) {
      const error = this.error;
      this.error = undefined;
      if (error === undefined) resolve({ done: true, value: undefined });
      else reject(error);
    }
  }
}

/** Chunks of the sender of a stream. */
export interface Sending {
  part(payload: Payload): void;
  end(reason: string): void;
  /** True if the connection has more to write than it should. */
  isFull(): boolean;
  /** Calls back when there is room to write. */
  whenRoom(call: () => void): void;
}

interface Waiting {
  payload: Payload;
  resolve: () => void;
  reject: (error: Error) => void;
}

/** Sends parts, as fast as the receiver takes them. */
export class PartSender {
  private readonly peer: Sending;
  /** Window of the receiver. One byte, so one part, until it is known. */
  private window: number;
  private sent = 0;
  private credited = 0;
  private error: Error | undefined;
  private isFinished = false;
  /** True until the request or one-way is sent that opens the stream. */
  private isHeld = false;
  private queue: Waiting[] = [];
  private finishing: { resolve: () => void; reject: (error: Error) => void } | undefined;

  /** Made by the library. */
  constructor(peer: Sending, window: number) {
    this.peer = peer;
    this.window = window;
  }

  /** Sends a part. Resolves once there was room for it; rejects if no more parts are wanted or possible. */
  send(part: Payload): Promise<void> {
    if (!isPayload(part)) {
      return refused(new TypeError(`a part has to be a string or a Uint8Array, not ${shown(part)}`));
    }
    if (this.error !== undefined) return refused(this.error);
    if (this.isFinished) return refused(new StreamError("aborted", "the parts have been finished"));
    if (this.queue.length === 0 && this.hasRoom()) {
      this.write(part);
      return DONE;
    }
    const sent = new Promise<void>((resolve, reject) => {
      this.queue.push({ payload: part, resolve, reject });
      if (this.queue.length === 1) this.waitForRoom();
    });
    return mayBeIgnored(sent);
  }

  /** Sends each part of an iterable, such as a readable stream, and finishes. */
  sendAll(parts: Iterable<Payload> | AsyncIterable<Payload>): Promise<void> {
    return mayBeIgnored(this.sendEach(parts));
  }

  private async sendEach(parts: Iterable<Payload> | AsyncIterable<Payload>): Promise<void> {
    try {
      for await (const part of parts) await this.send(part);
    } catch (error) {
      if (this.error === undefined) this.abort(messageOf(error));
      throw error;
    }
    await this.finish();
  }

  /**
   * Tells the receiver that the parts are complete. Resolves once all of them were sent, and at once if the receiver
   * wants no more.
   */
  finish(): Promise<void> {
    if (this.error !== undefined) return this.isEnough ? DONE : refused(this.error);
    if (this.isFinished) return DONE;
    this.isFinished = true;
    if (this.queue.length === 0 && !this.isHeld) {
      this.peer.end("");
      return DONE;
    }
    const finished = new Promise<void>((resolve, reject) => {
      this.finishing = { resolve, reject };
    });
    return mayBeIgnored(finished);
  }

  /** Ends the parts early, with a reason for the receiver. */
  abort(reason: string): void {
    if (this.error !== undefined || (this.isFinished && this.queue.length === 0)) return;
    this.isFinished = true;
    if (!this.isHeld) this.peer.end(reason || "aborted");
    this.fail(new StreamError("aborted", reason));
  }

  /** Reason why no more parts can be sent, or undefined. */
  get refusal(): Error | undefined {
    return this.error;
  }

  /** @internal */
  get isOpen(): boolean {
    return this.error === undefined && !this.isFinished;
  }

  /** @internal */
  credit(total: number): void {
    // Ignored: a total above what was sent, or below the last one.
    if (total > this.sent || total < this.credited) return;
    this.credited = total;
    this.pump();
  }

  /** @internal Has parts wait until `widen` is called. */
  hold(): void {
    this.isHeld = true;
  }

  /** @internal */
  widen(window: number): void {
    this.window = window;
    this.isHeld = false;
    this.pump();
  }

  /** @internal */
  fail(error: Error): void {
    if (this.error !== undefined) return;
    this.error = error;
    const queue = this.queue;
    this.queue = [];
    for (const waiting of queue) waiting.reject(error);
    if (this.isEnough) this.finishing?.resolve();
    else this.finishing?.reject(error);
  }

  private get isEnough(): boolean {
    return this.error instanceof StreamError && this.error.kind === "enough";
  }

  private hasRoom(): boolean {
    return !this.isHeld && this.sent - this.credited < this.window && !this.peer.isFull();
  }

  private write(part: Payload): void {
    this.sent += PART_WEIGHT + byteLength(part);
    this.peer.part(part);
  }

  private pump(): void {
    while (this.queue.length > 0 && this.hasRoom()) {
      const waiting = this.queue.shift() as Waiting;
      this.write(waiting.payload);
      waiting.resolve();
    }
    if (this.queue.length > 0) {
      this.waitForRoom();
    } else if (this.finishing !== undefined && this.error === undefined) {
      const finishing = this.finishing;
      this.finishing = undefined;
      this.peer.end("");
      finishing.resolve();
    }
  }

  /** Credit wakes by itself; room to write has to be asked for. */
  private waitForRoom(): void {
    const isAllowed = !this.isHeld && this.sent - this.credited < this.window;
    if (isAllowed && this.peer.isFull()) this.peer.whenRoom(() => this.pump());
  }
}

const DONE: Promise<void> = Promise.resolve();

/** Has a rejection that the program does not look at end no process: the other side may cause it at any time. */
function mayBeIgnored(promise: Promise<void>): Promise<void> {
  promise.catch(() => {});
  return promise;
}

export function refused(error: Error): Promise<void> {
  return mayBeIgnored(Promise.reject(error));
}
