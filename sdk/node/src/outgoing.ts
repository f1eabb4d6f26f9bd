/** Calls of this side that wait for their responses, and the streams that it has opened. */

import type { Skipped, ThreadId } from "./chunk.js";
import { CallError, StreamError } from "./errors.js";
import { cut, FAILURE_LIMIT, parseFailure, parseProgress, readCredit } from "./messages.js";
import type { CloseReason } from "./options.js";
import type { Progress } from "./request.js";
import type { PartSender, Parts } from "./stream.js";

/** Connection of the calls. */
export interface OutgoingOwner {
  warn(message: string): void;
  /** A call has ended. */
  release(): void;
}

/** Part of a call that few calls have. */
export interface CallExtra {
  /** Parts of the reply. */
  parts?: Parts;
  sender?: PartSender;
  onProgress?: (progress: Progress) => void;
  /** Ends timer and listeners. */
  done?: () => void;
  /** Gives the call up with an error. */
  giveUp?: (error: unknown) => void;
  /** Gives the call up if its time is over. Returns true then. */
  isLate?: () => boolean;
}

export interface OpenCall {
  command: string;
  resolve: (reply: Buffer) => void;
  reject: (error: unknown) => void;
  extra: CallExtra | undefined;
}

/** Calls and streams, by number. */
export class Outgoing {
  private readonly connection: OutgoingOwner;
  private readonly calls = new Map<ThreadId, OpenCall>();
  private readonly oneWayStreams = new Map<ThreadId, PartSender>();

  constructor(connection: OutgoingOwner) {
    this.connection = connection;
  }

  /** True while a call waits. */
  get isWaiting(): boolean {
    return this.calls.size > 0;
  }

  /** Has a call wait for its response. */
  open(id: ThreadId, call: OpenCall): void {
    this.calls.set(id, call);
  }

  /** Takes a call out that was given up; its response is ignored. Returns false if it is not there. */
  take(id: ThreadId): boolean {
    const call = this.calls.get(id);
    if (call === undefined) return false;
    this.calls.delete(id);
    call.extra?.done?.();
    return true;
  }

  openOneWayStream(id: ThreadId, sender: PartSender): void {
    this.oneWayStreams.set(id, sender);
  }

  closeOneWayStream(id: ThreadId): void {
    this.oneWayStreams.delete(id);
  }

  /** Parts of the reply of a call. */
  partsOf(id: ThreadId): Parts | undefined {
    return this.calls.get(id)?.extra?.parts;
  }

  /** Takes the window of the other side's streams. */
  widen(window: number): void {
    for (const call of this.calls.values()) call.extra?.sender?.widen(window);
  }

  /** Fails all: the connection has ended. */
  end(reason: CloseReason): void {
    const calls = [...this.calls.values()];
    this.calls.clear();
    for (const call of calls) {
      if (call.extra?.isLate?.()) continue;
      call.extra?.done?.();
      const text = `no reply to ${JSON.stringify(call.command)}: ${reason.message}`;
      this.endCall(call, new CallError("closed", call.command, text));
    }
    for (const sender of this.oneWayStreams.values()) sender.fail(new StreamError("closed", reason.message));
    this.oneWayStreams.clear();
  }

  /** Ends the call whose response was over a limit. */
  skipped(chunk: Skipped, text: string): void {
    const { threadId, command } = chunk;
    const call = this.calls.get(threadId);
    const isCommand = chunk.reason === "command-too-long";
    const isFinal = !chunk.reserved || command === "cmd.error" || command === "cmd.failure" || isCommand;
    if (call === undefined || !isFinal || call.extra?.isLate?.()) return;
    const message = `the reply to ${JSON.stringify(call.command)} was skipped: ${text}`;
    this.settle(threadId, call, new CallError("tooLarge", call.command, message));
  }

  response(threadId: ThreadId, command: string, buffer: Buffer): void {
    const call = this.calls.get(threadId);
    // What comes after the deadline is dropped, also if its timer is still to run.
    if (call?.extra?.isLate?.()) return;
    if (command.startsWith("cmd.")) {
      this.reservedResponse(threadId, call, command, buffer);
      return;
    }
    if (call === undefined) return;
    this.calls.delete(threadId);
    if (call.extra !== undefined) this.finish(call.extra);
    call.resolve(buffer);
    this.connection.release();
  }

  private reservedResponse(threadId: ThreadId, call: OpenCall | undefined, command: string, buffer: Buffer): void {
    const sender = call?.extra?.sender ?? this.oneWayStreams.get(threadId);
    switch (command) {
      case "cmd.part":
        call?.extra?.parts?.push(buffer);
        return;
      case "cmd.part.credit":
        if (sender !== undefined) readCredit(buffer, (total) => sender.credit(total), this.connection);
        return;
      case "cmd.enough":
        sender?.fail(new StreamError("enough", cut(buffer.toString("utf8"), FAILURE_LIMIT)));
        this.oneWayStreams.delete(threadId);
        return;
      case "cmd.progress":
        if (call?.extra?.onProgress !== undefined) this.progress(call.extra, call.extra.onProgress, buffer);
        return;
      case "cmd.end":
        return;
    }
    if (call === undefined) return;
    if (command === "cmd.error") {
      const message = cut(buffer.toString("utf8"), FAILURE_LIMIT);
      this.settle(threadId, call, new CallError("remote", call.command, message));
    } else if (command === "cmd.failure") {
      const { code, message, data } = parseFailure(buffer);
      this.settle(threadId, call, new CallError("remote", call.command, message, { code, data }));
    } else {
      // The answer to a ping, or a response with another cmd: it is found by its number.
      this.calls.delete(threadId);
      if (call.extra !== undefined) this.finish(call.extra);
      call.resolve(buffer);
    }
  }

  private settle(threadId: ThreadId, call: OpenCall, error: CallError): void {
    this.calls.delete(threadId);
    call.extra?.done?.();
    this.endCall(call, error);
    this.connection.release();
  }

  private endCall(call: OpenCall, error: CallError): void {
    call.extra?.parts?.end(error);
    call.extra?.sender?.fail(new StreamError(error.kind === "closed" ? "closed" : "enough", error.message));
    call.reject(error);
  }

  private finish(extra: CallExtra): void {
    extra.done?.();
    extra.parts?.end();
    extra.sender?.fail(new StreamError("enough", "the request has been answered"));
  }

  private progress(extra: CallExtra, report: (progress: Progress) => void, buffer: Buffer): void {
    const progress = parseProgress(buffer);
    if (progress === undefined) {
      this.connection.warn("a report of progress is ignored: it is none");
      return;
    }
    // An error must not end the decoder in the middle of what was read: it is that of the call.
    const failed = (error: unknown): void => extra.giveUp?.(error);
    try {
      const result: unknown = report(progress);
      if (typeof result === "object" && result !== null) Promise.resolve(result).catch(failed);
    } catch (error) {
      failed(error);
    }
  }
}
