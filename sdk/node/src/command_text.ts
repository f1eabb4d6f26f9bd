/** Text of commands, from bytes. */

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Commands that were seen, so that few strings are made of bytes. */
export class Commands {
  private readonly slots: { bytes: Buffer; text: string }[] = new Array(256);

  /** Returns the text of an ASCII cmd, or undefined if it has other bytes or is long. */
  text(buffer: Buffer, start: number, end: number): string | undefined {
    const length = end - start;
    if (length > 48) return undefined;
    let hash = length;
    for (let i = start; i < end; i++) {
      const byte = buffer[i] as number;
      if (byte >= 0x80) return undefined;
      hash = (Math.imul(hash, 31) + byte) | 0;
    }
    const slot = this.slots[hash & 255];
    if (slot !== undefined && slot.bytes.length === length) {
      const bytes = slot.bytes;
      let i = 0;
      while (i < length && bytes[i] === buffer[start + i]) i++;
      if (i === length) return slot.text;
    }
    const text = buffer.toString("latin1", start, end);
    this.slots[hash & 255] = { bytes: Buffer.from(buffer.subarray(start, end)), text };
    return text;
  }
}

/** Returns the position of the first byte that is not part of a complete character, or -1. */
export function firstNotUtf8(bytes: Uint8Array): number {
  let i = 0;
  while (i < bytes.length) {
    const lead = bytes[i] as number;
    const length = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    if (length === 0 || i + length > bytes.length) return i;
    try {
      utf8.decode(bytes.subarray(i, i + length));
    } catch {
      return i;
    }
    i += length;
  }
  return -1;
}
