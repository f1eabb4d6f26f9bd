/** Examination of a program that cannot be started: an errno tells neither what is wrong nor what to do. */

import {
  accessSync,
  closeSync,
  constants,
  lstatSync,
  openSync,
  readlinkSync,
  readSync,
  type Stats,
  statSync,
} from "node:fs";
import { dirname, isAbsolute } from "node:path";

/** Bytes of a file that are looked at. */
const LOOKED_AT = 512;
/** Machines of ELF headers, by `process.arch`. */
const MACHINES: Readonly<Record<string, number>> = {
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
export function problemOf(path: string, isScript: boolean): string | undefined {
  let stat: Stats;
  try {
    stat = statSync(path);
  } catch (error) {
    return `no plugin at ${quote(path)}: ${missing(path, error as NodeJS.ErrnoException)}`;
  }
  const problem = problemOfFile(path, stat, isScript);
  return problem === undefined ? undefined : `plugin ${quote(path)} ${problem}`;
}

/** Returns the message for an error of spawn(2) that the file does not explain. */
export function problemOfSpawn(path: string, error: NodeJS.ErrnoException): string {
  const texts: Readonly<Record<string, string>> = {
    ETXTBSY: "is open for writing: close the file, or wait for its copy to end, and start it again",
    EMFILE: "needs some free descriptors (too many open files): run fewer plugins, or raise the limit with `ulimit -n`",
    ENFILE: "needs some free descriptors, and the system has none: run fewer programs",
    EAGAIN: "cannot be started: the limit of processes is reached; end some, or raise the limit (`ulimit -u`)",
    E2BIG: "cannot be started: its arguments and variables are too long",
    EACCES:
      "may not be executed: check the directories above it, its interpreter, and whether its file system is mounted noexec",
  };
  return `plugin ${quote(path)} ${texts[error.code ?? ""] ?? `cannot be started: ${error.message}`}`;
}

/** Returns why nothing can start in a directory, or undefined. */
export function problemOfDirectory(path: string, cwd: string): string | undefined {
  try {
    if (statSync(cwd).isDirectory()) return undefined;
    return `plugin ${quote(path)} cannot start in the working directory ${quote(cwd)}: it is not a directory`;
  } catch (error) {
    return `plugin ${quote(path)} cannot start in the working directory ${quote(cwd)}: ${(error as Error).message}`;
  }
}

function missing(path: string, error: NodeJS.ErrnoException): string {
  if (error.code === "ENOTDIR") {
    let file = dirname(path);
    while (codeOf(file) !== undefined && file !== dirname(file)) file = dirname(file);
    return `${quote(file)} is not a directory; name the file itself`;
  }
  if (error.code !== "ENOENT") return error.message;
  const isLink = lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true;
  const link = isLink ? `, it is a symbolic link to ${quote(readlinkSync(path))}` : "";
  return `no such file${link}; check the path, \`PATH\` is not searched`;
}

function problemOfFile(path: string, stat: Stats, isScript: boolean): string | undefined {
  if (stat.isDirectory()) return "is a directory: name the executable file inside it";
  if (!stat.isFile()) {
    const kind = stat.isFIFO() ? "a FIFO" : stat.isSocket() ? "a socket" : "a device";
    const next = stat.isSocket()
      ? "a plugin that listens on it is for Plugin.attach"
      : "name the plugin's executable file";
    return `is ${kind}, which cannot be executed: ${next}`;
  }
  if (isScript) return may(path, constants.R_OK) ? undefined : `cannot be read ${modeOf(stat)}`;
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

function problemOfHead(head: Buffer): string | undefined {
  const next = "start a script with a line like `#!/usr/bin/env node`";
  if (head.length === 0) return `is not a program: it is empty; ${next}`;
  if (head.toString("latin1", 0, 2) === "#!") return problemOfInterpreter(head);
  if (head.toString("latin1", 0, 4) === "\x7fELF") {
    // e_machine, and the byte order before it.
    if (head.length < 52 || (head[5] !== 1 && head[5] !== 2))
      return `is not a program: its ELF header is damaged; ${next}`;
    const machine = head[5] === 1 ? head.readUInt16LE(18) : head.readUInt16BE(18);
    const known = MACHINES[process.arch];
    // A kernel for 64 bits may run programs for 32.
    const isOther = known !== undefined && machine !== known && machine !== MACHINES.ia32 && machine !== MACHINES.arm;
    if (!isOther) return undefined;
    const name = Object.keys(MACHINES).find((arch) => MACHINES[arch] === machine) ?? `number ${machine} in ELF`;
    return `is built for another machine (${name}), this one is ${process.arch}: build it for this one`;
  }
  // Binary files may have an interpreter of binfmt_misc.
  return head.includes(0) ? undefined : `is not a program: it has neither a \`#!\` line nor an ELF header; ${next}`;
}

function problemOfInterpreter(head: Buffer): string | undefined {
  const line = head.toString("utf8", 2).split("\n", 1)[0] as string;
  const interpreter = /^[ \t]*([^ \t]*)/.exec(line)?.[1] ?? "";
  if (interpreter === "") return "is not a program: its `#!` line names no interpreter";
  // Others depend on the directory that the plugin runs in.
  if (!isAbsolute(interpreter)) return undefined;
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
export function problemOfLine(path: string): string | undefined {
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
export function missingCommand(status: number | null, stderr: readonly string[]): string | undefined {
  if (status !== 126 && status !== 127) return undefined;
  for (const line of [...stderr].reverse()) {
    if (/shared (librar|object)/.test(line)) continue;
    const found = SAID.map((words) => words.exec(line.trimEnd())?.[1]).find((name) => name !== undefined);
    if (found === undefined) continue;
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
function codeOf(path: string): string | undefined {
  try {
    statSync(path);
    return undefined;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? "unknown";
  }
}

function may(path: string, mode: number): boolean {
  try {
    accessSync(path, mode);
    return true;
  } catch {
    return false;
  }
}

function headOf(path: string): Buffer | undefined {
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch {
    return undefined;
  }
  try {
    const head = Buffer.alloc(LOOKED_AT);
    return head.subarray(0, readSync(fd, head, 0, LOOKED_AT, 0));
  } catch {
    return undefined;
  } finally {
    closeSync(fd);
  }
}

function modeOf(stat: Stats): string {
  return `(mode ${(stat.mode & 0o7777).toString(8).padStart(4, "0")})`;
}

function quote(text: string): string {
  return JSON.stringify(text);
}
