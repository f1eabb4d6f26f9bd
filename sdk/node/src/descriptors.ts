/** Descriptors of a guest, and the guard around standard input and output. */

import { closeSync, fstatSync, openSync, type Stats } from "node:fs";
import { isatty } from "node:tty";

/** Descriptors from the command line. */
export interface Plan {
  read: number;
  write: number;
  /** True if both were given by number. */
  told: boolean;
  /** The plugin's own arguments. */
  args: string[];
}

/** Error of registering with a host. */
export class RegisterError extends Error {
  override readonly name = "RegisterError";
}

/** Reads the descriptors, if the first two arguments are numbers. */
export function plan(args: readonly string[]): Plan {
  const [read, write] = args.slice(0, 2).map((arg) => (/^[0-9]+$/.test(arg) ? Number(arg) : Number.NaN));
  const isNumber = (value: number | undefined): value is number => value !== undefined && value <= 0x7fff_ffff;
  if (isNumber(read) && isNumber(write)) return { read, write, told: true, args: args.slice(2) };
  return { read: 0, write: 1, told: false, args: [...args] };
}

/** Returns true if no host can be at the other end: this was started in a terminal, or without an input. */
export function isByHand(plan: Plan): boolean {
  if (plan.told) return false;
  return isatty(0) || isatty(1) || (stat(0)?.isCharacterDevice() ?? false);
}

/** Makes both descriptors the connection's own: what is printed goes to standard error from here on. */
export function take(plan: Plan): { read: number; write: number } {
  if (plan.told && plan.read === plan.write) {
    throw new RegisterError(
      `descriptor ${plan.read} was given for both directions; hand down a copy of it under another number`,
    );
  }
  check(plan.read, "in", plan.told);
  check(plan.write, "out", plan.told);
  return { read: takeInput(plan.read), write: takeOutput(plan.write) };
}

function check(number: number, half: "in" | "out", told: boolean): void {
  const which = `descriptor ${number}, which is to bring messages ${half},`;
  if (number === 2) {
    throw new RegisterError(
      `${which} cannot be ${half === "in" ? "read from" : "written to"}; the first argument of a plugin is the descriptor to read from, the second the one to write to`,
    );
  }
  const found = stat(number);
  if (found === undefined) {
    throw new RegisterError(
      `${which} is not open: the first two arguments of a plugin are the numbers of its descriptors, which the program that starts it has to pass on (pass_fds=(3, 4) in Python, stdio: [0, 1, 2, 3, 4] in Node)`,
    );
  }
  // By hand, chunks may come from a file and go to one.
  if (!told || found.isFIFO() || found.isSocket()) return;
  const kind = found.isFile()
    ? "a regular file"
    : found.isDirectory()
      ? "a directory"
      : found.isCharacterDevice()
        ? "a terminal or another device"
        : "a file of another kind";
  throw new RegisterError(`${which} is ${kind}, neither a pipe nor a socket; its host has to hand down one of these`);
}

function stat(number: number): Stats | undefined {
  try {
    return fstatSync(number);
  } catch {
    return undefined;
  }
}

/** Opens standard input anew, and puts nothing in its place. Node has no dup(2). */
function takeInput(number: number): number {
  if (number !== 0) return number;
  try {
    const copy = openSync("/proc/self/fd/0", "r");
    replace(0, "/dev/null", "r");
    return copy;
  } catch {
    // A socket cannot be opened anew.
    return 0;
  }
}

/** Opens standard output anew, and puts standard error in its place. */
function takeOutput(number: number): number {
  if (number !== 1) return number;
  let copy = 1;
  try {
    copy = openSync("/proc/self/fd/1", "a");
  } catch {
    // A socket cannot be opened anew: only what this program prints is kept from it, below.
  }
  if (copy !== 1) replaceOutput();
  redirectPrints();
  return copy;
}

function replaceOutput(): void {
  try {
    replace(1, "/proc/self/fd/2", "a");
  } catch {
    // Standard error is a socket, or closed. What a child prints goes nowhere then.
    replace(1, "/dev/null", "w");
  }
}

/** Opens a file as the descriptor of that number: the lowest one that is free. */
function replace(number: number, path: string, flags: string): void {
  const opened = openSync(path, flags);
  closeSync(number);
  let again: number;
  try {
    again = openSync(path, flags);
  } catch {
    again = openSync("/dev/null", "r+");
  }
  closeSync(opened);
  if (again !== number) {
    closeSync(again);
    throw new RegisterError(`descriptor ${number} cannot be replaced`);
  }
}

/** Has `console.log` and `process.stdout` write where they do no harm, in order with what goes to stderr. */
function redirectPrints(): void {
  const stdout = process.stdout as NodeJS.WriteStream;
  stdout.write = process.stderr.write.bind(process.stderr);
}
