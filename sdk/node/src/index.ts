/** Plugins as programs: start one and call it, or be one, over pipes. */

export type { CallOptions, NotifyOptions, StreamCall } from "./caller.js";
export { Caller } from "./caller.js";
export type { Format, Limits } from "./chunk.js";
export type { ContextValues } from "./context.js";
export type { Payload } from "./encoder.js";
export type { CallErrorKind, StreamErrorKind } from "./errors.js";
export { CallError, Failure, failureCode, ProtocolError, StartError, StreamError } from "./errors.js";
export type { Stop } from "./guest.js";
export { Main, register } from "./guest.js";
export type { Commands, GuestOptions, LogLevel } from "./guest_options.js";
export type { CloseReason, Options } from "./options.js";
export { Plugin } from "./plugin.js";
export type { Grace, PluginOptions, Stopped } from "./plugin_options.js";
export type { Exit, Output } from "./process.js";
export type { Handler, HandlerResult, Progress } from "./request.js";
export { Request } from "./request.js";
export type { Schema } from "./schema.js";
export type {
  ItemCall,
  Method,
  MethodDescription,
  Service,
  ServiceDescription,
  ServiceRequest,
} from "./services.js";
export { client, MethodError, service } from "./services.js";
export { PartSender, Parts } from "./stream.js";
