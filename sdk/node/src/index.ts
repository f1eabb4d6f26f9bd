export * from "./errors.js";
export { Decoder } from "./decoder.js";
export { Encoder } from "./encoder.js";
