// The library pipeplug for Node in one file, made of sdk/node/src by sdk/node/single.mjs. Do not change it here.
// SPDX-License-Identifier: MIT OR Apache-2.0

import { Readable, Writable } from "node:stream";

/** Properties of a call beyond its chunk: `cmd.context`, and what handlers pass on. */
/** Longest context, in bytes. */
declare const CONTEXT_LIMIT = 4096;
/** Values of a caller, such as `traceparent`. */
type ContextValues = Readonly<Record<string, string>>;
/** Properties that came with a request or one-way. */
interface Context {
    /** Milliseconds that the sender waits. */
    deadline: number | undefined;
    sends: boolean;
    receives: boolean;
    progress: boolean;
    values: ContextValues;
}
declare const NO_VALUES: ContextValues;
declare const NO_CONTEXT: Context;
/** Returns the context of a buffer, or undefined if it is none. */
declare function parseContext(buffer: Buffer): Context | undefined;
/** Deadline and values that the calls of a handler carry on. */
interface Scope {
    /** Time of `performance.now()`. */
    deadline: number | undefined;
    values: ContextValues;
}
/** Runs a handler whose calls carry the scope on, however many awaits are between. */
declare function runInScope<T>(scope: Scope, run: () => T): T;
/** Scope of the handler that this code belongs to. */
declare function currentScope(): Scope | undefined;

/** Chunks, as they are decoded, and their limits. */
/** Number that relates a response to its request. A `bigint` above 2^53-1. */
type ThreadId = number | bigint;
/** Form of all chunks of a connection. */
type Format = "standard" | "classic";
/** Largest cmd and buffer that this side takes, in bytes. */
interface Limits {
    command: number;
    buffer: number;
}
declare const DEFAULT_LIMITS: Readonly<Limits>;
declare const ONE_WAY = 1;
declare const REQUEST = 2;
declare const RESPONSE = 3;
/** Reason that a chunk is read and discarded. */
type SkipReason = "unknown-direction" | "command-too-long" | "buffer-too-long";
/** Chunk that is read and discarded. */
interface Skipped {
    threadId: ThreadId;
    direction: ThreadId;
    reason: SkipReason;
    /** The cmd, if that is within its limit. */
    command: string | undefined;
    commandLength: ThreadId;
    bufferLength: ThreadId;
    limit: number | undefined;
    /** True if the cmd begins with `cmd.`. */
    reserved: boolean;
}
/** Receiver of what is decoded. */
interface Sink {
    chunk(threadId: ThreadId, direction: number, command: string, buffer: Buffer): void;
    skipped(chunk: Skipped): void;
}

/** Encoder of chunks into a buffer that is written as a whole. */
/** Data of a request, one-way, response or part. A string is sent as UTF-8. */
type Payload = string | Uint8Array | null | undefined;
/** Returns true if the cmd can be written in the format. */
declare function isWritable(format: Format, command: string): boolean;
/** Returns true for what can be the data of a chunk: JavaScript callers may pass anything. */
declare function isPayload(value: unknown): value is Payload;
/** Writer of bytes: takes all, and waits for the peer by itself. */
interface ByteWriter {
    /** Writes the first `length` bytes of `bytes`, which is used anew afterwards, and then `more`. */
    write(bytes: Buffer, length: number, more: Uint8Array | undefined): void;
}
/** Assembles chunks, and gives them to an output. */
declare class Encoder {
    format: Format;
    private readonly output;
    private readonly buffer;
    private used;
    private readonly commands;
    constructor(format: Format, output: ByteWriter);
    /** Number of bytes that `flush` would write. */
    get pending(): number;
    /** Adds a chunk. Returns the length of its cmd and buffer together. */
    add(threadId: ThreadId, direction: number, command: string, payload: Payload): number;
    /** Writes what was added. */
    flush(): void;
    private isAscii;
    /** Adds a chunk whose cmd does not fit into the buffer. */
    private addLong;
    /** Bytes of a cmd with its length before it, as the format has it. */
    private command;
    private number;
}

/** Halves of a stream: parts that come, and parts that are sent. */
/** Number of bytes of a payload on the wire. */
declare function byteLength(payload: Payload): number;
/** Chunks of the receiver of a stream. */
interface Receiving {
    credit(total: number): void;
    enough(reason: string): void;
}
/** Parts that come, in order. */
declare class Parts implements AsyncIterableIterator<Buffer> {
    private readonly peer;
    private readonly window;
    private queue;
    private head;
    private held;
    private taken;
    private credited;
    private state;
    private error;
    private isEnough;
    private waiting;
    /** Made by the library. */
    constructor(peer: Receiving, window: number);
    [Symbol.asyncIterator](): this;
    /** Takes the next part; `done` at the end. Rejects if the parts are not complete. */
    next(): Promise<IteratorResult<Buffer>>;
    /** Called by `break` in a loop: no more parts are wanted. */
    return(): Promise<IteratorResult<Buffer>>;
    /** Tells the sender that no more parts are wanted, with a reason. Those that were not taken are dropped. */
    enough(reason?: string): void;
    /** All parts that are still to come, as one buffer. */
    all(): Promise<Buffer>;
    private shift;
    private take;
    private settle;
}
/** Chunks of the sender of a stream. */
interface Sending {
    part(payload: Payload): void;
    end(reason: string): void;
    /** True if the connection has more to write than it should. */
    isFull(): boolean;
    /** Calls back when there is room to write. */
    whenRoom(call: () => void): void;
}
/** Sends parts, as fast as the receiver takes them. */
declare class PartSender {
    private readonly peer;
    /** Window of the receiver. One byte, so one part, until it is known. */
    private window;
    private sent;
    private credited;
    private error;
    private isFinished;
    /** True until the request or one-way is sent that opens the stream. */
    private isHeld;
    private queue;
    private finishing;
    /** Made by the library. */
    constructor(peer: Sending, window: number);
    /** Sends a part. Resolves once there was room for it; rejects if no more parts are wanted or possible. */
    send(part: Payload): Promise<void>;
    /** Sends each part of an iterable, such as a readable stream, and finishes. */
    sendAll(parts: Iterable<Payload> | AsyncIterable<Payload>): Promise<void>;
    private sendEach;
    /**
     * Tells the receiver that the parts are complete. Resolves once all of them were sent, and at once if the receiver
     * wants no more.
     */
    finish(): Promise<void>;
    /** Ends the parts early, with a reason for the receiver. */
    abort(reason: string): void;
    /** Reason why no more parts can be sent, or undefined. */
    get refusal(): Error | undefined;
    private get isEnough();
    private hasRoom;
    private write;
    private pump;
    /** Credit wakes by itself; room to write has to be asked for. */
    private waitForRoom;
}
declare function refused(error: Error): Promise<void>;

