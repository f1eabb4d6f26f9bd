// The streams of the wire's test vectors, whole, in two pieces at each byte, and byte by byte.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import test from "node:test";

const require = createRequire(import.meta.url);
const { Decoder } = require("../dist/decoder.js");
const { Encoder } = require("../dist/encoder.js");

const FILES = ["standard", "classic", "detect"];
const DIRECTORY = new URL("../../../crates/pipeplug-wire/tests/vectors/", import.meta.url);

function vectors() {
  return FILES.flatMap((file) => {
    const { format, vectors } = JSON.parse(readFileSync(new URL(`${file}.json`, DIRECTORY), "utf8"));
    return vectors.map((vector) => ({
      ...vector,
      file,
      format,
      data: Buffer.from(vector.bytes.replaceAll(" ", ""), "hex"),
    }));
  });
}

/** Decodes the pieces, each from the same place, as a transport does. */
function decode(vector, pieces) {
  const events = [];
  const limits = { command: 65536, buffer: 256 << 20, ...vector.limits };
  const decoder = new Decoder(vector.format ?? undefined, limits, {
    chunk: (id, direction, command, buffer) =>
      events.push({
        chunk: { thread_id: String(id), direction, command, buffer: Buffer.from(buffer).toString("hex") },
      }),
    skipped: (chunk) => {
      const skipped = {
        thread_id: String(chunk.threadId),
        direction: String(chunk.direction),
        reason: chunk.reason,
        command_len: String(chunk.commandLength),
        buffer_len: String(chunk.bufferLength),
      };
      if (chunk.limit !== undefined) skipped.limit = String(chunk.limit);
      if (chunk.reserved) skipped.reserved = true;
      events.push({ skipped });
    },
  });
  let error;
  const place = Buffer.alloc(Math.max(1, ...pieces.map((piece) => piece.length)));
  try {
    for (const piece of pieces) {
      piece.copy(place);
      decoder.push(place, piece.length);
      place.fill(0x39);
    }
    decoder.end();
  } catch (thrown) {
    assert.equal(thrown.name, "ProtocolError", thrown.stack);
    error = { field: thrown.field, offset: thrown.offset, kind: thrown.kind };
  }
  return { events, error, told: vector.file === "detect" ? decoder.format : undefined };
}

function check(vector, pieces, how) {
  const found = decode(vector, pieces);
  const expected = { events: vector.events, error: vector.error, told: vector.told };
  assert.deepEqual(found, expected, `${vector.file}: ${vector.name}, ${how}`);
}

test("in one piece", () => {
  for (const vector of vectors()) check(vector, [vector.data], "in one piece");
});

test("cut at every byte", () => {
  for (const vector of vectors()) {
    for (let at = 0; at <= vector.data.length; at++) {
      check(vector, [vector.data.subarray(0, at), vector.data.subarray(at)], `cut at ${at}`);
    }
  }
});

test("byte by byte", () => {
  for (const vector of vectors()) {
    check(
      vector,
      [...vector.data].map((byte) => Buffer.of(byte)),
      "byte by byte",
    );
  }
});

test("chunks encode to the same bytes again", () => {
  let checked = 0;
  for (const vector of vectors()) {
    const format = vector.format ?? vector.told;
    const isWhole = !vector.error && vector.canonical !== false && vector.events.every((event) => event.chunk);
    if (!isWhole || !format) continue;
    for (const asText of [false, true]) {
      const written = [];
      const encoder = new Encoder(format, {
        write: (bytes, length, more) => written.push(Buffer.from(bytes.subarray(0, length)), Buffer.from(more ?? [])),
      });
      for (const { chunk } of vector.events) {
        const bytes = Buffer.from(chunk.buffer, "hex");
        const isText = asText && Buffer.from(bytes.toString()).equals(bytes);
        const length = encoder.add(
          BigInt(chunk.thread_id) > 2n ** 53n ? BigInt(chunk.thread_id) : Number(chunk.thread_id),
          chunk.direction,
          chunk.command,
          isText ? bytes.toString() : bytes,
        );
        assert.equal(length, bytes.length + Buffer.byteLength(chunk.command));
      }
      encoder.flush();
      assert.equal(
        Buffer.concat(written).toString("hex"),
        vector.data.toString("hex"),
        `${vector.file}: ${vector.name}`,
      );
      checked++;
    }
  }
  assert.ok(checked > 60, `only ${checked} vectors were encoded`);
});

test("chunks of all sizes, through an encoder and a decoder", () => {
  let seed = 7;
  const random = (below) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed % below;
  };
  const sizes = [0, 1, 31, 32, 33, 100, 4000, 4096, 16383, 16384, 16385, 65400, 65536, 70000, 1 << 20, 3 << 20];
  for (const format of ["standard", "classic"]) {
    const sent = [];
    const written = [];
    const encoder = new Encoder(format, {
      write: (bytes, length, more) => written.push(Buffer.from(bytes.subarray(0, length)), Buffer.from(more ?? [])),
    });
    for (let i = 0; i < 200; i++) {
      const size = sizes[random(sizes.length)];
      const command = ["echo", "", "größe", "x".repeat(random(3000)), "c".repeat(65536)][random(5)];
      const text = random(2) ? "é".repeat(size >> 1) : "a".repeat(size);
      const payload = random(2) ? text : Buffer.from(text);
      const id = [i, 2 ** 31 + i, 2 ** 53 - 1 - i, 2n ** 64n - 1n - BigInt(i)][random(4)];
      sent.push([id, 1 + random(3), command, Buffer.from(text)]);
      encoder.add(id, sent.at(-1)[1], command, payload);
    }
    encoder.flush();
    const stream = Buffer.concat(written);
    const received = [];
    const decoder = new Decoder(
      format,
      { command: 65536, buffer: 256 << 20 },
      {
        chunk: (...chunk) => received.push(chunk),
        skipped: assert.fail,
      },
    );
    for (let at = 0; at < stream.length; ) {
      const place = decoder.place();
      if (place && random(2)) {
        const count = Math.min(place.length, stream.length - at, 1 + random(200000));
        stream.copy(place, 0, at, at + count);
        decoder.filledInPlace(count);
        at += count;
      } else {
        const count = Math.min(stream.length - at, 1 + random(random(2) ? 50 : 65536));
        decoder.push(Buffer.from(stream.subarray(at, at + count)));
        at += count;
      }
    }
    decoder.end();
    assert.equal(received.length, sent.length);
    for (const [i, chunk] of sent.entries()) {
      assert.deepEqual(received[i].slice(0, 3), chunk.slice(0, 3));
      assert.ok(received[i][3].equals(chunk[3]), `${format}, chunk ${i}`);
    }
  }
});
