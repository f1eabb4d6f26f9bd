#!/usr/bin/env node
// The plugin: asks the host for the Docker host when it starts, then answers and calls back.
import { register } from "pipeplug";

let dockerHost;

const main = register({
  // Runs before the first request comes in, so the handlers find the answer.
  async start(main) {
    dockerHost = await main.callText("GetDockerHost");
    console.error(`sample1-plugin: the docker host is ${dockerHost}`);
  },
  commands: {
    Echo: (request) => request.buffer,
    Start: repeat,
    DockerHost: () => dockerHost,
  },
});

// Calls the host as often as it asks for, all at once, and sends it a one-way after the last reply.
async function repeat(request) {
  const count = Number(request.text());
  const calls = Array.from({ length: count }, async (_, number) => {
    const text = `repeat ${number}.`;
    const reply = await main.callText("Repeat", text);
    if (reply !== text.repeat(2)) throw new Error(`Repeat of ${text} brought ${reply}`);
  });
  await Promise.all(calls);
  await main.notify("Done", String(count));
}
