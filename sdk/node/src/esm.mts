/** Plugins as programs, for `import`. The classes are those of `require`: there is one copy. */
export type * from "./index.js";
export {
  CallError,
  Caller,
  client,
  Failure,
  failureCode,
  Main,
  MethodError,
  PartSender,
  Parts,
  Plugin,
  ProtocolError,
  Request,
  register,
  StartError,
  StreamError,
  service,
} from "./index.js";
