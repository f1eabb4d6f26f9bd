#!/usr/bin/env node
// Plugin of test/thrown.test.mjs: throws what hardly any program does, and has its host throw it.
import { register } from "pipeplug";
import { commands } from "./thrown.mjs";

const main = register({
  start() {
    if (process.env.TEST_MODE === "start") throw Object.create(null);
  },
  commands: {
    ...commands,
    // Error of the host's command of this name.
    back: (request) =>
      main.call(request.text(), undefined, { onProgress: () => {} }).then(
        () => "no error",
        (error) => error.message,
      ),
    async *"part that is none"() {
      yield { a: 1 };
    },
    async *parts() {
      for (;;) yield "a part";
    },
    // Answers only when its caller has given up.
    reports(request) {
      request.progress(1);
      return new Promise((resolve) => request.signal.addEventListener("abort", () => resolve("reported")));
    },
    // What it sends is refused, and it does not look.
    async "ignores what it sends"(request) {
      request.send("a part");
      request.send({});
      await new Promise((resolve) => setTimeout(resolve, 20));
      return "still here";
    },
    silent: () => new Promise(() => {}),
    // Outside of any handler.
    ends: () => {
      setTimeout(() => {
        const dig = (depth) => {
          if (depth > 0) dig(depth - 1);
          else throw new Error("nobody", { cause: new Error("the cause") });
        };
        dig(30);
      });
    },
  },
});
