/** Typed services: sets of commands that describe themselves. */

import type { Caller, CallOptions } from "./caller.js";
import { shown } from "./check.js";
import type { Payload } from "./encoder.js";
import { CallError, Failure, failureCode, firstLine, messageOf } from "./errors.js";
import { isIterable } from "./incoming.js";
import type { Handler, HandlerResult, Request } from "./request.js";
import { misfit, type Schema, withDefaults } from "./schema.js";
import type { Parts } from "./stream.js";

/** Description of a method, as `GetServices` gives it. */
export interface MethodDescription {
  name: string;
  /** The cmd that calls it. Default: `service.method`. */
  command?: string;
  docs?: string;
  one_way?: boolean;
  idempotent?: boolean;
  /** Schema of the arguments, an object. */
  arguments?: Schema;
  items_in?: Schema;
  items_out?: Schema;
  result?: Schema;
  error?: Schema;
}

/** Description of a service. */
export interface ServiceDescription {
  name: string;
  version: number;
  /** Oldest version whose callers are served. Default: `version`. */
  oldest?: number;
  docs?: string;
  methods: readonly MethodDescription[];
  $defs?: Readonly<Record<string, Schema>>;
}

/**
 * Method of an implementation: takes the arguments as an object, and the request, whose `parts` are the items as
 * JSON. It returns the result, or an async iterable of the items of its result.
 */
// biome-ignore lint/suspicious/noExplicitAny: the description says what the arguments are.
export type Method = (args: any, request: ServiceRequest) => unknown;

/** Request of a method: also gives the items that the caller sends. */
export interface ServiceRequest extends Request {
  /** Items that follow the arguments. */
  items<T = unknown>(): AsyncIterable<T>;
}

/** Description with the functions of its methods. */
export interface Service {
  description: ServiceDescription;
  implementation: Readonly<Record<string, Method>>;
}

/** Error of a method's own, which its caller gets as data. */
export class MethodError extends Failure {
  constructor(message: string, error: unknown) {
    super(failureCode.methodError, message, error);
  }
}

/** Joins a description with the functions of its methods. */
export function service<T extends object>(description: ServiceDescription, implementation: T): Service {
  checkDescription(description);
  if (typeof implementation !== "object" || implementation === null) {
    throw new TypeError(
      `the implementation of the service ${description.name} has to be an object of functions, not ${shown(implementation)}`,
    );
  }
  const methods = implementation as Readonly<Record<string, Method>>;
  for (const { name } of description.methods) {
    if (typeof methods[name] !== "function")
      throw new TypeError(`the service ${description.name} has no function ${name}`);
  }
  return { description, implementation: methods };
}

/** Throws a `TypeError` that names what a description lacks. */
function checkDescription(description: ServiceDescription): void {
  const wrong = (what: string, expected: string, value: unknown): TypeError =>
    new TypeError(`${what} has to be ${expected}, not ${shown(value)}`);
  if (typeof description !== "object" || description === null) {
    throw wrong("the description of a service", "an object with name, version and methods", description);
  }
  const { name, version, methods } = description;
  if (typeof name !== "string" || name === "") throw wrong("the name of a service", "a string that is not empty", name);
  if (typeof version !== "number") throw wrong(`the version of the service ${name}`, "a number", version);
  if (!Array.isArray(methods)) throw wrong(`"methods" of the service ${name}`, "an array of objects", methods);
  for (const method of methods as readonly unknown[]) {
    if (typeof method !== "object" || method === null) {
      throw wrong(`a method of the service ${name}`, "an object with a name", method);
    }
    const named = (method as MethodDescription).name;
    if (typeof named !== "string") throw wrong(`the name of a method of the service ${name}`, "a string", named);
  }
  try {
    JSON.stringify(description);
  } catch (error) {
    throw new TypeError(`the description of the service ${name} cannot be written as JSON: ${firstLine(error)}`);
  }
}

/** Description as it is sent. */
export function describe({ description }: Service): object {
  const { name, version, oldest } = description;
  return {
    ...description,
    oldest: oldest ?? version,
    methods: description.methods.map((method) => ({ ...method, command: commandOf(name, method) })),
  };
}

/** Value of `pipeplug.services`. */
export function namesOf(services: readonly Service[]): string {
  return services
    .map(({ description: { name, version, oldest } }) => {
      return oldest === undefined || oldest === version ? `${name}/${version}` : `${name}/${oldest}-${version}`;
    })
    .join(" ");
}

/** Handlers of a service, by command. */
export function handlerOf({ description, implementation }: Service): [string, Handler][] {
  // It may be made without service().
  checkDescription(description);
  const defs = description.$defs ?? {};
  return description.methods.map((method) => {
    const run = implementation[method.name] as Method;
    const handler = async (request: Request): Promise<HandlerResult> => {
      const args = readArguments(request, method, defs);
      const itemsIn = method.items_in;
      const own = request as ServiceRequest;
      own.items = <T>() => items<T>(request.parts, itemsIn, defs);
      const result: unknown = await run.call(implementation, args, own);
      return isIterable<unknown>(result) ? encodeItems(result) : encode(method, result);
    };
    return [commandOf(description.name, method), handler];
  });
}

