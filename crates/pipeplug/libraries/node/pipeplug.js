// The library pipeplug for Node in one file, made of sdk/node/src by sdk/node/single.mjs. Do not change it here.
// SPDX-License-Identifier: MIT OR Apache-2.0

import { AsyncLocalStorage } from "node:async_hooks";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { accessSync, chmodSync, closeSync, constants, createReadStream, fstatSync, lstatSync, openSync, readSync, readlinkSync, rmSync, statSync, writeSync, writevSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { Socket, connect, createServer } from "node:net";
import { availableParallelism, cpus, tmpdir } from "node:os";
import { basename, dirname, isAbsolute, join, resolve } from "node:path";
import { PassThrough } from "node:stream";
import { isatty } from "node:tty";
import { inspect, types } from "node:util";

/** Listeners of abort signals: one for each signal, however many calls share it. */
const listeners = new WeakMap();
/**
 * Calls back when the signal is aborted. Returns a function that takes it back. A signal with a listener for each of a
 * thousand calls would have Node warn of a leak.
 */
function onAbort(signal, call) {
    let calls = listeners.get(signal);
    if (calls === undefined) {
        const own = new Set();
        const aborted = () => {
            listeners.delete(signal);
            for (const each of own)
                each();
        };
        signal.addEventListener("abort", aborted, { once: true });
        calls = own;
        listeners.set(signal, own);
        removers.set(own, () => {
            signal.removeEventListener("abort", aborted);
            listeners.delete(signal);
        });
    }
    const own = calls;
    own.add(call);
    return () => {
        if (own.delete(call) && own.size === 0)
            removers.get(own)?.();
    };
}
const removers = new WeakMap();

/** Checks of options: JavaScript callers may misspell a name, or pass a value of another type. */
const isObject = (value) => typeof value === "object" && value !== null;
const isText = (value) => typeof value === "string";
const isNumber = (value) => typeof value === "number" && !Number.isNaN(value);
const isNatural = (value) => isNumber(value) && value >= 0;
const isListOf = (value, fits) => Array.isArray(value) && value.every(fits);
const isRecordOf = (value, fits) => isObject(value) && !Array.isArray(value) && Object.values(value).every(fits);
const kind = (noun, fits) => ({ noun, fits });
const ANY = kind("anything", () => true);
const MILLISECONDS = kind("a number of milliseconds", isNumber);
/** Time to wait; that of a call may be negative, since it is often what is left of another. */
const WAIT = kind("a number of milliseconds from 0 on", isNatural);
const MICROSECONDS = kind("a number of microseconds from 0 on", isNatural);
const BYTES = kind("a number of bytes from 0 on", isNatural);
const COUNT = kind("a number from 0 on", isNatural);
const NUMBERS = kind("an array of numbers", (value) => isListOf(value, isNumber));
const FLAG = kind("true or false", (value) => typeof value === "boolean");
const TEXT = kind("a string", isText);
const TEXTS = kind("an array of strings", (value) => isListOf(value, isText));
const TEXT_BY_NAME = kind("an object of strings", (value) => isRecordOf(value, isText));
const VARIABLES = kind("an object of strings", (value) => isRecordOf(value, (item) => item === undefined || isText(item)));
const FUNCTION = kind("a function", (value) => typeof value === "function");
const FUNCTIONS = kind("an object of functions, by command", (value) => isRecordOf(value, (item) => typeof item === "function"));
const SERVICES = kind("an array of services, as service() returns them", (value) => isListOf(value, (item) => isObject(item) && isObject(item.description) && isObject(item.implementation)));
const SIGNAL = kind("an AbortSignal", (value) => isObject(value) && typeof value.aborted === "boolean");
const ORDER = kind("true, or an array of arrays of commands", (value) => value === true ? true : isListOf(value, (commands) => isListOf(commands, isText)));
/** One of some words. */
function oneOf(...words) {
    const shown = words.map((word) => JSON.stringify(word));
    return kind(`${shown.slice(0, -1).join(", ")} or ${shown.at(-1)}`, (value) => words.includes(value));
}
/** Options inside an option. */
function nested(shape) {
    return kind("an object", (value) => {
        checkOptions(value, shape);
        return true;
    });
}
/** Throws a `TypeError` that names the option that does not exist, or whose value does not fit. */
function checkOptions(options, shape) {
    if (options === undefined)
        return;
    if (!isObject(options))
        throw new TypeError(`the options of ${shape.of} have to be an object, not ${shown(options)}`);
    for (const name in options) {
        const expected = Object.hasOwn(shape.options, name) ? shape.options[name] : undefined;
        const value = options[name];
        if (expected === undefined)
            throw unknown(name, value, shape);
        if (value !== undefined && !expected.fits(value)) {
            throw new TypeError(`the option ${JSON.stringify(name)} of ${shape.of} has to be ${expected.noun}, not ${shown(value)}`);
        }
    }
}
function unknown(name, value, shape) {
    const names = Object.keys(shape.options);
    const near = nearest(name, names);
    const next = near === undefined ? `it has ${names.join(", ")}` : `did you mean ${JSON.stringify(near)}?`;
    return new TypeError(`${shape.of} has no option ${JSON.stringify(name)} (it was given ${shown(value)}); ${next}`);
}
/** Returns what a value is, in words. */
function shown(value) {
    if (typeof value === "string") {
        return `the string ${JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value)}`;
    }
    if (typeof value === "function")
        return "a function";
    if (!isObject(value))
        return String(value);
    try {
        if (Array.isArray(value))
            return "an array";
        const name = value.constructor?.name;
        return typeof name !== "string" || name === "" || name === "Object" ? "an object" : `an object of ${name}`;
    }
    catch {
        // A proxy, or a getter that throws.
        return "an object";
    }
}
/** The name that differs least, if that is little. */
function nearest(name, names) {
    const lower = name.toLowerCase();
    const ranked = names
        .map((known) => [distance(lower, known.toLowerCase()), known])
        .sort(([a], [b]) => a - b);
    const [first] = ranked;
    return first !== undefined && first[0] <= Math.max(1, Math.floor(name.length / 3)) ? first[1] : undefined;
}
/** Number of characters to put in, take out or replace. */
function distance(from, to) {
    let row = Array.from({ length: to.length + 1 }, (_, i) => i);
    for (let i = 1; i <= from.length; i++) {
        const above = row;
        row = [i];
        for (let j = 1; j <= to.length; j++) {
            const replaced = above[j - 1] + (from[i - 1] === to[j - 1] ? 0 : 1);
            row.push(Math.min(replaced, above[j] + 1, row[j - 1] + 1));
        }
    }
    return row[to.length];
}
/** Longest time of a timer, and the number of milliseconds for one. */
function timerTime(milliseconds) {
    return Math.max(0, Math.min(0x7fff_ffff, milliseconds));
}

/** Chunks, as they are decoded, and their limits. */
const DEFAULT_LIMITS = { command: 65536, buffer: 256 * 1024 * 1024 };
const ONE_WAY = 1;
const REQUEST = 2;
const RESPONSE = 3;

/** Properties of a call beyond its chunk: `cmd.context`, and what handlers pass on. */
/** Longest context, in bytes. */
const CONTEXT_LIMIT = 4096;
const NO_VALUES = Object.freeze({});
const NO_CONTEXT = Object.freeze({
    deadline: undefined,
    sends: false,
    receives: false,
    progress: false,
    values: NO_VALUES,
});
/** Returns the context of a buffer, or undefined if it is none. */
function parseContext(buffer) {
    if (buffer.length > CONTEXT_LIMIT)
        return undefined;
    const text = buffer.toString("utf8");
    let value;
    try {
        value = JSON.parse(text);
    }
    catch {
        return undefined;
    }
    if (typeof value !== "object" || value === null || Array.isArray(value))
        return undefined;
    const keys = value;
    const { deadline_ms: deadline, stream, progress, values } = keys;
    if (deadline !== undefined && !isWhole(deadline, text))
        return undefined;
    if (stream !== undefined && typeof stream !== "string")
        return undefined;
    if (progress !== undefined && typeof progress !== "boolean")
        return undefined;
    if (values !== undefined && !isStrings(values))
        return undefined;
    const words = stream?.split(" ") ?? [];
    return {
        deadline: deadline,
        sends: words.includes("send"),
        receives: words.includes("receive"),
        progress: progress === true,
        values: values ?? NO_VALUES,
    };
}
/** Returns true for a number from 0 to 2^64-1 that is written in digits only. */
function isWhole(value, text) {
    if (typeof value !== "number")
        return false;
    // JSON.parse does not tell 1e3 and 1.0 from 1000 and 1: the last occurrence of the key counts.
    const written = [...text.matchAll(/"deadline_ms"\s*:\s*([^,}\s]*)/g)].at(-1)?.[1] ?? "";
    return /^(0|[1-9][0-9]{0,19})$/.test(written) && BigInt(written) <= 0xffffffffffffffffn;
}
function isStrings(value) {
    if (typeof value !== "object" || value === null || Array.isArray(value))
        return false;
    return Object.values(value).every((item) => typeof item === "string");
}
let scopes;
/** Runs a handler whose calls carry the scope on, however many awaits are between. */
function runInScope(scope, run) {
    // Made when it is needed first, since it makes each promise a bit slower from then on.
    scopes ??= new AsyncLocalStorage();
    return scopes.run(scope, run);
}
/** Scope of the handler that this code belongs to. */
function currentScope() {
    return scopes?.getStore();
}

/** Encoder of chunks into a buffer that is written as a whole. */
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
function isWritable(format, command) {
    return format === "standard" || !/[ \0]/.test(command);
}
/** Returns true for what can be the data of a chunk: JavaScript callers may pass anything. */
function isPayload(value) {
    // A proxy of bytes has no length.
    return typeof value === "string" || value == null || types.isUint8Array(value);
}
/** Assembles chunks, and gives them to an output. */
class Encoder {
    format;
    output;
    buffer = Buffer.allocUnsafeSlow(SIZE);
    used = 0;
    commands = new Map();
    constructor(format, output) {
        this.format = format;
        this.output = output;
    }
    /** Number of bytes that `flush` would write. */
    get pending() {
        return this.used;
    }
    /** Adds a chunk. Returns the length of its cmd and buffer together. */
    add(threadId, direction, command, payload) {
        const cached = this.command(command);
        const buffer = this.buffer;
        let text;
        let bytes;
        let length = 0;
        if (typeof payload === "string") {
            if (payload.length <= SHORT) {
                text = payload;
                length = text.length;
            }
            else {
                length = Buffer.byteLength(payload);
                if (length < LARGE)
                    text = payload;
                else
                    bytes = Buffer.from(payload);
            }
        }
        else if (payload != null) {
            bytes = payload;
            length = bytes.length;
        }
        const classic = this.format === "classic";
        const isLarge = length >= LARGE && bytes !== undefined;
        // A short string may need three bytes for each character.
        const room = HEADER + cached.bytes.length + (isLarge ? 0 : Math.max(length, text === undefined ? 0 : SHORT * 3));
        if (this.used + room > (classic ? ATOMIC : SIZE) && this.used > 0)
            this.flush();
        if (room > SIZE)
            return this.addLong(threadId, direction, cached, bytes ?? Buffer.from(text ?? ""));
        let at = this.used;
        let isAscii = text === undefined || length > SHORT || this.isAscii(text);
        if (!isAscii)
            length = Buffer.byteLength(text);
        isAscii = isAscii && length <= SHORT;
        at = classic && threadId === 0 ? at : this.number(at, threadId);
        buffer[at++] = 0;
        buffer[at++] = 48 + direction;
        buffer[at++] = 0;
        const prefix = cached.bytes;
        const prefixLength = prefix.length;
        if (prefixLength <= SHORT)
            for (let i = 0; i < prefixLength; i++)
                buffer[at + i] = prefix[i];
        else
            prefix.copy(buffer, at);
        at += prefixLength;
        at = classic && length === 0 ? at : this.number(at, length);
        buffer[at++] = 0;
        if (length > 0) {
            if (text !== undefined) {
                if (isAscii)
                    for (let i = 0; i < length; i++)
                        buffer[at + i] = text.charCodeAt(i);
                else
                    buffer.write(text, at);
                at += length;
            }
            else if (isLarge) {
                this.used = 0;
                this.output.write(buffer, at, bytes);
                return cached.length + length;
            }
            else {
                const from = bytes;
                if (length <= SHORT)
                    for (let i = 0; i < length; i++)
                        buffer[at + i] = from[i];
                else
                    buffer.set(from, at);
                at += length;
            }
        }
        this.used = at;
        return cached.length + length;
    }
    /** Writes what was added. */
    flush() {
        const used = this.used;
        if (used === 0)
            return;
        this.used = 0;
        this.output.write(this.buffer, used, undefined);
    }
    isAscii(text) {
        for (let i = 0; i < text.length; i++)
            if (text.charCodeAt(i) >= 0x80)
                return false;
        return true;
    }
    /** Adds a chunk whose cmd does not fit into the buffer. */
    addLong(threadId, direction, cached, bytes) {
        const classic = this.format === "classic";
        const id = classic && threadId === 0 ? "" : String(threadId);
        const length = classic && bytes.length === 0 ? "" : String(bytes.length);
        const head = Buffer.concat([Buffer.from(`${id}\0${direction}\0`), cached.bytes, Buffer.from(`${length}\0`)]);
        this.output.write(head, head.length, bytes);
        return cached.length + bytes.length;
    }
    /** Bytes of a cmd with its length before it, as the format has it. */
    command(command) {
        let cached = this.commands.get(command);
        if (cached === undefined) {
            const length = Buffer.byteLength(command);
            const bytes = Buffer.from(this.format === "standard" ? `${length}\0${command}\0` : `${command} `);
            cached = { bytes, length };
            // A peer that calls ever new commands has to cost no memory.
            if (this.commands.size >= 256)
                this.commands.clear();
            if (length <= 256)
                this.commands.set(command, cached);
        }
        return cached;
    }
    number(at, value) {
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
        for (let limit = 100; rest >= limit && digits < 10; limit *= 10)
            digits++;
        for (let i = at + digits - 1; i >= at; i--) {
            const next = (rest / 10) | 0;
            buffer[i] = 48 + (rest - next * 10);
            rest = next;
        }
        return at + digits;
    }
}

/** Errors of handlers, calls, streams, starts and stops. */
/** Codes of failures that mean the same for every plugin. */
const failureCode = {
    unknownCommand: "unknown_command",
    refused: "refused",
    overloaded: "overloaded",
    cancelled: "cancelled",
    deadline: "deadline",
    tooLarge: "too_large",
    panicked: "panicked",
    unanswered: "unanswered",
    methodError: "method_error",
    invalidArgument: "invalid_argument",
    invalidResult: "invalid_result",
    // Of this side's own errors, which no peer sends.
    closed: "closed",
    unsupported: "unsupported",
    invalid: "invalid",
};
/** Error that a handler throws: code for programs, message for people, and JSON data. */
class Failure extends Error {
    name = "Failure";
    /** Lowercase words joined by `_`. Empty for none. */
    code;
    /** Any JSON that belongs to the code. */
    data;
    constructor(code, message, data) {
        if (typeof code !== "string" || !CODE.test(code)) {
            throw new TypeError(`the code of a Failure has to be lowercase words joined by "_", not ${shown(code)}`);
        }
        super(message);
        this.code = code;
        this.data = data;
    }
    toString() {
        return withCode(super.toString(), this.code, this.data);
    }
}
const CODE = /^([a-z][a-z0-9]*(_[a-z0-9]+)*)?$/;
/** Adds code and data to the text of an error, as `String(error)` gives it. */
function withCode(text, code, data) {
    let json;
    try {
        json = JSON.stringify(data);
    }
    catch {
        // It is sent without, too.
    }
    const words = [code, json].filter((word) => word !== undefined && word !== "");
    return words.length === 0 ? text : `${text} (${words.join(", ")})`;
}
/** Codes of this side's own errors, as the host in Rust has them. */
const CODES = {
    remote: "",
    timedOut: failureCode.deadline,
    closed: failureCode.closed,
    tooLarge: failureCode.tooLarge,
    reserved: failureCode.invalid,
    unsupported: failureCode.unsupported,
    invalid: failureCode.invalid,
};
/** Error of a call or one-way. A call that its `AbortSignal` ends rejects with the signal's reason. */
class CallError extends Error {
    name = "CallError";
    kind;
    command;
    /** Code of the other side's failure, empty if it has none; a `failureCode` if the error is of another kind. */
    code;
    /** Data of the other side's failure. */
    data;
    /** False if the other side has certainly not seen the request. */
    sent;
    constructor(kind, command, message, rest = {}) {
        super(message);
        this.kind = kind;
        this.command = command;
        this.code = rest.code ?? CODES[kind];
        this.data = rest.data;
        this.sent = rest.sent ?? true;
    }
    toString() {
        return withCode(super.toString(), this.code, this.data);
    }
}
/** Error of sending or receiving parts. */
class StreamError extends Error {
    name = "StreamError";
    kind;
    constructor(kind, message) {
        super(message);
        this.kind = kind;
    }
}
/** Error of starting a plugin. */
class StartError extends Error {
    name = "StartError";
    /** Last lines that the plugin wrote to its standard error. */
    stderr;
    constructor(message, stderr = []) {
        super(message);
        this.stderr = stderr;
    }
}
const EXPECTED = {
    "no-digits": "expected at least one digit, found NUL",
    "not-a-digit": "expected digits up to a NUL",
    "leading-zero": "expected NUL behind a leading zero",
    "too-large": "expected a number of at most 18446744073709551615",
    "no-nul": "expected NUL behind the announced length",
    "nul-in-cmd": "expected a cmd up to a space, found NUL",
    "not-utf8": "expected UTF-8",
    end: "expected further bytes, found the end of the stream",
};
/** Error of a stream that breaks the protocol, or ends inside a chunk. */
class ProtocolError extends Error {
    name = "ProtocolError";
    field;
    /** Position in the stream of the byte that broke the rule. */
    offset;
    kind;
    constructor(field, offset, kind, found) {
        const seen = found === undefined || kind === "no-digits" || kind === "end"
            ? ""
            : `, found 0x${found.toString(16).padStart(2, "0")}`;
        super(`broken chunk at byte ${offset} of the stream, in its ${field}: ${EXPECTED[kind]}${seen}`);
        this.field = field;
        this.offset = offset;
        this.kind = kind;
    }
}
/** Returns the text of anything that was thrown, with the texts of its causes. Never throws. */
function messageOf(error) {
    let text = ownMessage(error);
    let cause = causeOf(error);
    for (let depth = 0; depth < 8 && cause !== undefined; depth++) {
        text += `: ${ownMessage(cause)}`;
        cause = causeOf(cause);
    }
    // JSON of half a character is none for other languages.
    return text.replace(/\p{Surrogate}/gu, "\ufffd");
}
/** Returns the first line of that text: some of JSON.stringify have more. */
function firstLine(error) {
    return messageOf(error).split("\n", 1)[0];
}
/** True for an error of this program. Never throws, as `instanceof` does for some proxies. */
function isError(value) {
    try {
        return value instanceof Error;
    }
    catch {
        return false;
    }
}
function ownMessage(error) {
    try {
        if (!isError(error))
            return textOfAny(error);
        const { message, name } = error;
        if (message === undefined || message === "")
            return typeof name === "string" ? name : "Error";
        return textOfAny(message);
    }
    catch {
        // A getter that throws.
        return UNREADABLE;
    }
}
const UNREADABLE = "an error that has no readable message";
/** Text of a value that may have no `toString`, or one that throws. */
function textOfAny(value) {
    try {
        const text = String(value);
        if (!text.startsWith("[object ") || typeof value === "string")
            return text;
    }
    catch {
        // What it has inside may be shown.
    }
    try {
        return inspect(value, { depth: 1, breakLength: Number.POSITIVE_INFINITY });
    }
    catch {
        return UNREADABLE;
    }
}
function causeOf(error) {
    try {
        return isError(error) ? error.cause : undefined;
    }
    catch {
        return undefined;
    }
}
/** Finds code and data of the `Failure` in an error or its causes. Never throws. */
function failureOf(error) {
    let found = error;
    try {
        for (let depth = 0; depth < 8 && found instanceof Error; depth++) {
            if (found instanceof Failure)
                return { code: String(found.code), data: found.data };
            found = found.cause;
        }
    }
    catch {
        // A getter that throws.
    }
    return undefined;
}

