/** The host's side: starts a plugin, calls it, and stops it. */

import { once } from "node:events";
import { connect } from "node:net";
import { basename } from "node:path";

import { Caller } from "./caller.js";
import { Connection, type OpenCall, type Side } from "./connection.js";
import type { Format, ThreadId } from "./decoder.js";
import { CallError, StartError } from "./errors.js";
import type { Commands, LogLevel } from "./guest.js";
import { commonVersion, METADATA_LIMIT, offer, parseMetadata, parseOffer } from "./negotiation.js";
import type { CloseReason, Options } from "./options.js";
import { defaultEnv, type Exit, type Output, PluginProcess } from "./process.js";
import type { Handler } from "./request.js";
import {
  checkServed,
  client,
  describe,
  handlerOf,
  namesOf,
  type Service,
  type ServiceDescription,
} from "./services.js";
import type { Ends } from "./transport.js";

/** Time for each step of a stop before the next one, in milliseconds. */
export interface Grace {
  /** After `cmd.stop`. Default: 5,000. */
  stop?: number;
  /** After the end of its input. Default: 1,000. */
  endOfFile?: number;
  /** After SIGTERM to its process group; SIGKILL follows. Default: 2,000. */
  term?: number;
}

/** How a plugin is started, and what it may ask. */
export interface PluginOptions extends Options {
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
export interface Stopped extends Exit {
  /** Step that ended the plugin. */
  by: "itself" | "stop" | "endOfFile" | "term" | "kill" | "letGo";
}

/** Program that was started, and can be called. */
export class Plugin extends Caller {
  /** Name for messages. */
  readonly name: string;
  /** Metadata of the plugin. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Version of the interface that both sides speak; undefined if one names none. */
  readonly interfaceVersion: number | undefined;
  /** Resolves when the connection has ended. */
  readonly closed: Promise<CloseReason>;
  private readonly host: Host;
  private stopping: Promise<Stopped> | undefined;

  /** Made by `Plugin.start`. */
  constructor(host: Host, metadata: Readonly<Record<string, string>>, version: number | undefined) {
    super(host.connection);
    this.host = host;
    this.name = host.name;
    this.metadata = metadata;
    this.interfaceVersion = version;
    this.closed = host.closedReason;
  }

  /** Starts the program at a path, and waits for its metadata. A `.js`, `.mjs` or `.cjs` file is run by this Node. */
  static async start(path: string, options: PluginOptions = {}): Promise<Plugin> {
    options.signal?.throwIfAborted();
    const env = Object.entries({ ...defaultEnv(), ...options.env }).filter(
      (entry): entry is [string, string] => entry[1] !== undefined,
    );
    const started = await PluginProcess.start({
      path,
      args: options.args ?? [],
      env: Object.fromEntries(env),
      cwd: options.cwd,
      stdio: options.stdio ?? false,
      onLine: options.onLine,
    });
    const host = new Host(options.name ?? basename(path), started.ends, options, started);
    return host.greet();
  }

  /** Connects to a plugin that waits at a socket (`--pipeplug-listen`). */
  static async attach(path: string, options: PluginOptions = {}): Promise<Plugin> {
    const socket = connect({ path, allowHalfOpen: true });
    try {
      await once(socket, "connect", options.signal === undefined ? {} : { signal: options.signal });
    } catch (error) {
      socket.destroy();
      throw new StartError(`no plugin waits at ${JSON.stringify(path)}: ${(error as Error).message}`);
    }
    const host = new Host(options.name ?? basename(path), { reader: socket, writer: socket }, options, undefined);
    return host.greet();
  }

  /** Process id; undefined for a plugin that was attached to. */
  get pid(): number | undefined {
    return this.host.process?.pid;
  }

  /** Exit status, once the plugin has ended. */
  get exit(): Exit | undefined {
    return this.host.process?.exit;
  }

  /** Last lines that the plugin has written to its standard error. */
  get stderrTail(): readonly string[] {
    return this.host.process?.tail ?? [];
  }

  /** Functions of a service of the plugin. Throws if the plugin does not have it. */
  client<T extends object>(description: ServiceDescription): T {
    checkServed(this.connection.peer.services, description);
    return client<T>(this, description);
  }

  /** Sets the level of the plugin's log. */
  setLogLevel(level: LogLevel): void {
    if (this.connection.has("log")) this.connection.send(0, 1, "cmd.log_level", level);
  }

