/** Options of a plugin's start, and the result of its end. */

import {
  ANY,
  FLAG,
  FUNCTION,
  FUNCTIONS,
  type Kind,
  NUMBERS,
  nested,
  oneOf,
  SERVICES,
  type Shape,
  SIGNAL,
  TEXT,
  TEXT_BY_NAME,
  TEXTS,
  VARIABLES,
  WAIT,
} from "./check.js";
import type { Format } from "./chunk.js";
import { type Commands, LEVELS, type LogLevel } from "./guest_options.js";
import { CONNECTION, type Options } from "./options.js";
import type { Exit, Output } from "./process.js";
import type { Handler } from "./request.js";
import type { Service } from "./services.js";

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

export const STOP: Shape = {
  of: "stop",
  options: { stop: WAIT, endOfFile: WAIT, term: WAIT } satisfies Record<keyof Grace, Kind>,
};

const START: Omit<Record<keyof PluginOptions, Kind>, keyof Options> = {
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
export const PLUGIN: Shape = { of: "a plugin's start", options: { ...START, ...CONNECTION } };
