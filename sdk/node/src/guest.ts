/** The plugin's side: registers with the host that has started this program. */

import { basename } from "node:path";

import { Caller } from "./caller.js";
import { checkOptions, timerTime } from "./check.js";
import type { ThreadId } from "./chunk.js";
import { Connection, type Side } from "./connection.js";
import { isByHand, type Plan, plan, RegisterError, take } from "./descriptors.js";
import type { Payload } from "./encoder.js";
import { messageOf } from "./errors.js";
import { GUEST, type GuestOptions, LEVELS, type LogLevel } from "./guest_options.js";
import { listen } from "./listen.js";
import { commonVersion, offer, parseMetadata, parseOffer } from "./negotiation.js";
import type { CloseReason } from "./options.js";
import type { Handler } from "./request.js";
import { describe, handlerOf, namesOf } from "./services.js";
import type { Ends } from "./transport.js";

/** Reason why a plugin has to end. */
export type Stop = "asked" | "hostGone";

/** Milliseconds to wait for the host's metadata once it has asked something else. */
const METADATA_PAUSE = 200;
/** Exit status of a plugin that no host has started, or that cannot use what it was given. */
const EXIT_USAGE = 2;

/** The host, as its plugin sees it. */
export class Main extends Caller {
  /** Arguments of the plugin's own. */
  readonly args: readonly string[];
  /** Resolves to the exit status when the connection has ended. */
  readonly ended: Promise<number>;
  /** Aborted when the plugin is to end; the reason is a `Stop`. */
  readonly stopping: AbortSignal;
  private readonly guest: Guest;

  /** Made by `register`. */
  constructor(guest: Guest, connection: Connection) {
    super(connection);
    this.guest = guest;
    this.args = guest.plan.args;
    this.ended = guest.ended;
    this.stopping = guest.stopping.signal;
  }

  /** Metadata of the host; without the configuration. */
  get metadata(): Readonly<Record<string, string>> {
    return this.guest.hostMetadata;
  }

  /** Configuration that the host has for this plugin; undefined if it has none. */
  config<T = unknown>(): T | undefined {
    const text = this.connection.peer.config;
    return text === undefined ? undefined : (JSON.parse(text) as T);
  }

  /** Version of the interface that both sides speak; undefined if one names none. */
  get interfaceVersion(): number | undefined {
    return this.guest.version;
  }

  /** Level that the host has set; undefined if it leaves that to the plugin. */
  get logLevel(): LogLevel | undefined {
    return this.guest.level;
  }

  /** Logs an event to standard error, as a line that the host understands, if the level is one that it wants. */
  log(level: Exclude<LogLevel, "off">, message: string, fields: Record<string, unknown> = {}): void {
    if (LEVELS.indexOf(level) > LEVELS.indexOf(this.logLevel ?? "info")) return;
    const line = { level: level.toUpperCase(), target: this.guest.name, fields: { message, ...fields } };
    process.stderr.write(`${JSON.stringify(line)}\n`);
  }
}

/** Registers with the host: takes the descriptors over, and answers what it asks. */
export function register(options: GuestOptions): Main {
  checkOptions(options, GUEST);
  const guest = new Guest(options);
  return guest.begin();
}

class Guest implements Side {
  readonly name = basename(process.argv[1] ?? "plugin");
  readonly plan: Plan;
  readonly handler: Handler;
  readonly commands: readonly string[];
  readonly stopping = new AbortController();
  readonly ended: Promise<number>;
  hostMetadata: Readonly<Record<string, string>> = {};
  version: number | undefined;
  level: LogLevel | undefined;
  private readonly options: GuestOptions;
  private connection: Connection | undefined;
  private main: Main | undefined;
  private resolveEnded: (status: number) => void = () => {};
  private metadata: Payload;
  private starting: Promise<void> | undefined;
  private isIntroduced = false;
  private isStopping = false;
  private isOver = false;
  private isFinished = false;
  private warnings = 0;