function commandOf(service: string, method: MethodDescription): string {
  return method.command ?? `${service}.${method.name}`;
}

function readArguments(
  request: Request,
  method: MethodDescription,
  defs: Readonly<Record<string, Schema>>,
): Record<string, unknown> {
  const value = request.buffer.length === 0 ? {} : request.json();
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new Failure(failureCode.invalidArgument, `the arguments of ${request.command} are no JSON object`);
  }
  const args = withDefaults(value as Record<string, unknown>, method.arguments);
  const found = method.arguments === undefined ? undefined : misfit(args, method.arguments, defs);
  if (found !== undefined) {
    const text = `the argument ${JSON.stringify(found.path)} of ${request.command} ${found.message}`;
    throw new Failure(failureCode.invalidArgument, text, { field: found.path });
  }
  return args;
}

async function* items<T>(
  parts: Parts,
  schema: Schema | undefined,
  defs: Readonly<Record<string, Schema>>,
): AsyncGenerator<T> {
  for await (const part of parts) {
    let value: unknown;
    try {
      value = JSON.parse(part.toString("utf8"));
    } catch (error) {
      throw new Failure(failureCode.invalidArgument, `an item is no JSON: ${(error as Error).message}`);
    }
    const found = schema === undefined ? undefined : misfit(value, schema, defs);
    if (found !== undefined) {
      const text = `an item does not fit: ${found.path || "it"} ${found.message}`;
      throw new Failure(failureCode.invalidArgument, text, { field: found.path });
    }
    yield value as T;
  }
}

async function* encodeItems(values: AsyncIterable<unknown>): AsyncGenerator<Payload> {
  for await (const value of values) yield toJson("an item", value);
}

function encode(method: MethodDescription, result: unknown): Payload {
  return result === undefined || method.one_way ? undefined : toJson(`the result of ${method.name}`, result);
}

function toJson(what: string, value: unknown): string {
  try {
    return JSON.stringify(value);
  } catch (error) {
    throw new Failure(failureCode.invalidResult, `${what} cannot be encoded: ${messageOf(error)}`);
  }
}

/** Call of a method with items: send those it takes, and loop over those that it gives. */
export interface ItemCall<In, Out, Result> extends AsyncIterable<Out> {
  send(item: In): Promise<void>;
  finish(): Promise<void>;
  readonly result: Promise<Result>;
}

/** Function of a client: takes the arguments as an object. */
export type ClientMethod = (args?: Record<string, unknown>, options?: CallOptions) => unknown;

/** Returns an object with a function for each method of the description. */
export function client<T extends object>(caller: Caller, description: ServiceDescription): T {
  if (typeof (caller as Caller | undefined)?.call !== "function") {
    throw new TypeError(`the first argument of client() has to be a Plugin or Main, not ${shown(caller)}`);
  }
  checkDescription(description);
  const methods: Record<string, ClientMethod> = {};
  for (const method of description.methods) {
    const command = commandOf(description.name, method);
    methods[method.name] = (args, options) => {
      const payload = args === undefined ? undefined : JSON.stringify(args);
      if (method.items_in !== undefined || method.items_out !== undefined)
        return callItems(caller, method, command, payload, options);
      if (method.one_way) return caller.notify(command, payload, options);
      return caller.call(command, payload, options).then((reply) => decode(command, reply));
    };
  }
  return methods as T;
}

function callItems(
  caller: Caller,
  method: MethodDescription,
  command: string,
  payload: Payload,
  options?: CallOptions,
): unknown {
  if (method.one_way) {
    const sender = caller.notifyStream(command, payload, options);
    return { send: (item: unknown) => sender.send(JSON.stringify(item)), finish: () => sender.finish() };
  }
  const call = caller.stream(command, payload, options);
  // A method that takes no items is not waited for.
  if (method.items_in === undefined) call.finish().catch(() => {});
  const result = call.reply.then((reply) => decode(command, reply));
  result.catch(() => {});
  return {
    send: (item: unknown) => call.send(JSON.stringify(item)),
    finish: () => call.finish(),
    result,
    async *[Symbol.asyncIterator]() {
      for await (const part of call.parts) yield decode(command, part);
    },
  };
}

function decode(command: string, reply: Buffer): unknown {
  if (reply.length === 0) return undefined;
  try {
    return JSON.parse(reply.toString("utf8"));
  } catch (error) {
    throw new CallError("invalid", command, `the reply to ${command} is no JSON: ${(error as Error).message}`);
  }
}

/** Throws if the other side does not have a service, or in a version that does not serve this one. */
export function checkServed(named: string, description: ServiceDescription): void {
  checkDescription(description);
  const { name, version } = description;
  const found = named.split(" ").find((word) => word.startsWith(`${name}/`));
  if (found === undefined) throw new Error(`the other side has no service "${name}"; it has ${named || "none at all"}`);
  const [oldest, newest] = found
    .slice(name.length + 1)
    .split("-")
    .map(Number);
  if (version >= (oldest ?? 0) && version <= (newest ?? oldest ?? 0)) return;
  throw new Error(
    `the other side serves version ${found.slice(name.length + 1)} of the service ${name}, and this side speaks ${version}: upgrade the older one`,
  );
}
