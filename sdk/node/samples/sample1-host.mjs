#!/usr/bin/env node
// The host: makes 5,000 calls at once while its plugin makes 5,000 back.
//
//     sample1-host.mjs [PATH OF THE PLUGIN]
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { Plugin } from "pipeplug";

const CALLS = 5000;
const DOCKER_HOST = "unix:///var/run/docker.sock";
const path = process.argv[2] ?? fileURLToPath(new URL("sample1-plugin.mjs", import.meta.url));

let done;
const repeats = new Promise((resolve) => {
  done = resolve;
});
const plugin = await Plugin.start(path, {
  commands: {
    GetDockerHost: () => DOCKER_HOST,
    Repeat: (request) => request.text().repeat(2),
    Done: (request) => done(Number(request.text())),
  },
});

// From here on the plugin calls back, and is answered while this side makes its own calls.
const started = plugin.call("Start", String(CALLS));
const calls = Array.from({ length: CALLS }, async (_, number) => {
  assert.equal(await plugin.callText("Echo", `echo ${number}`), `echo ${number}`);
});
await Promise.all([started, ...calls]);
assert.equal(await repeats, CALLS);
const dockerHost = await plugin.callText("DockerHost");
assert.equal(dockerHost, DOCKER_HOST);
const { status } = await plugin.stop();
assert.equal(status, 0);
console.log(`sample1: ${CALLS} Echo, ${CALLS} Repeat, docker host ${dockerHost}, done`);
