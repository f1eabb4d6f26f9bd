/** Decoder of chunks, for bytes that come in any pieces. */

import { type Format, type Limits, ONE_WAY, REQUEST, RESPONSE, type Sink, type ThreadId } from "./chunk.js";
import { Commands, firstNotUtf8 } from "./command_text.js";
import { type Field, ProtocolError } from "./errors.js";

export const EMPTY: Buffer = Buffer.alloc(0);

const MAX = 0xffff_ffff_ffff_ffffn;
/** Digits of a number that is exact in any case. */
const SAFE_DIGITS = 15;
/** Memory that an announced length gets before its bytes have come. */
const FIRST_ALLOCATION = 1024 * 1024;
/** Rest of a buffer from which on it is read in place. */
const IN_PLACE = 32 * 1024;
const CMD_DOT = [0x63, 0x6d, 0x64, 0x2e];

enum State {
  Header,
  Body,
  Skip,
}

enum Step {
  Id,
  Direction,
  /** Third field, while the format is open. */
  Detect,
  CommandLength,
  Command,
  CommandEnd,
  ClassicCommand,
  BufferLength,
}

const FIELDS: Record<Step, Field> = {
  [Step.Id]: "threadID",
  [Step.Direction]: "direction",
  [Step.Detect]: "len(cmd)",
  [Step.CommandLength]: "len(cmd)",
  [Step.Command]: "cmd",
  [Step.CommandEnd]: "cmd",
  [Step.ClassicCommand]: "cmd",
  [Step.BufferLength]: "len(buffer)",
};

function narrow(value: bigint): ThreadId {
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value;
}

/** Decodes a stream of chunks. `push` throws a `ProtocolError` where the stream is broken. */
export class Decoder {
  /** Format of the stream; undefined until the first chunk has shown it. */
  format: Format | undefined;
  private readonly sink: Sink;
  private readonly limits: Limits;
  private readonly commands = new Commands();
  private state: State = State.Header;
  /** Position in the stream of the bytes that are pushed next. */
  private offset = 0;

  // The header that is read byte by byte.
  private step: Step = Step.Id;
  private digits = "";
  private threadId: ThreadId = 0;
  private direction: ThreadId = 0;
  private announced: ThreadId = 0;
  /** Bytes of the cmd; those past its limit are only counted. */
  private command: number[] = [];
  private commandCount = 0;
  private isCommandTooLong = false;

  // The buffer that is read.
  private text = "";
  private body: Buffer = EMPTY;
  private bodyLength = 0;
  private filled = 0;
  /** Bytes of a discarded buffer that are still to come. */
  private toSkip = 0n;

  constructor(format: Format | undefined, limits: Limits, sink: Sink) {
    this.format = format;
    this.limits = limits;
    this.sink = sink;
  }

  /** Takes the bytes from 0 to `end` of a buffer, which may be used anew afterwards. */
  push(bytes: Buffer, end: number = bytes.length): void {
    let at = 0;
    while (at < end) {
      if (this.state === State.Header) {
        if (this.step === Step.Id && this.digits === "") {
          const next = this.format === "standard" ? this.standard(bytes, at, end) : 0;
          if (next > 0) {
            at = next;
            continue;
          }
        }
        at = this.header(bytes, at, end);
      } else if (this.state === State.Body) {
        const count = Math.min(end - at, this.bodyLength - this.filled);
        this.reserve(this.filled + count);
        bytes.copy(this.body, this.filled, at, at + count);
        at += count;
        this.took(count);
      } else {
        const left = BigInt(end - at);
        const count = left < this.toSkip ? left : this.toSkip;
        this.toSkip -= count;
        at += Number(count);
        if (this.toSkip === 0n) this.state = State.Header;
      }
    }
    this.offset += end;
  }

  /** True while a part of a buffer has come. */
  get isInBuffer(): boolean {
    return this.state === State.Body;
  }

  /** Place for the bytes of a large buffer that come next: they need no copy. See `filledInPlace`. */
  place(): Buffer | undefined {
    if (this.state !== State.Body || this.bodyLength - this.filled < IN_PLACE) return undefined;
    if (this.filled === this.body.length) this.reserve(this.filled + 1);
    return this.body.subarray(this.filled);
  }

  /** Notes that so many bytes have come to the place that `place` has returned. */
  filledInPlace(count: number): void {
    this.offset += count;
    this.took(count);
  }

  /** Ends the stream. Throws if that is inside a chunk. */
  end(): void {
    if (this.state !== State.Header) throw new ProtocolError("buffer", this.offset, "end");
    const isBetween = this.step === Step.Id && this.digits === "";
    if (!isBetween) throw new ProtocolError(FIELDS[this.step], this.offset, "end");
  }

