/** Pipes of a connection: reads into one buffer, writes at once, and spins before it sleeps. */

import { closeSync, createReadStream, fstatSync, writeSync, writevSync } from "node:fs";
import { Socket } from "node:net";
import { availableParallelism, cpus } from "node:os";
import type { Readable, Writable } from "node:stream";

import type { ByteWriter } from "./encoder.js";

/** Receiver of what comes over a transport. */
export interface Input {
  /** Takes `count` bytes from the start of the buffer, which is used anew afterwards. */
  read(bytes: Buffer, count: number): void;
  /** Place for the next bytes, or undefined for the transport's own buffer. */
  place(): Buffer | undefined;
  /** Takes `count` bytes that have come to the place. */
  readInPlace(count: number): void;
  /** The stream has ended, or broke with an error of the system. */
  ended(error: Error | undefined): void;
  /** All has been written for which the peer had no room before. */
  drained(): void;
  /** Nothing can be written any more. */
  writeFailed(error: Error): void;
}

/** Descriptors, or streams such as a socket, to talk over. */
export type Ends = { read: number; write: number } | { reader: Readable; writer: Writable };

const READ_SIZE = 64 * 1024;
/** Waits to leave spinning out for, at most, once it has brought nothing. */
const MAX_SKIP = 1024;

/** Spins of a transport: looks for input in each turn of the event loop in place of sleeping. */
class Spinner {
  private readonly budget: number;
  private until = 0;
  private began = 0;
  private isActive = false;
  private skip = 0;
  private toSkip = 0;
  private readonly turn = (): void => this.look();

  constructor(microseconds: number) {
    const parallel = typeof availableParallelism === "function" ? availableParallelism() : cpus().length;
    this.budget = parallel > 1 ? microseconds / 1000 : 0;
  }

  /** Begins to look for input, as something was written that may have an answer soon. */
  start(isSure: boolean): void {
    if (this.budget === 0) return;
    if (this.toSkip > 0 && !this.isActive && !isSure) {
      this.toSkip--;
      return;
    }
    this.began = performance.now();
    this.until = this.began + (isSure ? 8 * this.budget : this.budget);
    if (this.isActive) return;
    this.isActive = true;
    setImmediate(this.turn);
  }

  /** Notes that input has come. */
  found(): void {
    if (!this.isActive || this.until === 0) return;
    if (performance.now() - this.began <= this.budget) this.skip >>= 1;
    else this.miss();
    // Until the next start nothing is waited for.
    this.until = 0;
  }

  private look(): void {
    if (this.until === 0) {
      this.isActive = false;
      return;
    }
    if (performance.now() < this.until) {
      setImmediate(this.turn);
      return;
    }
    this.miss();
    this.until = 0;
    this.isActive = false;
  }

  private miss(): void {
    this.skip = Math.min(MAX_SKIP, this.skip * 2 + 1);
    this.toSkip = this.skip;
  }
}

/** Two directions of bytes. */
export class Transport implements ByteWriter {
  private readonly input: Input;
  private readonly reader: Readable;
  private readonly writer: Writable | undefined;
  /** Descriptor to write to directly; -1 if there is none. */
  private fd = -1;
  private readonly own = Buffer.allocUnsafeSlow(READ_SIZE);
  private current: Buffer = this.own;
  private readonly spinner: Spinner;
  /** Bytes for which the peer had no room yet. */
  private backlog = 0;
  private isReading = true;
  private isEnded = false;
  private isClosed = false;
  /** True if each write has to be one of its own. */
  atomic = false;

  constructor(ends: Ends, input: Input, spin: number) {
    this.input = input;
    this.spinner = new Spinner(spin);
    const onread = {
      buffer: () => this.nextPlace(),
      callback: (count: number) => this.took(count),
    };
    if ("reader" in ends) {
      this.reader = ends.reader;
      this.writer = ends.writer;
      this.reader.on("data", (bytes: Buffer) => this.tookBytes(bytes));
    } else {
      this.fd = ends.write;
      this.writer = isStream(ends.write) ? new Socket({ fd: ends.write, readable: false, writable: true }) : undefined;
      if (isStream(ends.read)) {
        // `onread` saves the streams' machinery, and an allocation for each read.
        this.reader = new Socket({ fd: ends.read, readable: true, writable: false, onread } as ConstructorParameters<
          typeof Socket
        >[0]);
        this.reader.resume();
      } else {
        this.reader = createReadStream("", { fd: ends.read, autoClose: false });
        this.reader.on("data", (bytes) => this.tookBytes(bytes as Buffer));
      }
    }
    this.reader.on("end", () => this.end(undefined));
    this.reader.on("error", (error) => this.end(error));
    this.reader.on("close", () => this.end(undefined));
    if (!this.isOneSocket) this.writer?.on("error", (error) => this.failed(error));
  }

