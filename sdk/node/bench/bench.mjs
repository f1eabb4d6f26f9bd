#!/usr/bin/env node
// Compares pipeplug with what users of Node have today, in one run: an echo in another Node process.
//
//     bench.mjs [SECONDS OF EACH MEASUREMENT] [ROUNDS] [PATTERN [SUBJECT…]]
import { fork, spawn } from "node:child_process";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { Plugin } from "pipeplug";

const [seconds = 0.5, rounds = 5] = process.argv.slice(2, 4).map(Number);
const [only, ...chosen] = process.argv.slice(4);
const GUESTS = fileURLToPath(new URL("guests.mjs", import.meta.url));
const SMALL = "hello, this is a message of some sixty-four bytes, as many are.";
const LARGE = "x".repeat(1 << 20);
/** Each rival is compared with the subject that moves the same: text that both sides decode, or bytes. */
const BESIDE = {
  "child_process IPC, JSON": "pipeplug, text",
  "child_process IPC, advanced": "pipeplug, bytes",
  "vscode-jsonrpc": "pipeplug, text",
};

/** Calls over the channel that `fork` makes: a table of calls by number, as each user writes it. */
async function ipc(serialization) {
  const child = fork(GUESTS, [`ipc-${serialization}`], { serialization });
  const calls = new Map();
  let id = 0;
  child.on("message", (message) => {
    const resolve = calls.get(message.id);
    calls.delete(message.id);
    resolve(message.data);
  });
  const call = (data) =>
    new Promise((resolve) => {
      calls.set(++id, resolve);
      child.send({ id, command: "echo", data });
    });
  await call("");
  return { call, stop: () => child.disconnect() };
}

const subjects = {
  "pipeplug, text": async () => {
    const plugin = await Plugin.start(GUESTS, { args: ["pipeplug-text"] });
    return { call: (data) => plugin.callText("echo", data), stop: () => plugin.stop() };
  },
  "pipeplug, bytes": async () => {
    const plugin = await Plugin.start(GUESTS, { args: ["pipeplug"] });
    return { call: (data) => plugin.call("echo", data), stop: () => plugin.stop(), bytes: true };
  },
  "child_process IPC, JSON": () => ipc("json"),
  "child_process IPC, advanced": async () => ({ ...(await ipc("advanced")), bytes: true }),
  "vscode-jsonrpc": async () => {
    const rpc = createRequire(import.meta.url)("vscode-jsonrpc/node");
    const child = spawn(process.execPath, [GUESTS, "rpc"], { stdio: ["pipe", "pipe", "inherit"] });
    const connection = rpc.createMessageConnection(
      new rpc.StreamMessageReader(child.stdout),
      new rpc.StreamMessageWriter(child.stdin),
    );
    connection.listen();
    await connection.sendRequest("echo", { data: "" });
    return { call: (data) => connection.sendRequest("echo", { data }), stop: () => child.kill() };
  },
};

const loop = (width, text) => async (call, until, bytes) => {
  const data = bytes ? Buffer.from(text) : text;
  let count = 0;
  const one = async () => {
    while (performance.now() < until) {
      await call(data);
      count++;
    }
  };
  await Promise.all(Array.from({ length: width }, one));
  return count;
};

const patterns = {
  sequential: loop(1, SMALL),
  "64 concurrent": loop(64, SMALL),
  // All of a batch are sent before any reply is looked at.
  pipelined: async (call, until, bytes) => {
    const data = bytes ? Buffer.from(SMALL) : SMALL;
    let count = 0;
    while (performance.now() < until) {
      const batch = Array.from({ length: 1000 }, () => call(data));
      await Promise.all(batch);
      count += batch.length;
    }
    return count;
  },
  "1 MiB": loop(1, LARGE),
};

async function measure(start, pattern) {
  const { call, stop, bytes } = await start();
  await pattern(call, performance.now() + 300, bytes);
  const began = performance.now();
  const count = await pattern(call, began + seconds * 1000, bytes);
  const rate = (count * 1000) / (performance.now() - began);
  await stop();
  return rate;
}

const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];
const show = (rate) => (rate >= 1000 ? `${Math.round(rate / 100) / 10}k` : String(Math.round(rate)));
const names = Object.keys(subjects).filter((name) => chosen.length === 0 || chosen.includes(name));
console.log(
  `Node ${process.version}; calls per second, and those of pipeplug with the same data for each of the other's (median of ${rounds} rounds)`,
);
for (const [pattern, run] of Object.entries(patterns)) {
  if (only !== undefined && only !== pattern) continue;
  const rates = Object.fromEntries(names.map((name) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    for (const name of round % 2 ? [...names].reverse() : names) rates[name].push(await measure(subjects[name], run));
  }
  const cells = names.map((name) => {
    const own = rates[BESIDE[name]];
    const ratios = own?.map((rate, round) => rate / rates[name][round]);
    const ratio = ratios === undefined ? "" : ` (x${median(ratios).toFixed(2)})`;
    return `${name} ${show(median([...rates[name]]))}${ratio}`;
  });
  console.log(`${pattern.padEnd(14)} ${cells.join(", ")}`);
}
