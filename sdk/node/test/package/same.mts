#!/usr/bin/env node
// The service `shapes`, generated: a plugin that gives back what it gets, and a host that compares.
//
//     same.mjs                              the plugin
//     same.mjs --host VALUES.json PIPEPLUG  the host; it also has the host in Rust call the plugin
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Plugin, register } from "pipeplug";
import {
  asPlainError,
  asShapeError,
  type Everything,
  newPlainError,
  newShapeError,
  type ShapeError,
  ShapesClient,
  type ShapesServer,
  serveShapes,
} from "./shapes.js";

const failures: Record<number, ShapeError> = {
  0: "Empty",
  1: { Unknown: { name: "<ü>" } },
  2: { Wrapped: { label: "x", children: [] } },
};

const mirror: ShapesServer = {
  same({ value }) {
    const failure = failures[value.byte];
    if (failure !== undefined) throw newShapeError(`it is ${value.byte}`, failure);
    return value;
  },
  class_: ({ from, import: others, type }) => (type === null ? null : { Square: from.length + others.length }),
  nothing() {},
  tell() {},
  log() {},
  async *both({ prefix }, request) {
    for await (const { label } of request.items<{ label: string }>()) yield { Square: (prefix + label).length };
  },
  async count(_, request) {
    let count = 0;
    for await (const _item of request.items<string>()) count += 1;
    return count;
  },
  async *words({ most }) {
    for (let number = 0; number < most; number += 1) yield `word ${number}`;
  },
  async *turn(_, request) {
    for await (const lines of request.items<string[]>()) {
      if (lines[0] === "fail") throw newShapeError("it fails", "Empty");
      yield lines.map((label) => ({ label }));
    }
  },
  fails() {
    throw newPlainError("it fails", { class: "é" });
  },
};

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
}

async function host(values: Everything[], pipeplug: string): Promise<void> {
  const path = fileURLToPath(import.meta.url);
  const plugin = await Plugin.start(path);
  const shapes = new ShapesClient(plugin);
  for (const value of values) {
    assert.deepEqual(await shapes.same({ value }), value);
    const args = ["run", "--sandbox", "none", path, "--call", "shapes.same", JSON.stringify({ value })];
    assert.deepEqual(JSON.parse(execFileSync(pipeplug, args, { encoding: "utf8" })), value);
    for (const [byte, failure] of Object.entries(failures)) {
      const error: unknown = await shapes.same({ value: { ...value, byte: Number(byte) } }).catch((it: unknown) => it);
      assert.deepEqual(asShapeError(error), failure);
    }
  }
  assert.deepEqual(await shapes.class_({ from: "abc", import: ["x"] }), { Square: 4 });
  assert.equal(await shapes.class_({ from: "abc", type: null }), null);
  assert.equal((await all(shapes.words())).length, 3);
  const turned = shapes.turn();
  await turned.send([]);
  await turned.send(["a", "b"]);
  await turned.finish();
  assert.deepEqual(await all(turned), [[], [{ label: "a" }, { label: "b" }]]);
  const failing = shapes.turn();
  await failing.send(["fail"]);
  const error: unknown = await all(failing).catch((it: unknown) => it);
  assert.equal(asShapeError(error), "Empty");
  assert.deepEqual(asPlainError(await shapes.fails().catch((it: unknown) => it)), { class: "é" });
  await plugin.stop();
}

const [way, file, pipeplug] = process.argv.slice(-3);
if (way === "--host" && file !== undefined && pipeplug !== undefined) {
  const values = JSON.parse(readFileSync(file, "utf8")) as { shapes: Everything[] };
  await host(values.shapes, pipeplug);
  console.log("the values are the same");
} else {
  register({ services: [serveShapes(mirror)] });
}
