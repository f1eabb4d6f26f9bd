/** Dispatch of what is decoded: responses, requests and one-ways, and the commands of the protocol. */

import { WEIGHT } from "./answers.js";
import { ONE_WAY, REQUEST, RESPONSE, type Sink, type Skipped, type ThreadId } from "./chunk.js";
import type { Connection } from "./connection.js";
import { type Context, NO_CONTEXT, parseContext } from "./context.js";
import { failureCode, StreamError } from "./errors.js";
import type { Incoming } from "./incoming.js";
import { cut, FAILURE_LIMIT, isReserved, readCredit } from "./messages.js";
import type { Outgoing } from "./outgoing.js";

/** Receiver of the chunks of a connection. */
export class Dispatch implements Sink {
  private readonly connection: Connection;
  private readonly incoming: Incoming;
  private readonly outgoing: Outgoing;
  private readonly isHost: boolean;
  private isFormatOpen: boolean;
  /** Context of the chunk that follows. */
  private context: { threadId: ThreadId; context: Context } | undefined;

  constructor(connection: Connection, incoming: Incoming, outgoing: Outgoing, isFormatOpen: boolean, isHost: boolean) {
    this.connection = connection;
    this.incoming = incoming;
    this.outgoing = outgoing;
    this.isFormatOpen = isFormatOpen;
    this.isHost = isHost;
  }

  chunk(threadId: ThreadId, direction: number, command: string, buffer: Buffer): void {
    if (this.connection.isOver) return;
    if (this.isFormatOpen) this.showFormat();
    let context = NO_CONTEXT;
    if (this.context !== undefined) {
      if (this.context.threadId === threadId && direction !== RESPONSE) context = this.context.context;
      this.context = undefined;
    }
    if (direction === RESPONSE) this.outgoing.response(threadId, command, buffer);
    else if (isReserved(command)) this.reserved(threadId, direction, command, buffer);
    else this.incoming.take(threadId, direction === ONE_WAY, command, buffer, context);
  }

  skipped(chunk: Skipped): void {
    this.context = undefined;
    if (this.connection.isOver || chunk.reason === "unknown-direction") return;
    if (this.isFormatOpen) this.showFormat();
    const { threadId, direction } = chunk;
    const isCommand = chunk.reason === "command-too-long";
    const [what, length] = isCommand ? ["command", chunk.commandLength] : ["buffer", chunk.bufferLength];
    const text = `the ${what} is ${length} bytes long, the limit is ${chunk.limit}`;
    if (direction !== RESPONSE && !chunk.reserved) {
      this.incoming.took(WEIGHT + Number(chunk.commandLength) + Number(chunk.bufferLength));
    }
    if (direction === REQUEST) {
      this.connection.answers.fail(threadId, failureCode.tooLarge, text);
    } else if (chunk.command === "cmd.part") {
      const parts =
        direction === ONE_WAY ? this.incoming.requests.get(threadId)?.openParts : this.outgoing.partsOf(threadId);
      parts?.end(new StreamError("tooLarge", text));
    } else if (direction === RESPONSE) {
      this.outgoing.skipped(chunk, text);
    } else {
      this.connection.warn(`a one-way was skipped: ${text}`);
    }
  }

  private showFormat(): void {
    this.isFormatOpen = false;
    this.connection.showFormat();
  }

  private reserved(threadId: ThreadId, direction: number, command: string, buffer: Buffer): void {
    const { connection } = this;
    if (direction === REQUEST) {
      if (command === "cmd.ping") connection.answers.answerAtOnce(threadId, command, undefined);
      else if (!command.startsWith("cmd.")) this.getServicesOrMetadata(threadId, command, buffer);
      else {
        const text = `${JSON.stringify(command)} is no request of the protocol`;
        connection.answers.fail(threadId, failureCode.unknownCommand, text);
      }
      return;
    }
    const request = this.incoming.requests.get(threadId);
    switch (command) {
      case "cmd.context":
        this.takeContext(threadId, buffer);
        return;
      case "cmd.cancel":
        this.incoming.cancelled(threadId, request);
        return;
      case "cmd.credit":
        this.takeCredit(buffer);
        connection.pump();
        return;
      case "cmd.part":
        request?.openParts?.push(buffer);
        return;
      case "cmd.end": {
        const reason = cut(buffer.toString("utf8"), FAILURE_LIMIT);
        request?.openParts?.end(reason === "" ? undefined : new StreamError("aborted", reason));
        return;
      }
      case "cmd.enough":
        request?.sender?.fail(new StreamError("enough", cut(buffer.toString("utf8"), FAILURE_LIMIT)));
        return;
      case "cmd.part.credit":
        if (request?.sender !== undefined) readCredit(buffer, (total) => request.sender?.credit(total), connection);
        return;
      default:
        connection.side.notice(command, buffer);
    }
  }

  private getServicesOrMetadata(threadId: ThreadId, command: string, buffer: Buffer): void {
    const { connection } = this;
    this.incoming.took(WEIGHT + command.length + buffer.length);
    if (!connection.side.protocol(threadId, command, buffer)) {
      connection.answers.fail(threadId, failureCode.unknownCommand, `unknown command ${JSON.stringify(command)}`);
    }
  }

  private takeContext(threadId: ThreadId, buffer: Buffer): void {
    const { connection } = this;
    // A host takes what it has named from its request on.
    const isAgreed = connection.has("context") || (!connection.hasNegotiated && this.isHost);
    const context = isAgreed ? parseContext(buffer) : undefined;
    if (context !== undefined) this.context = { threadId, context };
    else connection.warn("a context is ignored: it was not agreed on, or has other values");
  }

  private takeCredit(buffer: Buffer): void {
    const { connection } = this;
    const take = (total: number): void => {
      if (!connection.takeCredit(total)) connection.warn(`a credit of ${total} is ignored`);
    };
    readCredit(buffer, take, connection);
  }
}
