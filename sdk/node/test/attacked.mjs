#!/usr/bin/env node
// The plugin that the attacks are made on.
import { setTimeout as sleep } from "node:timers/promises";
import { register } from "pipeplug";

const mode = process.env.TEST_MODE ?? "";
const main = register({
  onEnd: mode === "stay" ? "stay" : "exit",
  grace: 6000,
  ...(mode === "starts" ? { start: () => sleep(100) } : {}),
  commands: {
    echo: (request) => request.buffer,
    arguments: () => process.argv.slice(2).join(" "),
    undefined: () => undefined,
    number: () => 5,
    "throw null": () => {
      throw null;
    },
    "reject undefined": () => Promise.reject(),
    big: async (request) => {
      await sleep(20);
      return Buffer.alloc(Number(request.text()));
    },
    wait: (request) =>
      new Promise((_, reject) => request.signal.addEventListener("abort", () => reject(new Error("given up")))),
    early: () => "early",
    async parts(request) {
      await sleep(300);
      return String((await request.parts.all()).length);
    },
    report: async (request) => {
      request.progress(1, 2);
      await sleep(50);
      return "reported";
    },
    "half an answer": () => {
      // A large answer is in the pipe in part when this dies.
      setTimeout(() => process.kill(process.pid, "SIGKILL"), 5);
      return Buffer.alloc(50 << 20);
    },
    back: (request) => main.call("wait", request.buffer),
  },
});
if (mode === "stay") {
  main.ended.then((status) => {
    main.log("info", "one line");
    process.stderr.write("another line\n");
    setTimeout(() => process.exit(status + 40), 50);
  });
}
