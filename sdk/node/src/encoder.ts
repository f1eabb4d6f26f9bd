/** Encoder of chunks into a buffer that is written as a whole. */

import { types } from "node:util";

import type { Format, ThreadId } from "./chunk.js";

/** Data of a request, one-way, response or part. A string is sent as UTF-8. */
export type Payload = string | Uint8Array | null | undefined;

/** Payload from which on it is not copied into the buffer. */
const LARGE = 16 * 1024;
/** Longest string that is copied character by character. */
const SHORT = 32;
/** Longest header without its cmd: three numbers of 20 digits, a direction, five NULs. */
const HEADER = 72;
const SIZE = 64 * 1024;
/** Bytes that a pipe takes as a whole or not at all (PIPE_BUF): a write of classic chunks ends there. */
const ATOMIC = 4096;

/** Returns true if the cmd can be written in the format. */
export function isWritable(format: Format, command: string): boolean {
  return format === "standard" || !/[ \0]/.test(command);
}

/** Returns true for what can be the data of a chunk: JavaScript callers may pass anything. */
export function isPayload(value: unknown): value is Payload {
  // A proxy of bytes has no length.
  return typeof value === "string" || value == null || types.isUint8Array(value);
}

/** Writer of bytes: takes all, and waits for the peer by itself. */
export interface ByteWriter {
  /** Writes the first `length` bytes of `bytes`, which is used anew afterwards, and then `more`. */
  write(bytes: Buffer, length: number, more: Uint8Array | undefined): void;
}

interface Cached {
  bytes: Buffer;
  length: number;
}

/** Assembles chunks, and gives them to an output. */
export class Encoder {
  format: Format;
  private readonly output: ByteWriter;
  private readonly buffer = Buffer.allocUnsafeSlow(SIZE);
  private used = 0;
  private readonly commands = new Map<string, Cached>();

  constructor(format: Format, output: ByteWriter) {
    this.format = format;
    this.output = output;
  }

  /** Number of bytes that `flush` would write. */
  get pending(): number {
    return this.used;
  }

  /** Adds a chunk. Returns the length of its cmd and buffer together. */
  add(threadId: ThreadId, direction: number, command: string, payload: Payload): number {
    const cached = this.command(command);
    const buffer = this.buffer;
    let text: string | undefined;
    let bytes: Uint8Array | undefined;
    let length = 0;
    if (typeof payload === "string") {
      if (payload.length <= SHORT) {
        text = payload;
        length = text.length;
      } else {
        length = Buffer.byteLength(payload);
        if (length < LARGE) text = payload;
        else bytes = Buffer.from(payload);
      }
    } else if (payload != null) {
      bytes = payload;
      length = bytes.length;
    }
    const classic = this.format === "classic";
    const isLarge = length >= LARGE && bytes !== undefined;
    // A short string may need three bytes for each character.
    const room = HEADER + cached.bytes.length + (isLarge ? 0 : Math.max(length, text === undefined ? 0 : SHORT * 3));
    if (this.used + room > (classic ? ATOMIC : SIZE) && this.used > 0) this.flush();
    if (room > SIZE) return this.addLong(threadId, direction, cached, bytes ?? Buffer.from(text ?? ""));

    let at = this.used;
    let isAscii = text === undefined || length > SHORT || this.isAscii(text);
    if (!isAscii) length = Buffer.byteLength(text as string);
    isAscii = isAscii && length <= SHORT;
    at = classic && threadId === 0 ? at : this.number(at, threadId);
    buffer[at++] = 0;
    buffer[at++] = 48 + direction;
    buffer[at++] = 0;
    const prefix = cached.bytes;
    const prefixLength = prefix.length;
    if (prefixLength <= SHORT) for (let i = 0; i < prefixLength; i++) buffer[at + i] = prefix[i] as number;
    else prefix.copy(buffer, at);
    at += prefixLength;
    at = classic && length === 0 ? at : this.number(at, length);
    buffer[at++] = 0;
    if (length > 0) {
      if (text !== undefined) {
        if (isAscii) for (let i = 0; i < length; i++) buffer[at + i] = text.charCodeAt(i);
        else buffer.write(text, at);
        at += length;
      } else if (isLarge) {
        this.used = 0;
        this.output.write(buffer, at, bytes);
        return cached.length + length;
      } else {
        const from = bytes as Uint8Array;
        if (length <= SHORT) for (let i = 0; i < length; i++) buffer[at + i] = from[i] as number;
        else buffer.set(from, at);
        at += length;
      }
    }
    this.used = at;
    return cached.length + length;
  }

  /** Writes what was added. */
  flush(): void {
    const used = this.used;
    if (used === 0) return;
    this.used = 0;
    this.output.write(this.buffer, used, undefined);
  }

  private isAscii(text: string): boolean {
    for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) >= 0x80) return false;
    return true;
  }

  /** Adds a chunk whose cmd does not fit into the buffer. */
  private addLong(threadId: ThreadId, direction: number, cached: Cached, bytes: Uint8Array): number {
    const classic = this.format === "classic";
    const id = classic && threadId === 0 ? "" : String(threadId);
    const length = classic && bytes.length === 0 ? "" : String(bytes.length);
    const head = Buffer.concat([Buffer.from(`${id}\0${direction}\0`), cached.bytes, Buffer.from(`${length}\0`)]);
    this.output.write(head, head.length, bytes);
    return cached.length + bytes.length;
  }

  /** Bytes of a cmd with its length before it, as the format has it. */
  private command(command: string): Cached {
    let cached = this.commands.get(command);
    if (cached === undefined) {
      const length = Buffer.byteLength(command);
      const bytes = Buffer.from(this.format === "standard" ? `${length}\0${command}\0` : `${command} `);
      cached = { bytes, length };
      // A peer that calls ever new commands has to cost no memory.
      if (this.commands.size >= 256) this.commands.clear();
      if (length <= 256) this.commands.set(command, cached);
    }
    return cached;
  }

  private number(at: number, value: ThreadId): number {
    const buffer = this.buffer;
    if (typeof value === "bigint" || value > 0x7fff_ffff) {
      return at + buffer.write(String(value), at, "latin1");
    }
    let rest = value | 0;
    if (rest < 10) {
      buffer[at] = 48 + rest;
      return at + 1;
    }
    let digits = 2;
    for (let limit = 100; rest >= limit && digits < 10; limit *= 10) digits++;
    for (let i = at + digits - 1; i >= at; i--) {
      const next = (rest / 10) | 0;
      buffer[i] = 48 + (rest - next * 10);
      rest = next;
    }
    return at + digits;
  }
}