  /** True if a socket is both directions. */
  private get isOneSocket(): boolean {
    return (this.writer as unknown) === this.reader;
  }

  /** Bytes that wait for the peer. */
  get waiting(): number {
    return this.backlog;
  }

  write(bytes: Buffer, length: number, more: Uint8Array | undefined): void {
    if (this.isClosed) return;
    const total = length + (more?.length ?? 0);
    let done = 0;
    if (this.backlog === 0 && this.fd >= 0) {
      try {
        if (more === undefined) done = writeSync(this.fd, bytes, 0, length);
        else if (this.atomic) done = writeSync(this.fd, joined(bytes, length, more));
        else done = writevSync(this.fd, [bytes.subarray(0, length), more]);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "EAGAIN") {
          this.failed(error as Error);
          return;
        }
      }
      if (done === total) return;
    }
    if (this.writer === undefined) {
      this.writeBlocking(bytes, length, more, done);
      return;
    }
    // Copied, since the first buffer is used anew.
    const rest = done < length ? Buffer.from(bytes.subarray(done, length)) : undefined;
    const restOfMore = more === undefined || done <= length ? more : more.subarray(done - length);
    if (this.atomic && rest !== undefined && restOfMore !== undefined) {
      this.send(joined(rest, rest.length, restOfMore));
      return;
    }
    if (rest !== undefined) this.send(rest);
    if (restOfMore !== undefined) this.send(restOfMore);
    this.spinner.start(true);
  }

  /** Notes that what was written may be answered soon. */
  expect(isSure: boolean): void {
    this.spinner.start(isSure);
  }

  /** Stops reading; bytes that were read already still come. */
  pause(): void {
    this.isReading = false;
    if (this.fd < 0 || !(this.reader instanceof Socket)) this.reader.pause();
  }

  /** Reads again after `pause`. */
  resume(): void {
    if (this.isReading) return;
    this.isReading = true;
    this.reader.resume();
    if (this.reader instanceof Socket) this.reader.read(0);
  }

  /** Lets a process end that has nothing but this connection. */
  unref(): void {
    (this.reader as Partial<Socket>).unref?.();
    (this.writer as Partial<Socket> | undefined)?.unref?.();
  }

  /** Ends the output once all is written, and reads no more. */
  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    if (this.writer === undefined) {
      closeSync(this.fd);
    } else if (this.backlog > 0 || this.fd < 0) {
      this.writer.end(() => this.writer?.destroy());
    } else {
      this.writer.destroy();
    }
    this.fd = -1;
    if (!this.isOneSocket) this.reader.destroy();
  }

  private send(bytes: Uint8Array): void {
    this.backlog += bytes.length;
    this.writer?.write(bytes, (error) => {
      this.backlog -= bytes.length;
      if (error) this.failed(error);
      else if (this.backlog === 0) this.input.drained();
    });
  }

  /** Writes the rest to a file or terminal, which takes all. */
  private writeBlocking(bytes: Buffer, length: number, more: Uint8Array | undefined, done: number): void {
    const all = joined(bytes, length, more ?? new Uint8Array(0));
    try {
      for (let at = done; at < all.length; ) at += writeSync(this.fd, all, at);
    } catch (error) {
      this.failed(error as Error);
    }
  }

  private failed(error: Error): void {
    if (this.isClosed) return;
    this.input.writeFailed(error);
  }

  private nextPlace(): Buffer {
    this.current = this.input.place() ?? this.own;
    return this.current;
  }

  private took(count: number): boolean {
    if (this.isClosed) return false;
    this.spinner.found();
    if (this.current === this.own) this.input.read(this.own, count);
    else this.input.readInPlace(count);
    return this.isReading;
  }

  private tookBytes(bytes: Buffer): void {
    if (this.isClosed) return;
    this.spinner.found();
    this.input.read(bytes, bytes.length);
  }

  private end(error: Error | undefined): void {
    if (this.isEnded || this.isClosed) return;
    this.isEnded = true;
    this.input.ended(error);
  }
}

/** Returns true if the descriptor is a pipe or a socket. */
export function isStream(fd: number): boolean {
  const stat = fstatSync(fd);
  return stat.isFIFO() || stat.isSocket();
}

function joined(bytes: Buffer, length: number, more: Uint8Array): Buffer {
  return Buffer.concat([bytes.subarray(0, length), more]);
}
