/** The host's end of a connection: asks for the metadata, and ends the plugin. */

import { shown, timerTime } from "./check.js";
import type { ThreadId } from "./chunk.js";
import { Connection, type Side } from "./connection.js";
import { CallError, firstLine, StartError } from "./errors.js";
import { missingCommand } from "./examine.js";
import { commonVersion, METADATA_LIMIT, offer, parseMetadata, parseOffer } from "./negotiation.js";
import type { CloseReason } from "./options.js";
import type { OpenCall } from "./outgoing.js";
import type { Grace, PluginOptions, Stopped } from "./plugin_options.js";
import { type Exit, howEnded, type PluginProcess } from "./process.js";
import type { Handler } from "./request.js";
import { describe, handlerOf, namesOf } from "./services.js";
import type { Ends } from "./transport.js";

/** What the host knows of a plugin that has started. */
export interface Introduced {
  metadata: Readonly<Record<string, string>>;
  version: number | undefined;
}

/** Milliseconds in which the calls of a plugin that has closed its pipe wait for its exit status. */
const EXIT_PAUSE = 300;

/** Host of one plugin. */
export class Host implements Side {
  readonly name: string;
  readonly connection: Connection;
  readonly process: PluginProcess | undefined;
  readonly handler: Handler;
  readonly commands: readonly string[];
  readonly closedReason: Promise<CloseReason>;
  private readonly options: PluginOptions;
  private resolveClosed: (reason: CloseReason) => void = () => {};
  private lastStep: Stopped["by"] = "itself";
  /** Reason of an end that was not this side's wish, as the connection names it. */
  private lost: CloseReason | undefined;

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
    this.connection.answers.answer(threadId, command, JSON.stringify({ services: services.map(describe) }));
    return true;
  }

  notice(): void {
    // A guest has no one-ways of the protocol that a host takes, and none is a fault.
  }

  /** Names the plugin, and how it has ended. */
  async explain(reason: CloseReason): Promise<CloseReason> {
    this.lost = reason;
    const { name, process } = this;
    const mayHaveEnded = ["endOfFile", "readerGone", "system"].includes(reason.kind);
    if (process === undefined || !mayHaveEnded) return { ...reason, message: `${name}: ${reason.message}` };
    // The kernel closes the pipes of a process some time before its end.
    const exit = await process.within(EXIT_PAUSE);
    const what = `${name} (process ${process.pid})`;
    const message =
      exit === undefined
        ? `${what}: ${reason.message}, and it runs on, ${process.said}`
        : `${what} has ended: ${howEnded(exit)}, ${process.said}`;
    return { ...reason, message };
  }

  closed(reason: CloseReason): void {
    this.connection.destroy();
    this.resolveClosed(reason);
  }

  warn(_message: string): void {
    // The plugin's matter, and nothing that this program could change.
  }

  /** Asks for the metadata. A start that fails leaves no process. */
  async greet(): Promise<Introduced> {
    try {
      const own = this.offer();
      const metadata = await this.ask(JSON.stringify(own));
      const version = this.agree(metadata);
      const shown = Object.fromEntries(Object.entries(metadata).filter(([key]) => !key.startsWith("pipeplug.")));
      return { metadata: Object.freeze(shown), version };
    } catch (error) {
      await this.kill();
      throw error;
    }
  }

  async stop(grace: Grace): Promise<Stopped> {
    const times = { stop: 5000, endOfFile: 1000, term: 2000, ...this.options.grace, ...grace };
    const { process, connection } = this;
    if (process?.exit !== undefined) return this.stopped(process.exit);
    // It ends by itself just now.
    if (connection.isOver) await this.closedReason;
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
      timer = setTimeout(resolve, timerTime(time));
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
      const config = this.config(options.config);
      const length = Buffer.byteLength(config);
      if (length > METADATA_LIMIT) {
        throw new StartError(
          `plugin ${this.quoted}: the configuration is ${length} bytes long, the limit is ${METADATA_LIMIT}`,
        );
      }
      // The last key: a program that sends the request back has its first bytes shown.
      own["pipeplug.config"] = config;
    }
    return own;
  }

  private config(value: unknown): string {
    const text = `plugin ${this.quoted}: the configuration (\`config\`) cannot be written as JSON`;
    let json: string | undefined;
    try {
      json = JSON.stringify(value);
    } catch (error) {
      throw new StartError(`${text}: ${firstLine(error)}`);
    }
    if (json === undefined) throw new StartError(`${text}: it is ${shown(value)}`);
    return json;
  }

  private async ask(own: string): Promise<Record<string, string>> {
    const { connection, options, quoted } = this;
    const time = options.startTimeout ?? 10_000;
    let timer: NodeJS.Timeout | undefined;
    let aborted: (() => void) | undefined;
    try {
      const reply = await new Promise<Buffer>((resolve, reject) => {
        const call: OpenCall = { command: "GetMetadata", resolve, reject, extra: undefined };
        connection.sendRequest("GetMetadata", own, call);
        const silent = (): void => {
          const text = `plugin ${quoted} did not answer GetMetadata within ${time} ms, ${this.said}`;
          const hint = `is it a plugin? A slow one needs more time: { startTimeout: … }. ${this.otherWays()}`;
          reject(new StartError(`${text}; ${hint}`, this.tail));
        };
        timer = setTimeout(silent, timerTime(time));
        aborted = () => reject(options.signal?.reason);
        // It may have been aborted while the process was started.
        if (options.signal?.aborted) aborted();
        options.signal?.addEventListener("abort", aborted);
      });
      if (reply.length > METADATA_LIMIT) {
        throw new StartError(
          `plugin ${quoted} answered GetMetadata with ${reply.length} bytes, the limit is ${METADATA_LIMIT}`,
        );
      }
      const metadata = parseMetadata(reply);
      if (metadata === undefined) {
        throw new StartError(
          `plugin ${quoted} answered GetMetadata with what is no JSON object: ${JSON.stringify(reply.toString("utf8", 0, 64))}`,
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
    const hint =
      this.process?.problemOfLine ?? missingCommand(exit.status, this.tail) ?? `is it a plugin? ${this.otherWays()}`;
    const text = `plugin ${this.quoted} ended before it answered: ${howEnded(exit)}, ${this.said}`;
    // A library's own words say enough.
    return this.tail.at(-1)?.startsWith(`${this.name}: `) ? text : `${text}; ${hint}`;
  }

  private get quoted(): string {
    return JSON.stringify(this.name);
  }

  private get said(): string {
    return this.process?.said ?? "its stderr is not this host's";
  }

  /** Options that were not tried. */
  private otherWays(): string {
    const { format, stdio } = this.options;
    const word = format === "classic" ? "standard" : "classic";
    const other = `If it speaks the ${word} format use { format: "${word}" }`;
    return stdio || this.process === undefined ? other : `${other}, if it uses stdin and stdout { stdio: true }`;
  }

  private agree(metadata: Record<string, string>): number | undefined {
    const named = parseOffer(metadata);
    const { options, quoted } = this;
    if (options.config !== undefined && !named.features.has("config")) {
      throw new StartError(
        `plugin ${quoted} takes no configuration, and there is one: it does not name the feature \`config\``,
      );
    }
    const version = commonVersion(options.interfaceVersions, named.interfaceVersions);
    if (version === null) {
      const [own, its] = [options.interfaceVersions ?? [], named.interfaceVersions ?? []];
      const older = Math.max(...own) < Math.max(...its) ? "this host" : `plugin ${quoted}`;
      throw new StartError(
        `this host speaks the versions ${own.join(", ")} of the interface, and plugin ${quoted} ${its.join(", ")}: ${older} is older, upgrade it`,
      );
    }
    this.connection.negotiate(named);
    return version;
  }
}
