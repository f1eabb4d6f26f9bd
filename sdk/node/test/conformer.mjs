#!/usr/bin/env node
// The plugin that `pipeplug conform` checks: it has a command for each check that needs one.
import { setTimeout as sleep } from "node:timers/promises";
import { Failure, MethodError, register, service } from "pipeplug";
import { greeter } from "../samples/greeter.mjs";

const greet = ({ name, language }) => {
  if (language === "en") return `hello, ${name}`;
  throw new MethodError(`no greeting in ${language}`, { UnknownLanguage: { language } });
};

const main = register({
  metadata: { Description: "is checked" },
  services: [service(greeter, { greet, languages: () => ["en"] })],
  commands: {
    // Parts are given back as parts.
    async *echo(request) {
      // The host is asked and told, too, as far as its window lets this side.
      main.call("ask", "it").catch(() => {});
      main.notify("told", "it").catch(() => {});
      for await (const part of request.parts) yield part;
      return request.buffer;
    },
    plain: (request) => request.buffer,
    async sleep(request) {
      const time = Number(request.text());
      for (let done = 0; done < time && !request.signal.aborted; done += 10) {
        request.progress(done, time, "sleeping");
        await sleep(10);
      }
      return "slept";
    },
    fail: () => {
      throw new Failure("failed", "it fails", { why: "it does" });
    },
    callback: (request) => main.call("callback", request.buffer),
  },
});