  /** Ends the plugin: `cmd.stop`, then the end of its input, then SIGTERM, then SIGKILL, each after a time. */
  stop(grace: Grace = {}): Promise<Stopped> {
    this.stopping ??= this.host.stop(grace);
    return this.stopping;
  }

  /** Ends the plugin and all that it has started at once. */
  kill(): Promise<Stopped> {
    return this.host.kill();
  }

  /** Lets this program end although the plugin still runs; it is killed then. */
  unref(): void {
    this.connection.unref();
    this.host.process?.unref();
  }

  /** Stops the plugin at the end of a block with `await using`. */
  async [(Symbol.asyncDispose ?? Symbol.for("nodejs.asyncDispose")) as typeof Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

class Host implements Side {
  readonly name: string;
  readonly connection: Connection;
  readonly process: PluginProcess | undefined;
  readonly handler: Handler;
  readonly commands: readonly string[];
  readonly closedReason: Promise<CloseReason>;
  private readonly options: PluginOptions;
  private resolveClosed: (reason: CloseReason) => void = () => {};
  private lastStep: Stopped["by"] = "itself";

  constructor(name: string, ends: Ends, options: PluginOptions, process: PluginProcess | undefined) {
    this.name = name;
    this.options = options;
    this.process = process;
    const commands = new Map(Object.entries(options.commands ?? {}));
    for (const service of options.services ?? []) {
      for (const [command, handler] of handlerOf(service)) commands.set(command, handler);
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

  protocol(threadId: ThreadId, command: string): boolean {
    const services = this.options.services ?? [];
    if (command === "GetMetadata") {
      // No plugin asks its host for metadata.
      this.connection.close({ kind: "broken", message: "it sent the host's own first request back" });
      return true;
    }
    if (command !== "GetServices" || services.length === 0) return false;
    this.connection.answer(threadId, command, JSON.stringify({ services: services.map(describe) }));
    return true;
  }

  notice(): void {
    // A guest has no one-ways of the protocol that a host takes, and none is a fault.
  }

  closed(reason: CloseReason): void {
    this.connection.destroy();
    this.resolveClosed(reason);
  }

  warn(_message: string): void {
    // The plugin's matter, and nothing that this program could change.
  }

  /** Asks for the metadata. A start that fails leaves no process. */
  async greet(): Promise<Plugin> {
    try {
      const own = this.offer();
      const metadata = await this.ask(JSON.stringify(own));
      const version = this.agree(metadata);
      const shown = Object.fromEntries(Object.entries(metadata).filter(([key]) => !key.startsWith("pipeplug.")));
      return new Plugin(this, Object.freeze(shown), version);
    } catch (error) {
      await this.kill();
      throw error;
    }
  }

  async stop(grace: Grace): Promise<Stopped> {
    const times = { stop: 5000, endOfFile: 1000, term: 2000, ...this.options.grace, ...grace };
    const { process, connection } = this;
    if (process?.exit !== undefined) return this.stopped(process.exit);
    if (connection.reason === undefined) {
      this.lastStep = "stop";
      connection.send(0, 1, "cmd.stop", undefined);
      const ended = process === undefined ? await this.closedWithin(times.stop) : await process.within(times.stop);
      if (ended !== undefined || process === undefined) return this.letGo(ended as Exit | undefined);
    } else if (process === undefined) {
      return this.letGo(undefined);
    }
    if (this.lastStep === "stop") this.lastStep = "endOfFile";
    connection.close({ kind: "closed", message: `${this.name} was stopped` });
    connection.destroy();
    const atEnd = await process.within(times.endOfFile);
    if (atEnd !== undefined) return this.stopped(atEnd);
    this.lastStep = "term";
    process.kill("SIGTERM");
    const atTerm = await process.within(times.term);
    return atTerm === undefined ? this.kill() : this.stopped(atTerm);
  }

  async kill(): Promise<Stopped> {
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

  private async closedWithin(time: number): Promise<Exit | undefined> {
    let timer: NodeJS.Timeout | undefined;
    const passed = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, time);
    });
    await Promise.race([this.closedReason, passed]);
    clearTimeout(timer);
    return undefined;
  }

  private letGo(exit: Exit | undefined): Stopped {
    if (exit !== undefined) return this.stopped(exit);
    // Attached to: the process belongs to its own parent.
    this.connection.close({ kind: "closed", message: `${this.name} was let go` });
    this.connection.destroy();
    return { status: null, signal: null, by: "letGo" };
  }

  private stopped(exit: Exit): Stopped {
    return { ...exit, by: this.lastStep };
  }

  private offer(): Record<string, string> {
    const { options, connection } = this;
    const own = offer(options.metadata ?? {}, {
      features: [],
      window: connection.window,
      streamWindow: connection.streamWindow,
      interfaceVersions: options.interfaceVersions,
      services: namesOf(options.services ?? []),
    });
    if (options.logLevel !== undefined) own["pipeplug.log_level"] = options.logLevel;
    if (options.config !== undefined) {
      const config = JSON.stringify(options.config);
      if (config === undefined)
        throw new StartError(`plugin ${this.name}: the configuration cannot be written as JSON`);
      const length = Buffer.byteLength(config);
      if (length > METADATA_LIMIT) {
        throw new StartError(
          `plugin ${this.name}: the configuration is ${length} bytes long, the limit is ${METADATA_LIMIT}`,
        );
      }
      // The last key: a program that sends the request back has its first bytes shown.
      own["pipeplug.config"] = config;
    }
    return own;
  }

  private async ask(own: string): Promise<Record<string, string>> {
    const { connection, options, name } = this;
    const time = options.startTimeout ?? 10_000;
    let timer: NodeJS.Timeout | undefined;
    let aborted: (() => void) | undefined;
    try {
      const reply = await new Promise<Buffer>((resolve, reject) => {
        const call: OpenCall = { command: "GetMetadata", resolve, reject, extra: undefined };
        connection.sendRequest("GetMetadata", own, call);
        timer = setTimeout(
          () =>
            reject(
              new StartError(`plugin ${name} did not answer GetMetadata within ${time} ms; is it a plugin?`, this.tail),
            ),
          time,
        );
        aborted = () => reject(options.signal?.reason);
        // It may have been aborted while the process was started.
        if (options.signal?.aborted) aborted();
        options.signal?.addEventListener("abort", aborted);
      });
      if (reply.length > METADATA_LIMIT) {
        throw new StartError(
          `plugin ${name} answered GetMetadata with ${reply.length} bytes, the limit is ${METADATA_LIMIT}`,
        );
      }
      const metadata = parseMetadata(reply);
      if (metadata === undefined) {
        throw new StartError(
          `plugin ${name} answered GetMetadata with what is no JSON object: ${JSON.stringify(reply.toString("utf8", 0, 64))}`,
        );
      }
      return metadata;
    } catch (error) {
      if (!(error instanceof CallError)) throw error;
      // It has no metadata, which is no failure.
      if (error.kind === "remote") return {};
      throw new StartError(await this.endMessage(), this.tail);
    } finally {
      clearTimeout(timer);
      if (aborted !== undefined) options.signal?.removeEventListener("abort", aborted);
    }
  }

  private get tail(): readonly string[] {
    return this.process?.tail ?? [];
  }

  /** Reason of a start that the end of the connection has ended. */
  private async endMessage(): Promise<string> {
    const { reason } = this.connection;
    if (reason?.message.startsWith("it sent the host's own") === true) {
      return `plugin ${this.name} sent the host's own first request back: it copies its input to its output; is it a plugin?`;
    }
    if (reason?.kind === "broken") {
      return `plugin ${this.name} wrote what is no message: ${reason.message}; a plugin on stdin and stdout must print nothing of its own there`;
    }
    const exit = await this.process?.within(1000);
    if (exit === undefined) return `plugin ${this.name} closed its pipe before it answered`;
    const how = exit.signal === null ? `exit status ${exit.status}` : exit.signal;
    const said = this.tail.length === 0 ? "nothing on its stderr" : `its stderr: ${this.tail.join("\n")}`;
    return `plugin ${this.name} ended before it answered: ${how}, ${said}`;
  }

  private agree(metadata: Record<string, string>): number | undefined {
    const named = parseOffer(metadata);
    const { options, name } = this;
    if (options.config !== undefined && !named.features.has("config")) {
      throw new StartError(
        `plugin ${name} takes no configuration, and there is one: it does not name the feature \`config\``,
      );
    }
    const version = commonVersion(options.interfaceVersions, named.interfaceVersions);
    if (version === null) {
      const [own, its] = [options.interfaceVersions ?? [], named.interfaceVersions ?? []];
      const older = Math.max(...own) < Math.max(...its) ? "this host" : `plugin ${name}`;
      throw new StartError(
        `this host speaks the versions ${own.join(", ")} of the interface, and plugin ${name} ${its.join(", ")}: ${older} is older, upgrade it`,
      );
    }
    this.connection.negotiate(named);
    return version;
  }
}
