/** The host's side: starts a plugin, calls it, and stops it. */

import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { basename } from "node:path";

import { Caller } from "./caller.js";
import { checkOptions, shown } from "./check.js";
import { StartError } from "./errors.js";
import type { LogLevel } from "./guest_options.js";
import { Host } from "./host.js";
import type { CloseReason } from "./options.js";
import { type Grace, PLUGIN, type PluginOptions, STOP, type Stopped } from "./plugin_options.js";
import { defaultEnv, type Exit, PluginProcess } from "./process.js";
import { checkServed, client, type ServiceDescription } from "./services.js";

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
    checkStart(path, options);
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
      isClassic: options.format === "classic",
      onLine: options.onLine,
    });
    const host = new Host(options.name ?? basename(path), started.ends, options, started);
    return Plugin.of(host);
  }

  /** Connects to a plugin that waits at a socket (`--pipeplug-listen`). */
  static async attach(path: string, options: PluginOptions = {}): Promise<Plugin> {
    checkStart(path, options);
    let socket: Socket | undefined;
    try {
      socket = connect({ path, allowHalfOpen: true });
      await once(socket, "connect", options.signal === undefined ? {} : { signal: options.signal });
    } catch (error) {
      socket?.destroy();
      throw new StartError(`no plugin waits at ${JSON.stringify(path)}: ${(error as Error).message}`);
    }
    const host = new Host(options.name ?? basename(path), { reader: socket, writer: socket }, options, undefined);
    return Plugin.of(host);
  }

  private static async of(host: Host): Promise<Plugin> {
    const { metadata, version } = await host.greet();
    return new Plugin(host, metadata, version);
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
  async stop(grace: Grace = {}): Promise<Stopped> {
    checkOptions(grace, STOP);
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

function checkStart(path: unknown, options: unknown): void {
  if (typeof path !== "string") throw new TypeError(`the path of a plugin has to be a string, not ${shown(path)}`);
  checkOptions(options, PLUGIN);
  if (path === "")
    throw new StartError('no plugin at "": the path is empty; name the plugin\'s executable file or socket');
}