/** Request or one-way that a handler answers. */
/** What a request needs of its connection. */
interface RequestOwner {
    send(threadId: ThreadId, direction: number, command: string, payload: Payload): void;
    readonly streamWindow: number;
    readonly peerStreamWindow: number;
    readonly commands: readonly string[];
    isFull(): boolean;
    whenRoom(call: () => void): void;
}
/** Report of how far the work on a request is. */
interface Progress {
    done: number;
    total?: number;
    message?: string;
}
/** Result of a handler: the data of the response, or an async generator that yields parts and returns that data. */
type HandlerResult = Payload | undefined | AsyncIterable<Payload>;
/** Function that answers a request. What it throws is the caller's error. */
type Handler = (request: Request) => HandlerResult | void | Promise<HandlerResult | void>;
/** Request or one-way of the other side. */
declare class Request {
    /** Name of the command. */
    readonly command: string;
    /** Data, as it was sent. It is the handler's to keep and change. */
    readonly buffer: Buffer;
    /** True if it has no response. */
    readonly isOneWay: boolean;
    private readonly owner;
    private readonly threadId;
    private readonly properties;
    /** Time of `performance.now()` at which the caller gives up. */
    private readonly until;
    private controller;
    private deadlineTimer;
    private given;
    private incoming;
    private areTaken;
    private outgoing;
    private report;
    private reportTimer;
    private isAnswered;
    /** Made by the library. */
    constructor(owner: RequestOwner, threadId: ThreadId, isOneWay: boolean, command: string, buffer: Buffer, context: Context);
    /** Data as text. Throws if it is not UTF-8. */
    text(): string;
    /** Data as JSON; undefined if it is empty. */
    json<T = unknown>(): T;
    /** Values that the caller has supplied, such as `traceparent`. Calls of this handler carry them on. */
    get context(): ContextValues;
    /** Milliseconds that are left until the caller gives up; undefined if it has named no deadline. */
    get timeLeft(): number | undefined;
    /** Aborted when the caller has given up, its deadline has passed, or the connection has ended. */
    get signal(): AbortSignal;
    /** Parts that follow the request. Empty if the caller sends none. */
    get parts(): Parts;
    /** True if the caller takes parts of the reply. */
    get wantsParts(): boolean;
    /** Sends a part of the reply. Resolves once there was room for it; rejects if the caller wants no more. */
    send(part: Payload): Promise<void>;
    /** Reports progress to a caller that wants to know. Costs next to nothing otherwise. */
    progress(done: number, total?: number, message?: string): void;
    /** Throws the error of a command that does not exist. */
    unknown(): never;
    private sendReport;
    private watchDeadline;
}
/** Text of a reply. */
declare function textOf(command: string, buffer: Uint8Array): string;

