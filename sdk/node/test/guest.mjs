#!/usr/bin/env node
// The plugin of the tests.
import { execFileSync } from "node:child_process";
import { closeSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { Failure, register } from "pipeplug";

const mode = process.env.TEST_MODE ?? "";
let seen = [];
let told;

const main = register({
  metadata: { Description: "is tested", Cmd: "guest" },
  interfaceVersions: mode === "versions" ? [1, 2] : undefined,
  inOrder: [["append", "slow append"]],
  grace: 1000,
  async start(main) {
    if (mode === "fails") throw new Error("there is no dictionary");
    if (mode === "asks") told = await main.callText("who");
    if (mode === "crashes") process.exit(3);
  },
  handler: (request) => request.unknown(),
  commands: {
    echo: (request) => request.buffer,
    later: async (request) => request.buffer,
    fail: (request) => {
      throw new Failure("not_found", `there is no ${request.text()}`, { name: request.text() });
    },
    wrapped: () => {
      throw new Error("cannot open", { cause: new Failure("not_found", "there is no note") });
    },
    plain: () => {
      throw new TypeError("it is plain");
    },
    object: () => ({}),
    told: () => told,
    json: (request) => JSON.stringify({ got: request.json() }),
    config: () => JSON.stringify(main.config() ?? null),
    version: () => String(main.interfaceVersion),
    metadata: () => JSON.stringify(main.metadata),
    level: () => String(main.logLevel),
    // Waits until the caller gives up, and tells how at the next "seen".
    async wait(request) {
      const { signal } = request;
      if (!signal.aborted) await new Promise((resolve) => signal.addEventListener("abort", resolve));
      seen.push(signal.reason.kind);
      // The caller's own time-out comes before the answer.
      await sleep(100);
    },
    seen() {
      const text = seen.join(" ");
      seen = [];
      return text;
    },
    async append(request) {
      seen.push(request.text());
    },
    async "slow append"(request) {
      await sleep(30);
      seen.push(request.text());
    },
    // What a call back to the host carries on, over an await.
    async pass(request) {
      await sleep(1);
      return main.call("context", String(request.timeLeft !== undefined));
    },
    async progress(request) {
      for (let done = 0; done <= 1000; done++) {
        request.progress(done, 1000, `at ${done}`);
        if (done % 100 === 0) await sleep(10);
      }
    },
    async *upper(request) {
      for await (const part of request.parts) yield part.toString().toUpperCase();
      return "done";
    },
    async sum(request) {
      let sum = 0;
      for await (const part of request.parts) sum += part.length;
      return String(sum);
    },
    async *count(request) {
      try {
        for (let number = 0; ; number++) yield String(number);
      } finally {
        seen.push(`counted for ${request.command}`);
      }
    },
    async first(request) {
      for await (const part of request.parts) return part;
    },
    ignores: () => "ignored",
    async collect(request) {
      try {
        seen.push((await request.parts.all()).toString());
      } catch (error) {
        seen.push(`${error.kind}: ${error.message}`);
      }
    },
    async prints() {
      console.log("printed by console.log");
      console.info("printed by console.info");
      process.stdout.write("printed by process.stdout\n");
      writeSync(1, "printed by a write to 1\n");
      execFileSync("echo", ["printed by a child"], { stdio: "inherit" });
      return "nothing on the wire";
    },
    "sleep and fail": async (request) => {
      await sleep(Number(request.text()));
      throw new Failure("late", "it is late");
    },
    // A part, and then nothing.
    async *"sleep and say"(request) {
      await sleep(Number(request.text()));
      if (request.wantsParts) yield "a part";
      await sleep(1000);
    },
    says: (request) => {
      process.stderr.write(`${request.text()}\n`);
    },
    closes() {
      closeSync(4);
      return new Promise(() => {});
    },
    exit: (request) => process.exit(Number(request.text())),
    throws: () => {
      setImmediate(() => {
        throw new Error("a bug outside of any handler");
      });
    },
    sleep: async (request) => {
      await sleep(Number(request.text()));
      return "slept";
    },
    back: (request) => main.call("echo", request.buffer),
    pid: () => String(process.pid),
  },
});
