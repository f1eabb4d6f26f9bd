/** The host's end of a connection: asks for the metadata, and ends the plugin. */

import type { ThreadId } from "./chunk.js";
import { Connection, type Side } from "./connection.js";
import { CallError, StartError } from "./errors.js";
import { commonVersion, METADATA_LIMIT, offer, parseMetadata, parseOffer } from "./negotiation.js";
import type { CloseReason } from "./options.js";
import type { OpenCall } from "./outgoing.js";
import type { Grace, PluginOptions, Stopped } from "./plugin_options.js";
import type { Exit, PluginProcess } from "./process.js";
import type { Handler } from "./request.js";
import { describe, handlerOf, namesOf } from "./services.js";
import type { Ends } from "./transport.js";

/** What the host knows of a plugin that has started. */
export interface Introduced {
  metadata: Readonly<Record<string, string>>;
  version: number | undefined;
}

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