  /** Grows the body to hold at least so many bytes. */
  private reserve(length: number): void {
    if (this.body.length >= length) return;
    const size = Math.min(this.bodyLength, Math.max(length, this.body.length * 2));
    const grown = Buffer.allocUnsafeSlow(size);
    this.body.copy(grown, 0, 0, this.filled);
    this.body = grown;
  }

  private took(count: number): void {
    this.filled += count;
    if (this.filled < this.bodyLength) return;
    this.state = State.Header;
    const body = this.body;
    this.body = EMPTY;
    this.sink.chunk(this.threadId, this.direction as number, this.text, body);
  }

  /**
   * Reads a whole header of the standard format, and its buffer if that is there. Returns the position
   * behind it, or 0 if something is missing or unusual: `header` then begins anew.
   */
  private standard(bytes: Buffer, start: number, end: number): number {
    let at = start;
    let id = 0;
    let digit = (bytes[at] as number) - 48;
    if (digit === 0) {
      at++;
    } else {
      while (digit >= 0 && digit <= 9) {
        id = id * 10 + digit;
        if (++at >= end) return 0;
        digit = (bytes[at] as number) - 48;
      }
      if (at === start || at - start > SAFE_DIGITS) return 0;
    }
    // The shortest rest: NUL direction NUL 0 NUL NUL 0 NUL.
    if (end - at < 8 || bytes[at] !== 0) return 0;
    const direction = (bytes[at + 1] as number) - 48;
    if (direction < ONE_WAY || direction > RESPONSE || bytes[at + 2] !== 0) return 0;
    at += 3;
    let length = 0;
    let first = at;
    digit = (bytes[at] as number) - 48;
    while (digit >= 0 && digit <= 9) {
      length = length * 10 + digit;
      if (++at >= end) return 0;
      digit = (bytes[at] as number) - 48;
    }
    if (at === first || at - first > 7 || bytes[at] !== 0) return 0;
    if (bytes[first] === 48 && at - first > 1) return 0;
    if (length > this.limits.command) return 0;
    const commandStart = ++at;
    at += length;
    // NUL, one digit, NUL.
    if (end - at < 3 || bytes[at] !== 0) return 0;
    const command = this.commands.text(bytes, commandStart, at);
    if (command === undefined) return 0;
    first = ++at;
    length = 0;
    digit = (bytes[at] as number) - 48;
    while (digit >= 0 && digit <= 9) {
      length = length * 10 + digit;
      if (++at >= end) return 0;
      digit = (bytes[at] as number) - 48;
    }
    if (at === first || at - first > SAFE_DIGITS || bytes[at] !== 0) return 0;
    if (bytes[first] === 48 && at - first > 1) return 0;
    if (length > this.limits.buffer) return 0;
    at++;
    if (length <= end - at) {
      let body = EMPTY;
      if (length > 0) {
        body = Buffer.allocUnsafe(length);
        if (length < 24) for (let i = 0; i < length; i++) body[i] = bytes[at + i] as number;
        else bytes.copy(body, 0, at, at + length);
      }
      this.sink.chunk(id, direction, command, body);
      return at + length;
    }
    this.threadId = id;
    this.direction = direction;
    this.beginBody(command, length);
    return at;
  }

  private beginBody(command: string, length: number): void {
    this.text = command;
    this.bodyLength = length;
    this.filled = 0;
    this.body = Buffer.allocUnsafeSlow(Math.min(length, FIRST_ALLOCATION));
    this.state = State.Body;
  }

  /** Reads a header byte by byte, up to its end or that of the bytes. Returns the position behind it. */
  private header(bytes: Buffer, start: number, end: number): number {
    for (let at = start; at < end; at++) {
      const byte = bytes[at] as number;
      this.byte(byte, this.offset + at);
      if (this.state !== State.Header || (this.step === Step.Id && this.digits === "")) return at + 1;
    }
    return end;
  }

