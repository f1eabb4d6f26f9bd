/** Options of a plugin. */

import {
  FUNCTION,
  FUNCTIONS,
  type Kind,
  NUMBERS,
  oneOf,
  SERVICES,
  type Shape,
  TEXT_BY_NAME,
  TEXTS,
  WAIT,
} from "./check.js";
import type { Main } from "./guest.js";
import { CONNECTION, type Options } from "./options.js";
import type { Handler } from "./request.js";
import type { Service } from "./services.js";

/** Level of a log, from the fewest events to the most. */
export type LogLevel = "off" | "error" | "warn" | "info" | "debug" | "trace";
export const LEVELS: readonly string[] = ["off", "error", "warn", "info", "debug", "trace"];

/** Commands by name, with their handlers. */
export type Commands = Readonly<Record<string, Handler>>;

/** Description of a plugin. */
export interface GuestOptions extends Options {
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

const OWN: Omit<Record<keyof GuestOptions, Kind>, keyof Options> = {
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
export const GUEST: Shape = { of: "register", options: { ...OWN, ...CONNECTION } };
