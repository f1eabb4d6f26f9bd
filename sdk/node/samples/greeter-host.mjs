#!/usr/bin/env node
// The host: has its plugin greet in each of its languages.
//
//     greeter-host.mjs NAME [PATH OF THE PLUGIN]
import { fileURLToPath } from "node:url";
import { Plugin } from "pipeplug";
import { greeter } from "./greeter.mjs";

const [name, path = fileURLToPath(new URL("greeter-plugin.mjs", import.meta.url))] = process.argv.slice(2);
if (name === undefined) {
  console.error("usage: greeter-host.mjs NAME [PLUGIN]");
  process.exit(2);
}
const plugin = await Plugin.start(path);
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
