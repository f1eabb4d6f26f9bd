#!/usr/bin/env node
// The host that `pipeplug conform --as host` checks: starts a plugin, and calls and stops it.
import { Plugin } from "pipeplug";

const [path, ...args] = process.argv.slice(2);
const plugin = await Plugin.start(path, { args, commands: { echo: (request) => request.buffer }, window: 1 << 16 });
const call = () => plugin.call("echo", "hello", { timeout: 3000, context: { traceparent: "00-1-1-00" } });
const calls = Array.from({ length: 20 }, () => call().catch((error) => error));
plugin.notify("told", "it").catch(() => {});
await Promise.race([Promise.all(calls), plugin.closed]);
await plugin.stop();