  constructor(options: GuestOptions) {
    this.options = options;
    this.plan = plan(options.args ?? process.argv.slice(2));
    const commands = new Map(Object.entries(options.commands ?? {}));
    for (const service of options.services ?? []) {
      for (const [command, handler] of handlerOf(service)) commands.set(command, handler);
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

  begin(): Main {
    const isListening = this.plan.args[0] === "--pipeplug-listen" && !this.plan.told;
    if (isListening) return this.beginListening();
    if (isByHand(this.plan)) this.refuse(this.withoutHost());
    try {
      return this.connect(take(this.plan));
    } catch (error) {
      if (error instanceof RegisterError) this.refuse(error);
      throw error;
    }
  }

  // Side: what the connection asks.

  protocol(threadId: ThreadId, command: string, buffer: Buffer): boolean {
    if (command === "GetServices") {
      const services = this.options.services ?? [];
      if (services.length === 0) return false;
      this.connection?.answers.answer(threadId, command, JSON.stringify({ services: services.map(describe) }));
      return true;
    }
    void this.introduce(threadId, buffer);
    return true;
  }

  notice(command: string, buffer: Buffer): void {
    if (command === "cmd.stop") void this.stop();
    else if (command === "cmd.log_level") this.setLevel(buffer.toString("utf8"));
  }

  closed(reason: CloseReason): void {
    if (!this.stopping.signal.aborted) this.stopping.abort("hostGone" satisfies Stop);
    void this.end(reason);
  }

  /** Logs the 1st, 2nd, 4th, 8th, … warning: the host could cause them without limit. */
  warn(message: string): void {
    if (this.level === "off" || this.level === "error") return;
    const count = ++this.warnings;
    if ((count & (count - 1)) === 0) this.say(count === 1 ? message : `${message} (warning ${count})`);
  }

  private connect(ends: Ends): Main {
    const connection = new Connection(ends, undefined, this, this.options, false);
    // A print to an output that is gone with the host is no reason to end before the handlers do.
    for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {});
    this.connection = connection;
    this.main = new Main(this, connection);
    if (this.options.start === undefined && this.options.interfaceVersions === undefined) connection.incoming.ready();
    else connection.incoming.whenHeld = () => this.startWithoutMetadata();
    return this.main;
  }

  private beginListening(): Main {
    const path = this.plan.args[1] ?? "";
    if (path === "") {
      this.refuse(
        new RegisterError(
          "--pipeplug-listen needs the path of the socket to make, as in `--pipeplug-listen /tmp/plugin.sock`",
        ),
      );
    }
    this.plan.args.splice(0, 2);
    return this.connect(listen(path, this.name, (error) => this.refuse(error)));
  }

  /** Starts although the host has asked something else first: an older one, or a person with a pipe. */
  private startWithoutMetadata(): void {
    const timer = setTimeout(() => void this.startNow(), METADATA_PAUSE);
    timer.unref();
  }

  private async startNow(): Promise<void> {
    if (this.isIntroduced || this.isFinished) return;
    this.isIntroduced = true;
    this.starting = this.start();
    await this.starting;
    if (!this.isFinished) this.connection?.incoming.ready();
  }

  /** Waits until what has come before the end of the start is let in. */
  private async settle(): Promise<void> {
    const connection = this.connection as Connection;
    if (!this.isIntroduced && connection.incoming.isWaiting) void this.startNow();
    if (this.starting !== undefined)
      await this.within(
        this.starting.then(() => {}),
        "stopped during the start",
      );
  }

  /** Answers the host's first question, once the start call-back has run. */
  private async introduce(threadId: ThreadId, buffer: Buffer): Promise<void> {
    const connection = this.connection as Connection;
    if (this.metadata === undefined) {
      const named = parseMetadata(buffer) ?? {};
      const host = parseOffer(named);
      // A configuration may hold secrets: it is no part of the metadata.
      const { "pipeplug.config": _, ...metadata } = named;
      this.hostMetadata = metadata;
      if (host.logLevel !== undefined) this.setLevel(host.logLevel);
      const versions = this.options.interfaceVersions;
      const common = commonVersion(versions, host.interfaceVersions);
      connection.negotiate(host);
      this.metadata = JSON.stringify(
        offer(this.options.metadata ?? {}, {
          features: ["config", "log"],
          window: connection.window,
          streamWindow: connection.streamWindow,
          interfaceVersions: versions,
          services: namesOf(this.options.services ?? []),
        }),
      );
      if (common === null) {
        // The host names both lists, and ends this.
        connection.answers.answer(threadId, "GetMetadata", this.metadata);
        this.say(
          `the host speaks the versions ${host.interfaceVersions?.join(", ")} of the interface, and this plugin ${versions?.join(", ")}: upgrade the older one`,
        );
        await this.within(connection.whenWritten(), "");
        this.finish(1);
        return;
      }
      this.version = common;
      if (!this.isIntroduced) {
        this.isIntroduced = true;
        if (this.options.start !== undefined) this.starting = this.start();
      }
    }
    if (this.starting !== undefined) await this.starting;
    if (this.isFinished) return;
    connection.answers.answer(threadId, "GetMetadata", this.metadata);
    connection.incoming.ready();
  }

  private async start(): Promise<void> {
    const { start } = this.options;
    if (start === undefined) {
      this.starting = undefined;
      return;
    }
    try {
      await start(this.main as Main);
    } catch (error) {
      if (this.isFinished) return;
      this.isOver = true;
      this.say(`the plugin's start failed: ${messageOf(error)}`);
      this.finish(1);
      return;
    }
    this.starting = undefined;
  }

  private setLevel(level: string): void {
    if (LEVELS.includes(level)) this.level = level as LogLevel;
    else this.say(`the log level ${JSON.stringify(level.slice(0, 64))} is ignored: there is none of that name`);
  }

  /** The host said stop: answers what it has asked, then ends. */
  private async stop(): Promise<void> {
    if (this.isStopping) return;
    this.isStopping = true;
    if (!this.stopping.signal.aborted) this.stopping.abort("asked" satisfies Stop);
    const connection = this.connection as Connection;
    await this.settle();
    await this.within(connection.incoming.whenIdle(), "stopped with handlers still at work");
    await this.within(connection.whenWritten(), "stopped with answers still to be written");
    this.finish(0);
  }

  /** The connection has ended: handlers that still run have the grace time. */
  private async end(reason: CloseReason): Promise<void> {
    if (this.isOver || this.isStopping) return;
    this.isOver = true;
    const connection = this.connection as Connection;
    await this.settle();
    await this.within(connection.incoming.whenIdle(), "handlers were still at work when the host was gone");
    // The other half may still be read, as at the end of a pipeline.
    if (reason.kind === "endOfFile") await this.within(connection.whenWritten(), "");
    // Nothing came before the end of the input: there never was a host.
    const isAlone = reason.kind === "endOfFile" && !connection.hasHeard;
    if (isAlone) process.stderr.write(`${this.withoutHost().message}\n`);
    else this.say(`the host is gone: ${reason.message}`);
    this.finish(isAlone ? EXIT_USAGE : 1);
  }

  private async within(done: Promise<void>, otherwise: string): Promise<void> {
    const grace = this.options.grace ?? 5000;
    let timer: NodeJS.Timeout | undefined;
    const passed = new Promise<void>((resolve) => {
      timer = setTimeout(() => {
        if (otherwise !== "") this.say(`${otherwise} after ${grace} ms`);
        resolve();
      }, timerTime(grace));
    });
    await Promise.race([done, passed]);
    clearTimeout(timer);
  }

  private finish(status: number): void {
    if (this.isFinished) return;
    this.isOver = this.isFinished = true;
    const connection = this.connection as Connection;
    connection.close({ kind: "closed", message: "this side has ended" });
    connection.destroy();
    this.resolveEnded(status);
    if (this.options.onEnd === "stay") return;
    process.exitCode = status;
    // Those who wait for the end of the plugin come first.
    setImmediate(() => process.exit(status));
  }

  private withoutHost(): RegisterError {
    const path = process.argv[1] ?? "PLUGIN";
    return new RegisterError(
      `${this.name} is a plugin: a host starts it and talks to it over pipes. To try it in a terminal:\n\n    pipeplug run ${path} --call COMMAND [DATA]\n`,
    );
  }

  private refuse(error: Error): never {
    process.stderr.write(`${error.message}\n`);
    process.exit(EXIT_USAGE);
  }

  private say(message: string): void {
    process.stderr.write(`${this.name}: ${message}\n`);
  }
}
