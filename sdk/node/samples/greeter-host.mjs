#!/usr/bin/env node
// The host: has its plugin greet in each of its languages.
//
//     greeter-host.mjs [--stdio] [--classic] [PLUGIN] NAME
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Plugin } from "pipeplug";
import { greeter } from "./greeter.mjs";

const { values, positionals } = parseArgs({
  options: { stdio: { type: "boolean" }, classic: { type: "boolean" } },
  allowPositionals: true,
});
const name = positionals.pop();
if (name === undefined) {
  console.error("usage: greeter-host.mjs [--stdio] [--classic] [PLUGIN] NAME");
  process.exit(2);
}
const path = positionals[0] ?? fileURLToPath(new URL("greeter-plugin.mjs", import.meta.url));
const plugin = await Plugin.start(path, {
  stdio: values.stdio ?? false,
  format: values.classic ? "classic" : "standard",
});
/** @type {{greet(args: {name: string, language?: string}): Promise<string>, languages(): Promise<string[]>}} */
const service = plugin.client(greeter);
for (const language of await service.languages()) console.log(await service.greet({ name, language }));
// The plugin's own errors have their code and data here.
try {
  console.log(await service.greet({ name, language: "tlh" }));
} catch (error) {
  if (error.code !== "method_error") throw error;
  console.log(`not in ${error.data.UnknownLanguage.language}`);
}
await plugin.stop();
