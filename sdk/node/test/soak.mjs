#!/usr/bin/env node
// 10,000 seeded calls in each direction against the Rust side, with random sizes, cancellations and kills:
// each call has exactly one end, and it is the right one.
//
//     soak.mjs PIPEPLUG [SEED] [CALLS]
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { Plugin } from "pipeplug";

const [pipeplug, seed = String(Date.now() % 100_000), calls = "10000"] = process.argv.slice(2);
const CALLS = Number(calls);
const GUEST = fileURLToPath(new URL("guest.mjs", import.meta.url));
console.log(`soak: seed ${seed}, ${CALLS} calls in each direction`);

let state = Number(seed) >>> 0;
function random(below) {
  state = (state + 0x6d2b79f5) >>> 0;
  let mixed = Math.imul(state ^ (state >>> 15), state | 1);
  mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
  return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
}
/** Most are small, some are large. */
const size = () => random([20, 20, 200, 5000, 70_000, 300_000][random(6)] + 1);
const data = (length) => Buffer.alloc(length, `${random(1e9)} `);

const ends = { answered: 0, failed: 0, cancelled: 0, timedOut: 0, closed: 0, streams: 0, asked: 0, kills: 0 };

async function call(host) {
  // A new one is on its way.
  if (host.isKilled && random(20) !== 0) await host.ready;
  const { plugin } = host;
  const wasKilled = () => host.plugin !== plugin || host.isKilled;
  const controller = new AbortController();
  const reason = new Error("given up");
  const options = random(4) === 0 ? { signal: controller.signal } : {};
  if (random(50) === 0) options.timeout = random(20);
  const gives = options.signal !== undefined && random(2) === 0;
  const what = random(10);
  try {
    const payload = data(size());
    let done;
    if (what === 0) done = failing(plugin, options);
    else if (what === 1) done = plugin.call("sleep", String(random(10)), options);
    else if (what === 2) done = asking(plugin, options);
    else if (what === 3) done = streaming(plugin, options);
    else
      done = plugin.call("echo", payload, options).then((reply) => assert.ok(reply.equals(payload), "another reply"));
    if (gives) setTimeout(() => controller.abort(reason), random(3));
    await done;
    ends.answered++;
  } catch (error) {
    if (error === reason) {
      assert.ok(gives, "given up without a reason");
      ends.cancelled++;
    } else if (error.kind === "timedOut") {
      assert.ok(options.timeout !== undefined, "timed out without a time");
      ends.timedOut++;
    } else if (error.kind === "closed" || error.kind === "cancelled") {
      assert.ok(wasKilled() || gives || options.timeout !== undefined, `closed without a kill: ${error.message}`);
      ends.closed++;
    } else if (
      error.code === "deadline" ||
      error.code === "cancelled" ||
      /given up|no reply within|was not sent/.test(error.message)
    ) {
      assert.ok(gives || options.timeout !== undefined, error.message);
      ends.cancelled++;
    } else {
      throw error;
    }
  }
}

async function failing(plugin, options) {
  const text = String(random(1e9));
  await plugin.call("fail", text, options).then(
    () => assert.fail("it fails"),
    (error) => {
      if (error.kind !== "remote" || error.code !== "") throw error;
      if (!error.message.includes(text)) throw error;
      ends.failed++;
    },
  );
}

async function asking(plugin, options) {
  const payload = data(random(1000)).toString();
  const reply = await plugin.call("ask", `twice ${payload}`, options);
  assert.equal(reply.toString(), payload + payload);
  ends.asked++;
}

async function streaming(plugin, options) {
  const parts = Array.from({ length: random(20) }, () => data(size()));
  const call = plugin.stream("echo", "", options);
  const sending = call.sender.sendAll(parts);
  // The reply has the error, if there is one.
  sending.catch(() => {});
  const got = [];
  for await (const part of call) got.push(part);
  await call.reply;
  assert.ok(Buffer.concat(got).equals(Buffer.concat(parts)), "other parts");
  ends.streams++;
}

async function asHost() {
  const start = () =>
    Plugin.start(pipeplug, {
      args: ["__plugin", "echo"],
      onLine: () => {},
      commands: { twice: (request) => Buffer.concat([request.buffer, request.buffer]) },
    });
  const host = { plugin: await start(), isKilled: false, ready: undefined };
  let left = CALLS;
  const worker = async () => {
    while (left-- > 0) {
      await call(host);
      if (random(500) !== 0 || host.isKilled) continue;
      host.isKilled = true;
      let started;
      host.ready = new Promise((resolve) => {
        started = resolve;
      });
      const { plugin } = host;
      if (random(2)) await plugin.kill();
      else await plugin.call("exit", "3").catch(() => {});
      assert.ok((await plugin.stop()).by !== "stop");
      ends.kills++;
      host.plugin = await start();
      host.isKilled = false;
      started();
    }
  };
  await Promise.all(Array.from({ length: 32 }, worker));
  assert.deepEqual(await host.plugin.stop(), { status: 0, signal: null, by: "stop" });
  const { answered, cancelled, timedOut, closed } = ends;
  // Each has ended once; a failure that was expected counts as an answer.
  assert.equal(answered + cancelled + timedOut + closed, CALLS);
  console.log(`soak: Node calls Rust: ${JSON.stringify(ends)}`);
}

async function asGuest() {
  const lines = Array.from({ length: CALLS }, () =>
    data(1 + random([20, 200, 3000][random(3)]))
      .toString()
      .trim(),
  );
  for (const command of ["echo", "later"]) {
    const args = ["run", GUEST, "--call", command, "--data-each", "-", "--parallel", "64", "--timeout", "60s"];
    const run = spawn(pipeplug, args, { stdio: ["pipe", "pipe", "inherit"] });
    run.stdin.end(lines.map((line) => `${line}\n`).join(""));
    const parts = [];
    run.stdout.on("data", (part) => parts.push(part));
    const [status] = await once(run, "close");
    assert.equal(status, 0);
    assert.deepEqual(Buffer.concat(parts).toString().split("\n").slice(0, -1), lines);
  }
  for (let kill = 0; kill < 5; kill++) {
    const args = ["run", GUEST, "--call", "echo", "one", "--call", "exit", String(3 + kill), "--call", "echo", "two"];
    const { status, stdout } = spawnSync(pipeplug, args, { encoding: "utf8" });
    assert.deepEqual([status, stdout], [5, "one"]);
  }
  const late = spawnSync(pipeplug, ["run", GUEST, "--call", "wait", "--timeout", "300ms"], { encoding: "utf8" });
  assert.equal(late.status, 124);
  console.log(`soak: Rust calls Node: ${2 * CALLS} replies, in order`);
}

await asHost();
await asGuest();
