// Commands that throw, reject with or return what hardly any program does, with the beginnings of their errors.
import { Failure } from "pipeplug";

const own = new Error("own cause");
own.cause = own;
const circle = {};
circle.circle = circle;
const trap = () => {
  throw new Error("trap");
};
const proxy = (target) =>
  new Proxy(target, { get: trap, has: trap, getPrototypeOf: trap, ownKeys: trap, getOwnPropertyDescriptor: trap });
const error = (values, text = "x") => Object.assign(new Error(text), values);
const throws = (value) => () => {
  throw value;
};
const thenable = (value, object = {}) => withThen({ value }, object);
// biome-ignore lint/suspicious/noThenProperty: it is what is tested.
const withThen = (descriptor, object = {}) => Object.defineProperty(object, "then", descriptor);
const revoked = Proxy.revocable({}, {});
revoked.revoke();
class Bytes extends Uint8Array {
  get length() {
    throw new Error("no length");
  }
}

/** Handler and text of its error, by command. */
export const values = {
  "message object": [throws(error({ message: { a: 1 } })), "{ a: 1 }"],
  "message undefined": [throws(error({ message: undefined })), "Error"],
  "message symbol": [throws(error({ message: Symbol("s") })), "Symbol(s)"],
  "name object": [throws(error({ name: {} }, "")), "Error"],
  "half a character": [throws(new Failure("odd", "\ud800")), "\ufffd"],
  "cause of itself": [throws(own), "own cause: own cause"],
  "cause without text": [throws(error({ cause: Object.create(null) })), "x: [Object: null prototype] {}"],
  "cause that throws": [throws(Object.defineProperty(new Error("x"), "cause", { get: trap })), "x"],
  "message that throws": [throws(Object.defineProperty(new Error("x"), "message", { get: trap })), "an error that has"],
  "null prototype": [throws(Object.create(null)), "[Object: null prototype] {}"],
  object: [throws({ a: 1 }), "{ a: 1 }"],
  symbol: [throws(Symbol("s")), "Symbol(s)"],
  nothing: [throws(undefined), "undefined"],
  "toString that throws": [throws({ toString: trap }), "{ toString: "],
  proxy: [throws(proxy({})), "{}"],
  "proxy of an error": [throws(proxy(new Error("inside"))), "Error: inside"],
  "revoked proxy": [throws(revoked.proxy), "<Revoked Proxy>"],
  "cyclic data": [throws(new Failure("odd", "cyclic", circle)), "cyclic"],
  "bigint data": [throws(new Failure("odd", "bigint", { a: 1n })), "bigint"],
  "data that throws": [throws(new Failure("odd", "toJSON", { toJSON: trap })), "toJSON"],
  "data that is a proxy": [throws(new Failure("odd", "data", proxy({}))), "data"],
  "code bigint": [throws(Object.assign(new Failure("odd", "code"), { code: 1n })), "code"],
  "rejected without text": [async () => throws(Object.create(null))(), "[Object: null prototype] {}"],
  "rejected proxy": [async () => throws(proxy({}))(), "{}"],
  "then that throws": [() => thenable(trap), "trap"],
  "then that cannot be read": [() => withThen({ get: trap }), "trap"],
  "then that rejects twice": [
    () =>
      thenable((_, reject) => {
        reject(Object.create(null));
        reject(1);
        trap();
      }),
    "[Object: null prototype] {}",
  ],
  "promise with a then of its own": [() => thenable(trap, Promise.resolve()), "trap"],
  "returned proxy": [() => proxy({}), "trap"],
  "proxy later": [async () => new Proxy({}, { has: trap, getPrototypeOf: trap }), "the handler of "],
  "proxy of bytes": [() => new Proxy(new Uint8Array(1), { getPrototypeOf: trap }), "the handler of "],
  "bytes without a length": [() => new Bytes(1), "no length"],
  "a number": [() => 5, 'the handler of "a number" has returned 5, not text or bytes'],
  "an object": [async () => ({}), 'the handler of "an object" has returned an object, not text or bytes'],
  "a function": [() => () => 1, 'the handler of "a function" has returned a function, not text or bytes'],
  "iterator that is none": [() => ({ [Symbol.asyncIterator]: () => undefined }), "Cannot read properties"],
  "iterator that cannot be made": [() => ({ [Symbol.asyncIterator]: trap }), "trap"],
  "return that throws": [
    () => ({ [Symbol.asyncIterator]: () => ({ next: async () => throws("first")(), return: trap }) }),
    "first",
  ],
  "parts, then no text": [
    // biome-ignore lint/correctness/useYield: it comes to none.
    async function* () {
      throw Object.create(null);
    },
    "[Object: null prototype] {}",
  ],
  "progress bigint": [
    async (request) => {
      request.progress(1);
      request.progress(1n);
    },
    "the first argument of progress() has to be a number, not 1",
  ],
  "progress message": [
    async (request) => {
      request.progress(1, 2, "a");
      request.progress(1, 2, { toJSON: trap });
    },
    "the third argument of progress() has to be a string, not an object",
  ],
};

/** The commands, and one that answers. */
export const commands = {
  ...Object.fromEntries(Object.entries(values).map(([name, [handler]]) => [name, handler])),
  ok: () => "ok",
};