/** Calls and one-ways: what a host does with a plugin, and a plugin with its host. */
/** Options of a one-way. */
interface NotifyOptions {
    /** Values for the handler, such as `traceparent`; its own calls carry them on. */
    context?: ContextValues;
    /** Ends the wait for room. */
    signal?: AbortSignal;
}
/** Options of a call. */
interface CallOptions extends NotifyOptions {
    /** Gives the call up, and tells the handler. The call rejects with the signal's reason. */
    signal?: AbortSignal;
    /** Milliseconds until the call is given up. The handler knows, and its own calls inherit it. */
    timeout?: number;
    /** Takes reports of how far the work is. */
    onProgress?: (progress: Progress) => void;
}
/** Call with parts: an async iterable of the parts of the reply, and the sender of those of the request. */
interface StreamCall extends AsyncIterable<Buffer> {
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
declare abstract class Caller {
    /** Calls a command, and resolves to the data of its reply. */
    call(command: string, payload?: Payload, options?: CallOptions): Promise<Buffer>;
    /** Calls a command, and resolves to its reply as text. */
    callText(command: string, payload?: Payload, options?: CallOptions): Promise<string>;
    /** Calls a command with a value as JSON, and resolves to the value of its reply; undefined if that is empty. */
    callJson<T = unknown>(command: string, value?: unknown, options?: CallOptions): Promise<T>;
    /** Sends a one-way. Resolves once there was room for it. */
    notify(command: string, payload?: Payload, options?: NotifyOptions): Promise<void>;
    /** Calls a command with parts in both directions. */
    stream(command: string, payload?: Payload, options?: CallOptions): StreamCall;
    /** Sends a one-way that is followed by parts. */
    notifyStream(command: string, payload?: Payload, options?: NotifyOptions): PartSender;
    /** Asks whether the other side reads and answers. */
    ping(options?: CallOptions): Promise<void>;
    private partSender;
    /** Begins a call: sends it, or has it wait for room. */
    private begin;
    private sendNotice;
}

/** Errors of handlers, calls, streams, starts and stops. */
/** Codes of failures that mean the same for every plugin. */
declare const failureCode: {
    readonly unknownCommand: "unknown_command";
    readonly refused: "refused";
    readonly overloaded: "overloaded";
    readonly cancelled: "cancelled";
    readonly deadline: "deadline";
    readonly tooLarge: "too_large";
    readonly panicked: "panicked";
    readonly unanswered: "unanswered";
    readonly methodError: "method_error";
    readonly invalidArgument: "invalid_argument";
    readonly invalidResult: "invalid_result";
    readonly closed: "closed";
    readonly unsupported: "unsupported";
    readonly invalid: "invalid";
};
/** Error that a handler throws: code for programs, message for people, and JSON data. */
declare class Failure extends Error {
    readonly name = "Failure";
    /** Lowercase words joined by `_`. Empty for none. */
    readonly code: string;
    /** Any JSON that belongs to the code. */
    readonly data: unknown;
    constructor(code: string, message: string, data?: unknown);
    toString(): string;
}
/** Reason that a call has no result. */
type CallErrorKind = 
/** The other side answered with an error. */
"remote"
/** The time-out passed. */
 | "timedOut"
/** The connection ended. */
 | "closed"
/** The reply was over this side's limit. */
 | "tooLarge"
/** The command belongs to the protocol. */
 | "reserved"
/** The other side does not name the feature that is needed. */
 | "unsupported"
/** The request cannot be written in this format, or its context is too long. */
 | "invalid";
/** Error of a call or one-way. A call that its `AbortSignal` ends rejects with the signal's reason. */
declare class CallError extends Error {
    readonly name = "CallError";
    readonly kind: CallErrorKind;
    readonly command: string;
    /** Code of the other side's failure, empty if it has none; a `failureCode` if the error is of another kind. */
    readonly code: string;
    /** Data of the other side's failure. */
    readonly data: unknown;
    /** False if the other side has certainly not seen the request. */
    readonly sent: boolean;
    constructor(kind: CallErrorKind, command: string, message: string, rest?: {
        code?: string;
        data?: unknown;
        sent?: boolean;
    });
    toString(): string;
}
/** Reason that a direction of a stream ended early. */
type StreamErrorKind = "aborted" | "enough" | "cancelled" | "deadline" | "closed" | "tooLarge";
/** Error of sending or receiving parts. */
declare class StreamError extends Error {
    readonly name = "StreamError";
    readonly kind: StreamErrorKind;
    constructor(kind: StreamErrorKind, message: string);
}
/** Error of starting a plugin. */
declare class StartError extends Error {
    readonly name = "StartError";
    /** Last lines that the plugin wrote to its standard error. */
    readonly stderr: readonly string[];
    constructor(message: string, stderr?: readonly string[]);
}
/** Field of a chunk that broke the protocol. */
type Field = "threadID" | "direction" | "len(cmd)" | "cmd" | "len(buffer)" | "buffer";
/** Rule of the protocol that was broken. */
type BrokenKind = "no-digits" | "not-a-digit" | "leading-zero" | "too-large" | "no-nul" | "nul-in-cmd" | "not-utf8" | "end";
/** Error of a stream that breaks the protocol, or ends inside a chunk. */
declare class ProtocolError extends Error {
    readonly name = "ProtocolError";
    readonly field: Field;
    /** Position in the stream of the byte that broke the rule. */
    readonly offset: number;
    readonly kind: BrokenKind;
    constructor(field: Field, offset: number, kind: BrokenKind, found?: number);
}
/** Returns the text of anything that was thrown, with the texts of its causes. Never throws. */
declare function messageOf(error: unknown): string;
/** Returns the first line of that text: some of JSON.stringify have more. */
declare function firstLine(error: unknown): string;
/** True for an error of this program. Never throws, as `instanceof` does for some proxies. */
declare function isError(value: unknown): value is Error;
/** Finds code and data of the `Failure` in an error or its causes. Never throws. */
declare function failureOf(error: unknown): {
    code: string;
    data: unknown;
} | undefined;

/** Checks of options: JavaScript callers may misspell a name, or pass a value of another type. */
/** Values that an option may have. */
interface Kind {
    /** Words behind "has to be". */
    readonly noun: string;
    fits(value: unknown): boolean;
}
/** Options of one function. */
interface Shape {
    /** Words behind "the options of". */
    readonly of: string;
    readonly options: Readonly<Record<string, Kind>>;
}
declare const ANY: Kind;
declare const MILLISECONDS: Kind;
/** Time to wait; that of a call may be negative, since it is often what is left of another. */
declare const WAIT: Kind;
declare const MICROSECONDS: Kind;
declare const BYTES: Kind;
declare const COUNT: Kind;
declare const NUMBERS: Kind;
declare const FLAG: Kind;
declare const TEXT: Kind;
declare const TEXTS: Kind;
declare const TEXT_BY_NAME: Kind;
declare const VARIABLES: Kind;
declare const FUNCTION: Kind;
declare const FUNCTIONS: Kind;
declare const SERVICES: Kind;
declare const SIGNAL: Kind;
declare const ORDER: Kind;
/** One of some words. */
declare function oneOf(...words: string[]): Kind;
/** Options inside an option. */
declare function nested(shape: Shape): Kind;
/** Throws a `TypeError` that names the option that does not exist, or whose value does not fit. */
declare function checkOptions(options: unknown, shape: Shape): void;
/** Returns what a value is, in words. */
declare function shown(value: unknown): string;
/** Longest time of a timer, and the number of milliseconds for one. */
declare function timerTime(milliseconds: number): number;

/** Options of a connection, and the reason of its end. */
/** Limits and times of a connection. */
interface Options {
    /** Largest cmd and buffer that this side takes, in bytes. Default: 64 KiB and 256 MiB. */
    limits?: Partial<Limits>;
    /** Requests and one-ways that this side holds until they are handled, in bytes. Default: 4 MiB. */
    window?: number;
    /** Parts of one stream that this side holds until they are taken, in bytes. Default: 1 MiB. */
    streamWindow?: number;
    /** Streams that the other side may have open. Default: 1,024. */
    streams?: number;
    /** Handlers that run at once. Default: 1,024. */
    handlers?: number;
    /** Bytes that wait to be written, from which on calls and one-ways wait. Default: 4 MiB. */
    outgoing?: number;
    /** Bytes of responses that the other side does not read, from which on the connection ends. Default: 64 MiB. */
    unread?: number;
    /**
     * Microseconds to look for an answer, or for the next request, before the event loop sleeps. Adapts to what
     * comes. 0 disables it. Default: 50.
     */
    spin?: number;
    /**
     * Commands that are handled one at a time, in the order in which they were sent: all of them (`true`), or
     * lists of commands, each list by itself.
     */
    inOrder?: true | readonly (readonly string[])[];
}
declare const CONNECTION: Readonly<Record<keyof Options, Kind>>;
/** Reason that a connection has ended. */
interface CloseReason {
    kind: "endOfFile" | "broken" | "readerGone" | "unread" | "system" | "closed";
    message: string;
}

/** Answers to requests: results, and errors. */
/** Weight of a chunk without cmd and buffer. */
declare const WEIGHT = 64;
/** Connection of the answers. */
interface AnswersOwner {
    readonly isOneRead: boolean;
    mayCut(command: string, payload: Payload): boolean;
    send(threadId: ThreadId, direction: number, command: string, payload: Payload): void;
    has(feature: string): boolean;
    isFull(): boolean;
    close(reason: CloseReason): void;
}
/** Writer of answers. */
declare class Answers {
    /** Bytes of answers that no handler has given, since the other side has stopped to read. */
    unreadBytes: number;
    private readonly connection;
    private readonly limit;
    constructor(connection: AnswersOwner, limit: number);
    /** Answers a request with its result. */
    answer(threadId: ThreadId, command: string, payload: Payload): void;
    /** Answers a request without a handler, which nothing holds up. */
    answerAtOnce(threadId: ThreadId, command: string, payload: Payload): void;
    /** Answers a request with an error. */
    fail(threadId: ThreadId, code: string, message: string, data?: unknown): void;
}

/** Requests and one-ways of the other side: their order, their handlers, and the credit for them. */
/** Connection of the requests. */
interface IncomingOwner extends RequestOwner {
    readonly side: {
        readonly handler: Handler;
        warn(message: string): void;
    };
    /** True while a call of this side waits for its reply. */
    readonly hasOpenCalls: boolean;
    has(feature: string): boolean;
    /** True if answers would only wait, since the other side does not read. */
    isHeldUp(): boolean;
    pauseReading(): void;
    resumeReading(): void;
}
/** Requests and one-ways that wait or are handled. */
declare class Incoming {
    /** Those with a stream, and those whose handler goes on. */
    readonly requests: Map<ThreadId, Request>;
    private readonly connection;
    private readonly answers;
    private readonly window;
    private readonly handlers;
    private readonly streams;
    private isReady;
    private queue;
    private held;
    private running;
    private openStreams;
    private taken;
    private creditSent;
    private readonly sequences;
    private readonly allInOrder;
    private idle;
    private isHeldBack;
    /** Called once when something waits that has come before the start was over. */
    whenHeld: (() => void) | undefined;
    constructor(connection: IncomingOwner, answers: Answers, window: number, options: Options, isReady: boolean);
    /** Lets requests and one-ways be handled. */
    ready(): void;
    /** Resolves once no request is handled or waits. */
    whenIdle(): Promise<void>;
    /** Ends the work: the caller is gone. What waits is handled only if it may still be answered. */
    end(reason: string, isWritable: boolean): void;
    cancelled(threadId: ThreadId, request: Request | undefined): void;
    take(threadId: ThreadId, isOneWay: boolean, command: string, buffer: Buffer, context: Context): void;
    private refuseStream;
    /** True if requests or one-ways wait. */
    get isWaiting(): boolean;
    /** Handles what waits, as far as it may be. */
    work(): void;
    private handle;
    private finished;
    private finishedBadly;
    private left;
    private completed;
    private failed;
    private forget;
    took(weight: number): void;
    credit(): void;
    /** Stops reading from a peer that sends more than is handled, unless it is needed for a reply. */
    private holdBack;
    /** Reads again, or stops to, as what is held and the open calls have changed. */
    release(): void;
    private isIdle;
    private wakeIdle;
}
declare function isIterable<T = Payload>(value: unknown): value is AsyncIterable<T>;

/** Keys of the `GetMetadata` exchange. */
/** What one side has named. */
interface Offer {
    features: ReadonlySet<string>;
    window: number;
    streamWindow: number;
    interfaceVersions: number[] | undefined;
    services: string;
    /** JSON text. */
    config: string | undefined;
    logLevel: string | undefined;
}
declare const DEFAULT_WINDOW: number;
declare const DEFAULT_STREAM_WINDOW: number;
/** Longest metadata and configuration, in bytes. */
declare const METADATA_LIMIT: number;
/** Features of a peer that has named none. */
declare const NOTHING: Offer;
/** Returns the number that a text of the grammar is, or undefined. */
declare function parseNumber(text: string | undefined): number | undefined;
/** Reads a JSON object of metadata; values that are no strings become their JSON text. Undefined if it is none. */
declare function parseMetadata(buffer: Buffer): Record<string, string> | undefined;
/** Reads the protocol's keys of metadata. */
declare function parseOffer(metadata: Record<string, string>): Offer;
/** Versions that both lists have: the highest. `null` if they have none in common, undefined without lists. */
declare function commonVersion(own: readonly number[] | undefined, peer: readonly number[] | undefined): number | null | undefined;
/** Metadata of this side, with the protocol's keys. */
declare function offer(own: Record<string, string>, side: {
    features: readonly string[];
    window: number;
    streamWindow: number;
    interfaceVersions?: readonly number[] | undefined;
    services: string;
}): Record<string, string>;

/** Calls of this side that wait for their responses, and the streams that it has opened. */
/** Connection of the calls. */
interface OutgoingOwner {
    warn(message: string): void;
    /** A call has ended. */
    release(): void;
}
/** Part of a call that few calls have. */
interface CallExtra {
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
interface OpenCall {
    command: string;
    resolve: (reply: Buffer) => void;
    reject: (error: unknown) => void;
    extra: CallExtra | undefined;
}
/** Calls and streams, by number. */
declare class Outgoing {
    private readonly connection;
    private readonly calls;
    private readonly oneWayStreams;
    constructor(connection: OutgoingOwner);
    /** True while a call waits. */
    get isWaiting(): boolean;
    /** Has a call wait for its response. */
    open(id: ThreadId, call: OpenCall): void;
    /** Takes a call out that was given up; its response is ignored. Returns false if it is not there. */
    take(id: ThreadId): boolean;
    openOneWayStream(id: ThreadId, sender: PartSender): void;
    closeOneWayStream(id: ThreadId): void;
    /** Parts of the reply of a call. */
    partsOf(id: ThreadId): Parts | undefined;
    /** Takes the window of the other side's streams. */
    widen(window: number): void;
    /** Fails all: the connection has ended. */
    end(reason: CloseReason): void;
    /** Ends the call whose response was over a limit. */
    skipped(chunk: Skipped, text: string): void;
    response(threadId: ThreadId, command: string, buffer: Buffer): void;
    private reservedResponse;
    private settle;
    private endCall;
    private finish;
    private progress;
}

/** Pipes of a connection: reads into one buffer, writes at once, and spins before it sleeps. */
/** Receiver of what comes over a transport. */
interface Input {
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
type Ends = {
    read: number;
    write: number;
} | {
    reader: Readable;
    writer: Writable;
};
/** Two directions of bytes. */
declare class Transport implements ByteWriter {
    private readonly input;
    private readonly reader;
    private readonly writer;
    /** Descriptor to write to directly; -1 if there is none. */
    private fd;
    private readonly own;
    private current;
    private readonly spinner;
    /** Bytes for which the peer had no room yet. */
    private backlog;
    private isReading;
    private isEnded;
    private isClosed;
    /** True if each write has to be one of its own. */
    atomic: boolean;
    constructor(ends: Ends, input: Input, spin: number);
    /** True if a socket is both directions. */
    private get isOneSocket();
    /** Bytes that wait for the peer. */
    get waiting(): number;
    write(bytes: Buffer, length: number, more: Uint8Array | undefined): void;
    /** Notes that what was written may be answered soon. */
    expect(isSure: boolean): void;
    /** Stops reading; bytes that were read already still come. */
    pause(): void;
    /** Reads again after `pause`. */
    resume(): void;
    /** Lets a process end that has nothing but this connection. */
    unref(): void;
    /** Ends the output once all is written, and reads no more. */
    close(): void;
    private send;
    /** Writes the rest to a file or terminal, which takes all. */
    private writeBlocking;
    private failed;
    private nextPlace;
    private took;
    private tookBytes;
    private end;
}
/** Returns true if the descriptor is a pipe or a socket. */
declare function isStream(fd: number): boolean;

/** Connection of either side: calls in flight, requests that are handled, flow, and the end. */
/** What differs between a guest's and a host's connection. */
interface Side {
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
declare class Connection implements Input, IncomingOwner, OutgoingOwner, AnswersOwner {
    readonly streamWindow: number;
    readonly window: number;
    readonly side: Side;
    peer: Offer;
    /** Calls and streams wait no longer for an answer. */
    reason: CloseReason | undefined;
    private readonly transport;
    private readonly decoder;
    private readonly encoder;
    private readonly room;
    private isFlushing;
    private unflushed;
    private readonly doFlush;
    readonly outgoing: Outgoing;
    private nextId;
    private readonly pace;
    readonly incoming: Incoming;
    readonly answers: Answers;
    private written;
    private isReaderGone;
    private isNegotiated;
    /** True for a peer that may lose what does not come in one read. */
    isOneRead: boolean;
    /** Set with `reason`, or before, while the side explains it. */
    isOver: boolean;
    constructor(ends: Ends, format: Format | undefined, side: Side, options: Options, isReady: boolean);
    get commands(): readonly string[];
    /** Until a host has its guest's answer, one part. */
    get peerStreamWindow(): number;
    /** True once a chunk has come. */
    get hasHeard(): boolean;
    get format(): Format;
    get hasOpenCalls(): boolean;
    pauseReading(): void;
    resumeReading(): void;
    /** Takes what the other side has named. */
    negotiate(offer: Offer): void;
    /** True if the other side may lose a part of so large a chunk. */
    mayCut(command: string, payload: Payload): boolean;
    /** True once a host has its guest's answer, and a guest its host's question. */
    get hasNegotiated(): boolean;
    has(feature: string): boolean;
    warn(message: string): void;
    release(): void;
    /** True if a call may be sent at once. */
    canSend(): boolean;
    /** Sends a request at once, and returns its number. */
    sendRequest(command: string, payload: Payload, call: OpenCall): number;
    /** Sends a ping, which has no weight. */
    sendPing(call: OpenCall): number;
    /** Sends the context of the request or one-way that follows, with the number that this one will have. */
    sendContext(text: string): void;
    /** Sends a one-way at once: with a number if it has a context or a stream. Returns that. */
    sendOneWay(command: string, payload: Payload, isNumbered: boolean): number;
    /** Calls back when a call may be sent: in the order of the calls. Returns a function that takes it back. */
    whenSendable(call: () => void): () => void;
    /** Takes a call out that was given up; its response is ignored. */
    giveUp(id: ThreadId): void;
    send(threadId: ThreadId, direction: number, command: string, payload: Payload): void;
    isFull(): boolean;
    /** True if answers would only wait, since the other side does not read. */
    isHeldUp(): boolean;
    whenRoom(call: () => void): void;
    /** True while answers can be written: a peer that sends no more may still read, as the end of a pipeline. */
    private get isWritable();
    /** Resolves once everything is written, or cannot be. */
    whenWritten(): Promise<void>;
    /** Ends the connection. What was sent is still written. */
    close(reason: CloseReason): void;
    private end;
    /** Closes the descriptors, once what was sent is written. */
    destroy(): void;
    unref(): void;
    read(bytes: Buffer, count: number): void;
    place(): Buffer | undefined;
    readInPlace(count: number): void;
    ended(error: Error | undefined): void;
    drained(): void;
    writeFailed(error: Error): void;
    /** Takes a total of the other side's credit. Returns false for one that cannot be. */
    takeCredit(total: number): boolean;
    /** Goes on with all that may have waited. */
    pump(): void;
    private schedule;
    private flushNow;
    private flush;
    private afterRead;
    /** Takes the format of the first chunk, before anything is written. */
    showFormat(): void;
    private broken;
    private wakeWritten;
}

/** Descriptors of a guest, and the guard around standard input and output. */
/** Descriptors from the command line. */
interface Plan {
    read: number;
    write: number;
    /** True if both were given by number. */
    told: boolean;
    /** The plugin's own arguments. */
    args: string[];
}
/** Error of registering with a host. */
declare class RegisterError extends Error {
    readonly name = "RegisterError";
}
/** Reads the descriptors, if the first two arguments are numbers. */
declare function plan(args: readonly string[]): Plan;
/** Returns true if no host can be at the other end: this was started in a terminal, or without an input. */
declare function isByHand(plan: Plan): boolean;
/** Makes both descriptors the connection's own: what is printed goes to standard error from here on. */
declare function take(plan: Plan): {
    read: number;
    write: number;
};

/** Checks of JSON values against the part of JSON Schema (2020-12) that descriptions of services use. */
/** JSON Schema. */
type Schema = boolean | {
    readonly [key: string]: unknown;
};
/** Place and reason of a value that does not fit. */
interface Misfit {
    /** Path of the value, such as `user.name`. Empty for the whole. */
    path: string;
    /** What is said of the value, such as `is missing`. */
    message: string;
}
type Defs = Readonly<Record<string, Schema>>;
/** Returns the first misfit of a value, or undefined if it fits. */
declare function misfit(value: unknown, schema: Schema, defs?: Defs, path?: string): Misfit | undefined;
/** Adds the defaults of arguments that are missing. */
declare function withDefaults(value: Record<string, unknown>, schema: Schema | undefined): Record<string, unknown>;

/** Typed services: sets of commands that describe themselves. */
/** Description of a method, as `GetServices` gives it. */
interface MethodDescription {
    name: string;
    /** The cmd that calls it. Default: `service.method`. */
    command?: string;
    docs?: string;
    one_way?: boolean;
    idempotent?: boolean;
    /** Schema of the arguments, an object. */
    arguments?: Schema;
    items_in?: Schema;
    items_out?: Schema;
    result?: Schema;
    error?: Schema;
}
/** Description of a service. */
interface ServiceDescription {
    name: string;
    version: number;
    /** Oldest version whose callers are served. Default: `version`. */
    oldest?: number;
    docs?: string;
    methods: readonly MethodDescription[];
    $defs?: Readonly<Record<string, Schema>>;
}
/**
 * Method of an implementation: takes the arguments as an object, and the request, whose `parts` are the items as
 * JSON. It returns the result, or an async iterable of the items of its result.
 */
type Method = (args: any, request: ServiceRequest) => unknown;
/** Request of a method: also gives the items that the caller sends. */
interface ServiceRequest extends Request {
    /** Items that follow the arguments. */
    items<T = unknown>(): AsyncIterable<T>;
}
/** Description with the functions of its methods. */
interface Service {
    description: ServiceDescription;
    implementation: Readonly<Record<string, Method>>;
}
/** Error of a method's own, which its caller gets as data. */
declare class MethodError extends Failure {
    constructor(message: string, error: unknown);
}
/** Joins a description with the functions of its methods. */
declare function service<T extends object>(description: ServiceDescription, implementation: T): Service;
/** Description as it is sent. */
declare function describe({ description }: Service): object;
/** Value of `pipeplug.services`. */
declare function namesOf(services: readonly Service[]): string;
/** Handlers of a service, by command. */
declare function handlerOf({ description, implementation }: Service): [string, Handler][];
/** Call of a method with items: send those it takes, and loop over those that it gives. */
interface ItemCall<In, Out, Result> extends AsyncIterable<Out> {
    send(item: In): Promise<void>;
    finish(): Promise<void>;
    readonly result: Promise<Result>;
}
/** Function of a client: takes the arguments as an object. */
type ClientMethod = (args?: Record<string, unknown>, options?: CallOptions) => unknown;
/** Returns an object with a function for each method of the description. */
declare function client<T extends object>(caller: Caller, description: ServiceDescription): T;
/** Throws if the other side does not have a service, or in a version that does not serve this one. */
declare function checkServed(named: string, description: ServiceDescription): void;

/** Options of a plugin. */
/** Level of a log, from the fewest events to the most. */
type LogLevel = "off" | "error" | "warn" | "info" | "debug" | "trace";
declare const LEVELS: readonly string[];
/** Commands by name, with their handlers. */
type Commands = Readonly<Record<string, Handler>>;
/** Description of a plugin. */
interface GuestOptions extends Options {
    /** Commands by name. */
    commands?: Commands;
    /** Handler of all commands that `commands` and `services` do not have. */
    handler?: Handler;
    /** Services, with their methods. */
    services?: readonly Service[];
    /** Metadata for the host, such as `Description`. */
    metadata?: Readonly<Record<string, string>>;
    /** Versions of the application's interface that this plugin speaks. */
    interfaceVersions?: readonly number[];
    /** Runs before the first request is handled. It may call the host. What it throws ends the start. */
    start?: (main: Main) => void | Promise<void>;
    /** Milliseconds that handlers have to end after `cmd.stop`, or after the host is gone. Default: 5,000. */
    grace?: number;
    /** Whether the process exits at the end of the connection: 0 after a stop, 1 after a lost host. Default: "exit". */
    onEnd?: "exit" | "stay";
    /** Arguments of the program, for tests. Default: those of the process. */
    args?: readonly string[];
}
declare const GUEST: Shape;

/** The plugin's side: registers with the host that has started this program. */
/** Reason why a plugin has to end. */
type Stop = "asked" | "hostGone";
/** The host, as its plugin sees it. */
declare class Main extends Caller {
    /** Arguments of the plugin's own. */
    readonly args: readonly string[];
    /** Resolves to the exit status when the connection has ended. */
    readonly ended: Promise<number>;
    /** Aborted when the plugin is to end; the reason is a `Stop`. */
    readonly stopping: AbortSignal;
    private readonly guest;
    /** Made by `register`. */
    constructor(guest: Guest, connection: Connection);
    /** Metadata of the host; without the configuration. */
    get metadata(): Readonly<Record<string, string>>;
    /** Configuration that the host has for this plugin; undefined if it has none. */
    config<T = unknown>(): T | undefined;
    /** Version of the interface that both sides speak; undefined if one names none. */
    get interfaceVersion(): number | undefined;
    /** Level that the host has set; undefined if it leaves that to the plugin. */
    get logLevel(): LogLevel | undefined;
    /** Logs an event to standard error, as a line that the host understands, if the level is one that it wants. */
    log(level: Exclude<LogLevel, "off">, message: string, fields?: Record<string, unknown>): void;
}
/** Registers with the host: takes the descriptors over, and answers what it asks. */
declare function register(options: GuestOptions): Main;
declare class Guest implements Side {
    readonly name: string;
    readonly plan: Plan;
    readonly handler: Handler;
    readonly commands: readonly string[];
    readonly stopping: AbortController;
    readonly ended: Promise<number>;
    hostMetadata: Readonly<Record<string, string>>;
    version: number | undefined;
    level: LogLevel | undefined;
    private readonly options;
    private connection;
    private main;
    private resolveEnded;
    private metadata;
    private starting;
    private isIntroduced;
    private isStopping;
    private isOver;
    private isFinished;
    private warnings;
    constructor(options: GuestOptions);
    begin(): Main;
    protocol(threadId: ThreadId, command: string, buffer: Buffer): boolean;
    notice(command: string, buffer: Buffer): void;
    closed(reason: CloseReason): void;
    /** Logs the 1st, 2nd, 4th, 8th, … warning: the host could cause them without limit. */
    warn(message: string): void;
    private connect;
    private beginListening;
    /** Starts although the host has asked something else first: an older one, or a person with a pipe. */
    private startWithoutMetadata;
    private startNow;
    /** Waits until what has come before the end of the start is let in. */
    private settle;
    /** Answers the host's first question, once the start call-back has run. */
    private introduce;
    private start;
    private setLevel;
    /** The host said stop: answers what it has asked, then ends. */
    private stop;
    /** The connection has ended: handlers that still run have the grace time. */
    private end;
    private within;
    private finish;
    private withoutHost;
    private refuse;
    private say;
}

/** Process of a plugin: pipes, start, lines that it prints, and end. */
/** Output that a plugin prints to. */
type Output = "stdout" | "stderr";
/** How a program is started. */
interface Launch {
    path: string;
    args: readonly string[];
    env: Readonly<Record<string, string>>;
    cwd: string | undefined;
    stdio: boolean;
    /** True for a plugin that has to be told to use stdin and stdout, as those of the original Go package. */
    isClassic: boolean;
    onLine: ((line: string, output: Output) => void) | undefined;
}
/** Exit status, or the signal that ended the process. */
interface Exit {
    status: number | null;
    signal: NodeJS.Signals | null;
}
/** Returns how a process has ended, in words. */
declare function howEnded({ status, signal }: Exit): string;
/** Environment of a plugin unless the user chooses another. */
declare function defaultEnv(): Record<string, string>;
/** A program that was started. */
declare class PluginProcess {
    readonly ends: {
        read: number;
        write: number;
    };
    readonly pid: number;
    /** Resolves when the process has ended and its last lines have come. */
    readonly exited: Promise<Exit>;
    exit: Exit | undefined;
    private readonly tailLines;
    /** The last lines but for those that tell people little. */
    private readonly telling;
    /** Program that the kernel starts by itself. */
    private readonly path;
    private readonly child;
    private readonly outputs;
    private constructor();
    /** Starts a program with two pipes. */
    static start(launch: Launch): Promise<PluginProcess>;
    /** Last lines of standard error. */
    get tail(): readonly string[];
    /** The last of them, for the end of a message. */
    get said(): string;
    /** Reason for its end that its file shows. */
    get problemOfLine(): string | undefined;
    /** Sends a signal to the process and all that it has started, but for those that left its group. */
    kill(signal: NodeJS.Signals): void;
    /** Waits for the end, at most for so many milliseconds; undefined then. */
    within(time: number): Promise<Exit | undefined>;
    unref(): void;
    private readLines;
}

/** Options of a plugin's start, and the result of its end. */
/** Time for each step of a stop before the next one, in milliseconds. */
interface Grace {
    /** After `cmd.stop`. Default: 5,000. */
    stop?: number;
    /** After the end of its input. Default: 1,000. */
    endOfFile?: number;
    /** After SIGTERM to its process group; SIGKILL follows. Default: 2,000. */
    term?: number;
}
/** How a plugin is started, and what it may ask. */
interface PluginOptions extends Options {
    /** Commands that the plugin may call, by name. */
    commands?: Commands;
    /** Handler of all other commands. */
    handler?: Handler;
    /** Services that the plugin may call. */
    services?: readonly Service[];
    /** Arguments of the plugin's own. */
    args?: readonly string[];
    /** Variables in addition to PATH, HOME, LANG, LC_*, TERM, TMPDIR and TZ, or in place of them. */
    env?: Readonly<Record<string, string | undefined>>;
    /** Directory that the plugin runs in. */
    cwd?: string;
    /** Talks over the plugin's stdin and stdout in place of descriptors 3 and 4. */
    stdio?: boolean;
    /** Form of chunks. Default: "standard". */
    format?: Format;
    /** Name for messages. Default: that of the file. */
    name?: string;
    /** Metadata for the plugin. */
    metadata?: Readonly<Record<string, string>>;
    /** Configuration of the plugin: any JSON, at most 1 MiB. */
    config?: unknown;
    /** Versions of the application's interface that this host speaks. */
    interfaceVersions?: readonly number[];
    /** Level of the plugin's log. */
    logLevel?: LogLevel;
    /** Takes each line that the plugin prints. Default: they go to this program's standard error. */
    onLine?: (line: string, output: Output) => void;
    /** Milliseconds that the plugin has to answer the first question. Default: 10,000. */
    startTimeout?: number;
    /** Times of a stop. */
    grace?: Grace;
    /** Ends the start early. */
    signal?: AbortSignal;
}
/** Result of a stop. */
interface Stopped extends Exit {
    /** Step that ended the plugin. */
    by: "itself" | "stop" | "endOfFile" | "term" | "kill" | "letGo";
}
declare const STOP: Shape;
declare const PLUGIN: Shape;

/** The host's end of a connection: asks for the metadata, and ends the plugin. */
/** What the host knows of a plugin that has started. */
interface Introduced {
    metadata: Readonly<Record<string, string>>;
    version: number | undefined;
}
/** Host of one plugin. */
declare class Host implements Side {
    readonly name: string;
    readonly connection: Connection;
    readonly process: PluginProcess | undefined;
    readonly handler: Handler;
    readonly commands: readonly string[];
    readonly closedReason: Promise<CloseReason>;
    private readonly options;
    private resolveClosed;
    private lastStep;
    /** Reason of an end that was not this side's wish, as the connection names it. */
    private lost;
    constructor(name: string, ends: Ends, options: PluginOptions, process: PluginProcess | undefined);
    protocol(threadId: ThreadId, command: string): boolean;
    notice(): void;
    /** Names the plugin, and how it has ended. */
    explain(reason: CloseReason): Promise<CloseReason>;
    closed(reason: CloseReason): void;
    warn(_message: string): void;
    /** Asks for the metadata. A start that fails leaves no process. */
    greet(): Promise<Introduced>;
    stop(grace: Grace): Promise<Stopped>;
    kill(): Promise<Stopped>;
    private closedWithin;
    private letGo;
    private stopped;
    private offer;
    private config;
    private ask;
    private get tail();
    /** Reason of a start that the end of the connection has ended. */
    private endMessage;
    private get quoted();
    private get said();
    /** Options that were not tried. */
    private otherWays;
    private agree;
}

/** The host's side: starts a plugin, calls it, and stops it. */
/** Program that was started, and can be called. */
declare class Plugin extends Caller {
    /** Name for messages. */
    readonly name: string;
    /** Metadata of the plugin. */
    readonly metadata: Readonly<Record<string, string>>;
    /** Version of the interface that both sides speak; undefined if one names none. */
    readonly interfaceVersion: number | undefined;
    /** Resolves when the connection has ended. */
    readonly closed: Promise<CloseReason>;
    private readonly host;
    private stopping;
    /** Made by `Plugin.start`. */
    constructor(host: Host, metadata: Readonly<Record<string, string>>, version: number | undefined);
    /** Starts the program at a path, and waits for its metadata. A `.js`, `.mjs` or `.cjs` file is run by this Node. */
    static start(path: string, options?: PluginOptions): Promise<Plugin>;
    /** Connects to a plugin that waits at a socket (`--pipeplug-listen`). */
    static attach(path: string, options?: PluginOptions): Promise<Plugin>;
    private static of;
    /** Process id; undefined for a plugin that was attached to. */
    get pid(): number | undefined;
    /** Exit status, once the plugin has ended. */
    get exit(): Exit | undefined;
    /** Last lines that the plugin has written to its standard error. */
    get stderrTail(): readonly string[];
    /** Functions of a service of the plugin. Throws if the plugin does not have it. */
    client<T extends object>(description: ServiceDescription): T;
    /** Sets the level of the plugin's log. */
    setLogLevel(level: LogLevel): void;
    /** Ends the plugin: `cmd.stop`, then the end of its input, then SIGTERM, then SIGKILL, each after a time. */
    stop(grace?: Grace): Promise<Stopped>;
    /** Ends the plugin and all that it has started at once. */
    kill(): Promise<Stopped>;
    /** Lets this program end although the plugin still runs; it is killed then. */
    unref(): void;
}

export { CallError, CallErrorKind, CallOptions, Caller, CloseReason, Commands, ContextValues, Exit, Failure, Format, Grace, GuestOptions, Handler, HandlerResult, ItemCall, Limits, LogLevel, Main, Method, MethodDescription, MethodError, NotifyOptions, Options, Output, PartSender, Parts, Payload, Plugin, PluginOptions, Progress, ProtocolError, Request, Schema, Service, ServiceDescription, ServiceRequest, StartError, Stop, Stopped, StreamCall, StreamError, StreamErrorKind, client, failureCode, register, service };
