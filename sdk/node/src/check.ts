/** Checks of options: JavaScript callers may misspell a name, or pass a value of another type. */

/** Values that an option may have. */
export interface Kind {
  /** Words behind "has to be". */
  readonly noun: string;
  fits(value: unknown): boolean;
}

/** Options of one function. */
export interface Shape {
  /** Words behind "the options of". */
  readonly of: string;
  readonly options: Readonly<Record<string, Kind>>;
}

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null;
const isText = (value: unknown): value is string => typeof value === "string";
const isNumber = (value: unknown): value is number => typeof value === "number" && !Number.isNaN(value);
const isNatural = (value: unknown): value is number => isNumber(value) && value >= 0;
const isListOf = (value: unknown, fits: (item: unknown) => boolean): boolean =>
  Array.isArray(value) && value.every(fits);
const isRecordOf = (value: unknown, fits: (item: unknown) => boolean): boolean =>
  isObject(value) && !Array.isArray(value) && Object.values(value).every(fits);
const kind = (noun: string, fits: (value: unknown) => boolean): Kind => ({ noun, fits });

export const ANY = kind("anything", () => true);
export const MILLISECONDS = kind("a number of milliseconds", isNumber);
/** Time to wait; that of a call may be negative, since it is often what is left of another. */
export const WAIT = kind("a number of milliseconds from 0 on", isNatural);
export const MICROSECONDS = kind("a number of microseconds from 0 on", isNatural);
export const BYTES = kind("a number of bytes from 0 on", isNatural);
export const COUNT = kind("a number from 0 on", isNatural);
export const NUMBERS = kind("an array of numbers", (value) => isListOf(value, isNumber));
export const FLAG = kind("true or false", (value) => typeof value === "boolean");
export const TEXT = kind("a string", isText);
export const TEXTS = kind("an array of strings", (value) => isListOf(value, isText));
export const TEXT_BY_NAME = kind("an object of strings", (value) => isRecordOf(value, isText));
export const VARIABLES = kind("an object of strings", (value) =>
  isRecordOf(value, (item) => item === undefined || isText(item)),
);
export const FUNCTION = kind("a function", (value) => typeof value === "function");
export const FUNCTIONS = kind("an object of functions, by command", (value) =>
  isRecordOf(value, (item) => typeof item === "function"),
);
export const SERVICES = kind("an array of services, as service() returns them", (value) =>
  isListOf(value, (item) => isObject(item) && isObject(item.description) && isObject(item.implementation)),
);
export const SIGNAL = kind("an AbortSignal", (value) => isObject(value) && typeof value.aborted === "boolean");
export const ORDER = kind("true, or an array of arrays of commands", (value) =>
  value === true ? true : isListOf(value, (commands) => isListOf(commands, isText)),
);

/** One of some words. */
export function oneOf(...words: string[]): Kind {
  const shown = words.map((word) => JSON.stringify(word));
  return kind(`${shown.slice(0, -1).join(", ")} or ${shown.at(-1)}`, (value) => words.includes(value as string));
}

/** Options inside an option. */
export function nested(shape: Shape): Kind {
  return kind("an object", (value) => {
    checkOptions(value, shape);
    return true;
  });
}

/** Throws a `TypeError` that names the option that does not exist, or whose value does not fit. */
export function checkOptions(options: unknown, shape: Shape): void {
  if (options === undefined) return;
  if (!isObject(options)) throw new TypeError(`the options of ${shape.of} have to be an object, not ${shown(options)}`);
  for (const name in options) {
    const expected = Object.hasOwn(shape.options, name) ? shape.options[name] : undefined;
    const value = options[name];
    if (expected === undefined) throw unknown(name, value, shape);
    if (value !== undefined && !expected.fits(value)) {
      throw new TypeError(
        `the option ${JSON.stringify(name)} of ${shape.of} has to be ${expected.noun}, not ${shown(value)}`,
      );
    }
  }
}

function unknown(name: string, value: unknown, shape: Shape): TypeError {
  const names = Object.keys(shape.options);
  const near = nearest(name, names);
  const next = near === undefined ? `it has ${names.join(", ")}` : `did you mean ${JSON.stringify(near)}?`;
  return new TypeError(`${shape.of} has no option ${JSON.stringify(name)} (it was given ${shown(value)}); ${next}`);
}

/** Returns what a value is, in words. */
export function shown(value: unknown): string {
  if (typeof value === "string") {
    return `the string ${JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value)}`;
  }
  if (typeof value === "function") return "a function";
  if (!isObject(value)) return String(value);
  try {
    if (Array.isArray(value)) return "an array";
    const name: unknown = value.constructor?.name;
    return typeof name !== "string" || name === "" || name === "Object" ? "an object" : `an object of ${name}`;
  } catch {
    // A proxy, or a getter that throws.
    return "an object";
  }
}

/** The name that differs least, if that is little. */
function nearest(name: string, names: readonly string[]): string | undefined {
  const lower = name.toLowerCase();
  const ranked = names
    .map((known): [number, string] => [distance(lower, known.toLowerCase()), known])
    .sort(([a], [b]) => a - b);
  const [first] = ranked;
  return first !== undefined && first[0] <= Math.max(1, Math.floor(name.length / 3)) ? first[1] : undefined;
}

/** Number of characters to put in, take out or replace. */
function distance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, i) => i);
  for (let i = 1; i <= from.length; i++) {
    const above = row;
    row = [i];
    for (let j = 1; j <= to.length; j++) {
      const replaced = (above[j - 1] as number) + (from[i - 1] === to[j - 1] ? 0 : 1);
      row.push(Math.min(replaced, (above[j] as number) + 1, (row[j - 1] as number) + 1));
    }
  }
  return row[to.length] as number;
}

/** Longest time of a timer, and the number of milliseconds for one. */
export function timerTime(milliseconds: number): number {
  return Math.max(0, Math.min(0x7fff_ffff, milliseconds));
}
