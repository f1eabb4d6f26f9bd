// Thrown, rejected and returned values of all kinds: each is the answer to its call, and ends nothing else.
import assert from "node:assert/strict";
import test from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { CallError, client, Plugin, register, StartError, service } from "pipeplug";
import { commands, values } from "./thrown.mjs";

const THROWER = fileURLToPath(new URL("thrower.mjs", import.meta.url));

/** Runs a test with a plugin, which has to live at its end. */
function withPlugin(name, run) {
  test(name, { timeout: 60_000 }, async () => {
    const lines = [];
    const plugin = await Plugin.start(THROWER, { commands, onLine: (line) => lines.push(line) });
    try {
      await run(plugin, lines);
    } finally {
      await plugin.kill();
    }
  });
}

withPlugin("a plugin's values", async (plugin) => {
  for (const [name, [, text]] of Object.entries(values)) {
    const error = await plugin.call(name, undefined, { onProgress: () => {} }).then(assert.fail, (error) => error);
    assert.ok(error instanceof CallError, name);
    assert.equal(error.kind, "remote", `${name}: ${error.message}`);
    assert.ok(error.message.startsWith(text), `${name}: ${error.message}`);
    await plugin.notify(name);
    assert.equal(await plugin.callText("ok"), "ok", name);
  }
  assert.deepEqual(await plugin.stop(), { status: 0, signal: null, by: "stop" });
});

withPlugin("a host's values", async (plugin) => {
  for (const [name, [, text]] of Object.entries(values)) {
    const message = await plugin.callText("back", name);
    assert.ok(message.startsWith(text), `${name}: ${message}`);
  }
  assert.equal(await plugin.callText("ok"), "ok");
});

withPlugin("a code and data that cannot be sent", async (plugin) => {
  const sent = async (name) => {
    const { code, data } = await plugin.call(name).then(assert.fail, (error) => error);
    return [code, data];
  };
  assert.deepEqual(await sent("cyclic data"), ["odd", undefined]);
  assert.deepEqual(await sent("data that throws"), ["odd", undefined]);
  assert.deepEqual(await sent("code bigint"), ["1", undefined]);
  assert.deepEqual(await sent("half a character"), ["odd", undefined]);
});

withPlugin("parts that are none, and errors of sending that nothing waits for", async (plugin) => {
  const call = plugin.stream("part that is none");
  await assert.rejects(call.reply, { message: "a part has to be a string or a Uint8Array, not an object" });
  assert.equal(await plugin.callText("ignores what it sends"), "still here");
  // Neither is waited for: the other side refuses the parts.
  const refused = plugin.stream("null prototype");
  refused.sender.sendAll(["one", "two"]);
  await refused.reply.catch(() => {});
  refused.send("three");
  refused.finish();
  await sleep(20);
  assert.equal(await plugin.callText("ok"), "ok");
});

withPlugin("reasons of signals, and reports", async (plugin) => {
  const proxy = new Proxy({}, { getPrototypeOf: () => assert.fail("trap") });
  for (const reason of [Object.create(null), proxy, { message: {} }, Symbol("s")]) {
    const controller = new AbortController();
    const { signal } = controller;
    const ended = [plugin.stream("silent", "", { signal }).reply, plugin.call("silent", "", { signal })];
    ended.push(plugin.stream("parts", "", { signal }).reply);
    await plugin.ping();
    controller.abort(reason);
    for (const call of ended) assert.equal(await call.then(assert.fail, (error) => error), reason);
    plugin.notifyStream("ok", "", { signal });
  }
  for (const onProgress of [
    async () => Promise.reject(Object.create(null)),
    () => {
      throw Object.create(null);
    },
  ]) {
    const error = await plugin.call("reports", "", { onProgress }).then(assert.fail, (error) => error);
    assert.equal(Object.getPrototypeOf(error), null);
  }
  assert.equal(await plugin.callText("ok"), "ok");
});

test("a start that throws what has no text", async () => {
  const start = Plugin.start(THROWER, { env: { TEST_MODE: "start" }, onLine: () => {} });
  await assert.rejects(start, { message: /thrower\.mjs: the plugin's start failed: \[Object: null prototype\] \{\}/ });
});

withPlugin("the message of an uncaught error is shown, without the frames of its stack", async (plugin, lines) => {
  await plugin.call("ends");
  const error = await plugin.call("silent").then(assert.fail, (error) => error);
  assert.match(error.message, /has ended: exit status 1, last on its stderr: .*Error: nobody.*Error: the cause/);
  assert.doesNotMatch(error.message, /\bat (dig|Timeout)|Node\.js v|\^/);
  // All of them are still the host's to see.
  assert.ok(lines.some((line) => line.startsWith("    at dig")));
  assert.ok(plugin.stderrTail.some((line) => line.startsWith("Node.js v")));
});

test("descriptions of services and configurations that are none", async () => {
  const description = { name: "notes", version: 1, methods: [{ name: "add" }] };
  const caller = { call: () => {} };
  for (const [wrong, message] of [
    [undefined, /^the description of a service has to be an object .*, not undefined$/],
    [5, /^the description of a service has to be an object .*, not 5$/],
    [{}, /^the name of a service has to be a string that is not empty, not undefined$/],
    [{ name: "notes" }, /^the version of the service notes has to be a number, not undefined$/],
    [{ name: "notes", version: 1 }, /^"methods" of the service notes has to be an array of objects, not undefined$/],
    [{ ...description, methods: [null] }, /^a method of the service notes has to be an object with a name, not null$/],
    [{ ...description, methods: [{}] }, /^the name of a method of the service notes has to be a string, not undefined/],
    [{ ...description, docs: 1n }, /^the description of the service notes cannot be written as JSON: .*BigInt/],
  ]) {
    assert.throws(() => service(wrong, { add() {} }), { name: "TypeError", message });
    assert.throws(() => client(caller, wrong), { name: "TypeError", message });
    if (typeof wrong === "object") {
      const services = [{ description: wrong, implementation: {} }];
      assert.throws(() => register({ services, args: ["3", "4"] }), { name: "TypeError", message });
    }
  }
  assert.throws(() => client(5), { message: /^the first argument of client\(\) has to be a Plugin or Main, not 5$/ });
  assert.throws(() => service(description), {
    message: /service notes has to be an object of functions, not undefined/,
  });
  const circle = {};
  circle.circle = circle;
  for (const [config, message] of [
    [{ big: 1n }, /^plugin "thrower.mjs": the configuration \(`config`\) cannot be written as JSON: .* BigInt$/],
    [circle, /cannot be written as JSON: Converting circular structure to JSON$/],
    [() => {}, /cannot be written as JSON: it is a function$/],
  ]) {
    const error = await Plugin.start(THROWER, { config, onLine: () => {} }).then(assert.fail, (error) => error);
    assert.ok(error instanceof StartError);
    assert.match(error.message, message);
  }
});
