/** Pace of what this side sends: the credit of the other side, and who waits for credit or for room to write. */

import type { Offer } from "./negotiation.js";

/** Weight that was sent and taken, and the senders that wait. */
export class Pace {
  private readonly isFull: () => boolean;
  private sent = 0;
  private credited = 0;
  /** Calls and one-ways that wait for credit or room. */
  private senders: (() => void)[] = [];
  /** Parts of streams and answers, which wait for room to write only. */
  private writers: (() => void)[] = [];

  constructor(isFull: () => boolean) {
    this.isFull = isFull;
  }

  /** True if a call or one-way may be sent at once. */
  maySend(peer: Offer): boolean {
    return this.senders.length === 0 && !this.isFull() && this.hasCredit(peer);
  }

  /** Counts a chunk with weight. */
  count(weight: number): void {
    this.sent += weight;
  }

  /** Takes a credit. Returns false for one that cannot be. */
  credit(total: number): boolean {
    if (total > this.sent || total < this.credited) return false;
    this.credited = total;
    return true;
  }

  /** Calls back when a call may be sent: in the order of the calls. Returns a function that takes it back. */
  whenSendable(call: () => void): () => void {
    this.senders.push(call);
    return () => {
      const index = this.senders.indexOf(call);
      if (index >= 0) this.senders.splice(index, 1);
    };
  }

  /** Calls back when there is room to write. */
  whenRoom(call: () => void): void {
    this.writers.push(call);
  }

  get isAwaited(): boolean {
    return this.senders.length > 0 || this.writers.length > 0;
  }

  /** Calls those back that have waited for room to write. */
  wakeWriters(): void {
    while (this.writers.length > 0 && !this.isFull()) (this.writers.shift() as () => void)();
  }

  /** Calls those back that may send. */
  wakeSenders(peer: Offer): void {
    while (this.senders.length > 0 && !this.isFull() && this.hasCredit(peer)) (this.senders.shift() as () => void)();
  }

  /** Calls all back: the connection has ended. */
  end(): void {
    const all = [...this.senders, ...this.writers];
    this.senders = [];
    this.writers = [];
    for (const call of all) call();
  }

  private hasCredit(peer: Offer): boolean {
    return !peer.features.has("flow") || this.sent - this.credited < peer.window;
  }
}
