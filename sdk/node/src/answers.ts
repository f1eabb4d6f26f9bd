/** Answers to requests: results, and errors. */

import { RESPONSE, type ThreadId } from "./chunk.js";
import type { Payload } from "./encoder.js";
import { cut, FAILURE_LIMIT, failureText } from "./messages.js";
import type { CloseReason } from "./options.js";
import { cutText } from "./prepared.js";
import { byteLength } from "./stream.js";

/** Weight of a chunk without cmd and buffer. */
export const WEIGHT = 64;

/** Connection of the answers. */
export interface AnswersOwner {
  readonly isOneRead: boolean;
  mayCut(command: string, payload: Payload): boolean;
  send(threadId: ThreadId, direction: number, command: string, payload: Payload): void;
  has(feature: string): boolean;
  isFull(): boolean;
  close(reason: CloseReason): void;
}

/** Writer of answers. */
export class Answers {
  /** Bytes of answers that no handler has given, since the other side has stopped to read. */
  unreadBytes = 0;
  private readonly connection: AnswersOwner;
  private readonly limit: number;

  constructor(connection: AnswersOwner, limit: number) {
    this.connection = connection;
    this.limit = limit;
  }

  /** Answers a request with its result. */
  answer(threadId: ThreadId, command: string, payload: Payload): void {
    if (this.connection.isOneRead && this.connection.mayCut(command, payload)) {
      this.fail(threadId, "", `the answer is not sent: ${cutText(byteLength(payload))}`);
      return;
    }
    this.connection.send(threadId, RESPONSE, command, payload);
  }

  /** Answers a request without a handler, which nothing holds up. */
  answerAtOnce(threadId: ThreadId, command: string, payload: Payload): void {
    if (this.connection.isFull()) this.unreadBytes += WEIGHT + byteLength(payload);
    this.answer(threadId, command, payload);
    if (this.unreadBytes <= this.limit) return;
    const text = `the other side does not read: ${this.unreadBytes} bytes of answers wait for it, the limit is ${this.limit}`;
    this.connection.close({ kind: "unread", message: text });
  }

  /** Answers a request with an error. */
  fail(threadId: ThreadId, code: string, message: string, data?: unknown): void {
    if (code === "" || !this.connection.has("failure")) {
      this.answerAtOnce(
        threadId,
        "cmd.error",
        cut(message, this.connection.isOneRead ? ONE_READ_LIMIT : FAILURE_LIMIT),
      );
      return;
    }
    if (message.length > FAILURE_LIMIT) message = cut(message, FAILURE_LIMIT);
    let text = failureText(code, message, data);
    if (Buffer.byteLength(text) > FAILURE_LIMIT) text = failureText(code, message, undefined);
    for (let length = FAILURE_LIMIT; Buffer.byteLength(text) > FAILURE_LIMIT; length = length >> 1) {
      text = failureText(code, cut(message, length >> 1), undefined);
    }
    this.answerAtOnce(threadId, "cmd.failure", text);
  }
}

/** Longest message for a peer that takes one read of a pipe only. */
const ONE_READ_LIMIT = FAILURE_LIMIT >> 1;