/** Keys of the `GetMetadata` exchange. */
const DEFAULT_WINDOW = 4 * 1024 * 1024;
const DEFAULT_STREAM_WINDOW = 1024 * 1024;
/** Longest metadata and configuration, in bytes. */
const METADATA_LIMIT = 1024 * 1024;
const FEATURES = ["flow", "cancel", "context", "stream", "failure", "progress"];
/** Keys of the protocol that a program sets by itself, for the log. */
const OWN_KEYS = ["pipeplug.name", "pipeplug.version"];
/** Features of a peer that has named none. */
const NOTHING = {
    features: new Set(),
    window: DEFAULT_WINDOW,
    streamWindow: DEFAULT_STREAM_WINDOW,
    interfaceVersions: undefined,
    services: "",
    config: undefined,
    logLevel: undefined,
};
/** Returns the number that a text of the grammar is, or undefined. */
function parseNumber(text) {
    if (text === undefined || !/^(0|[1-9][0-9]{0,19})$/.test(text))
        return undefined;
    return BigInt(text) > 0xffffffffffffffffn ? undefined : Number(text);
}
/** Reads a JSON object of metadata; values that are no strings become their JSON text. Undefined if it is none. */
function parseMetadata(buffer) {
    let value;
    try {
        value = JSON.parse(buffer.toString("utf8"));
    }
    catch {
        return undefined;
    }
    if (typeof value !== "object" || value === null || Array.isArray(value))
        return undefined;
    const entries = Object.entries(value).map(([key, item]) => [
        key,
        typeof item === "string" ? item : JSON.stringify(item),
    ]);
    return Object.fromEntries(entries);
}
/** Reads the protocol's keys of metadata. */
function parseOffer(metadata) {
    const versions = metadata["pipeplug.interface_versions"];
    return {
        features: new Set((metadata["pipeplug.features"] ?? "").split(" ").filter((word) => word !== "")),
        window: Math.max(1, parseNumber(metadata["pipeplug.window"]) ?? DEFAULT_WINDOW),
        streamWindow: Math.max(1, parseNumber(metadata["pipeplug.stream_window"]) ?? DEFAULT_STREAM_WINDOW),
        interfaceVersions: versions === undefined ? undefined : parseVersions(versions),
        services: metadata["pipeplug.services"] ?? "",
        config: metadata["pipeplug.config"],
        logLevel: metadata["pipeplug.log_level"],
    };
}
function parseVersions(text) {
    return text
        .split(" ")
        .map((word) => parseNumber(word))
        .filter((number) => number !== undefined && number < 2 ** 32);
}
/** Versions that both lists have: the highest. `null` if they have none in common, undefined without lists. */
function commonVersion(own, peer) {
    if (own === undefined || peer === undefined)
        return undefined;
    const common = own.filter((version) => peer.includes(version));
    return common.length === 0 ? null : Math.max(...common);
}
/** Metadata of this side, with the protocol's keys. */
function offer(own, side) {
    const result = {};
    for (const [key, value] of Object.entries(own)) {
        if (!key.startsWith("pipeplug.") || OWN_KEYS.includes(key))
            result[key] = value;
    }
    result["pipeplug.protocol"] = "1";
    result["pipeplug.features"] = [...FEATURES, ...side.features].join(" ");
    result["pipeplug.window"] = String(side.window);
    result["pipeplug.stream_window"] = String(side.streamWindow);
    if (side.interfaceVersions !== undefined) {
        result["pipeplug.interface_versions"] = side.interfaceVersions.join(" ");
    }
    if (side.services !== "")
        result["pipeplug.services"] = side.services;
    return result;
}

/** Buffers of the protocol's own responses. */
/** Longest `cmd.failure`, and longest message of the other side that is kept, in bytes. */
const FAILURE_LIMIT = 65536;
/** Returns the text of a `cmd.failure`; without data that is no JSON, or throws while it is written. */
function failureText(code, message, data) {
    try {
        return JSON.stringify({ code, message, data });
    }
    catch {
        return JSON.stringify({ code, message });
    }
}
/** Reads a `cmd.failure`. One that is none counts as a message. */
function parseFailure(buffer) {
    const text = buffer.toString("utf8");
    const none = { code: "", message: cut(text, FAILURE_LIMIT), data: undefined };
    if (buffer.length > FAILURE_LIMIT)
        return none;
    try {
        const value = JSON.parse(text);
        if (typeof value?.code !== "string" || typeof value.message !== "string")
            return none;
        return { code: value.code, message: value.message, data: value.data ?? undefined };
    }
    catch {
        return none;
    }
}
/** Reads a report of progress; undefined if it is none. */
function parseProgress(buffer) {
    if (buffer.length > 4096)
        return undefined;
    let value;
    try {
        value = JSON.parse(buffer.toString("utf8"));
    }
    catch {
        return undefined;
    }
    const isWhole = (item) => typeof item === "number" && item >= 0 && Math.trunc(item) === item;
    if (typeof value !== "object" || value === null || !isWhole(value.done))
        return undefined;
    const progress = { done: value.done };
    if (value.total !== undefined) {
        if (!isWhole(value.total))
            return undefined;
        progress.total = value.total;
    }
    if (value.message !== undefined) {
        if (typeof value.message !== "string")
            return undefined;
        progress.message = value.message;
    }
    return progress;
}
/** Returns the beginning of a text, at most so many bytes. */
function cut(text, length) {
    if (text.length * 3 <= length || Buffer.byteLength(text) <= length)
        return text;
    const bytes = Buffer.from(text).subarray(0, length);
    return bytes.toString("utf8").replace(/\ufffd+$/, "");
}
/** Reads a credit, and gives its total on. One that is no number is ignored. */
function readCredit(buffer, take, log) {
    const total = buffer.length <= 20 ? parseNumber(buffer.toString("latin1")) : undefined;
    if (total === undefined)
        log.warn("a credit is ignored: it is no number");
    else
        take(total);
}
/** Returns true for a command that belongs to the protocol. */
function isReserved(command) {
    // Most commands differ in the first letter.
    const first = command.charCodeAt(0);
    if (first === 0x63)
        return command.startsWith("cmd.");
    return first === 0x47 && (command === "GetMetadata" || command === "GetServices");
}

