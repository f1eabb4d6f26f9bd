/** Process of a plugin: pipes, start, lines that it prints, and end. */

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { closeSync, constants, openSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { Readable } from "node:stream";

import { timerTime } from "./check.js";
import { StartError } from "./errors.js";
import { problemOf, problemOfDirectory, problemOfLine, problemOfSpawn } from "./examine.js";

/** Output that a plugin prints to. */
export type Output = "stdout" | "stderr";

/** How a program is started. */
export interface Launch {
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
export interface Exit {
  status: number | null;
  signal: NodeJS.Signals | null;
}

/** Returns how a process has ended, in words. */
export function howEnded({ status, signal }: Exit): string {
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
const running = new Set<PluginProcess>();
let isWatching = false;

/** Environment of a plugin unless the user chooses another. */
export function defaultEnv(): Record<string, string> {
  const names = Object.keys(process.env).filter((name) => PASSED.includes(name) || name.startsWith("LC_"));
  return Object.fromEntries(names.map((name) => [name, process.env[name] as string]));
}

/** Ends of the pipes to a plugin. */
interface Pipes {
  ours: { read: number; write: number; stdout: number; stderr: number };
  theirs: { read: number; write: number; stdout: number; stderr: number };
}

/**
 * Makes the pipes to a plugin: named ones in a directory that only this user enters, for a moment. Node makes
 * sockets in place of pipes, and a plugin cannot open those anew (`/dev/fd/3`, `/dev/stderr`).
 */
async function makePipes(plugin: string): Promise<Pipes> {
  const directory = await mkdtemp(join(tmpdir(), "pipeplug-")).catch((error: Error) => {
    throw new StartError(`pipes cannot be made: ${error.message}; have TMPDIR name a directory that can be written`);
  });
  const opened: number[] = [];
  const open = (path: string, flags: number): number => {
    const fd = openSync(path, flags);
    opened.push(fd);
    return fd;
  };
  const { O_RDONLY, O_WRONLY, O_NONBLOCK } = constants;
  const paths = ["down", "up", "out", "err"].map((name) => join(directory, name)) as [string, string, string, string];
  const [down, up, out, err] = paths;
  // The reading end comes first: opening one does not wait with O_NONBLOCK, and then the other finds it.
  const fromPlugin = (path: string): [number, number] => [open(path, O_RDONLY | O_NONBLOCK), open(path, O_WRONLY)];
  try {
    await new Promise<void>((resolve, reject) => {
      execFile("mkfifo", ["-m", "600", ...paths], (error, _, stderr) => {
        if (error) reject(new StartError(`pipes cannot be made by mkfifo(1): ${stderr.trim() || error.message}`));
        else resolve();
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
  } catch (error) {
    for (const fd of opened) closeSync(fd);
    throw error instanceof StartError ? error : new StartError(problemOfSpawn(plugin, error as NodeJS.ErrnoException));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Returns the path of the program, and what is wrong with its file. */
function examine(launch: Launch): { path: string; isScript: boolean; problem: string | undefined } {
  try {
    // Never one of PATH.
    const path = resolve(launch.path);
    const isScript = /\.[cm]?js$/.test(path);
    const problem = problemOf(path, isScript) ?? problemOfDirectory(path, launch.cwd ?? process.cwd());
    return { path, isScript, problem };
  } catch (error) {
    // The working directory of this program may be gone, or a file while it is looked at.
    throw new StartError(problemOfSpawn(launch.path, error as NodeJS.ErrnoException));
  }
}

/** A program that was started. */
export class PluginProcess {
  readonly ends: { read: number; write: number };
  readonly pid: number;
  /** Resolves when the process has ended and its last lines have come. */
  readonly exited: Promise<Exit>;
  exit: Exit | undefined;
  private readonly tailLines: string[] = [];
  /** The last lines but for those that tell people little. */
  private readonly telling: string[] = [];
  /** Program that the kernel starts by itself. */
  private readonly path: string | undefined;
  private readonly child: ChildProcess;
  private readonly outputs: Socket[];

  private constructor(child: ChildProcess, pipes: Pipes["ours"], launch: Launch, path: string | undefined) {
    this.child = child;
    this.path = path;
    this.ends = { read: pipes.read, write: pipes.write };
    this.pid = child.pid as number;
    const kinds: readonly Output[] = ["stdout", "stderr"];
    this.outputs = kinds.map((output) => new Socket({ fd: pipes[output], readable: true, writable: false }));
    const ended = this.outputs.map((stream, i) => this.readLines(stream, kinds[i] as Output, launch.onLine));
    this.exited = new Promise((resolve) => {
      child.on("exit", (status, signal) => {
        running.delete(this);
        this.exit = { status, signal };
        const done = (): void => {
          for (const stream of this.outputs) stream.destroy();
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
  static async start(launch: Launch): Promise<PluginProcess> {
    const { args, stdio } = launch;
    const { path, isScript, problem } = examine(launch);
    if (problem !== undefined) throw new StartError(problem);
    const [program, first] = isScript ? [process.execPath, [path]] : [path, []];
    const isAmbiguous = args.length >= 2 && args.slice(0, 2).every((arg) => /^[0-9]+$/.test(arg));
    const numbers = stdio ? (isAmbiguous || launch.isClassic ? ["0", "1"] : []) : ["3", "4"];
    const { ours, theirs } = await makePipes(path);
    let child: ChildProcess;
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
      await new Promise<void>((resolve, reject) => {
        child.once("spawn", resolve);
        child.once("error", reject);
      });
    } catch (error) {
      for (const fd of Object.values(ours)) closeSync(fd);
      // An argument with a NUL.
      if (error instanceof TypeError) throw error;
      throw new StartError(problemOfSpawn(path, error as NodeJS.ErrnoException));
    } finally {
      for (const fd of Object.values(theirs)) closeSync(fd);
    }
    child.on("error", () => {});
    return new PluginProcess(child, ours, launch, isScript ? undefined : path);
  }

  /** Last lines of standard error. */
  get tail(): readonly string[] {
    return this.tailLines;
  }

  /** The last of them, for the end of a message. */
  get said(): string {
    const lines = this.telling;
    return lines.length === 0 ? "nothing on its stderr" : `last on its stderr: ${lines.join(" | ")}`;
  }

  /** Reason for its end that its file shows. */
  get problemOfLine(): string | undefined {
    return this.path === undefined ? undefined : problemOfLine(this.path);
  }

  /** Sends a signal to the process and all that it has started, but for those that left its group. */
  kill(signal: NodeJS.Signals): void {
    try {
      process.kill(-this.pid, signal);
    } catch {
      // It has ended.
    }
  }

  /** Waits for the end, at most for so many milliseconds; undefined then. */
  async within(time: number): Promise<Exit | undefined> {
    let timer: NodeJS.Timeout | undefined;
    const passed = new Promise<undefined>((resolve) => {
      timer = setTimeout(resolve, timerTime(time), undefined);
    });
    const exit = await Promise.race([this.exited, passed]);
    clearTimeout(timer);
    return exit;
  }

  unref(): void {
    this.child.unref();
    for (const stream of this.outputs) stream.unref();
  }

  private readLines(stream: Readable, output: Output, onLine: Launch["onLine"]): Promise<void> {
    let rest = "";
    const take = (line: string): void => {
      if (output === "stderr") {
        this.tailLines.push(line);
        if (this.tailLines.length > TAIL) this.tailLines.shift();
        if (!SAYS_LITTLE.test(line)) this.telling.push(line);
        if (this.telling.length > SHOWN) this.telling.shift();
      }
      if (onLine === undefined) process.stderr.write(`${line}\n`);
      else onLine(line, output);
    };
    stream.setEncoding("utf8");
    stream.on("data", (text: string) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) take(line);
      for (; rest.length > LINE_LIMIT; rest = rest.slice(LINE_LIMIT)) take(rest.slice(0, LINE_LIMIT));
    });
    return new Promise((resolve) => {
      const end = (): void => {
        if (rest !== "") take(rest);
        rest = "";
        resolve();
      };
      stream.on("end", end);
      stream.on("error", end);
    });
  }
}

function killAtExit(): void {
  if (isWatching) return;
  isWatching = true;
  process.on("exit", () => {
    for (const plugin of running) plugin.kill("SIGKILL");
  });
}