  private byte(byte: number, offset: number): void {
    switch (this.step) {
      case Step.Id:
        if (!this.number(byte, offset)) return;
        if (this.digits === "") this.format = "classic";
        this.threadId = this.value();
        this.step = Step.Direction;
        return;
      case Step.Direction:
        if (!this.number(byte, offset)) return;
        if (this.digits === "") this.format = "classic";
        this.direction = this.value();
        this.command = [];
        this.commandCount = 0;
        this.isCommandTooLong = false;
        if (this.format === undefined) this.step = Step.Detect;
        else this.step = this.format === "standard" ? Step.CommandLength : Step.ClassicCommand;
        return;
      case Step.Detect:
        this.detect(byte, offset);
        return;
      case Step.CommandLength:
        if (!this.number(byte, offset)) return;
        this.announced = this.value();
        this.isCommandTooLong = this.announced > this.limits.command;
        this.step = this.announced === 0 ? Step.CommandEnd : Step.Command;
        return;
      case Step.Command:
        this.commandByte(byte);
        if (this.commandCount === Number(this.announced)) this.step = Step.CommandEnd;
        return;
      case Step.CommandEnd:
        if (byte !== 0) throw new ProtocolError("cmd", offset, "no-nul", byte);
        this.endCommand(offset);
        return;
      case Step.ClassicCommand:
        if (byte === 0) throw new ProtocolError("cmd", offset, "nul-in-cmd");
        if (byte !== 0x20) {
          this.commandByte(byte);
          if (this.commandCount > this.limits.command) this.isCommandTooLong = true;
          return;
        }
        this.announced = this.commandCount;
        this.endCommand(offset);
        return;
      case Step.BufferLength:
        if (!this.number(byte, offset)) return;
        this.endHeader(this.value());
    }
  }

  /** Takes a byte of a number. Returns true at its end. */
  private number(byte: number, offset: number): boolean {
    const field = FIELDS[this.step];
    if (byte === 0) {
      const mayBeEmpty = this.format !== "standard";
      if (this.digits === "" && !mayBeEmpty) throw new ProtocolError(field, offset, "no-digits");
      return true;
    }
    if (byte < 0x30 || byte > 0x39) throw new ProtocolError(field, offset, "not-a-digit", byte);
    if (this.digits === "0") throw new ProtocolError(field, offset, "leading-zero", byte);
    this.digits += String.fromCharCode(byte);
    if (this.digits.length >= 20 && BigInt(this.digits) > MAX) {
      throw new ProtocolError(field, offset, "too-large", byte);
    }
    return false;
  }

  /** Takes the number that is complete. */
  private value(): ThreadId {
    const digits = this.digits;
    this.digits = "";
    return digits.length <= SAFE_DIGITS ? Number(digits) : narrow(BigInt(digits));
  }

  /** Takes a byte of the third field while the format is open. */
  private detect(byte: number, offset: number): void {
    const isDigit = byte >= 0x30 && byte <= 0x39;
    if (isDigit && this.command.length < 20) {
      this.command.push(byte);
      return;
    }
    const taken = this.command;
    this.command = [];
    this.format = byte === 0 ? "standard" : "classic";
    this.step = byte === 0 ? Step.CommandLength : Step.ClassicCommand;
    const first = offset - taken.length;
    taken.forEach((digit, i) => {
      this.byte(digit, first + i);
    });
    this.byte(byte, offset);
  }

  private commandByte(byte: number): void {
    this.commandCount++;
    // Of a cmd that is discarded, the beginning tells whether it belongs to the protocol.
    if (!this.isCommandTooLong || this.command.length < CMD_DOT.length) this.command.push(byte);
  }

  private endCommand(offset: number): void {
    const isSkipped = this.isCommandTooLong || !this.isKnownDirection();
    if (!isSkipped) {
      const bytes = Buffer.from(this.command);
      const bad = firstNotUtf8(bytes);
      if (bad >= 0) throw new ProtocolError("cmd", offset - bytes.length + bad, "not-utf8", bytes[bad]);
      this.text = bytes.toString("utf8");
    }
    this.step = Step.BufferLength;
  }

  private isKnownDirection(): boolean {
    return this.direction === ONE_WAY || this.direction === REQUEST || this.direction === RESPONSE;
  }

  private endHeader(length: ThreadId): void {
    this.step = Step.Id;
    const isKnown = this.isKnownDirection();
    if (isKnown && !this.isCommandTooLong && length <= this.limits.buffer) {
      if (length === 0) this.sink.chunk(this.threadId, this.direction as number, this.text, EMPTY);
      else this.beginBody(this.text, Number(length));
      return;
    }
    const reason = !isKnown ? "unknown-direction" : this.isCommandTooLong ? "command-too-long" : "buffer-too-long";
    this.toSkip = BigInt(length);
    if (this.toSkip > 0n) this.state = State.Skip;
    this.sink.skipped({
      threadId: this.threadId,
      direction: this.direction,
      reason,
      command: reason === "buffer-too-long" ? this.text : undefined,
      commandLength: this.announced,
      bufferLength: length,
      limit: !isKnown ? undefined : this.isCommandTooLong ? this.limits.command : this.limits.buffer,
      reserved: this.commandCount >= 4 && CMD_DOT.every((byte, i) => this.command[i] === byte),
    });
  }
}