/** Halves of a stream: parts that come, and parts that are sent. */
/** Weight of a part without its bytes: 64, and the length of `cmd.part`. */
const PART_WEIGHT = 72;
/** Number of bytes of a payload on the wire. */
function byteLength(payload) {
    if (payload == null)
        return 0;
    return typeof payload === "string" ? Buffer.byteLength(payload) : payload.length;
}
/** Parts that come, in order. */
class Parts {
    peer;
    window;
    queue = [];
    head = 0;
    held = 0;
    taken = 0;
    credited = 0;
    state = "open";
    error;
    isEnough = false;
    waiting = [];
    /** Made by the library. */
    constructor(peer, window) {
        this.peer = peer;
        this.window = window;
    }
    [Symbol.asyncIterator]() {
        return this;
    }
    /** Takes the next part; `done` at the end. Rejects if the parts are not complete. */
    next() {
        if (this.head < this.queue.length)
            return Promise.resolve({ done: false, value: this.shift() });
        if (this.state === "ended" || this.isEnough) {
            const error = this.error;
            // The error comes once, as that of any iterator.
            this.error = undefined;
            return error === undefined ? Promise.resolve({ done: true, value: undefined }) : Promise.reject(error);
        }
        return new Promise((resolve, reject) => this.waiting.push({ resolve, reject }));
    }
    /** Called by `break` in a loop: no more parts are wanted. */
    return() {
        this.enough();
        return Promise.resolve({ done: true, value: undefined });
    }
    /** Tells the sender that no more parts are wanted, with a reason. Those that were not taken are dropped. */
    enough(reason = "") {
        if (this.isEnough)
            return;
        const wasOpen = this.state === "open";
        this.isEnough = true;
        this.queue = [];
        this.head = this.held = 0;
        this.error = undefined;
        if (wasOpen)
            this.peer.enough(reason);
        this.settle();
    }
    /** All parts that are still to come, as one buffer. */
    async all() {
        const parts = [];
        for await (const part of this)
            parts.push(part);
        return Buffer.concat(parts);
    }
    /** @internal */
    push(part) {
        if (this.state === "ended" || this.isEnough)
            return;
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
    end(error) {
        if (this.state === "ended")
            return;
        this.state = "ended";
        if (!this.isEnough)
            this.error = error;
        this.settle();
    }
    /** @internal True if nothing more comes. */
    get isEnded() {
        return this.state === "ended" || this.isEnough;
    }
    shift() {
        const part = this.queue[this.head];
        this.queue[this.head++] = undefined;
        if (this.head === this.queue.length) {
            this.queue = [];
            this.head = 0;
        }
        this.held -= PART_WEIGHT + part.length;
        this.take(part);
        return part;
    }
    take(part) {
        this.taken += PART_WEIGHT + part.length;
        if (this.state !== "open" || this.taken - this.credited < this.window / 2)
            return;
        this.credited = this.taken;
        this.peer.credit(this.taken);
    }
    settle() {
        const waiting = this.waiting;
        this.waiting = [];
        for (const { resolve, reject } of waiting) {
            const error = this.error;
            this.error = undefined;
            if (error === undefined)
                resolve({ done: true, value: undefined });
            else
                reject(error);
        }
    }
}
/** Sends parts, as fast as the receiver takes them. */
class PartSender {
    peer;
    /** Window of the receiver. One byte, so one part, until it is known. */
    window;
    sent = 0;
    credited = 0;
    error;
    isFinished = false;
    /** True until the request or one-way is sent that opens the stream. */
    isHeld = false;
    queue = [];
    finishing;
    /** Made by the library. */
    constructor(peer, window) {
        this.peer = peer;
        this.window = window;
    }
    /** Sends a part. Resolves once there was room for it; rejects if no more parts are wanted or possible. */
    send(part) {
        if (!isPayload(part)) {
            return refused(new TypeError(`a part has to be a string or a Uint8Array, not ${shown(part)}`));
        }
        if (this.error !== undefined)
            return refused(this.error);
        if (this.isFinished)
            return refused(new StreamError("aborted", "the parts have been finished"));
        if (this.queue.length === 0 && this.hasRoom()) {
            this.write(part);
            return DONE;
        }
        const sent = new Promise((resolve, reject) => {
            this.queue.push({ payload: part, resolve, reject });
            if (this.queue.length === 1)
                this.waitForRoom();
        });
        return mayBeIgnored(sent);
    }
    /** Sends each part of an iterable, such as a readable stream, and finishes. */
    sendAll(parts) {
        return mayBeIgnored(this.sendEach(parts));
    }
    async sendEach(parts) {
        try {
            for await (const part of parts)
                await this.send(part);
        }
        catch (error) {
            if (this.error === undefined)
                this.abort(messageOf(error));
            throw error;
        }
        await this.finish();
    }
    /**
     * Tells the receiver that the parts are complete. Resolves once all of them were sent, and at once if the receiver
     * wants no more.
     */
    finish() {
        if (this.error !== undefined)
            return this.isEnough ? DONE : refused(this.error);
        if (this.isFinished)
            return DONE;
        this.isFinished = true;
        if (this.queue.length === 0 && !this.isHeld) {
            this.peer.end("");
            return DONE;
        }
        const finished = new Promise((resolve, reject) => {
            this.finishing = { resolve, reject };
        });
        return mayBeIgnored(finished);
    }
    /** Ends the parts early, with a reason for the receiver. */
    abort(reason) {
        if (this.error !== undefined || (this.isFinished && this.queue.length === 0))
            return;
        this.isFinished = true;
        if (!this.isHeld)
            this.peer.end(reason || "aborted");
        this.fail(new StreamError("aborted", reason));
    }
    /** Reason why no more parts can be sent, or undefined. */
    get refusal() {
        return this.error;
    }
    /** @internal */
    get isOpen() {
        return this.error === undefined && !this.isFinished;
    }
    /** @internal */
    credit(total) {
        // Ignored: a total above what was sent, or below the last one.
        if (total > this.sent || total < this.credited)
            return;
        this.credited = total;
        this.pump();
    }
    /** @internal Has parts wait until `widen` is called. */
    hold() {
        this.isHeld = true;
    }
    /** @internal */
    widen(window) {
        this.window = window;
        this.isHeld = false;
        this.pump();
    }
    /** @internal */
    fail(error) {
        if (this.error !== undefined)
            return;
        this.error = error;
        const queue = this.queue;
        this.queue = [];
        for (const waiting of queue)
            waiting.reject(error);
        if (this.isEnough)
            this.finishing?.resolve();
        else
            this.finishing?.reject(error);
    }
    get isEnough() {
        return this.error instanceof StreamError && this.error.kind === "enough";
    }
    hasRoom() {
        return !this.isHeld && this.sent - this.credited < this.window && !this.peer.isFull();
    }
    write(part) {
        this.sent += PART_WEIGHT + byteLength(part);
        this.peer.part(part);
    }
    pump() {
        while (this.queue.length > 0 && this.hasRoom()) {
            const waiting = this.queue.shift();
            this.write(waiting.payload);
            waiting.resolve();
        }
        if (this.queue.length > 0) {
            this.waitForRoom();
        }
        else if (this.finishing !== undefined && this.error === undefined) {
            const finishing = this.finishing;
            this.finishing = undefined;
            this.peer.end("");
            finishing.resolve();
        }
    }
    /** Credit wakes by itself; room to write has to be asked for. */
    waitForRoom() {
        const isAllowed = !this.isHeld && this.sent - this.credited < this.window;
        if (isAllowed && this.peer.isFull())
            this.peer.whenRoom(() => this.pump());
    }
}
const DONE = Promise.resolve();
/** Has a rejection that the program does not look at end no process: the other side may cause it at any time. */
function mayBeIgnored(promise) {
    promise.catch(() => { });
    return promise;
}
function refused(error) {
    return mayBeIgnored(Promise.reject(error));
}

/** Preparation of a call or one-way: what it may not be, and its context. */
/** Checks a call or one-way, and assembles its context. */
function prepare(connection, command, payload, options, stream, isCall) {
    // `ping` is the only call that this side makes of the protocol's.
    const isPing = isCall && stream === "" && command === "cmd.ping";
    if (isReserved(command) && !isPing)
        throw reservedError(command);
    if (!isWritable(connection.format, command)) {
        throw invalid(command, "the classic format can write neither a space nor a NUL in a command");
    }
    if (connection.reason !== undefined)
        throw notSent(command, connection.reason);
    if (connection.mayCut(command, payload))
        throw invalid(command, cutText(byteLength(payload)));
    const scope = currentScope();
    let until = Number.POSITIVE_INFINITY;
    if (options.timeout !== undefined)
        until = performance.now() + Math.max(0, options.timeout);
    if (isCall && scope?.deadline !== undefined)
        until = Math.min(until, scope.deadline);
    const values = { ...scope?.values, ...options.context };
    const object = {};
    if (stream !== "")
        object.stream = stream;
    if (options.onProgress !== undefined && connection.has("progress"))
        object.progress = true;
    if (Object.keys(values).length > 0)
        object.values = values;
    if (until === Number.POSITIVE_INFINITY && Object.keys(object).length === 0)
        return { kind: "plain" };
    return { kind: "context", text: JSON.stringify(object), until };
}
/** Sends the context, with the time that is left. Returns true if there was one to send. */
function sendContext(connection, command, prepared) {
    if (prepared.kind === "plain" || !connection.has("context"))
        return false;
    let text = prepared.text;
    if (prepared.until !== Number.POSITIVE_INFINITY) {
        const left = Math.min(Number.MAX_SAFE_INTEGER, Math.max(0, Math.ceil(prepared.until - performance.now())));
        text = `{"deadline_ms":${left}${text === "{}" ? "" : `,${text.slice(1, -1)}`}}`;
    }
    if (text === "{}")
        return false;
    const length = Buffer.byteLength(text);
    if (length > CONTEXT_LIMIT)
        throw invalid(command, `its context has ${length} bytes, the limit is ${CONTEXT_LIMIT}`);
    connection.sendContext(text);
    return true;
}
/** Error of a call or one-way for which the connection has ended. */
function notSent(command, reason) {
    return new CallError("closed", command, `${JSON.stringify(command)} was not sent: ${reason.message}`, {
        sent: false,
    });
}
function reservedError(command) {
    const text = `${JSON.stringify(command)} belongs to the protocol: use ping, stop or the metadata`;
    return new CallError("reserved", command, text, { sent: false });
}
function invalid(command, text) {
    return new CallError("invalid", command, `${JSON.stringify(command)} was not sent: ${text}`, { sent: false });
}
/** Reason that so many bytes are not sent. */
function cutText(length) {
    return (`${length} bytes do not fit into a pipe, and the other side may lose what it does not get in one read: ` +
        "it talks the classic format and names no features, as the Go package does");
}

/** Request or one-way that a handler answers. */
/** Shortest time between two reports of progress, in milliseconds. */
const PROGRESS_PAUSE = 50;
const PROGRESS_LIMIT = 4096;
/** Request or one-way of the other side. */
class Request {
    /** Name of the command. */
    command;
    /** Data, as it was sent. It is the handler's to keep and change. */
    buffer;
    /** True if it has no response. */
    isOneWay;
    owner;
    threadId;
    properties;
    /** Time of `performance.now()` at which the caller gives up. */
    until;
    controller;
    deadlineTimer;
    given;
    incoming;
    areTaken = false;
    outgoing;
    report;
    reportTimer;
    isAnswered = false;
    /** Made by the library. */
    constructor(owner, threadId, isOneWay, command, buffer, context) {
        this.owner = owner;
        this.threadId = threadId;
        this.isOneWay = isOneWay;
        this.command = command;
        this.buffer = buffer;
        this.properties = context;
        this.until = Number.POSITIVE_INFINITY;
        if (context === NO_CONTEXT)
            return;
        if (context.deadline !== undefined)
            this.until = performance.now() + context.deadline;
        if (context.sends) {
            const peer = {
                credit: (total) => owner.send(threadId, RESPONSE, "cmd.part.credit", String(total)),
                enough: (reason) => owner.send(threadId, RESPONSE, "cmd.enough", reason),
            };
            this.incoming = new Parts(peer, owner.streamWindow);
        }
        if (context.receives && !isOneWay) {
            const peer = {
                part: (payload) => owner.send(threadId, RESPONSE, "cmd.part", payload),
                // The response ends the parts of a reply.
                end: () => { },
                isFull: () => owner.isFull(),
                whenRoom: (call) => owner.whenRoom(call),
            };
            this.outgoing = new PartSender(peer, owner.peerStreamWindow);
        }
    }
    /** Data as text. Throws if it is not UTF-8. */
    text() {
        try {
            return UTF8.decode(this.buffer);
        }
        catch {
            throw new Failure(failureCode.invalidArgument, `the data of ${JSON.stringify(this.command)} is not UTF-8`);
        }
    }
    /** Data as JSON; undefined if it is empty. */
    json() {
        if (this.buffer.length === 0)
            return undefined;
        try {
            return JSON.parse(this.text());
        }
        catch (error) {
            if (error instanceof Failure)
                throw error;
            const text = `the data of ${JSON.stringify(this.command)} is no JSON: ${error.message}`;
            throw new Failure(failureCode.invalidArgument, text);
        }
    }
    /** Values that the caller has supplied, such as `traceparent`. Calls of this handler carry them on. */
    get context() {
        return this.properties.values;
    }
    /** Milliseconds that are left until the caller gives up; undefined if it has named no deadline. */
    get timeLeft() {
        return this.until === Number.POSITIVE_INFINITY ? undefined : Math.max(0, this.until - performance.now());
    }
    /** Aborted when the caller has given up, its deadline has passed, or the connection has ended. */
    get signal() {
        if (this.controller === undefined) {
            this.controller = new AbortController();
            if (this.given !== undefined)
                this.controller.abort(this.given);
            else if (this.timeLeft !== undefined && !this.isAnswered)
                this.watchDeadline();
        }
        return this.controller.signal;
    }
    /** Parts that follow the request. Empty if the caller sends none. */
    get parts() {
        this.areTaken = true;
        if (this.incoming === undefined) {
            this.incoming = new Parts({ credit: () => { }, enough: () => { } }, 1);
            this.incoming.end();
        }
        if (this.timeLeft !== undefined && this.deadlineTimer === undefined && !this.isAnswered)
            this.watchDeadline();
        return this.incoming;
    }
    /** True if the caller takes parts of the reply. */
    get wantsParts() {
        return this.outgoing !== undefined;
    }
    /** Sends a part of the reply. Resolves once there was room for it; rejects if the caller wants no more. */
    send(part) {
        if (this.outgoing === undefined) {
            return refused(new StreamError("closed", `the caller of ${JSON.stringify(this.command)} takes no parts`));
        }
        return this.outgoing.send(part);
    }
    /** Reports progress to a caller that wants to know. Costs next to nothing otherwise. */
    progress(done, total, message) {
        // Here, and not in the timer: it is the handler's mistake.
        if (typeof done !== "number")
            throw misreported("first", "number", done);
        if (total !== undefined && typeof total !== "number")
            throw misreported("second", "number", total);
        if (message !== undefined && typeof message !== "string")
            throw misreported("third", "string", message);
        if (!this.properties.progress || this.isOneWay || this.isAnswered)
            return;
        this.report = { done };
        if (total !== undefined)
            this.report.total = total;
        if (message !== undefined)
            this.report.message = message;
        if (this.reportTimer !== undefined)
            return;
        this.sendReport();
        this.reportTimer = setTimeout(() => {
            this.reportTimer = undefined;
            const { report } = this;
            if (report !== undefined)
                this.progress(report.done, report.total, report.message);
        }, PROGRESS_PAUSE);
        this.reportTimer.unref();
    }
    /** Throws the error of a command that does not exist. */
    unknown() {
        const data = this.owner.commands.length > 0 ? { commands: this.owner.commands } : undefined;
        throw new Failure(failureCode.unknownCommand, `unknown command ${JSON.stringify(this.command)}`, data);
    }
    /** @internal */
    get id() {
        return this.threadId;
    }
    /** @internal */
    get isLate() {
        return this.until !== Number.POSITIVE_INFINITY && performance.now() >= this.until;
    }
    /** @internal */
    get scope() {
        const { deadline, values } = this.properties;
        if (deadline === undefined && Object.keys(values).length === 0)
            return undefined;
        return { deadline: deadline === undefined ? undefined : this.until, values };
    }
    /** @internal */
    get hasStream() {
        return this.properties.sends || this.properties.receives;
    }
    /** @internal Parts that were not asked for: those of a stream that its sender may go on with. */
    get openParts() {
        return this.incoming;
    }
    /** @internal */
    get sender() {
        return this.outgoing;
    }
    /** @internal True if parts of the request came, and the handler has not looked at them. */
    get hasIgnoredParts() {
        return this.properties.sends && !this.areTaken;
    }
    /** @internal Ends the work early: the caller has given up, or is gone. */
    giveUp(error) {
        if (this.given !== undefined)
            return;
        this.given = error;
        this.controller?.abort(error);
        this.incoming?.end(error);
        this.outgoing?.fail(error);
    }
    /** @internal Last step before the response. */
    beforeAnswer() {
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
    get isOver() {
        return this.isAnswered;
    }
    /** @internal Ends both directions of its stream. */
    answered() {
        if (this.isAnswered)
            return;
        this.isAnswered = true;
        if (this.deadlineTimer !== undefined)
            clearTimeout(this.deadlineTimer);
        if (this.reportTimer !== undefined)
            clearTimeout(this.reportTimer);
        this.incoming?.end(new StreamError("closed", "the request has been answered"));
        this.outgoing?.fail(new StreamError("closed", "the request has been answered"));
    }
    sendReport() {
        const report = this.report;
        this.report = undefined;
        if (report === undefined || this.owner.isFull())
            return;
        const whole = (value) => Math.max(0, Math.min(Number.MAX_SAFE_INTEGER, Math.trunc(value) || 0));
        const object = { done: whole(report.done) };
        if (report.total !== undefined)
            object.total = whole(report.total);
        if (report.message !== undefined)
            object.message = report.message;
        let text = JSON.stringify(object);
        if (Buffer.byteLength(text) > PROGRESS_LIMIT) {
            object.message = report.message?.slice(0, 500) ?? "";
            text = JSON.stringify(object);
        }
        this.owner.send(this.threadId, RESPONSE, "cmd.progress", text);
    }
    watchDeadline() {
        if (this.deadlineTimer !== undefined)
            return;
        const left = Math.min(Math.ceil(this.timeLeft ?? 0), 0x7fff_ffff);
        this.deadlineTimer = setTimeout(() => {
            this.giveUp(new StreamError("deadline", "the deadline of the request has passed"));
        }, left);
        this.deadlineTimer.unref();
    }
}
function misreported(which, type, value) {
    return new TypeError(`the ${which} argument of progress() has to be a ${type}, not ${shown(value)}`);
}
/** Text of a reply. */
function textOf(command, buffer) {
    try {
        return UTF8.decode(buffer);
    }
    catch {
        throw new CallError("invalid", command, `the reply to ${JSON.stringify(command)} is not UTF-8`);
    }
}
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Calls and one-ways: what a host does with a plugin, and a plugin with its host. */
const NOTICE = {
    of: "a one-way",
    options: { context: TEXT_BY_NAME, signal: SIGNAL },
};
const CALL = {
    of: "a call",
    options: { ...NOTICE.options, timeout: MILLISECONDS, onProgress: FUNCTION },
};
/** Side of a connection that is called. */
class Caller {
    /** @internal */
    connection;
    /** @internal */
    constructor(connection) {
        this.connection = connection;
    }
    /** Calls a command, and resolves to the data of its reply. */
    call(command, payload, options) {
        const { connection } = this;
        if (options === undefined && currentScope() === undefined) {
            const isOpen = connection.reason === undefined && typeof command === "string" && isPayload(payload);
            const isPlain = isOpen && connection.canSend() && !isReserved(command);
            if (isPlain && connection.format === "standard") {
                return new Promise((resolve, reject) => {
                    connection.sendRequest(command, payload, { command, resolve, reject, extra: undefined });
                });
            }
        }
        return new Promise((resolve, reject) => {
            const call = { command, resolve, reject, extra: undefined };
            checkCall(command, payload, options, CALL);
            if (command === "cmd.ping")
                reject(reservedError(command));
            else
                this.begin(call, payload, options ?? {}, "", undefined);
        });
    }
    /** Calls a command, and resolves to its reply as text. */
    async callText(command, payload, options) {
        return textOf(command, await this.call(command, payload, options));
    }
    /** Calls a command with a value as JSON, and resolves to the value of its reply; undefined if that is empty. */
    async callJson(command, value, options) {
        const payload = value === undefined ? undefined : JSON.stringify(value);
        const reply = await this.call(command, payload, options);
        if (reply.length === 0)
            return undefined;
        try {
            return JSON.parse(textOf(command, reply));
        }
        catch (error) {
            if (error instanceof CallError)
                throw error;
            throw new CallError("invalid", command, `the reply to ${JSON.stringify(command)} is no JSON: ${error.message}`);
        }
    }
    /** Sends a one-way. Resolves once there was room for it. */
    notify(command, payload, options = {}) {
        return new Promise((resolve, reject) => {
            checkCall(command, payload, options, NOTICE);
            this.sendNotice(command, payload, options, "", () => resolve(), reject);
        });
    }
    /** Calls a command with parts in both directions. */
    stream(command, payload, options = {}) {
        const { connection } = this;
        checkCall(command, payload, options, CALL);
        let id = 0;
        const parts = new Parts({
            credit: (total) => connection.send(id, ONE_WAY, "cmd.part.credit", String(total)),
            enough: (reason) => connection.send(id, ONE_WAY, "cmd.enough", reason),
        }, connection.streamWindow);
        const sender = this.partSender(() => id);
        const reply = new Promise((resolve, reject) => {
            const failed = (error) => {
                // The reason of a signal may be anything.
                const own = isError(error) ? error : undefined;
                const cause = own instanceof CallError ? own : new StreamError("cancelled", "the call was given up");
                parts.end(own ?? cause);
                sender.fail(cause instanceof StreamError ? cause : new StreamError("closed", cause.message));
                reject(error);
            };
            if (!connection.has("stream")) {
                failed(new CallError("unsupported", command, "the other side takes no streams: it does not name the feature `stream`", { sent: false }));
                return;
            }
            sender.hold();
            const call = { command, resolve, reject: failed, extra: { parts, sender } };
            this.begin(call, payload, options, "send receive", (number) => {
                id = number;
                sender.widen(connection.peerStreamWindow);
            });
        });
        // Whoever takes the parts has the error from them.
        reply.catch(() => { });
        return {
            parts,
            reply,
            sender,
            send: (part) => sender.send(part),
            finish: () => sender.finish(),
            [Symbol.asyncIterator]: () => parts,
        };
    }
    /** Sends a one-way that is followed by parts. */
    notifyStream(command, payload, options = {}) {
        const { connection } = this;
        checkCall(command, payload, options, NOTICE);
        let id = 0;
        const sender = this.partSender(() => id, () => connection.outgoing.closeOneWayStream(id));
        if (!connection.has("stream")) {
            sender.fail(new StreamError("closed", "the other side takes no streams: it does not name the feature `stream`"));
            return sender;
        }
        sender.hold();
        const sent = (number) => {
            id = number;
            connection.outgoing.openOneWayStream(id, sender);
            sender.widen(connection.peerStreamWindow);
        };
        const failed = (error) => {
            sender.fail(new StreamError("cancelled", messageOf(error)));
        };
        this.sendNotice(command, payload, options, "send", sent, failed);
        return sender;
    }
    /** Asks whether the other side reads and answers. */
    ping(options = {}) {
        return new Promise((resolve, reject) => {
            checkOptions(options, CALL);
            const call = { command: "cmd.ping", resolve: () => resolve(), reject, extra: undefined };
            this.begin(call, undefined, options, "", undefined);
        });
    }
    partSender(id, ended) {
        const { connection } = this;
        return new PartSender({
            part: (payload) => connection.send(id(), ONE_WAY, "cmd.part", payload),
            end: (reason) => {
                connection.send(id(), ONE_WAY, "cmd.end", reason);
                ended?.();
            },
            isFull: () => connection.isFull(),
            whenRoom: (call) => connection.whenRoom(call),
        }, connection.peerStreamWindow);
    }
    /** Begins a call: sends it, or has it wait for room. */
    begin(call, payload, options, stream, sent) {
        const { connection } = this;
        const { signal } = options;
        if (signal?.aborted) {
            call.reject(signal.reason);
            return;
        }
        let prepared;
        try {
            prepared = prepare(connection, call.command, payload, options, stream, true);
        }
        catch (error) {
            call.reject(error);
            return;
        }
        let id;
        let withdraw;
        let timer;
        const giveUp = (error) => {
            done();
            if (id === undefined)
                withdraw?.();
            else
                connection.giveUp(id);
            call.reject(error);
        };
        const aborted = () => giveUp(signal?.reason);
        let forget;
        const done = () => {
            forget?.();
            if (timer !== undefined)
                clearTimeout(timer);
        };
        const passed = () => {
            const wasSent = id !== undefined;
            const after = options.timeout === undefined ? "its deadline" : `${options.timeout} ms`;
            const text = wasSent
                ? `no reply to ${JSON.stringify(call.command)} within ${after}`
                : `${JSON.stringify(call.command)} was not sent within ${after}`;
            giveUp(new CallError("timedOut", call.command, text, { sent: wasSent }));
        };
        if (prepared.kind === "context" || signal !== undefined) {
            if (signal !== undefined)
                forget = onAbort(signal, aborted);
            const extra = { ...call.extra, done, giveUp };
            if (options.onProgress !== undefined)
                extra.onProgress = options.onProgress;
            call.extra = extra;
            if (prepared.kind === "context" && prepared.until !== Number.POSITIVE_INFINITY) {
                // The other side may notice first: the error is the same.
                const { until } = prepared;
                extra.isLate = () => {
                    const isLate = performance.now() >= until;
                    if (isLate)
                        passed();
                    return isLate;
                };
                timer = setTimeout(passed, timerTime(until - performance.now()));
            }
        }
        const send = () => {
            if (connection.reason !== undefined) {
                done();
                call.reject(notSent(call.command, connection.reason));
                return;
            }
            if (call.extra?.isLate?.())
                return;
            try {
                sendContext(connection, call.command, prepared);
            }
            catch (error) {
                done();
                call.reject(error);
                return;
            }
            id =
                call.command === "cmd.ping" ? connection.sendPing(call) : connection.sendRequest(call.command, payload, call);
            sent?.(id);
        };
        // A ping has no weight, and is never held back.
        if (connection.canSend() || call.command === "cmd.ping")
            send();
        else
            withdraw = connection.whenSendable(send);
    }
    sendNotice(command, payload, options, stream, sent, failed) {
        const { connection } = this;
        const { signal } = options;
        if (signal?.aborted) {
            failed(signal.reason);
            return;
        }
        let prepared;
        try {
            const { context } = options;
            prepared = prepare(connection, command, payload, context === undefined ? {} : { context }, stream, false);
        }
        catch (error) {
            failed(error);
            return;
        }
        let forget;
        const send = () => {
            forget?.();
            if (connection.reason !== undefined) {
                failed(notSent(command, connection.reason));
                return;
            }
            let isNumbered = false;
            try {
                isNumbered = sendContext(connection, command, prepared);
            }
            catch (error) {
                failed(error);
                return;
            }
            sent(connection.sendOneWay(command, payload, isNumbered));
        };
        let withdraw;
        const aborted = () => {
            withdraw?.();
            failed(signal?.reason);
        };
        if (connection.canSend()) {
            send();
            return;
        }
        if (signal !== undefined)
            forget = onAbort(signal, aborted);
        withdraw = connection.whenSendable(send);
    }
}
/** Throws a `TypeError` for what the types do not allow: JavaScript callers may pass anything. */
function checkCall(command, payload, options, shape) {
    if (typeof command !== "string") {
        throw new TypeError(`the command of ${shape.of} has to be a string, not ${shown(command)}`);
    }
    if (!isPayload(payload)) {
        throw new TypeError(`the data of ${JSON.stringify(command)} has to be a string or a Uint8Array, not ${shown(payload)}`);
    }
    checkOptions(options, shape);
}

/** Answers to requests: results, and errors. */
/** Weight of a chunk without cmd and buffer. */
const WEIGHT = 64;
/** Writer of answers. */
class Answers {
    /** Bytes of answers that no handler has given, since the other side has stopped to read. */
    unreadBytes = 0;
    connection;
    limit;
    constructor(connection, limit) {
        this.connection = connection;
        this.limit = limit;
    }
    /** Answers a request with its result. */
    answer(threadId, command, payload) {
        if (this.connection.isOneRead && this.connection.mayCut(command, payload)) {
            this.fail(threadId, "", `the answer is not sent: ${cutText(byteLength(payload))}`);
            return;
        }
        this.connection.send(threadId, RESPONSE, command, payload);
    }
    /** Answers a request without a handler, which nothing holds up. */
    answerAtOnce(threadId, command, payload) {
        if (this.connection.isFull())
            this.unreadBytes += WEIGHT + byteLength(payload);
        this.answer(threadId, command, payload);
        if (this.unreadBytes <= this.limit)
            return;
        const text = `the other side does not read: ${this.unreadBytes} bytes of answers wait for it, the limit is ${this.limit}`;
        this.connection.close({ kind: "unread", message: text });
    }
    /** Answers a request with an error. */
    fail(threadId, code, message, data) {
        if (code === "" || !this.connection.has("failure")) {
            this.answerAtOnce(threadId, "cmd.error", cut(message, this.connection.isOneRead ? ONE_READ_LIMIT : FAILURE_LIMIT));
            return;
        }
        if (message.length > FAILURE_LIMIT)
            message = cut(message, FAILURE_LIMIT);
        let text = failureText(code, message, data);
        if (Buffer.byteLength(text) > FAILURE_LIMIT)
            text = failureText(code, message, undefined);
        for (let length = FAILURE_LIMIT; Buffer.byteLength(text) > FAILURE_LIMIT; length = length >> 1) {
            text = failureText(code, cut(message, length >> 1), undefined);
        }
        this.answerAtOnce(threadId, "cmd.failure", text);
    }
}
/** Longest message for a peer that takes one read of a pipe only. */
const ONE_READ_LIMIT = FAILURE_LIMIT >> 1;

/** Text of commands, from bytes. */
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
/** Commands that were seen, so that few strings are made of bytes. */
class Commands {
    slots = new Array(256);
    /** Returns the text of an ASCII cmd, or undefined if it has other bytes or is long. */
    text(buffer, start, end) {
        const length = end - start;
        if (length > 48)
            return undefined;
        let hash = length;
        for (let i = start; i < end; i++) {
            const byte = buffer[i];
            if (byte >= 0x80)
                return undefined;
            hash = (Math.imul(hash, 31) + byte) | 0;
        }
        const slot = this.slots[hash & 255];
        if (slot !== undefined && slot.bytes.length === length) {
            const bytes = slot.bytes;
            let i = 0;
            while (i < length && bytes[i] === buffer[start + i])
                i++;
            if (i === length)
                return slot.text;
        }
        const text = buffer.toString("latin1", start, end);
        this.slots[hash & 255] = { bytes: Buffer.from(buffer.subarray(start, end)), text };
        return text;
    }
}
/** Returns the position of the first byte that is not part of a complete character, or -1. */
function firstNotUtf8(bytes) {
    let i = 0;
    while (i < bytes.length) {
        const lead = bytes[i];
        const length = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
        if (length === 0 || i + length > bytes.length)
            return i;
        try {
            utf8.decode(bytes.subarray(i, i + length));
        }
        catch {
            return i;
        }
        i += length;
    }
    return -1;
}

/** Decoder of chunks, for bytes that come in any pieces. */
const EMPTY = Buffer.alloc(0);
const MAX = 0xffffffffffffffffn;
/** Digits of a number that is exact in any case. */
const SAFE_DIGITS = 15;
/** Memory that an announced length gets before its bytes have come. */
const FIRST_ALLOCATION = 1024 * 1024;
/** Rest of a buffer from which on it is read in place. */
const IN_PLACE = 32 * 1024;
const CMD_DOT = [0x63, 0x6d, 0x64, 0x2e];
var State;
(function (State) {
    State[State["Header"] = 0] = "Header";
    State[State["Body"] = 1] = "Body";
    State[State["Skip"] = 2] = "Skip";
})(State || (State = {}));
var Step;
(function (Step) {
    Step[Step["Id"] = 0] = "Id";
    Step[Step["Direction"] = 1] = "Direction";
    /** Third field, while the format is open. */
    Step[Step["Detect"] = 2] = "Detect";
    Step[Step["CommandLength"] = 3] = "CommandLength";
    Step[Step["Command"] = 4] = "Command";
    Step[Step["CommandEnd"] = 5] = "CommandEnd";
    Step[Step["ClassicCommand"] = 6] = "ClassicCommand";
    Step[Step["BufferLength"] = 7] = "BufferLength";
})(Step || (Step = {}));
const FIELDS = {
    [Step.Id]: "threadID",
    [Step.Direction]: "direction",
    [Step.Detect]: "len(cmd)",
    [Step.CommandLength]: "len(cmd)",
    [Step.Command]: "cmd",
    [Step.CommandEnd]: "cmd",
    [Step.ClassicCommand]: "cmd",
    [Step.BufferLength]: "len(buffer)",
};
function narrow(value) {
    return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value;
}
/** Decodes a stream of chunks. `push` throws a `ProtocolError` where the stream is broken. */
class Decoder {
    /** Format of the stream; undefined until the first chunk has shown it. */
    format;
    sink;
    limits;
    commands = new Commands();
    state = State.Header;
    /** Position in the stream of the bytes that are pushed next. */
    offset = 0;
    // The header that is read byte by byte.
    step = Step.Id;
    digits = "";
    threadId = 0;
    direction = 0;
    announced = 0;
    /** Bytes of the cmd; those past its limit are only counted. */
    command = [];
    commandCount = 0;
    isCommandTooLong = false;
    // The buffer that is read.
    text = "";
    body = EMPTY;
    bodyLength = 0;
    filled = 0;
    /** Bytes of a discarded buffer that are still to come. */
    toSkip = 0n;
    constructor(format, limits, sink) {
        this.format = format;
        this.limits = limits;
        this.sink = sink;
    }
    /** Takes the bytes from 0 to `end` of a buffer, which may be used anew afterwards. */
    push(bytes, end = bytes.length) {
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
            }
            else if (this.state === State.Body) {
                const count = Math.min(end - at, this.bodyLength - this.filled);
                this.reserve(this.filled + count);
                bytes.copy(this.body, this.filled, at, at + count);
                at += count;
                this.took(count);
            }
            else {
                const left = BigInt(end - at);
                const count = left < this.toSkip ? left : this.toSkip;
                this.toSkip -= count;
                at += Number(count);
                if (this.toSkip === 0n)
                    this.state = State.Header;
            }
        }
        this.offset += end;
    }
    /** True while a part of a buffer has come. */
    get isInBuffer() {
        return this.state === State.Body;
    }
    /** Place for the bytes of a large buffer that come next: they need no copy. See `filledInPlace`. */
    place() {
        if (this.state !== State.Body || this.bodyLength - this.filled < IN_PLACE)
            return undefined;
        if (this.filled === this.body.length)
            this.reserve(this.filled + 1);
        return this.body.subarray(this.filled);
    }
    /** Notes that so many bytes have come to the place that `place` has returned. */
    filledInPlace(count) {
        this.offset += count;
        this.took(count);
    }
    /** Ends the stream. Throws if that is inside a chunk. */
    end() {
        if (this.state !== State.Header)
            throw new ProtocolError("buffer", this.offset, "end");
        const isBetween = this.step === Step.Id && this.digits === "";
        if (!isBetween)
            throw new ProtocolError(FIELDS[this.step], this.offset, "end");
    }
    /** Grows the body to hold at least so many bytes. */
    reserve(length) {
        if (this.body.length >= length)
            return;
        const size = Math.min(this.bodyLength, Math.max(length, this.body.length * 2));
        const grown = Buffer.allocUnsafeSlow(size);
        this.body.copy(grown, 0, 0, this.filled);
        this.body = grown;
    }
    took(count) {
        this.filled += count;
        if (this.filled < this.bodyLength)
            return;
        this.state = State.Header;
        const body = this.body;
        this.body = EMPTY;
        this.sink.chunk(this.threadId, this.direction, this.text, body);
    }
    /**
     * Reads a whole header of the standard format, and its buffer if that is there. Returns the position
     * behind it, or 0 if something is missing or unusual: `header` then begins anew.
     */
    standard(bytes, start, end) {
        let at = start;
        let id = 0;
        let digit = bytes[at] - 48;
        if (digit === 0) {
            at++;
        }
        else {
            while (digit >= 0 && digit <= 9) {
                id = id * 10 + digit;
                if (++at >= end)
                    return 0;
                digit = bytes[at] - 48;
            }
            if (at === start || at - start > SAFE_DIGITS)
                return 0;
        }
        // The shortest rest: NUL direction NUL 0 NUL NUL 0 NUL.
        if (end - at < 8 || bytes[at] !== 0)
            return 0;
        const direction = bytes[at + 1] - 48;
        if (direction < ONE_WAY || direction > RESPONSE || bytes[at + 2] !== 0)
            return 0;
        at += 3;
        let length = 0;
        let first = at;
        digit = bytes[at] - 48;
        while (digit >= 0 && digit <= 9) {
            length = length * 10 + digit;
            if (++at >= end)
                return 0;
            digit = bytes[at] - 48;
        }
        if (at === first || at - first > 7 || bytes[at] !== 0)
            return 0;
        if (bytes[first] === 48 && at - first > 1)
            return 0;
        if (length > this.limits.command)
            return 0;
        const commandStart = ++at;
        at += length;
        // NUL, one digit, NUL.
        if (end - at < 3 || bytes[at] !== 0)
            return 0;
        const command = this.commands.text(bytes, commandStart, at);
        if (command === undefined)
            return 0;
        first = ++at;
        length = 0;
        digit = bytes[at] - 48;
        while (digit >= 0 && digit <= 9) {
            length = length * 10 + digit;
            if (++at >= end)
                return 0;
            digit = bytes[at] - 48;
        }
        if (at === first || at - first > SAFE_DIGITS || bytes[at] !== 0)
            return 0;
        if (bytes[first] === 48 && at - first > 1)
            return 0;
        if (length > this.limits.buffer)
            return 0;
        at++;
        if (length <= end - at) {
            let body = EMPTY;
            if (length > 0) {
                body = Buffer.allocUnsafe(length);
                if (length < 24)
                    for (let i = 0; i < length; i++)
                        body[i] = bytes[at + i];
                else
                    bytes.copy(body, 0, at, at + length);
            }
            this.sink.chunk(id, direction, command, body);
            return at + length;
        }
        this.threadId = id;
        this.direction = direction;
        this.beginBody(command, length);
        return at;
    }
    beginBody(command, length) {
        this.text = command;
        this.bodyLength = length;
        this.filled = 0;
        this.body = Buffer.allocUnsafeSlow(Math.min(length, FIRST_ALLOCATION));
        this.state = State.Body;
    }
    /** Reads a header byte by byte, up to its end or that of the bytes. Returns the position behind it. */
    header(bytes, start, end) {
        for (let at = start; at < end; at++) {
            const byte = bytes[at];
            this.byte(byte, this.offset + at);
            if (this.state !== State.Header || (this.step === Step.Id && this.digits === ""))
                return at + 1;
        }
        return end;
    }
    byte(byte, offset) {
        switch (this.step) {
            case Step.Id:
                if (!this.number(byte, offset))
                    return;
                if (this.digits === "")
                    this.format = "classic";
                this.threadId = this.value();
                this.step = Step.Direction;
                return;
            case Step.Direction:
                if (!this.number(byte, offset))
                    return;
                if (this.digits === "")
                    this.format = "classic";
                this.direction = this.value();
                this.command = [];
                this.commandCount = 0;
                this.isCommandTooLong = false;
                if (this.format === undefined)
                    this.step = Step.Detect;
                else
                    this.step = this.format === "standard" ? Step.CommandLength : Step.ClassicCommand;
                return;
            case Step.Detect:
                this.detect(byte, offset);
                return;
            case Step.CommandLength:
                if (!this.number(byte, offset))
                    return;
                this.announced = this.value();
                this.isCommandTooLong = this.announced > this.limits.command;
                this.step = this.announced === 0 ? Step.CommandEnd : Step.Command;
                return;
            case Step.Command:
                this.commandByte(byte);
                if (this.commandCount === Number(this.announced))
                    this.step = Step.CommandEnd;
                return;
            case Step.CommandEnd:
                if (byte !== 0)
                    throw new ProtocolError("cmd", offset, "no-nul", byte);
                this.endCommand(offset);
                return;
            case Step.ClassicCommand:
                if (byte === 0)
                    throw new ProtocolError("cmd", offset, "nul-in-cmd");
                if (byte !== 0x20) {
                    this.commandByte(byte);
                    if (this.commandCount > this.limits.command)
                        this.isCommandTooLong = true;
                    return;
                }
                this.announced = this.commandCount;
                this.endCommand(offset);
                return;
            case Step.BufferLength:
                if (!this.number(byte, offset))
                    return;
                this.endHeader(this.value());
        }
    }
    /** Takes a byte of a number. Returns true at its end. */
    number(byte, offset) {
        const field = FIELDS[this.step];
        if (byte === 0) {
            const mayBeEmpty = this.format !== "standard";
            if (this.digits === "" && !mayBeEmpty)
                throw new ProtocolError(field, offset, "no-digits");
            return true;
        }
        if (byte < 0x30 || byte > 0x39)
            throw new ProtocolError(field, offset, "not-a-digit", byte);
        if (this.digits === "0")
            throw new ProtocolError(field, offset, "leading-zero", byte);
        this.digits += String.fromCharCode(byte);
        if (this.digits.length >= 20 && BigInt(this.digits) > MAX) {
            throw new ProtocolError(field, offset, "too-large", byte);
        }
        return false;
    }
    /** Takes the number that is complete. */
    value() {
        const digits = this.digits;
        this.digits = "";
        return digits.length <= SAFE_DIGITS ? Number(digits) : narrow(BigInt(digits));
    }
    /** Takes a byte of the third field while the format is open. */
    detect(byte, offset) {
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
    commandByte(byte) {
        this.commandCount++;
        // Of a cmd that is discarded, the beginning tells whether it belongs to the protocol.
        if (!this.isCommandTooLong || this.command.length < CMD_DOT.length)
            this.command.push(byte);
    }
    endCommand(offset) {
        const isSkipped = this.isCommandTooLong || !this.isKnownDirection();
        if (!isSkipped) {
            const bytes = Buffer.from(this.command);
            const bad = firstNotUtf8(bytes);
            if (bad >= 0)
                throw new ProtocolError("cmd", offset - bytes.length + bad, "not-utf8", bytes[bad]);
            this.text = bytes.toString("utf8");
        }
        this.step = Step.BufferLength;
    }
    isKnownDirection() {
        return this.direction === ONE_WAY || this.direction === REQUEST || this.direction === RESPONSE;
    }
    endHeader(length) {
        this.step = Step.Id;
        const isKnown = this.isKnownDirection();
        if (isKnown && !this.isCommandTooLong && length <= this.limits.buffer) {
            if (length === 0)
                this.sink.chunk(this.threadId, this.direction, this.text, EMPTY);
            else
                this.beginBody(this.text, Number(length));
            return;
        }
        const reason = !isKnown ? "unknown-direction" : this.isCommandTooLong ? "command-too-long" : "buffer-too-long";
        this.toSkip = BigInt(length);
        if (this.toSkip > 0n)
            this.state = State.Skip;
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

/** Dispatch of what is decoded: responses, requests and one-ways, and the commands of the protocol. */
/** Receiver of the chunks of a connection. */
class Dispatch {
    connection;
    incoming;
    outgoing;
    isHost;
    isFormatOpen;
    /** Context of the chunk that follows. */
    context;
    constructor(connection, incoming, outgoing, isFormatOpen, isHost) {
        this.connection = connection;
        this.incoming = incoming;
        this.outgoing = outgoing;
        this.isFormatOpen = isFormatOpen;
        this.isHost = isHost;
    }
    chunk(threadId, direction, command, buffer) {
        if (this.connection.isOver)
            return;
        if (this.isFormatOpen)
            this.showFormat();
        let context = NO_CONTEXT;
        if (this.context !== undefined) {
            if (this.context.threadId === threadId && direction !== RESPONSE)
                context = this.context.context;
            this.context = undefined;
        }
        if (direction === RESPONSE)
            this.outgoing.response(threadId, command, buffer);
        else if (isReserved(command))
            this.reserved(threadId, direction, command, buffer);
        else
            this.incoming.take(threadId, direction === ONE_WAY, command, buffer, context);
    }
    skipped(chunk) {
        this.context = undefined;
        if (this.connection.isOver || chunk.reason === "unknown-direction")
            return;
        if (this.isFormatOpen)
            this.showFormat();
        const { threadId, direction } = chunk;
        const isCommand = chunk.reason === "command-too-long";
        const [what, length] = isCommand ? ["command", chunk.commandLength] : ["buffer", chunk.bufferLength];
        const text = `the ${what} is ${length} bytes long, the limit is ${chunk.limit}`;
        if (direction !== RESPONSE && !chunk.reserved) {
            this.incoming.took(WEIGHT + Number(chunk.commandLength) + Number(chunk.bufferLength));
        }
        if (direction === REQUEST) {
            this.connection.answers.fail(threadId, failureCode.tooLarge, text);
        }
        else if (chunk.command === "cmd.part") {
            const parts = direction === ONE_WAY ? this.incoming.requests.get(threadId)?.openParts : this.outgoing.partsOf(threadId);
            parts?.end(new StreamError("tooLarge", text));
        }
        else if (direction === RESPONSE) {
            this.outgoing.skipped(chunk, text);
        }
        else {
            this.connection.warn(`a one-way was skipped: ${text}`);
        }
    }
    showFormat() {
        this.isFormatOpen = false;
        this.connection.showFormat();
    }
    reserved(threadId, direction, command, buffer) {
        const { connection } = this;
        if (direction === REQUEST) {
            if (command === "cmd.ping")
                connection.answers.answerAtOnce(threadId, command, undefined);
            else if (!command.startsWith("cmd."))
                this.getServicesOrMetadata(threadId, command, buffer);
            else {
                const text = `${JSON.stringify(command)} is no request of the protocol`;
                connection.answers.fail(threadId, failureCode.unknownCommand, text);
            }
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
                connection.pump();
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
                if (request?.sender !== undefined)
                    readCredit(buffer, (total) => request.sender?.credit(total), connection);
                return;
            default:
                connection.side.notice(command, buffer);
        }
    }
    getServicesOrMetadata(threadId, command, buffer) {
        const { connection } = this;
        this.incoming.took(WEIGHT + command.length + buffer.length);
        if (!connection.side.protocol(threadId, command, buffer)) {
            connection.answers.fail(threadId, failureCode.unknownCommand, `unknown command ${JSON.stringify(command)}`);
        }
    }
    takeContext(threadId, buffer) {
        const { connection } = this;
        // A host takes what it has named from its request on.
        const isAgreed = connection.has("context") || (!connection.hasNegotiated && this.isHost);
        const context = isAgreed ? parseContext(buffer) : undefined;
        if (context !== undefined)
            this.context = { threadId, context };
        else
            connection.warn("a context is ignored: it was not agreed on, or has other values");
    }
    takeCredit(buffer) {
        const { connection } = this;
        const take = (total) => {
            if (!connection.takeCredit(total))
                connection.warn(`a credit of ${total} is ignored`);
        };
        readCredit(buffer, take, connection);
    }
}

/** Requests and one-ways of the other side: their order, their handlers, and the credit for them. */
/** Bytes held for a peer without `flow`, in windows, while calls are open. */
const OVERRUN = 16;
/** Requests and one-ways that wait or are handled. */
class Incoming {
    /** Those with a stream, and those whose handler goes on. */
    requests = new Map();
    connection;
    answers;
    window;
    handlers;
    streams;
    isReady;
    queue = [];
    held = 0;
    running = 0;
    openStreams = 0;
    taken = 0;
    creditSent = 0;
    sequences = new Map();
    allInOrder;
    idle = [];
    isHeldBack = false;
    /** Called once when something waits that has come before the start was over. */
    whenHeld;
    constructor(connection, answers, window, options, isReady) {
        this.connection = connection;
        this.answers = answers;
        this.window = window;
        this.handlers = Math.max(1, options.handlers ?? 1024);
        this.streams = options.streams ?? 1024;
        this.isReady = isReady;
        if (options.inOrder === true) {
            this.allInOrder = new Sequence();
        }
        else {
            for (const commands of options.inOrder ?? []) {
                const sequence = new Sequence();
                for (const command of commands)
                    this.sequences.set(command, sequence);
            }
        }
    }
    /** Lets requests and one-ways be handled. */
    ready() {
        if (this.isReady)
            return;
        this.isReady = true;
        this.work();
    }
    /** Resolves once no request is handled or waits. */
    whenIdle() {
        if (this.isIdle())
            return Promise.resolve();
        return new Promise((resolve) => this.idle.push(resolve));
    }
    /** Ends the work: the caller is gone. What waits is handled only if it may still be answered. */
    end(reason, isWritable) {
        for (const request of this.requests.values())
            request.giveUp(new StreamError("closed", reason));
        if (!isWritable)
            this.queue = [];
        if (this.isIdle())
            this.wakeIdle();
    }
    cancelled(threadId, request) {
        request?.giveUp(new StreamError("cancelled", "the caller has given the request up"));
        const index = this.queue.findIndex((waiting) => waiting.threadId === threadId && !waiting.isOneWay);
        if (index < 0)
            return;
        const [waiting] = this.queue.splice(index, 1);
        if (waiting === undefined)
            return;
        this.held -= waiting.weight;
        this.took(waiting.weight);
        if (waiting.request !== undefined)
            this.forget(waiting.request);
        this.answers.fail(threadId, failureCode.cancelled, "the caller has given the request up");
    }
    // Requests and one-ways.
    take(threadId, isOneWay, command, buffer, context) {
        const weight = WEIGHT + commandLength(command) + buffer.length;
        let request;
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
            if (context.sends || context.receives)
                this.requests.set(threadId, request);
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
        if (this.held - weight >= this.window)
            this.holdBack();
    }
    refuseStream(threadId, isOneWay) {
        const text = `${this.streams} streams are open, which is the limit`;
        if (isOneWay)
            this.connection.send(threadId, RESPONSE, "cmd.enough", text);
        else
            this.answers.fail(threadId, failureCode.overloaded, text);
    }
    /** True if requests or one-ways wait. */
    get isWaiting() {
        return this.queue.length > 0;
    }
    /** Handles what waits, as far as it may be. */
    work() {
        if (!this.isReady)
            return;
        for (let i = 0; i < this.queue.length && this.running < this.handlers && !this.connection.isHeldUp();) {
            const waiting = this.queue[i];
            const sequence = this.allInOrder ?? this.sequences.get(waiting.command);
            if (sequence?.isBusy) {
                if (this.allInOrder !== undefined)
                    break;
                i++;
                continue;
            }
            if (i === 0)
                this.queue.shift();
            else
                this.queue.splice(i, 1);
            this.held -= waiting.weight;
            this.took(waiting.weight);
            const { threadId, isOneWay, command, buffer } = waiting;
            this.handle(waiting.request ?? new Request(this.connection, threadId, isOneWay, command, buffer, NO_CONTEXT), sequence);
        }
        if (this.isHeldBack)
            this.release();
        if (this.idle.length > 0 && this.isIdle())
            this.wakeIdle();
    }
    handle(request, sequence) {
        if (request.isLate) {
            if (!request.isOneWay)
                this.answers.fail(request.id, failureCode.deadline, "the deadline of the request has passed");
            this.forget(request);
            return;
        }
        let result;
        let settled;
        try {
            const scope = request.scope;
            result =
                scope === undefined
                    ? this.connection.side.handler(request)
                    : runInScope(scope, () => this.connection.side.handler(request));
            if (isPromise(result))
                settled = toPromise(result);
            else if (isIterable(result))
                settled = sendParts(request, result);
        }
        catch (error) {
            this.failed(request, error);
            return;
        }
        if (settled === undefined) {
            this.completed(request, result);
            return;
        }
        if (sequence !== undefined)
            sequence.isBusy = true;
        this.running++;
        if (!request.isOneWay)
            this.requests.set(request.id, request);
        settled.then((value) => {
            if (isIterable(value)) {
                sendParts(request, value).then((last) => this.finished(request, sequence, last), (error) => this.finishedBadly(request, sequence, error));
            }
            else {
                this.finished(request, sequence, value);
            }
        }, (error) => this.finishedBadly(request, sequence, error));
    }
    finished(request, sequence, value) {
        if (!request.isOneWay && this.connection.isHeldUp()) {
            // The answers that wait have a limit: that of the handlers.
            this.connection.whenRoom(() => this.finished(request, sequence, value));
            return;
        }
        this.completed(request, value);
        this.left(sequence);
    }
    finishedBadly(request, sequence, error) {
        this.failed(request, error);
        this.left(sequence);
    }
    left(sequence) {
        this.running--;
        if (sequence !== undefined)
            sequence.isBusy = false;
        if (this.queue.length > 0)
            this.work();
        if (this.idle.length > 0 && this.isIdle())
            this.wakeIdle();
    }
    completed(request, value) {
        if (!isPayload(value)) {
            const what = `has returned ${shown(value)}, not text or bytes`;
            this.failed(request, new TypeError(`the handler of ${JSON.stringify(request.command)} ${what}`));
            return;
        }
        request.beforeAnswer();
        try {
            if (!request.isOneWay)
                this.answers.answer(request.id, request.command, value);
        }
        catch (error) {
            // Bytes of a class of the program's own.
            this.answers.fail(request.id, "", messageOf(error));
        }
        this.forget(request);
    }
    failed(request, error) {
        const failure = failureOf(error);
        const message = messageOf(error);
        request.beforeAnswer();
        if (!request.isOneWay)
            this.answers.fail(request.id, failure?.code ?? "", message, failure?.data);
        else
            this.connection.side.warn(`the one-way ${JSON.stringify(request.command)} has failed: ${message}`);
        this.forget(request);
    }
    forget(request) {
        // A peer may give two requests the same number.
        if (this.requests.size > 0 && this.requests.get(request.id) === request)
            this.requests.delete(request.id);
        if (request.hasStream && !request.isOver)
            this.openStreams--;
        request.answered();
    }
    // Flow.
    took(weight) {
        this.taken += weight;
        if (this.taken - this.creditSent >= this.window / 2)
            this.credit();
    }
    credit() {
        if (!this.connection.has("flow") || this.taken - this.creditSent < this.window / 2)
            return;
        this.creditSent = this.taken;
        this.connection.send(0, ONE_WAY, "cmd.credit", String(this.taken));
    }
    /** Stops reading from a peer that sends more than is handled, unless it is needed for a reply. */
    holdBack() {
        if (!this.connection.hasOpenCalls && this.openStreams === 0) {
            this.isHeldBack = true;
            this.connection.pauseReading();
            return;
        }
        this.isHeldBack = true;
        if (this.held <= this.window * OVERRUN)
            return;
        const last = this.queue.pop();
        this.held -= last.weight;
        this.took(last.weight);
        if (last.request !== undefined)
            this.forget(last.request);
        const text = `more than ${this.window * OVERRUN} bytes of requests and one-ways wait`;
        if (last.isOneWay)
            this.connection.side.warn(`the one-way ${JSON.stringify(last.command)} is dropped: ${text}`);
        else
            this.answers.fail(last.threadId, failureCode.overloaded, text);
    }
    /** Reads again, or stops to, as what is held and the open calls have changed. */
    release() {
        if (!this.isHeldBack)
            return;
        if (this.held <= this.window) {
            this.isHeldBack = false;
            this.connection.resumeReading();
        }
        else if (!this.connection.hasOpenCalls && this.openStreams === 0) {
            this.connection.pauseReading();
        }
        else {
            this.connection.resumeReading();
        }
    }
    isIdle() {
        return this.running === 0 && this.queue.length === 0;
    }
    wakeIdle() {
        const idle = this.idle;
        this.idle = [];
        for (const resolve of idle)
            resolve();
    }
}
/** Commands that are handled one at a time. */
class Sequence {
    isBusy = false;
}
function commandLength(command) {
    for (let i = 0; i < command.length; i++)
        if (command.charCodeAt(i) >= 0x80)
            return Buffer.byteLength(command);
    return command.length;
}
function isPromise(value) {
    return typeof value === "object" && value !== null && typeof value.then === "function";
}
/** A promise that settles once, also for an object whose `then` throws, or calls back twice. */
function toPromise(value) {
    const isOwn = types.isPromise(value) && value.then === Promise.prototype.then && value.constructor === Promise;
    return isOwn ? value : new Promise((resolve) => resolve(value));
}
function isIterable(value) {
    try {
        return typeof value === "object" && value !== null && Symbol.asyncIterator in value;
    }
    catch {
        // A proxy.
        return false;
    }
}
/** Sends what an async iterable gives as parts, and resolves to what it returns at last. */
async function sendParts(request, parts) {
    const iterator = parts[Symbol.asyncIterator]();
    try {
        for (;;) {
            const { done, value } = await iterator.next();
            if (done)
                return value;
            await request.send(value);
        }
    }
    catch (error) {
        try {
            await iterator.return?.();
        }
        catch {
            // The first error counts.
        }
        // The caller has enough, and still gets its reply.
        if (isError(error) && error instanceof StreamError && error.kind === "enough")
            return undefined;
        throw error;
    }
}

/** Calls of this side that wait for their responses, and the streams that it has opened. */
/** Calls and streams, by number. */
class Outgoing {
    connection;
    calls = new Map();
    oneWayStreams = new Map();
    constructor(connection) {
        this.connection = connection;
    }
    /** True while a call waits. */
    get isWaiting() {
        return this.calls.size > 0;
    }
    /** Has a call wait for its response. */
    open(id, call) {
        this.calls.set(id, call);
    }
    /** Takes a call out that was given up; its response is ignored. Returns false if it is not there. */
    take(id) {
        const call = this.calls.get(id);
        if (call === undefined)
            return false;
        this.calls.delete(id);
        call.extra?.done?.();
        return true;
    }
    openOneWayStream(id, sender) {
        this.oneWayStreams.set(id, sender);
    }
    closeOneWayStream(id) {
        this.oneWayStreams.delete(id);
    }
    /** Parts of the reply of a call. */
    partsOf(id) {
        return this.calls.get(id)?.extra?.parts;
    }
    /** Takes the window of the other side's streams. */
    widen(window) {
        for (const call of this.calls.values())
            call.extra?.sender?.widen(window);
    }
    /** Fails all: the connection has ended. */
    end(reason) {
        const calls = [...this.calls.values()];
        this.calls.clear();
        for (const call of calls) {
            if (call.extra?.isLate?.())
                continue;
            call.extra?.done?.();
            const text = `no reply to ${JSON.stringify(call.command)}: ${reason.message}`;
            this.endCall(call, new CallError("closed", call.command, text));
        }
        for (const sender of this.oneWayStreams.values())
            sender.fail(new StreamError("closed", reason.message));
        this.oneWayStreams.clear();
    }
    /** Ends the call whose response was over a limit. */
    skipped(chunk, text) {
        const { threadId, command } = chunk;
        const call = this.calls.get(threadId);
        const isCommand = chunk.reason === "command-too-long";
        const isFinal = !chunk.reserved || command === "cmd.error" || command === "cmd.failure" || isCommand;
        if (call === undefined || !isFinal || call.extra?.isLate?.())
            return;
        const message = `the reply to ${JSON.stringify(call.command)} was skipped: ${text}`;
        this.settle(threadId, call, new CallError("tooLarge", call.command, message));
    }
    response(threadId, command, buffer) {
        const call = this.calls.get(threadId);
        // What comes after the deadline is dropped, also if its timer is still to run.
        if (call?.extra?.isLate?.())
            return;
        if (command.startsWith("cmd.")) {
            this.reservedResponse(threadId, call, command, buffer);
            return;
        }
        if (call === undefined)
            return;
        this.calls.delete(threadId);
        if (call.extra !== undefined)
            this.finish(call.extra);
        call.resolve(buffer);
        this.connection.release();
    }
    reservedResponse(threadId, call, command, buffer) {
        const sender = call?.extra?.sender ?? this.oneWayStreams.get(threadId);
        switch (command) {
            case "cmd.part":
                call?.extra?.parts?.push(buffer);
                return;
            case "cmd.part.credit":
                if (sender !== undefined)
                    readCredit(buffer, (total) => sender.credit(total), this.connection);
                return;
            case "cmd.enough":
                sender?.fail(new StreamError("enough", cut(buffer.toString("utf8"), FAILURE_LIMIT)));
                this.oneWayStreams.delete(threadId);
                return;
            case "cmd.progress":
                if (call?.extra?.onProgress !== undefined)
                    this.progress(call.extra, call.extra.onProgress, buffer);
                return;
            case "cmd.end":
                return;
        }
        if (call === undefined)
            return;
        if (command === "cmd.error") {
            const message = cut(buffer.toString("utf8"), FAILURE_LIMIT);
            this.settle(threadId, call, new CallError("remote", call.command, message));
        }
        else if (command === "cmd.failure") {
            const { code, message, data } = parseFailure(buffer);
            this.settle(threadId, call, new CallError("remote", call.command, message, { code, data }));
        }
        else {
            // The answer to a ping, or a response with another cmd: it is found by its number.
            this.calls.delete(threadId);
            if (call.extra !== undefined)
                this.finish(call.extra);
            call.resolve(buffer);
        }
    }
    settle(threadId, call, error) {
        this.calls.delete(threadId);
        call.extra?.done?.();
        this.endCall(call, error);
        this.connection.release();
    }
    endCall(call, error) {
        call.extra?.parts?.end(error);
        call.extra?.sender?.fail(new StreamError(error.kind === "closed" ? "closed" : "enough", error.message));
        call.reject(error);
    }
    finish(extra) {
        extra.done?.();
        extra.parts?.end();
        extra.sender?.fail(new StreamError("enough", "the request has been answered"));
    }
    progress(extra, report, buffer) {
        const progress = parseProgress(buffer);
        if (progress === undefined) {
            this.connection.warn("a report of progress is ignored: it is none");
            return;
        }
        // An error must not end the decoder in the middle of what was read: it is that of the call.
        const failed = (error) => extra.giveUp?.(error);
        try {
            const result = report(progress);
            if (typeof result === "object" && result !== null)
                Promise.resolve(result).catch(failed);
        }
        catch (error) {
            failed(error);
        }
    }
}

/** Pace of what this side sends: the credit of the other side, and who waits for credit or for room to write. */
/** Weight that was sent and taken, and the senders that wait. */
class Pace {
    isFull;
    sent = 0;
    credited = 0;
    /** Calls and one-ways that wait for credit or room. */
    senders = [];
    /** Parts of streams and answers, which wait for room to write only. */
    writers = [];
    constructor(isFull) {
        this.isFull = isFull;
    }
    /** True if a call or one-way may be sent at once. */
    maySend(peer) {
        return this.senders.length === 0 && !this.isFull() && this.hasCredit(peer);
    }
    /** Counts a chunk with weight. */
    count(weight) {
        this.sent += weight;
    }
    /** Takes a credit. Returns false for one that cannot be. */
    credit(total) {
        if (total > this.sent || total < this.credited)
            return false;
        this.credited = total;
        return true;
    }
    /** Calls back when a call may be sent: in the order of the calls. Returns a function that takes it back. */
    whenSendable(call) {
        this.senders.push(call);
        return () => {
            const index = this.senders.indexOf(call);
            if (index >= 0)
                this.senders.splice(index, 1);
        };
    }
    /** Calls back when there is room to write. */
    whenRoom(call) {
        this.writers.push(call);
    }
    get isAwaited() {
        return this.senders.length > 0 || this.writers.length > 0;
    }
    /** Calls those back that have waited for room to write. */
    wakeWriters() {
        while (this.writers.length > 0 && !this.isFull())
            this.writers.shift()();
    }
    /** Calls those back that may send. */
    wakeSenders(peer) {
        while (this.senders.length > 0 && !this.isFull() && this.hasCredit(peer))
            this.senders.shift()();
    }
    /** Calls all back: the connection has ended. */
    end() {
        const all = [...this.senders, ...this.writers];
        this.senders = [];
        this.writers = [];
        for (const call of all)
            call();
    }
    hasCredit(peer) {
        return !peer.features.has("flow") || this.sent - this.credited < peer.window;
    }
}

/** Pipes of a connection: reads into one buffer, writes at once, and spins before it sleeps. */
const READ_SIZE = 64 * 1024;
/** Waits to leave spinning out for, at most, once it has brought nothing. */
const MAX_SKIP = 1024;
/** Spins of a transport: looks for input in each turn of the event loop in place of sleeping. */
class Spinner {
    budget;
    until = 0;
    began = 0;
    isActive = false;
    skip = 0;
    toSkip = 0;
    turn = () => this.look();
    constructor(microseconds) {
        const parallel = typeof availableParallelism === "function" ? availableParallelism() : cpus().length;
        this.budget = parallel > 1 ? microseconds / 1000 : 0;
    }
    /** Begins to look for input, as something was written that may have an answer soon. */
    start(isSure) {
        if (this.budget === 0)
            return;
        if (this.toSkip > 0 && !this.isActive && !isSure) {
            this.toSkip--;
            return;
        }
        this.began = performance.now();
        this.until = this.began + (isSure ? 8 * this.budget : this.budget);
        if (this.isActive)
            return;
        this.isActive = true;
        setImmediate(this.turn);
    }
    /** Notes that input has come. */
    found() {
        if (!this.isActive || this.until === 0)
            return;
        if (performance.now() - this.began <= this.budget)
            this.skip >>= 1;
        else
            this.miss();
        // Until the next start nothing is waited for.
        this.until = 0;
    }
    look() {
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
    miss() {
        this.skip = Math.min(MAX_SKIP, this.skip * 2 + 1);
        this.toSkip = this.skip;
    }
}
/** Two directions of bytes. */
class Transport {
    input;
    reader;
    writer;
    /** Descriptor to write to directly; -1 if there is none. */
    fd = -1;
    own = Buffer.allocUnsafeSlow(READ_SIZE);
    current = this.own;
    spinner;
    /** Bytes for which the peer had no room yet. */
    backlog = 0;
    isReading = true;
    isEnded = false;
    isClosed = false;
    /** True if each write has to be one of its own. */
    atomic = false;
    constructor(ends, input, spin) {
        this.input = input;
        this.spinner = new Spinner(spin);
        const onread = {
            buffer: () => this.nextPlace(),
            callback: (count) => this.took(count),
        };
        if ("reader" in ends) {
            this.reader = ends.reader;
            this.writer = ends.writer;
            this.reader.on("data", (bytes) => this.tookBytes(bytes));
        }
        else {
            this.fd = ends.write;
            this.writer = isStream(ends.write) ? new Socket({ fd: ends.write, readable: false, writable: true }) : undefined;
            if (isStream(ends.read)) {
                // `onread` saves the streams' machinery, and an allocation for each read.
                this.reader = new Socket({ fd: ends.read, readable: true, writable: false, onread });
                this.reader.resume();
            }
            else {
                this.reader = createReadStream("", { fd: ends.read, autoClose: false });
                this.reader.on("data", (bytes) => this.tookBytes(bytes));
            }
        }
        this.reader.on("end", () => this.end(undefined));
        this.reader.on("error", (error) => this.end(error));
        this.reader.on("close", () => this.end(undefined));
        if (!this.isOneSocket)
            this.writer?.on("error", (error) => this.failed(error));
    }
    /** True if a socket is both directions. */
    get isOneSocket() {
        return this.writer === this.reader;
    }
    /** Bytes that wait for the peer. */
    get waiting() {
        return this.backlog;
    }
    write(bytes, length, more) {
        if (this.isClosed)
            return;
        const total = length + (more?.length ?? 0);
        let done = 0;
        if (this.backlog === 0 && this.fd >= 0) {
            try {
                if (more === undefined)
                    done = writeSync(this.fd, bytes, 0, length);
                else if (this.atomic)
                    done = writeSync(this.fd, joined(bytes, length, more));
                else
                    done = writevSync(this.fd, [bytes.subarray(0, length), more]);
            }
            catch (error) {
                if (error.code !== "EAGAIN") {
                    this.failed(error);
                    return;
                }
            }
            if (done === total)
                return;
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
        if (rest !== undefined)
            this.send(rest);
        if (restOfMore !== undefined)
            this.send(restOfMore);
        this.spinner.start(true);
    }
    /** Notes that what was written may be answered soon. */
    expect(isSure) {
        this.spinner.start(isSure);
    }
    /** Stops reading; bytes that were read already still come. */
    pause() {
        this.isReading = false;
        if (this.fd < 0 || !(this.reader instanceof Socket))
            this.reader.pause();
    }
    /** Reads again after `pause`. */
    resume() {
        if (this.isReading)
            return;
        this.isReading = true;
        this.reader.resume();
        if (this.reader instanceof Socket)
            this.reader.read(0);
    }
    /** Lets a process end that has nothing but this connection. */
    unref() {
        this.reader.unref?.();
        this.writer?.unref?.();
    }
    /** Ends the output once all is written, and reads no more. */
    close() {
        if (this.isClosed)
            return;
        this.isClosed = true;
        if (this.writer === undefined) {
            closeSync(this.fd);
        }
        else if (this.backlog > 0 || this.fd < 0) {
            this.writer.end(() => this.writer?.destroy());
        }
        else {
            this.writer.destroy();
        }
        this.fd = -1;
        if (!this.isOneSocket)
            this.reader.destroy();
    }
    send(bytes) {
        this.backlog += bytes.length;
        this.writer?.write(bytes, (error) => {
            this.backlog -= bytes.length;
            if (error)
                this.failed(error);
            else if (this.backlog === 0)
                this.input.drained();
        });
    }
    /** Writes the rest to a file or terminal, which takes all. */
    writeBlocking(bytes, length, more, done) {
        const all = joined(bytes, length, more ?? new Uint8Array(0));
        try {
            for (let at = done; at < all.length;)
                at += writeSync(this.fd, all, at);
        }
        catch (error) {
            this.failed(error);
        }
    }
    failed(error) {
        if (this.isClosed)
            return;
        this.input.writeFailed(error);
    }
    nextPlace() {
        this.current = this.input.place() ?? this.own;
        return this.current;
    }
    took(count) {
        if (this.isClosed)
            return false;
        this.spinner.found();
        if (this.current === this.own)
            this.input.read(this.own, count);
        else
            this.input.readInPlace(count);
        return this.isReading;
    }
    tookBytes(bytes) {
        if (this.isClosed)
            return;
        this.spinner.found();
        this.input.read(bytes, bytes.length);
    }
    end(error) {
        if (this.isEnded || this.isClosed)
            return;
        this.isEnded = true;
        this.input.ended(error);
    }
}
/** Returns true if the descriptor is a pipe or a socket. */
function isStream(fd) {
    const stat = fstatSync(fd);
    return stat.isFIFO() || stat.isSocket();
}
function joined(bytes, length, more) {
    return Buffer.concat([bytes.subarray(0, length), more]);
}

/** Connection of either side: calls in flight, requests that are handled, flow, and the end. */
/** Chunks that are written together, at most: the other side begins with them while this one makes the next. */
const BATCH = 16;
/** Milliseconds in which a peer that does not read any more may still be read from. */
const LAST_WORDS = 100;
/** Bytes that an empty pipe takes in one write. */
const PIPE_SIZE = 65536;
/** Bytes of a header of the classic format without its cmd, at most. */
const CLASSIC_HEADER = 48;
class Connection {
    streamWindow;
    window;
    side;
    peer = NOTHING;
    /** Calls and streams wait no longer for an answer. */
    reason;
    transport;
    decoder;
    encoder;
    room;
    isFlushing = false;
    unflushed = 0;
    doFlush = () => this.flush();
    // Calls of this side.
    outgoing;
    nextId = 1;
    pace = new Pace(() => this.isFull());
    incoming;
    answers;
    written = [];
    isReaderGone = false;
    isNegotiated = false;
    /** True for a peer that may lose what does not come in one read. */
    isOneRead = false;
    /** Set with `reason`, or before, while the side explains it. */
    isOver = false;
    constructor(ends, format, side, options, isReady) {
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
    get commands() {
        return this.side.commands;
    }
    /** Until a host has its guest's answer, one part. */
    get peerStreamWindow() {
        return this.isNegotiated ? this.peer.streamWindow : 1;
    }
    /** True once a chunk has come. */
    get hasHeard() {
        return this.decoder.format !== undefined;
    }
    get format() {
        return this.encoder.format;
    }
    get hasOpenCalls() {
        return this.outgoing.isWaiting;
    }
    pauseReading() {
        this.transport.pause();
    }
    resumeReading() {
        this.transport.resume();
    }
    /** Takes what the other side has named. */
    negotiate(offer) {
        this.peer = offer;
        this.isNegotiated = true;
        this.isOneRead = this.format === "classic" && offer.features.size === 0;
        for (const request of this.incoming.requests.values())
            request.sender?.widen(offer.streamWindow);
        this.outgoing.widen(offer.streamWindow);
        this.incoming.credit();
        this.pump();
    }
    /** True if the other side may lose a part of so large a chunk. */
    mayCut(command, payload) {
        return this.isOneRead && CLASSIC_HEADER + Buffer.byteLength(command) + byteLength(payload) > PIPE_SIZE;
    }
    /** True once a host has its guest's answer, and a guest its host's question. */
    get hasNegotiated() {
        return this.isNegotiated;
    }
    has(feature) {
        return this.peer.features.has(feature);
    }
    // OutgoingOwner.
    warn(message) {
        this.side.warn(message);
    }
    release() {
        this.incoming.release();
    }
    // Calls of this side.
    /** True if a call may be sent at once. */
    canSend() {
        return !this.isOver && this.pace.maySend(this.peer);
    }
    /** Sends a request at once, and returns its number. */
    sendRequest(command, payload, call) {
        const id = this.nextId++;
        this.outgoing.open(id, call);
        this.pace.count(WEIGHT + this.encoder.add(id, REQUEST, command, payload));
        this.schedule();
        return id;
    }
    /** Sends a ping, which has no weight. */
    sendPing(call) {
        const id = this.nextId++;
        this.outgoing.open(id, call);
        this.send(id, REQUEST, call.command, undefined);
        return id;
    }
    /** Sends the context of the request or one-way that follows, with the number that this one will have. */
    sendContext(text) {
        this.encoder.add(this.nextId, ONE_WAY, "cmd.context", text);
    }
    /** Sends a one-way at once: with a number if it has a context or a stream. Returns that. */
    sendOneWay(command, payload, isNumbered) {
        const id = isNumbered ? this.nextId++ : 0;
        this.pace.count(WEIGHT + this.encoder.add(id, ONE_WAY, command, payload));
        this.schedule();
        return id;
    }
    /** Calls back when a call may be sent: in the order of the calls. Returns a function that takes it back. */
    whenSendable(call) {
        return this.pace.whenSendable(call);
    }
    /** Takes a call out that was given up; its response is ignored. */
    giveUp(id) {
        if (!this.outgoing.take(id))
            return;
        if (this.has("cancel"))
            this.send(id, ONE_WAY, "cmd.cancel", undefined);
        this.incoming.release();
    }
    // RequestOwner, and all other chunks.
    send(threadId, direction, command, payload) {
        if (!this.isWritable)
            return;
        this.encoder.add(threadId, direction, command, payload);
        this.schedule();
    }
    isFull() {
        return this.transport.waiting + this.encoder.pending > this.room;
    }
    /** True if answers would only wait, since the other side does not read. */
    isHeldUp() {
        return this.reason === undefined && this.isFull();
    }
    whenRoom(call) {
        if (this.reason === undefined)
            this.pace.whenRoom(call);
    }
    /** True while answers can be written: a peer that sends no more may still read, as the end of a pipeline. */
    get isWritable() {
        return !this.isOver || this.reason?.kind === "endOfFile";
    }
    /** Resolves once everything is written, or cannot be. */
    whenWritten() {
        this.flush();
        if (this.transport.waiting === 0)
            return Promise.resolve();
        return new Promise((resolve) => this.written.push(resolve));
    }
    /** Ends the connection. What was sent is still written. */
    close(reason) {
        const mayExplain = reason.kind !== "closed" && this.side.explain !== undefined;
        if (this.reason !== undefined || (this.isOver && mayExplain))
            return;
        this.flush();
        this.isOver = true;
        if (mayExplain)
            this.side.explain?.(reason).then((explained) => this.end(explained));
        else
            this.end(reason);
    }
    end(reason) {
        if (this.reason !== undefined)
            return;
        this.reason = reason;
        this.outgoing.end(reason);
        this.pace.end();
        this.incoming.end(reason.message, this.isWritable);
        this.side.closed(reason);
    }
    /** Closes the descriptors, once what was sent is written. */
    destroy() {
        this.transport.close();
        this.wakeWritten();
    }
    unref() {
        this.transport.unref();
    }
    // Input: what the transport reads.
    read(bytes, count) {
        if (this.isOver)
            return;
        try {
            this.decoder.push(bytes, count);
            this.afterRead();
        }
        catch (error) {
            this.broken(error);
        }
    }
    place() {
        return this.isOver ? undefined : this.decoder.place();
    }
    readInPlace(count) {
        if (this.isOver)
            return;
        try {
            this.decoder.filledInPlace(count);
            this.afterRead();
        }
        catch (error) {
            this.broken(error);
        }
    }
    ended(error) {
        if (this.isOver)
            return;
        if (error !== undefined) {
            this.close({ kind: "system", message: `the pipe cannot be read: ${error.message}` });
            return;
        }
        try {
            this.decoder.end();
            this.close({ kind: "endOfFile", message: "the other side closed the pipe" });
        }
        catch (broken) {
            this.broken(broken);
        }
    }
    drained() {
        this.flush();
        if (this.transport.waiting > 0)
            return;
        this.answers.unreadBytes = 0;
        this.wakeWritten();
        this.pump();
    }
    writeFailed(error) {
        this.wakeWritten();
        const isGone = ["EPIPE", "ECONNRESET"].includes(error.code ?? "");
        if (!isGone) {
            this.close({ kind: "system", message: `the pipe cannot be written: ${error.message}` });
            return;
        }
        if (this.isReaderGone)
            return;
        this.isReaderGone = true;
        // Its last words may still be in the other pipe, which ends then.
        const close = () => this.close({ kind: "readerGone", message: "the other side does not read any more" });
        setTimeout(close, LAST_WORDS);
    }
    /** Takes a total of the other side's credit. Returns false for one that cannot be. */
    takeCredit(total) {
        return this.pace.credit(total);
    }
    /** Goes on with all that may have waited. */
    pump() {
        if (this.isOver)
            return;
        this.pace.wakeWriters();
        if (this.incoming.isWaiting)
            this.incoming.work();
        this.pace.wakeSenders(this.peer);
    }
    // Writing.
    schedule() {
        if (++this.unflushed >= BATCH) {
            this.flushNow();
            return;
        }
        if (this.isFlushing)
            return;
        this.isFlushing = true;
        process.nextTick(this.doFlush);
    }
    flushNow() {
        this.unflushed = 0;
        this.encoder.flush();
        this.transport.expect(false);
    }
    flush() {
        this.isFlushing = false;
        if (this.encoder.pending === 0)
            return;
        this.flushNow();
        if (this.pace.isAwaited || this.incoming.isWaiting)
            this.pump();
    }
    afterRead() {
        if (this.isFlushing)
            this.flush();
        // The rest of a buffer follows soon.
        if (this.decoder.isInBuffer)
            this.transport.expect(true);
    }
    /** Takes the format of the first chunk, before anything is written. */
    showFormat() {
        const format = this.decoder.format ?? "standard";
        this.encoder.format = format;
        // Until the host has named a feature.
        this.isOneRead = format === "classic";
        this.transport.atomic = format === "classic";
    }
    broken(error) {
        if (!(error instanceof ProtocolError))
            throw error;
        const how = error.kind === "end" ? "ended in the middle of a chunk" : "broke the protocol";
        // What the other side is sent now it may not understand: nothing.
        this.close({ kind: "broken", message: `the other side ${how}: ${error.message}` });
    }
    wakeWritten() {
        const written = this.written;
        this.written = [];
        for (const resolve of written)
            resolve();
    }
}

/** Descriptors of a guest, and the guard around standard input and output. */
/** Error of registering with a host. */
class RegisterError extends Error {
    name = "RegisterError";
}
/** Reads the descriptors, if the first two arguments are numbers. */
function plan(args) {
    const [read, write] = args.slice(0, 2).map((arg) => (/^[0-9]+$/.test(arg) ? Number(arg) : Number.NaN));
    const isNumber = (value) => value !== undefined && value <= 0x7fff_ffff;
    if (isNumber(read) && isNumber(write))
        return { read, write, told: true, args: args.slice(2) };
    return { read: 0, write: 1, told: false, args: [...args] };
}
/** Returns true if no host can be at the other end: this was started in a terminal, or without an input. */
function isByHand(plan) {
    if (plan.told)
        return false;
    return isatty(0) || isatty(1) || (stat(0)?.isCharacterDevice() ?? false);
}
/** Makes both descriptors the connection's own: what is printed goes to standard error from here on. */
function take(plan) {
    if (plan.told && plan.read === plan.write) {
        throw new RegisterError(`descriptor ${plan.read} was given for both directions; hand down a copy of it under another number`);
    }
    check(plan.read, "in", plan.told);
    check(plan.write, "out", plan.told);
    return { read: takeInput(plan.read), write: takeOutput(plan.write) };
}
function check(number, half, told) {
    const which = `descriptor ${number}, which is to bring messages ${half},`;
    if (number === 2) {
        throw new RegisterError(`${which} cannot be ${half === "in" ? "read from" : "written to"}; the first argument of a plugin is the descriptor to read from, the second the one to write to`);
    }
    const found = stat(number);
    if (found === undefined) {
        throw new RegisterError(`${which} is not open: the first two arguments of a plugin are the numbers of its descriptors, which the program that starts it has to pass on (pass_fds=(3, 4) in Python, stdio: [0, 1, 2, 3, 4] in Node)`);
    }
    // By hand, chunks may come from a file and go to one.
    if (!told || found.isFIFO() || found.isSocket())
        return;
    const kind = found.isFile()
        ? "a regular file"
        : found.isDirectory()
            ? "a directory"
            : found.isCharacterDevice()
                ? "a terminal or another device"
                : "a file of another kind";
    throw new RegisterError(`${which} is ${kind}, neither a pipe nor a socket; its host has to hand down one of these`);
}
function stat(number) {
    try {
        return fstatSync(number);
    }
    catch {
        return undefined;
    }
}
/** Opens standard input anew, and puts nothing in its place. Node has no dup(2). */
function takeInput(number) {
    if (number !== 0)
        return number;
    try {
        const copy = openSync("/proc/self/fd/0", "r");
        replace(0, "/dev/null", "r");
        return copy;
    }
    catch {
        // A socket cannot be opened anew.
        return 0;
    }
}
/** Opens standard output anew, and puts standard error in its place. */
function takeOutput(number) {
    if (number !== 1)
        return number;
    let copy = 1;
    try {
        copy = openSync("/proc/self/fd/1", "a");
    }
    catch {
        // A socket cannot be opened anew: only what this program prints is kept from it, below.
    }
    if (copy !== 1)
        replaceOutput();
    redirectPrints();
    return copy;
}
function replaceOutput() {
    try {
        replace(1, "/proc/self/fd/2", "a");
    }
    catch {
        // Standard error is a socket, or closed. What a child prints goes nowhere then.
        replace(1, "/dev/null", "w");
    }
}
/** Opens a file as the descriptor of that number: the lowest one that is free. */
function replace(number, path, flags) {
    const opened = openSync(path, flags);
    closeSync(number);
    let again;
    try {
        again = openSync(path, flags);
    }
    catch {
        again = openSync("/dev/null", "r+");
    }
    closeSync(opened);
    if (again !== number) {
        closeSync(again);
        throw new RegisterError(`descriptor ${number} cannot be replaced`);
    }
}
/** Has `console.log` and `process.stdout` write where they do no harm, in order with what goes to stderr. */
function redirectPrints() {
    const stdout = process.stdout;
    stdout.write = process.stderr.write.bind(process.stderr);
}

/** Options of a connection, and the reason of its end. */
const CONNECTION = {
    limits: nested({
        of: "the limits",
        options: { command: BYTES, buffer: BYTES },
    }),
    window: BYTES,
    streamWindow: BYTES,
    streams: COUNT,
    handlers: COUNT,
    outgoing: BYTES,
    unread: BYTES,
    spin: MICROSECONDS,
    inOrder: ORDER,
};

/** Options of a plugin. */
const LEVELS = ["off", "error", "warn", "info", "debug", "trace"];
const OWN = {
    commands: FUNCTIONS,
    handler: FUNCTION,
    services: SERVICES,
    metadata: TEXT_BY_NAME,
    interfaceVersions: NUMBERS,
    start: FUNCTION,
    grace: WAIT,
    onEnd: oneOf("exit", "stay"),
    args: TEXTS,
};
const GUEST = { of: "register", options: { ...OWN, ...CONNECTION } };

/** Waiting for a host that attaches, for a plugin that a person or a debugger starts. */
/** Makes a socket at the path that only this user may connect to, and waits for one host. */
function listen(path, name, refuse) {
    const reader = new PassThrough();
    const writer = new PassThrough();
    const failed = (reason) => refuse(new Error(`cannot wait for a host at ${JSON.stringify(path)}: ${reason}`));
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat !== undefined && !stat.isSocket())
        failed("the file there is not a socket: use another path");
    const server = createServer({ allowHalfOpen: true }, (socket) => {
        server.close();
        rmSync(path, { force: true });
        socket.pipe(reader);
        writer.pipe(socket);
        socket.on("error", (error) => reader.destroy(error));
    });
    server.maxConnections = 1;
    let isStale = stat !== undefined;
    server.on("error", (error) => {
        if (error.code === "EADDRINUSE" && isStale) {
            isStale = false;
            removeStale(path, () => open(), () => failed("another process listens there: end that, or take another path"));
        }
        else {
            failed(error.message);
        }
    });
    const open = () => {
        // From the first moment on: it cannot be connected to with other rights in between.
        const mask = process.umask(0o177);
        try {
            server.listen(path, () => {
                process.stderr.write(`${name} waits for its host: pipeplug run --attach ${path} --call COMMAND [DATA]\n`);
            });
            chmodSync(path, 0o600);
        }
        catch {
            // The server's error event tells.
        }
        finally {
            process.umask(mask);
        }
    };
    open();
    return { reader, writer };
}
/** Removes the socket of a process that has ended. */
function removeStale(path, removed, inUse) {
    const probe = connect(path);
    probe.on("connect", () => {
        probe.destroy();
        inUse();
    });
    probe.on("error", () => {
        rmSync(path, { force: true });
        removed();
    });
}

/** Checks of JSON values against the part of JSON Schema (2020-12) that descriptions of services use. */
/** Returns the first misfit of a value, or undefined if it fits. */
function misfit(value, schema, defs = {}, path = "") {
    if (schema === true)
        return undefined;
    if (schema === false)
        return { path, message: "should not be there" };
    const reference = schema.$ref;
    if (typeof reference === "string") {
        const target = defs[reference.replace(/^#\/\$defs\//, "")];
        const found = target === undefined ? undefined : misfit(value, target, defs, path);
        if (found !== undefined)
            return found;
    }
    return (typeMisfit(value, schema, path) ??
        choiceMisfit(value, schema, defs, path) ??
        boundsMisfit(value, schema, path) ??
        objectMisfit(value, schema, defs, path) ??
        listMisfit(value, schema, defs, path));
}
/** Adds the defaults of arguments that are missing. */
function withDefaults(value, schema) {
    if (typeof schema !== "object")
        return value;
    const result = { ...value };
    for (const [name, property] of Object.entries(schemas(schema.properties))) {
        const isGiven = Object.hasOwn(result, name);
        if (!isGiven && typeof property === "object" && "default" in property)
            result[name] = property.default;
    }
    return result;
}
function typeMisfit(value, schema, path) {
    const types = schema.type;
    if (types === undefined)
        return undefined;
    const list = Array.isArray(types) ? types : [types];
    if (list.some((type) => isOfType(value, type)))
        return undefined;
    return { path, message: `is ${excerpt(value)}, and should be ${list.join(" or ")}` };
}
function isOfType(value, type) {
    switch (type) {
        case "null":
            return value === null;
        case "array":
            return Array.isArray(value);
        case "object":
            return typeof value === "object" && value !== null && !Array.isArray(value);
        case "integer":
            return Number.isInteger(value);
        default:
            return typeof value === type;
    }
}
function choiceMisfit(value, schema, defs, path) {
    const text = JSON.stringify(value);
    const { const: only, enum: values, allOf, anyOf, oneOf, not } = schema;
    if ("const" in schema && JSON.stringify(only) !== text) {
        return { path, message: `is ${excerpt(value)}, and should be ${excerpt(only)}` };
    }
    if (Array.isArray(values) && !values.some((item) => JSON.stringify(item) === text)) {
        return { path, message: `is ${excerpt(value)}, and should be one of ${excerpt(values)}` };
    }
    for (const each of allOf ?? []) {
        const found = misfit(value, each, defs, path);
        if (found !== undefined)
            return found;
    }
    for (const choices of [anyOf, oneOf]) {
        if (choices === undefined)
            continue;
        const found = choices.map((each) => misfit(value, each, defs, path));
        const fits = found.filter((each) => each === undefined).length;
        if (fits === 0)
            return found.length === 1 && found[0]
                ? found[0]
                : { path, message: `is ${excerpt(value)}, which is none of its variants` };
    }
    if (not !== undefined && misfit(value, not, defs, path) === undefined) {
        return { path, message: `should not be ${excerpt(value)}` };
    }
    return undefined;
}
function boundsMisfit(value, schema, path) {
    const bound = (key) => typeof schema[key] === "number" ? schema[key] : undefined;
    const number = typeof value === "number" ? value : undefined;
    const length = typeof value === "string" ? [...value].length : undefined;
    const outside = [
        [number, "minimum", (a, b) => a < b],
        [number, "maximum", (a, b) => a > b],
        [number, "exclusiveMinimum", (a, b) => a <= b],
        [number, "exclusiveMaximum", (a, b) => a >= b],
        [length, "minLength", (a, b) => a < b],
        [length, "maxLength", (a, b) => a > b],
    ];
    for (const [actual, key, isOutside] of outside) {
        const limit = bound(key);
        if (actual !== undefined && limit !== undefined && isOutside(actual, limit)) {
            return { path, message: `is ${excerpt(value)}: the ${key} is ${limit}` };
        }
    }
    return undefined;
}
function objectMisfit(value, schema, defs, path) {
    if (!isOfType(value, "object"))
        return undefined;
    const object = value;
    const properties = schemas(schema.properties);
    for (const name of schema.required ?? []) {
        if (!Object.hasOwn(object, name))
            return { path: pathOf(path, name), message: "is missing" };
    }
    const patterns = Object.entries(schemas(schema.patternProperties));
    const others = schema.additionalProperties;
    for (const [name, item] of Object.entries(object)) {
        const pattern = patterns.find(([pattern]) => new RegExp(pattern, "u").test(name));
        const property = Object.hasOwn(properties, name) ? properties[name] : (pattern?.[1] ?? others);
        const found = property === undefined ? undefined : misfit(item, property, defs, pathOf(path, name));
        if (found !== undefined)
            return found;
    }
    return undefined;
}
function listMisfit(value, schema, defs, path) {
    if (!Array.isArray(value))
        return undefined;
    const { minItems, maxItems } = schema;
    if (typeof minItems === "number" && value.length < minItems)
        return { path, message: `has ${value.length} items, and should have ${minItems}` };
    if (typeof maxItems === "number" && value.length > maxItems)
        return { path, message: `has ${value.length} items, and should have ${maxItems}` };
    const first = schema.prefixItems ?? [];
    const items = schema.items;
    for (const [index, item] of value.entries()) {
        const each = first[index] ?? items;
        const found = each === undefined ? undefined : misfit(item, each, defs, `${path}[${index}]`);
        if (found !== undefined)
            return found;
    }
    return undefined;
}
function schemas(value) {
    return (typeof value === "object" && value !== null ? value : {});
}
function pathOf(path, name) {
    return path === "" ? name : `${path}.${name}`;
}
function excerpt(value) {
    const text = JSON.stringify(value) ?? "nothing";
    return text.length > 80 ? `${text.slice(0, 77)}…` : text;
}

/** Typed services: sets of commands that describe themselves. */
/** Error of a method's own, which its caller gets as data. */
class MethodError extends Failure {
    constructor(message, error) {
        super(failureCode.methodError, message, error);
    }
}
/** Joins a description with the functions of its methods. */
function service(description, implementation) {
    checkDescription(description);
    if (typeof implementation !== "object" || implementation === null) {
        throw new TypeError(`the implementation of the service ${description.name} has to be an object of functions, not ${shown(implementation)}`);
    }
    const methods = implementation;
    for (const { name } of description.methods) {
        if (typeof methods[name] !== "function")
            throw new TypeError(`the service ${description.name} has no function ${name}`);
    }
    return { description, implementation: methods };
}
/** Throws a `TypeError` that names what a description lacks. */
function checkDescription(description) {
    const wrong = (what, expected, value) => new TypeError(`${what} has to be ${expected}, not ${shown(value)}`);
    if (typeof description !== "object" || description === null) {
        throw wrong("the description of a service", "an object with name, version and methods", description);
    }
    const { name, version, methods } = description;
    if (typeof name !== "string" || name === "")
        throw wrong("the name of a service", "a string that is not empty", name);
    if (typeof version !== "number")
        throw wrong(`the version of the service ${name}`, "a number", version);
    if (!Array.isArray(methods))
        throw wrong(`"methods" of the service ${name}`, "an array of objects", methods);
    for (const method of methods) {
        if (typeof method !== "object" || method === null) {
            throw wrong(`a method of the service ${name}`, "an object with a name", method);
        }
        const named = method.name;
        if (typeof named !== "string")
            throw wrong(`the name of a method of the service ${name}`, "a string", named);
    }
    try {
        JSON.stringify(description);
    }
    catch (error) {
        throw new TypeError(`the description of the service ${name} cannot be written as JSON: ${firstLine(error)}`);
    }
}
/** Description as it is sent. */
function describe({ description }) {
    const { name, version, oldest } = description;
    return {
        ...description,
        oldest: oldest ?? version,
        methods: description.methods.map((method) => ({ ...method, command: commandOf(name, method) })),
    };
}
/** Value of `pipeplug.services`. */
function namesOf(services) {
    return services
        .map(({ description: { name, version, oldest } }) => {
        return oldest === undefined || oldest === version ? `${name}/${version}` : `${name}/${oldest}-${version}`;
    })
        .join(" ");
}
/** Handlers of a service, by command. */
function handlerOf({ description, implementation }) {
    // It may be made without service().
    checkDescription(description);
    const defs = description.$defs ?? {};
    return description.methods.map((method) => {
        const run = implementation[method.name];
        const handler = async (request) => {
            const args = readArguments(request, method, defs);
            const itemsIn = method.items_in;
            const own = request;
            own.items = () => items(request.parts, itemsIn, defs);
            const result = await run.call(implementation, args, own);
            return isIterable(result) ? encodeItems(result) : encode(method, result);
        };
        return [commandOf(description.name, method), handler];
    });
}
function commandOf(service, method) {
    return method.command ?? `${service}.${method.name}`;
}
function readArguments(request, method, defs) {
    const value = request.buffer.length === 0 ? {} : request.json();
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
        throw new Failure(failureCode.invalidArgument, `the arguments of ${request.command} are no JSON object`);
    }
    const args = withDefaults(value, method.arguments);
    const found = method.arguments === undefined ? undefined : misfit(args, method.arguments, defs);
    if (found !== undefined) {
        const text = `the argument ${JSON.stringify(found.path)} of ${request.command} ${found.message}`;
        throw new Failure(failureCode.invalidArgument, text, { field: found.path });
    }
    return args;
}
async function* items(parts, schema, defs) {
    for await (const part of parts) {
        let value;
        try {
            value = JSON.parse(part.toString("utf8"));
        }
        catch (error) {
            throw new Failure(failureCode.invalidArgument, `an item is no JSON: ${error.message}`);
        }
        const found = schema === undefined ? undefined : misfit(value, schema, defs);
        if (found !== undefined) {
            const text = `an item does not fit: ${found.path || "it"} ${found.message}`;
            throw new Failure(failureCode.invalidArgument, text, { field: found.path });
        }
        yield value;
    }
}
async function* encodeItems(values) {
    for await (const value of values)
        yield toJson("an item", value);
}
function encode(method, result) {
    return result === undefined || method.one_way ? undefined : toJson(`the result of ${method.name}`, result);
}
function toJson(what, value) {
    try {
        return JSON.stringify(value);
    }
    catch (error) {
        throw new Failure(failureCode.invalidResult, `${what} cannot be encoded: ${messageOf(error)}`);
    }
}
/** Returns an object with a function for each method of the description. */
function client(caller, description) {
    if (typeof caller?.call !== "function") {
        throw new TypeError(`the first argument of client() has to be a Plugin or Main, not ${shown(caller)}`);
    }
    checkDescription(description);
    const methods = {};
    for (const method of description.methods) {
        const command = commandOf(description.name, method);
        methods[method.name] = (args, options) => {
            const payload = args === undefined ? undefined : JSON.stringify(args);
            if (method.items_in !== undefined || method.items_out !== undefined)
                return callItems(caller, method, command, payload, options);
            if (method.one_way)
                return caller.notify(command, payload, options);
            return caller.call(command, payload, options).then((reply) => decode(command, reply));
        };
    }
    return methods;
}
function callItems(caller, method, command, payload, options) {
    if (method.one_way) {
        const sender = caller.notifyStream(command, payload, options);
        return { send: (item) => sender.send(JSON.stringify(item)), finish: () => sender.finish() };
    }
    const call = caller.stream(command, payload, options);
    // A method that takes no items is not waited for.
    if (method.items_in === undefined)
        call.finish().catch(() => { });
    const result = call.reply.then((reply) => decode(command, reply));
    result.catch(() => { });
    return {
        send: (item) => call.send(JSON.stringify(item)),
        finish: () => call.finish(),
        result,
        async *[Symbol.asyncIterator]() {
            for await (const part of call.parts)
                yield decode(command, part);
        },
    };
}
function decode(command, reply) {
    if (reply.length === 0)
        return undefined;
    try {
        return JSON.parse(reply.toString("utf8"));
    }
    catch (error) {
        throw new CallError("invalid", command, `the reply to ${command} is no JSON: ${error.message}`);
    }
}
/** Throws if the other side does not have a service, or in a version that does not serve this one. */
function checkServed(named, description) {
    checkDescription(description);
    const { name, version } = description;
    const found = named.split(" ").find((word) => word.startsWith(`${name}/`));
    if (found === undefined)
        throw new Error(`the other side has no service "${name}"; it has ${named || "none at all"}`);
    const [oldest, newest] = found
        .slice(name.length + 1)
        .split("-")
        .map(Number);
    if (version >= (oldest ?? 0) && version <= (newest ?? oldest ?? 0))
        return;
    throw new Error(`the other side serves version ${found.slice(name.length + 1)} of the service ${name}, and this side speaks ${version}: upgrade the older one`);
}

/** The plugin's side: registers with the host that has started this program. */
/** Milliseconds to wait for the host's metadata once it has asked something else. */
const METADATA_PAUSE = 200;
/** Exit status of a plugin that no host has started, or that cannot use what it was given. */
const EXIT_USAGE = 2;
/** The host, as its plugin sees it. */
class Main extends Caller {
    /** Arguments of the plugin's own. */
    args;
    /** Resolves to the exit status when the connection has ended. */
    ended;
    /** Aborted when the plugin is to end; the reason is a `Stop`. */
    stopping;
    guest;
    /** Made by `register`. */
    constructor(guest, connection) {
        super(connection);
        this.guest = guest;
        this.args = guest.plan.args;
        this.ended = guest.ended;
        this.stopping = guest.stopping.signal;
    }
    /** Metadata of the host; without the configuration. */
    get metadata() {
        return this.guest.hostMetadata;
    }
    /** Configuration that the host has for this plugin; undefined if it has none. */
    config() {
        const text = this.connection.peer.config;
        return text === undefined ? undefined : JSON.parse(text);
    }
    /** Version of the interface that both sides speak; undefined if one names none. */
    get interfaceVersion() {
        return this.guest.version;
    }
    /** Level that the host has set; undefined if it leaves that to the plugin. */
    get logLevel() {
        return this.guest.level;
    }
    /** Logs an event to standard error, as a line that the host understands, if the level is one that it wants. */
    log(level, message, fields = {}) {
        if (LEVELS.indexOf(level) > LEVELS.indexOf(this.logLevel ?? "info"))
            return;
        const line = { level: level.toUpperCase(), target: this.guest.name, fields: { message, ...fields } };
        process.stderr.write(`${JSON.stringify(line)}\n`);
    }
}
/** Registers with the host: takes the descriptors over, and answers what it asks. */
function register(options) {
    checkOptions(options, GUEST);
    const guest = new Guest(options);
    return guest.begin();
}
class Guest {
    name = basename(process.argv[1] ?? "plugin");
    plan;
    handler;
    commands;
    stopping = new AbortController();
    ended;
    hostMetadata = {};
    version;
    level;
    options;
    connection;
    main;
    resolveEnded = () => { };
    metadata;
    starting;
    isIntroduced = false;
    isStopping = false;
    isOver = false;
    isFinished = false;
    warnings = 0;
    constructor(options) {
        this.options = options;
        this.plan = plan(options.args ?? process.argv.slice(2));
        const commands = new Map(Object.entries(options.commands ?? {}));
        for (const service of options.services ?? []) {
            for (const [command, handler] of handlerOf(service))
                commands.set(command, handler);
        }
        this.commands = [...commands.keys()];
        const other = options.handler ?? ((request) => request.unknown());
        this.handler = (request) => {
            const handler = commands.get(request.command);
            return handler === undefined ? other(request) : handler(request);
        };
        this.ended = new Promise((resolve) => {
            this.resolveEnded = resolve;
        });
    }
    begin() {
        const isListening = this.plan.args[0] === "--pipeplug-listen" && !this.plan.told;
        if (isListening)
            return this.beginListening();
        if (isByHand(this.plan))
            this.refuse(this.withoutHost());
        try {
            return this.connect(take(this.plan));
        }
        catch (error) {
            if (error instanceof RegisterError)
                this.refuse(error);
            throw error;
        }
    }
    // Side: what the connection asks.
    protocol(threadId, command, buffer) {
        if (command === "GetServices") {
            const services = this.options.services ?? [];
            if (services.length === 0)
                return false;
            this.connection?.answers.answer(threadId, command, JSON.stringify({ services: services.map(describe) }));
            return true;
        }
        void this.introduce(threadId, buffer);
        return true;
    }
    notice(command, buffer) {
        if (command === "cmd.stop")
            void this.stop();
        else if (command === "cmd.log_level")
            this.setLevel(buffer.toString("utf8"));
    }
    closed(reason) {
        if (!this.stopping.signal.aborted)
            this.stopping.abort("hostGone");
        void this.end(reason);
    }
    /** Logs the 1st, 2nd, 4th, 8th, … warning: the host could cause them without limit. */
    warn(message) {
        if (this.level === "off" || this.level === "error")
            return;
        const count = ++this.warnings;
        if ((count & (count - 1)) === 0)
            this.say(count === 1 ? message : `${message} (warning ${count})`);
    }
    connect(ends) {
        const connection = new Connection(ends, undefined, this, this.options, false);
        // A print to an output that is gone with the host is no reason to end before the handlers do.
        for (const stream of [process.stdout, process.stderr])
            stream.on("error", () => { });
        this.connection = connection;
        this.main = new Main(this, connection);
        if (this.options.start === undefined && this.options.interfaceVersions === undefined)
            connection.incoming.ready();
        else
            connection.incoming.whenHeld = () => this.startWithoutMetadata();
        return this.main;
    }
    beginListening() {
        const path = this.plan.args[1] ?? "";
        if (path === "") {
            this.refuse(new RegisterError("--pipeplug-listen needs the path of the socket to make, as in `--pipeplug-listen /tmp/plugin.sock`"));
        }
        this.plan.args.splice(0, 2);
        return this.connect(listen(path, this.name, (error) => this.refuse(error)));
    }
    /** Starts although the host has asked something else first: an older one, or a person with a pipe. */
    startWithoutMetadata() {
        const timer = setTimeout(() => void this.startNow(), METADATA_PAUSE);
        timer.unref();
    }
    async startNow() {
        if (this.isIntroduced || this.isFinished)
            return;
        this.isIntroduced = true;
        this.starting = this.start();
        await this.starting;
        if (!this.isFinished)
            this.connection?.incoming.ready();
    }
    /** Waits until what has come before the end of the start is let in. */
    async settle() {
        const connection = this.connection;
        if (!this.isIntroduced && connection.incoming.isWaiting)
            void this.startNow();
        if (this.starting !== undefined)
            await this.within(this.starting.then(() => { }), "stopped during the start");
    }
    /** Answers the host's first question, once the start call-back has run. */
    async introduce(threadId, buffer) {
        const connection = this.connection;
        if (this.metadata === undefined) {
            const named = parseMetadata(buffer) ?? {};
            const host = parseOffer(named);
            // A configuration may hold secrets: it is no part of the metadata.
            const { "pipeplug.config": _, ...metadata } = named;
            this.hostMetadata = metadata;
            if (host.logLevel !== undefined)
                this.setLevel(host.logLevel);
            const versions = this.options.interfaceVersions;
            const common = commonVersion(versions, host.interfaceVersions);
            connection.negotiate(host);
            this.metadata = JSON.stringify(offer(this.options.metadata ?? {}, {
                features: ["config", "log"],
                window: connection.window,
                streamWindow: connection.streamWindow,
                interfaceVersions: versions,
                services: namesOf(this.options.services ?? []),
            }));
            if (common === null) {
                // The host names both lists, and ends this.
                connection.answers.answer(threadId, "GetMetadata", this.metadata);
                this.say(`the host speaks the versions ${host.interfaceVersions?.join(", ")} of the interface, and this plugin ${versions?.join(", ")}: upgrade the older one`);
                await this.within(connection.whenWritten(), "");
                this.finish(1);
                return;
            }
            this.version = common;
            if (!this.isIntroduced) {
                this.isIntroduced = true;
                if (this.options.start !== undefined)
                    this.starting = this.start();
            }
        }
        if (this.starting !== undefined)
            await this.starting;
        if (this.isFinished)
            return;
        connection.answers.answer(threadId, "GetMetadata", this.metadata);
        connection.incoming.ready();
    }
    async start() {
        const { start } = this.options;
        if (start === undefined) {
            this.starting = undefined;
            return;
        }
        try {
            await start(this.main);
        }
        catch (error) {
            if (this.isFinished)
                return;
            this.isOver = true;
            this.say(`the plugin's start failed: ${messageOf(error)}`);
            this.finish(1);
            return;
        }
        this.starting = undefined;
    }
    setLevel(level) {
        if (LEVELS.includes(level))
            this.level = level;
        else
            this.say(`the log level ${JSON.stringify(level.slice(0, 64))} is ignored: there is none of that name`);
    }
    /** The host said stop: answers what it has asked, then ends. */
    async stop() {
        if (this.isStopping)
            return;
        this.isStopping = true;
        if (!this.stopping.signal.aborted)
            this.stopping.abort("asked");
        const connection = this.connection;
        await this.settle();
        await this.within(connection.incoming.whenIdle(), "stopped with handlers still at work");
        await this.within(connection.whenWritten(), "stopped with answers still to be written");
        this.finish(0);
    }
    /** The connection has ended: handlers that still run have the grace time. */
    async end(reason) {
        if (this.isOver || this.isStopping)
            return;
        this.isOver = true;
        const connection = this.connection;
        await this.settle();
        await this.within(connection.incoming.whenIdle(), "handlers were still at work when the host was gone");
        // The other half may still be read, as at the end of a pipeline.
        if (reason.kind === "endOfFile")
            await this.within(connection.whenWritten(), "");
        // Nothing came before the end of the input: there never was a host.
        const isAlone = reason.kind === "endOfFile" && !connection.hasHeard;
        if (isAlone)
            process.stderr.write(`${this.withoutHost().message}\n`);
        else
            this.say(`the host is gone: ${reason.message}`);
        this.finish(isAlone ? EXIT_USAGE : 1);
    }
    async within(done, otherwise) {
        const grace = this.options.grace ?? 5000;
        let timer;
        const passed = new Promise((resolve) => {
            timer = setTimeout(() => {
                if (otherwise !== "")
                    this.say(`${otherwise} after ${grace} ms`);
                resolve();
            }, timerTime(grace));
        });
        await Promise.race([done, passed]);
        clearTimeout(timer);
    }
    finish(status) {
        if (this.isFinished)
            return;
        this.isOver = this.isFinished = true;
        const connection = this.connection;
        connection.close({ kind: "closed", message: "this side has ended" });
        connection.destroy();
        this.resolveEnded(status);
        if (this.options.onEnd === "stay")
            return;
        process.exitCode = status;
        // Those who wait for the end of the plugin come first.
        setImmediate(() => process.exit(status));
    }
    withoutHost() {
        const path = process.argv[1] ?? "PLUGIN";
        return new RegisterError(`${this.name} is a plugin: a host starts it and talks to it over pipes. To try it in a terminal:\n\n    pipeplug run ${path} --call COMMAND [DATA]\n`);
    }
    refuse(error) {
        process.stderr.write(`${error.message}\n`);
        process.exit(EXIT_USAGE);
    }
    say(message) {
        process.stderr.write(`${this.name}: ${message}\n`);
    }
}

/** Examination of a program that cannot be started: an errno tells neither what is wrong nor what to do. */
/** Bytes of a file that are looked at. */
const LOOKED_AT = 512;
/** Machines of ELF headers, by `process.arch`. */
const MACHINES = {
    ia32: 3,
    ppc64: 21,
    s390x: 22,
    arm: 40,
    x64: 62,
    arm64: 183,
    riscv64: 243,
    loong64: 258,
};
/** Returns why the program at an absolute path cannot be started, or undefined if no reason is visible. */
function problemOf(path, isScript) {
    let stat;
    try {
        stat = statSync(path);
    }
    catch (error) {
        return `no plugin at ${quote(path)}: ${missing(path, error)}`;
    }
    const problem = problemOfFile(path, stat, isScript);
    return problem === undefined ? undefined : `plugin ${quote(path)} ${problem}`;
}
/** Returns the message for an error of spawn(2) that the file does not explain. */
function problemOfSpawn(path, error) {
    const texts = {
        ETXTBSY: "is open for writing: close the file, or wait for its copy to end, and start it again",
        EMFILE: "needs some free descriptors (too many open files): run fewer plugins, or raise the limit with `ulimit -n`",
        ENFILE: "needs some free descriptors, and the system has none: run fewer programs",
        EAGAIN: "cannot be started: the limit of processes is reached; end some, or raise the limit (`ulimit -u`)",
        E2BIG: "cannot be started: its arguments and variables are too long",
        EACCES: "may not be executed: check the directories above it, its interpreter, and whether its file system is mounted noexec",
    };
    return `plugin ${quote(path)} ${texts[error.code ?? ""] ?? `cannot be started: ${error.message}`}`;
}
/** Returns why nothing can start in a directory, or undefined. */
function problemOfDirectory(path, cwd) {
    try {
        if (statSync(cwd).isDirectory())
            return undefined;
        return `plugin ${quote(path)} cannot start in the working directory ${quote(cwd)}: it is not a directory`;
    }
    catch (error) {
        return `plugin ${quote(path)} cannot start in the working directory ${quote(cwd)}: ${error.message}`;
    }
}
function missing(path, error) {
    if (error.code === "ENOTDIR") {
        let file = dirname(path);
        while (codeOf(file) !== undefined && file !== dirname(file))
            file = dirname(file);
        return `${quote(file)} is not a directory; name the file itself`;
    }
    if (error.code !== "ENOENT")
        return error.message;
    const isLink = lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true;
    const link = isLink ? `, it is a symbolic link to ${quote(readlinkSync(path))}` : "";
    return `no such file${link}; check the path, \`PATH\` is not searched`;
}
function problemOfFile(path, stat, isScript) {
    if (stat.isDirectory())
        return "is a directory: name the executable file inside it";
    if (!stat.isFile()) {
        const kind = stat.isFIFO() ? "a FIFO" : stat.isSocket() ? "a socket" : "a device";
        const next = stat.isSocket()
            ? "a plugin that listens on it is for Plugin.attach"
            : "name the plugin's executable file";
        return `is ${kind}, which cannot be executed: ${next}`;
    }
    if (isScript)
        return may(path, constants.R_OK) ? undefined : `cannot be read ${modeOf(stat)}`;
    if (!may(path, constants.X_OK)) {
        if (stat.uid === process.getuid?.() || process.getuid?.() === 0) {
            return `is not executable ${modeOf(stat)}: run \`chmod +x\` on it`;
        }
        return `is not executable for this user ${modeOf(stat)}: let its owner run \`chmod a+rx\` on it, or take a copy`;
    }
    const head = headOf(path);
    // Other systems have other programs, and a file that cannot be read may be one.
    return process.platform === "linux" && head !== undefined ? problemOfHead(head) : undefined;
}
function problemOfHead(head) {
    const next = "start a script with a line like `#!/usr/bin/env node`";
    if (head.length === 0)
        return `is not a program: it is empty; ${next}`;
    if (head.toString("latin1", 0, 2) === "#!")
        return problemOfInterpreter(head);
    if (head.toString("latin1", 0, 4) === "\x7fELF") {
        // e_machine, and the byte order before it.
        if (head.length < 52 || (head[5] !== 1 && head[5] !== 2))
            return `is not a program: its ELF header is damaged; ${next}`;
        const machine = head[5] === 1 ? head.readUInt16LE(18) : head.readUInt16BE(18);
        const known = MACHINES[process.arch];
        // A kernel for 64 bits may run programs for 32.
        const isOther = known !== undefined && machine !== known && machine !== MACHINES.ia32 && machine !== MACHINES.arm;
        if (!isOther)
            return undefined;
        const name = Object.keys(MACHINES).find((arch) => MACHINES[arch] === machine) ?? `number ${machine} in ELF`;
        return `is built for another machine (${name}), this one is ${process.arch}: build it for this one`;
    }
    // Binary files may have an interpreter of binfmt_misc.
    return head.includes(0) ? undefined : `is not a program: it has neither a \`#!\` line nor an ELF header; ${next}`;
}
function problemOfInterpreter(head) {
    const line = head.toString("utf8", 2).split("\n", 1)[0];
    const interpreter = /^[ \t]*([^ \t]*)/.exec(line)?.[1] ?? "";
    if (interpreter === "")
        return "is not a program: its `#!` line names no interpreter";
    // Others depend on the directory that the plugin runs in.
    if (!isAbsolute(interpreter))
        return undefined;
    const code = codeOf(interpreter);
    if (code !== undefined) {
        const next = interpreter.endsWith("\r") ? CARRIAGE_RETURN : "install it, or correct the plugin's `#!` line";
        const what = code === "ENOENT" || code === "ENOTDIR" ? "which does not exist" : `which cannot be used (${code})`;
        return `needs the interpreter ${quote(interpreter)}, ${what}: ${next}`;
    }
    return may(interpreter, constants.X_OK)
        ? undefined
        : `may not be executed: its interpreter ${quote(interpreter)} is not executable`;
}
const CARRIAGE_RETURN = "its `#!` line ends with a carriage return: save the file with Unix line ends";
/** Returns why a program may have ended at once, if its `#!` line shows that. */
function problemOfLine(path) {
    const line = headOf(path)?.toString("latin1").split("\n", 1)[0] ?? "";
    return line.startsWith("#!") && line.endsWith("\r") ? CARRIAGE_RETURN : undefined;
}
/** Beginnings and ends of the lines by which shells and `env` tell of a command that they cannot run. */
const SAID = [
    /: ([^:]+): bad interpreter: .+$/,
    /: ([^:]+): (?:command )?not found$/,
    /: ([^:]+): No such file or directory$/,
    /: ([^:]+): Permission denied$/,
    /: can't execute ([^:]+): No such file or directory$/,
    /command not found: (.+)$/,
];
/** Returns the next step for a program that ended since a command is missing (POSIX, Shell Command Language, 2.8.2). */
function missingCommand(status, stderr) {
    if (status !== 126 && status !== 127)
        return undefined;
    for (const line of [...stderr].reverse()) {
        if (/shared (librar|object)/.test(line))
            continue;
        const found = SAID.map((words) => words.exec(line.trimEnd())?.[1]).find((name) => name !== undefined);
        if (found === undefined)
            continue;
        const bare = found.replace(/^can't execute /, "").replace(/^['"`‘’ ]+|['"`‘’ ]+$/g, "");
        // As `env`, bash and others write it.
        if (/(\r|\\r|\^M)['"`‘’$]*$/.test(bare)) {
            return "the `#!` line of a script ends with a carriage return: save the file with Unix line ends";
        }
        const name = quote(bare);
        if (status === 126) {
            return `command ${name} may not be executed: check that it is a program for this machine, and is executable`;
        }
        return name.includes("/")
            ? `command ${name} does not exist: install it, or correct its path`
            : `command ${name} was not found: install it, or have its directory in PATH ({ env: { PATH: … } })`;
    }
    return undefined;
}
/** Code of the error of looking at a file; undefined if it is there. */
function codeOf(path) {
    try {
        statSync(path);
        return undefined;
    }
    catch (error) {
        return error.code ?? "unknown";
    }
}
function may(path, mode) {
    try {
        accessSync(path, mode);
        return true;
    }
    catch {
        return false;
    }
}
function headOf(path) {
    let fd;
    try {
        fd = openSync(path, "r");
    }
    catch {
        return undefined;
    }
    try {
        const head = Buffer.alloc(LOOKED_AT);
        return head.subarray(0, readSync(fd, head, 0, LOOKED_AT, 0));
    }
    catch {
        return undefined;
    }
    finally {
        closeSync(fd);
    }
}
function modeOf(stat) {
    return `(mode ${(stat.mode & 0o7777).toString(8).padStart(4, "0")})`;
}
function quote(text) {
    return JSON.stringify(text);
}

/** Process of a plugin: pipes, start, lines that it prints, and end. */
/** Returns how a process has ended, in words. */
function howEnded({ status, signal }) {
    return signal === null ? `exit status ${status}` : `killed by ${signal}`;
}
/** Variables of this process that a plugin gets. */
const PASSED = ["PATH", "HOME", "LANG", "TERM", "TMPDIR", "TZ"];
const LINE_LIMIT = 16 * 1024;
const TAIL = 20;
/** Time after the end of a process in which its last lines are waited for, in milliseconds. */
const LAST_LINES = 200;
/** Lines of standard error in a message, at most. */
const SHOWN = 5;
/** Empty lines, and what Node writes around the message of an error: marks, frames of the stack, its version. */
const SAYS_LITTLE = /^\s*\^*\s*$|^\s+at .+(:\d+:\d+\)?|\((<anonymous>|native|index \d+)\))( \{)?$|^Node\.js v\d+\.\S+$/;
/** Processes that end with this one. */
const running = new Set();
let isWatching = false;
/** Environment of a plugin unless the user chooses another. */
function defaultEnv() {
    const names = Object.keys(process.env).filter((name) => PASSED.includes(name) || name.startsWith("LC_"));
    return Object.fromEntries(names.map((name) => [name, process.env[name]]));
}
/**
 * Makes the pipes to a plugin: named ones in a directory that only this user enters, for a moment. Node makes
 * sockets in place of pipes, and a plugin cannot open those anew (`/dev/fd/3`, `/dev/stderr`).
 */
async function makePipes(plugin) {
    const directory = await mkdtemp(join(tmpdir(), "pipeplug-")).catch((error) => {
        throw new StartError(`pipes cannot be made: ${error.message}; have TMPDIR name a directory that can be written`);
    });
    const opened = [];
    const open = (path, flags) => {
        const fd = openSync(path, flags);
        opened.push(fd);
        return fd;
    };
    const { O_RDONLY, O_WRONLY, O_NONBLOCK } = constants;
    const paths = ["down", "up", "out", "err"].map((name) => join(directory, name));
    const [down, up, out, err] = paths;
    // The reading end comes first: opening one does not wait with O_NONBLOCK, and then the other finds it.
    const fromPlugin = (path) => [open(path, O_RDONLY | O_NONBLOCK), open(path, O_WRONLY)];
    try {
        await new Promise((resolve, reject) => {
            execFile("mkfifo", ["-m", "600", ...paths], (error, _, stderr) => {
                if (error)
                    reject(new StartError(`pipes cannot be made by mkfifo(1): ${stderr.trim() || error.message}`));
                else
                    resolve();
            });
        });
        const [ourRead, theirWrite] = fromPlugin(up);
        const [ourStdout, theirStdout] = fromPlugin(out);
        const [ourStderr, theirStderr] = fromPlugin(err);
        const keep = open(down, O_RDONLY | O_NONBLOCK);
        const ourWrite = open(down, O_WRONLY | O_NONBLOCK);
        // The guest's end blocks, as it expects of a pipe.
        const theirRead = open(down, O_RDONLY);
        closeSync(keep);
        return {
            ours: { read: ourRead, write: ourWrite, stdout: ourStdout, stderr: ourStderr },
            theirs: { read: theirRead, write: theirWrite, stdout: theirStdout, stderr: theirStderr },
        };
    }
    catch (error) {
        for (const fd of opened)
            closeSync(fd);
        throw error instanceof StartError ? error : new StartError(problemOfSpawn(plugin, error));
    }
    finally {
        await rm(directory, { recursive: true, force: true });
    }
}
/** Returns the path of the program, and what is wrong with its file. */
function examine(launch) {
    try {
        // Never one of PATH.
        const path = resolve(launch.path);
        const isScript = /\.[cm]?js$/.test(path);
        const problem = problemOf(path, isScript) ?? problemOfDirectory(path, launch.cwd ?? process.cwd());
        return { path, isScript, problem };
    }
    catch (error) {
        // The working directory of this program may be gone, or a file while it is looked at.
        throw new StartError(problemOfSpawn(launch.path, error));
    }
}
/** A program that was started. */
class PluginProcess {
    ends;
    pid;
    /** Resolves when the process has ended and its last lines have come. */
    exited;
    exit;
    tailLines = [];
    /** The last lines but for those that tell people little. */
    telling = [];
    /** Program that the kernel starts by itself. */
    path;
    child;
    outputs;
    constructor(child, pipes, launch, path) {
        this.child = child;
        this.path = path;
        this.ends = { read: pipes.read, write: pipes.write };
        this.pid = child.pid;
        const kinds = ["stdout", "stderr"];
        this.outputs = kinds.map((output) => new Socket({ fd: pipes[output], readable: true, writable: false }));
        const ended = this.outputs.map((stream, i) => this.readLines(stream, kinds[i], launch.onLine));
        this.exited = new Promise((resolve) => {
            child.on("exit", (status, signal) => {
                running.delete(this);
                this.exit = { status, signal };
                const done = () => {
                    for (const stream of this.outputs)
                        stream.destroy();
                    resolve({ status, signal });
                };
                // A process that it has left behind may keep its outputs open.
                const timer = setTimeout(done, LAST_LINES);
                Promise.all(ended).then(() => {
                    clearTimeout(timer);
                    done();
                });
            });
        });
        running.add(this);
        killAtExit();
    }
    /** Starts a program with two pipes. */
    static async start(launch) {
        const { args, stdio } = launch;
        const { path, isScript, problem } = examine(launch);
        if (problem !== undefined)
            throw new StartError(problem);
        const [program, first] = isScript ? [process.execPath, [path]] : [path, []];
        const isAmbiguous = args.length >= 2 && args.slice(0, 2).every((arg) => /^[0-9]+$/.test(arg));
        const numbers = stdio ? (isAmbiguous || launch.isClassic ? ["0", "1"] : []) : ["3", "4"];
        const { ours, theirs } = await makePipes(path);
        let child;
        try {
            child = spawn(program, [...first, ...numbers, ...args], {
                // Its own group: Ctrl-C is the host's to handle, and what the plugin starts ends with it.
                detached: true,
                env: launch.env,
                cwd: launch.cwd,
                stdio: stdio
                    ? [theirs.read, theirs.write, theirs.stderr]
                    : ["ignore", theirs.stdout, theirs.stderr, theirs.read, theirs.write],
            });
            await new Promise((resolve, reject) => {
                child.once("spawn", resolve);
                child.once("error", reject);
            });
        }
        catch (error) {
            for (const fd of Object.values(ours))
                closeSync(fd);
            // An argument with a NUL.
            if (error instanceof TypeError)
                throw error;
            throw new StartError(problemOfSpawn(path, error));
        }
        finally {
            for (const fd of Object.values(theirs))
                closeSync(fd);
        }
        child.on("error", () => { });
        return new PluginProcess(child, ours, launch, isScript ? undefined : path);
    }
    /** Last lines of standard error. */
    get tail() {
        return this.tailLines;
    }
    /** The last of them, for the end of a message. */
    get said() {
        const lines = this.telling;
        return lines.length === 0 ? "nothing on its stderr" : `last on its stderr: ${lines.join(" | ")}`;
    }
    /** Reason for its end that its file shows. */
    get problemOfLine() {
        return this.path === undefined ? undefined : problemOfLine(this.path);
    }
    /** Sends a signal to the process and all that it has started, but for those that left its group. */
    kill(signal) {
        try {
            process.kill(-this.pid, signal);
        }
        catch {
            // It has ended.
        }
    }
    /** Waits for the end, at most for so many milliseconds; undefined then. */
    async within(time) {
        let timer;
        const passed = new Promise((resolve) => {
            timer = setTimeout(resolve, timerTime(time), undefined);
        });
        const exit = await Promise.race([this.exited, passed]);
        clearTimeout(timer);
        return exit;
    }
    unref() {
        this.child.unref();
        for (const stream of this.outputs)
            stream.unref();
    }
    readLines(stream, output, onLine) {
        let rest = "";
        const take = (line) => {
            if (output === "stderr") {
                this.tailLines.push(line);
                if (this.tailLines.length > TAIL)
                    this.tailLines.shift();
                if (!SAYS_LITTLE.test(line))
                    this.telling.push(line);
                if (this.telling.length > SHOWN)
                    this.telling.shift();
            }
            if (onLine === undefined)
                process.stderr.write(`${line}\n`);
            else
                onLine(line, output);
        };
        stream.setEncoding("utf8");
        stream.on("data", (text) => {
            const lines = (rest + text).split("\n");
            rest = lines.pop() ?? "";
            for (const line of lines)
                take(line);
            for (; rest.length > LINE_LIMIT; rest = rest.slice(LINE_LIMIT))
                take(rest.slice(0, LINE_LIMIT));
        });
        return new Promise((resolve) => {
            const end = () => {
                if (rest !== "")
                    take(rest);
                rest = "";
                resolve();
            };
            stream.on("end", end);
            stream.on("error", end);
        });
    }
}
function killAtExit() {
    if (isWatching)
        return;
    isWatching = true;
    process.on("exit", () => {
        for (const plugin of running)
            plugin.kill("SIGKILL");
    });
}

/** The host's end of a connection: asks for the metadata, and ends the plugin. */
/** Milliseconds in which the calls of a plugin that has closed its pipe wait for its exit status. */
const EXIT_PAUSE = 300;
/** Host of one plugin. */
class Host {
    name;
    connection;
    process;
    handler;
    commands;
    closedReason;
    options;
    resolveClosed = () => { };
    lastStep = "itself";
    /** Reason of an end that was not this side's wish, as the connection names it. */
    lost;
    constructor(name, ends, options, process) {
        this.name = name;
        this.options = options;
        this.process = process;
        const commands = new Map(Object.entries(options.commands ?? {}));
        for (const service of options.services ?? []) {
            for (const [command, handler] of handlerOf(service))
                commands.set(command, handler);
        }
        this.commands = [...commands.keys()];
        const other = options.handler ?? ((request) => request.unknown());
        this.handler = (request) => (commands.get(request.command) ?? other)(request);
        this.closedReason = new Promise((resolve) => {
            this.resolveClosed = resolve;
        });
        this.connection = new Connection(ends, options.format ?? "standard", this, options, true);
    }
    // Side: what the connection asks.
    protocol(threadId, command) {
        const services = this.options.services ?? [];
        if (command === "GetMetadata") {
            // No plugin asks its host for metadata.
            this.connection.close({ kind: "broken", message: "it sent the host's own first request back" });
            return true;
        }
        if (command !== "GetServices" || services.length === 0)
            return false;
        this.connection.answers.answer(threadId, command, JSON.stringify({ services: services.map(describe) }));
        return true;
    }
    notice() {
        // A guest has no one-ways of the protocol that a host takes, and none is a fault.
    }
    /** Names the plugin, and how it has ended. */
    async explain(reason) {
        this.lost = reason;
        const { name, process } = this;
        const mayHaveEnded = ["endOfFile", "readerGone", "system"].includes(reason.kind);
        if (process === undefined || !mayHaveEnded)
            return { ...reason, message: `${name}: ${reason.message}` };
        // The kernel closes the pipes of a process some time before its end.
        const exit = await process.within(EXIT_PAUSE);
        const what = `${name} (process ${process.pid})`;
        const message = exit === undefined
            ? `${what}: ${reason.message}, and it runs on, ${process.said}`
            : `${what} has ended: ${howEnded(exit)}, ${process.said}`;
        return { ...reason, message };
    }
    closed(reason) {
        this.connection.destroy();
        this.resolveClosed(reason);
    }
    warn(_message) {
        // The plugin's matter, and nothing that this program could change.
    }
    /** Asks for the metadata. A start that fails leaves no process. */
    async greet() {
        try {
            const own = this.offer();
            const metadata = await this.ask(JSON.stringify(own));
            const version = this.agree(metadata);
            const shown = Object.fromEntries(Object.entries(metadata).filter(([key]) => !key.startsWith("pipeplug.")));
            return { metadata: Object.freeze(shown), version };
        }
        catch (error) {
            await this.kill();
            throw error;
        }
    }
    async stop(grace) {
        const times = { stop: 5000, endOfFile: 1000, term: 2000, ...this.options.grace, ...grace };
        const { process, connection } = this;
        if (process?.exit !== undefined)
            return this.stopped(process.exit);
        // It ends by itself just now.
        if (connection.isOver)
            await this.closedReason;
        if (process?.exit !== undefined)
            return this.stopped(process.exit);
        if (connection.reason === undefined) {
            this.lastStep = "stop";
            connection.send(0, 1, "cmd.stop", undefined);
            const ended = process === undefined ? await this.closedWithin(times.stop) : await process.within(times.stop);
            if (ended !== undefined || process === undefined)
                return this.letGo(ended);
        }
        else if (process === undefined) {
            return this.letGo(undefined);
        }
        if (this.lastStep === "stop")
            this.lastStep = "endOfFile";
        connection.close({ kind: "closed", message: `${this.name} was stopped` });
        connection.destroy();
        const atEnd = await process.within(times.endOfFile);
        if (atEnd !== undefined)
            return this.stopped(atEnd);
        this.lastStep = "term";
        process.kill("SIGTERM");
        const atTerm = await process.within(times.term);
        return atTerm === undefined ? this.kill() : this.stopped(atTerm);
    }
    async kill() {
        const { process, connection } = this;
        if (process !== undefined && process.exit === undefined) {
            this.lastStep = "kill";
            process.kill("SIGKILL");
        }
        const exit = await process?.exited;
        connection.close({ kind: "closed", message: `${this.name} was killed` });
        connection.destroy();
        return exit === undefined ? { status: null, signal: null, by: "letGo" } : this.stopped(exit);
    }
    async closedWithin(time) {
        let timer;
        const passed = new Promise((resolve) => {
            timer = setTimeout(resolve, timerTime(time));
        });
        await Promise.race([this.closedReason, passed]);
        clearTimeout(timer);
        return undefined;
    }
    letGo(exit) {
        if (exit !== undefined)
            return this.stopped(exit);
        // Attached to: the process belongs to its own parent.
        this.connection.close({ kind: "closed", message: `${this.name} was let go` });
        this.connection.destroy();
        return { status: null, signal: null, by: "letGo" };
    }
    stopped(exit) {
        return { ...exit, by: this.lastStep };
    }
    offer() {
        const { options, connection } = this;
        const own = offer(options.metadata ?? {}, {
            features: [],
            window: connection.window,
            streamWindow: connection.streamWindow,
            interfaceVersions: options.interfaceVersions,
            services: namesOf(options.services ?? []),
        });
        if (options.logLevel !== undefined)
            own["pipeplug.log_level"] = options.logLevel;
        if (options.config !== undefined) {
            const config = this.config(options.config);
            const length = Buffer.byteLength(config);
            if (length > METADATA_LIMIT) {
                throw new StartError(`plugin ${this.quoted}: the configuration is ${length} bytes long, the limit is ${METADATA_LIMIT}`);
            }
            // The last key: a program that sends the request back has its first bytes shown.
            own["pipeplug.config"] = config;
        }
        return own;
    }
    config(value) {
        const text = `plugin ${this.quoted}: the configuration (\`config\`) cannot be written as JSON`;
        let json;
        try {
            json = JSON.stringify(value);
        }
        catch (error) {
            throw new StartError(`${text}: ${firstLine(error)}`);
        }
        if (json === undefined)
            throw new StartError(`${text}: it is ${shown(value)}`);
        return json;
    }
    async ask(own) {
        const { connection, options, quoted } = this;
        const time = options.startTimeout ?? 10_000;
        let timer;
        let aborted;
        try {
            const reply = await new Promise((resolve, reject) => {
                const call = { command: "GetMetadata", resolve, reject, extra: undefined };
                connection.sendRequest("GetMetadata", own, call);
                const silent = () => {
                    const text = `plugin ${quoted} did not answer GetMetadata within ${time} ms, ${this.said}`;
                    const hint = `is it a plugin? A slow one needs more time: { startTimeout: … }. ${this.otherWays()}`;
                    reject(new StartError(`${text}; ${hint}`, this.tail));
                };
                timer = setTimeout(silent, timerTime(time));
                aborted = () => reject(options.signal?.reason);
                // It may have been aborted while the process was started.
                if (options.signal?.aborted)
                    aborted();
                options.signal?.addEventListener("abort", aborted);
            });
            if (reply.length > METADATA_LIMIT) {
                throw new StartError(`plugin ${quoted} answered GetMetadata with ${reply.length} bytes, the limit is ${METADATA_LIMIT}`);
            }
            const metadata = parseMetadata(reply);
            if (metadata === undefined) {
                throw new StartError(`plugin ${quoted} answered GetMetadata with what is no JSON object: ${JSON.stringify(reply.toString("utf8", 0, 64))}`);
            }
            return metadata;
        }
        catch (error) {
            if (!(error instanceof CallError))
                throw error;
            // It has no metadata, which is no failure.
            if (error.kind === "remote")
                return {};
            throw new StartError(await this.endMessage(), this.tail);
        }
        finally {
            clearTimeout(timer);
            if (aborted !== undefined)
                options.signal?.removeEventListener("abort", aborted);
        }
    }
    get tail() {
        return this.process?.tail ?? [];
    }
    /** Reason of a start that the end of the connection has ended. */
    async endMessage() {
        const reason = this.lost;
        if (reason?.message.startsWith("it sent the host's own") === true) {
            return `plugin ${this.quoted} sent the host's own first request back: it copies its input to its output; is it a plugin?`;
        }
        if (reason?.kind === "broken") {
            const hint = this.options.stdio
                ? "a plugin on stdin and stdout must print nothing of its own there"
                : `is it a plugin? ${this.otherWays()}`;
            return `plugin ${this.quoted} wrote what is no message: ${reason.message}, ${this.said}; ${hint}`;
        }
        const exit = await this.process?.within(1000);
        if (exit === undefined)
            return `plugin ${this.quoted} closed its pipe before it answered, ${this.said}; is it a plugin?`;
        const hint = this.process?.problemOfLine ?? missingCommand(exit.status, this.tail) ?? `is it a plugin? ${this.otherWays()}`;
        const text = `plugin ${this.quoted} ended before it answered: ${howEnded(exit)}, ${this.said}`;
        // A library's own words say enough.
        return this.tail.at(-1)?.startsWith(`${this.name}: `) ? text : `${text}; ${hint}`;
    }
    get quoted() {
        return JSON.stringify(this.name);
    }
    get said() {
        return this.process?.said ?? "its stderr is not this host's";
    }
    /** Options that were not tried. */
    otherWays() {
        const { format, stdio } = this.options;
        const word = format === "classic" ? "standard" : "classic";
        const other = `If it speaks the ${word} format use { format: "${word}" }`;
        return stdio || this.process === undefined ? other : `${other}, if it uses stdin and stdout { stdio: true }`;
    }
    agree(metadata) {
        const named = parseOffer(metadata);
        const { options, quoted } = this;
        if (options.config !== undefined && !named.features.has("config")) {
            throw new StartError(`plugin ${quoted} takes no configuration, and there is one: it does not name the feature \`config\``);
        }
        const version = commonVersion(options.interfaceVersions, named.interfaceVersions);
        if (version === null) {
            const [own, its] = [options.interfaceVersions ?? [], named.interfaceVersions ?? []];
            const older = Math.max(...own) < Math.max(...its) ? "this host" : `plugin ${quoted}`;
            throw new StartError(`this host speaks the versions ${own.join(", ")} of the interface, and plugin ${quoted} ${its.join(", ")}: ${older} is older, upgrade it`);
        }
        this.connection.negotiate(named);
        return version;
    }
}

/** Options of a plugin's start, and the result of its end. */
const STOP = {
    of: "stop",
    options: { stop: WAIT, endOfFile: WAIT, term: WAIT },
};
const START = {
    commands: FUNCTIONS,
    handler: FUNCTION,
    services: SERVICES,
    args: TEXTS,
    env: VARIABLES,
    cwd: TEXT,
    stdio: FLAG,
    format: oneOf("standard", "classic"),
    name: TEXT,
    metadata: TEXT_BY_NAME,
    config: ANY,
    interfaceVersions: NUMBERS,
    logLevel: oneOf(...LEVELS),
    onLine: FUNCTION,
    startTimeout: WAIT,
    grace: nested({ ...STOP, of: "the grace of a plugin" }),
    signal: SIGNAL,
};
const PLUGIN = { of: "a plugin's start", options: { ...START, ...CONNECTION } };

/** The host's side: starts a plugin, calls it, and stops it. */
/** Program that was started, and can be called. */
class Plugin extends Caller {
    /** Name for messages. */
    name;
    /** Metadata of the plugin. */
    metadata;
    /** Version of the interface that both sides speak; undefined if one names none. */
    interfaceVersion;
    /** Resolves when the connection has ended. */
    closed;
    host;
    stopping;
    /** Made by `Plugin.start`. */
    constructor(host, metadata, version) {
        super(host.connection);
        this.host = host;
        this.name = host.name;
        this.metadata = metadata;
        this.interfaceVersion = version;
        this.closed = host.closedReason;
    }
    /** Starts the program at a path, and waits for its metadata. A `.js`, `.mjs` or `.cjs` file is run by this Node. */
    static async start(path, options = {}) {
        checkStart(path, options);
        options.signal?.throwIfAborted();
        const env = Object.entries({ ...defaultEnv(), ...options.env }).filter((entry) => entry[1] !== undefined);
        const started = await PluginProcess.start({
            path,
            args: options.args ?? [],
            env: Object.fromEntries(env),
            cwd: options.cwd,
            stdio: options.stdio ?? false,
            isClassic: options.format === "classic",
            onLine: options.onLine,
        });
        const host = new Host(options.name ?? basename(path), started.ends, options, started);
        return Plugin.of(host);
    }
    /** Connects to a plugin that waits at a socket (`--pipeplug-listen`). */
    static async attach(path, options = {}) {
        checkStart(path, options);
        let socket;
        try {
            socket = connect({ path, allowHalfOpen: true });
            await once(socket, "connect", options.signal === undefined ? {} : { signal: options.signal });
        }
        catch (error) {
            socket?.destroy();
            throw new StartError(`no plugin waits at ${JSON.stringify(path)}: ${error.message}`);
        }
        const host = new Host(options.name ?? basename(path), { reader: socket, writer: socket }, options, undefined);
        return Plugin.of(host);
    }
    static async of(host) {
        const { metadata, version } = await host.greet();
        return new Plugin(host, metadata, version);
    }
    /** Process id; undefined for a plugin that was attached to. */
    get pid() {
        return this.host.process?.pid;
    }
    /** Exit status, once the plugin has ended. */
    get exit() {
        return this.host.process?.exit;
    }
    /** Last lines that the plugin has written to its standard error. */
    get stderrTail() {
        return this.host.process?.tail ?? [];
    }
    /** Functions of a service of the plugin. Throws if the plugin does not have it. */
    client(description) {
        checkServed(this.connection.peer.services, description);
        return client(this, description);
    }
    /** Sets the level of the plugin's log. */
    setLogLevel(level) {
        if (this.connection.has("log"))
            this.connection.send(0, 1, "cmd.log_level", level);
    }
    /** Ends the plugin: `cmd.stop`, then the end of its input, then SIGTERM, then SIGKILL, each after a time. */
    async stop(grace = {}) {
        checkOptions(grace, STOP);
        this.stopping ??= this.host.stop(grace);
        return this.stopping;
    }
    /** Ends the plugin and all that it has started at once. */
    kill() {
        return this.host.kill();
    }
    /** Lets this program end although the plugin still runs; it is killed then. */
    unref() {
        this.connection.unref();
        this.host.process?.unref();
    }
    /** Stops the plugin at the end of a block with `await using`. */
    async [(Symbol.asyncDispose ?? Symbol.for("nodejs.asyncDispose"))]() {
        await this.stop();
    }
}
function checkStart(path, options) {
    if (typeof path !== "string")
        throw new TypeError(`the path of a plugin has to be a string, not ${shown(path)}`);
    checkOptions(options, PLUGIN);
    if (path === "")
        throw new StartError('no plugin at "": the path is empty; name the plugin\'s executable file or socket');
}

export { CallError, Caller, Failure, Main, MethodError, PartSender, Parts, Plugin, ProtocolError, Request, StartError, StreamError, client, failureCode, register, service };
