// A host and a plugin in Node: calls, errors, contexts, streams, services, starts and ends.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { CallError, client, Plugin, StartError, StreamError } from "pipeplug";
import { greeter } from "../samples/greeter.mjs";

const path = (name) => fileURLToPath(new URL(name, import.meta.url));
const GUEST = path("guest.mjs");
const quiet = { onLine: () => {} };

/** Runs a test with a plugin, which is stopped behind it. */
function withPlugin(name, options, run) {
  test(name, { timeout: 60_000 }, async () => {
    const plugin = await Plugin.start(GUEST, { ...quiet, ...options });
    try {
      await run(plugin);
    } finally {
      await plugin.kill();
    }
  });
}

/** What handlers have noted. They notice the chunk before only when their promises are looked at. */
async function seen(plugin) {
  await plugin.call("later");
  return plugin.callText("seen");
}

const ways = {
  "descriptors, standard": {},
  "stdin and stdout, standard": { stdio: true },
  "descriptors, classic": { format: "classic" },
  "stdin and stdout, classic": { stdio: true, format: "classic" },
  "without spinning": { spin: 0 },
};
for (const [way, options] of Object.entries(ways)) {
  withPlugin(
    `calls of all sizes over ${way}`,
    { ...options, commands: { echo: (request) => request.buffer } },
    async (plugin) => {
      const sizes = [0, 1, 40, 4095, 4097, 16_384, 65_536, 200_000, 3_000_000];
      const calls = sizes.flatMap((size) =>
        ["echo", "later", "back"].map(async (command) => {
          const data = Buffer.alloc(size, "é");
          assert.ok((await plugin.call(command, data)).equals(data), `${command} of ${size} bytes`);
        }),
      );
      await Promise.all(calls);
      assert.equal(await plugin.callText("echo", "größe"), "größe");
      assert.deepEqual(await plugin.stop(), { status: 0, signal: null, by: "stop" });
    },
  );
}

withPlugin("errors have code, message and data", {}, async (plugin) => {
  const error = async (...call) => {
    const error = await plugin.call(...call).then(assert.fail, (error) => error);
    assert.ok(error instanceof CallError, String(error));
    return [error.kind, error.code, error.message, error.data, error.sent];
  };
  assert.deepEqual(await error("fail", "x"), ["remote", "not_found", "there is no x", { name: "x" }, true]);
  assert.deepEqual(await error("wrapped"), ["remote", "not_found", "cannot open: there is no note", undefined, true]);
  assert.deepEqual(await error("plain"), ["remote", "", "it is plain", undefined, true]);
  const unknown = await error("nonsense");
  assert.equal(unknown[1], "unknown_command");
  assert.ok(unknown[3].commands.includes("echo"));
  assert.match((await error("object"))[2], /has returned an object, not text or bytes/);
  assert.equal((await error("json", "{"))[1], "invalid_argument");
  assert.deepEqual((await error("cmd.ping")).slice(0, 1), ["reserved"]);
  assert.deepEqual((await error("GetMetadata")).slice(0, 1), ["reserved"]);
  await assert.rejects(plugin.callText("echo", Buffer.of(0xff)), { kind: "invalid" });
  assert.deepEqual(await plugin.callJson("json", { a: [1] }), { got: { a: [1] } });
  await plugin.ping();
});

withPlugin("the classic format refuses a command with a space", { format: "classic" }, async (plugin) => {
  await assert.rejects(plugin.call("slow append"), { kind: "invalid", sent: false });
});

withPlugin("a call that is given up reaches its handler", {}, async (plugin) => {
  const controller = new AbortController();
  const call = plugin.call("wait", "", { signal: controller.signal });
  await plugin.ping();
  controller.abort(new Error("no longer wanted"));
  await assert.rejects(call, { message: "no longer wanted" });
  await assert.rejects(plugin.call("echo", "", { signal: controller.signal }), { message: "no longer wanted" });
  await assert.rejects(plugin.call("echo", "", { signal: AbortSignal.abort() }), { name: "AbortError" });
  assert.equal(await seen(plugin), "cancelled");
  const late = await plugin.call("wait", "", { timeout: 30 }).then(assert.fail, (error) => error);
  assert.deepEqual([late.kind, late.code, late.sent], ["timedOut", "deadline", true]);
  assert.match(await seen(plugin), /^(cancelled|deadline)$/);
  assert.equal(
    await plugin.callText("echo", "fine", { timeout: 60_000, signal: new AbortController().signal }),
    "fine",
  );
});

test("calls of a handler carry context and deadline on", async () => {
  const seen = [];
  const plugin = await Plugin.start(GUEST, {
    ...quiet,
    commands: {
      context(request) {
        seen.push([request.context, request.timeLeft > 1000 && request.timeLeft <= 30_000, request.text()]);
      },
    },
  });
  const values = { traceparent: "00-1", user: "ann" };
  await Promise.all([plugin.call("pass"), plugin.call("pass", "", { context: values, timeout: 30_000 })]);
  await plugin.call("pass", "", { context: { other: "1" } });
  assert.deepEqual(
    seen.sort((a, b) => Object.keys(b[0]).length - Object.keys(a[0]).length),
    [
      [values, true, "true"],
      [{ other: "1" }, false, "false"],
      [{}, false, "false"],
    ],
  );
  await assert.rejects(plugin.call("pass", "", { context: { long: "x".repeat(5000) } }), {
    kind: "invalid",
    sent: false,
  });
  await plugin.stop();
});

withPlugin("progress", {}, async (plugin) => {
  const reports = [];
  await plugin.call("progress", "", { onProgress: (report) => reports.push(report) });
  assert.ok(reports.length >= 2 && reports.length < 20, `${reports.length} reports`);
  assert.deepEqual(reports[0], { done: 0, total: 1000, message: "at 0" });
  assert.deepEqual(reports.at(-1), { done: 1000, total: 1000, message: "at 1000" });
});

withPlugin("commands in order do not overtake each other", {}, async (plugin) => {
  const calls = ["slow append", "append", "slow append", "append"].map((command, i) => plugin.call(command, String(i)));
  assert.equal(await plugin.callText("echo", "beside"), "beside");
  await Promise.all(calls);
  assert.equal(await seen(plugin), "0 1 2 3");
});

withPlugin("one-ways arrive, and flow holds them back", { window: 1000 }, async (plugin) => {
  for (let i = 0; i < 100; i++) await plugin.notify("append", "x".repeat(100_000));
  await plugin.call("append", "last");
  assert.equal((await seen(plugin)).length, 100 * 100_001 + 4);
  await plugin.notify("nonsense");
  await plugin.ping();
});

test("a plugin's calls are held back by the window of its host", async () => {
  let held = 0;
  let most = 0;
  const plugin = await Plugin.start(GUEST, {
    ...quiet,
    window: 20_000,
    handlers: 4,
    commands: {
      async echo(request) {
        most = Math.max(most, ++held);
        await sleep(1);
        held--;
        return request.buffer;
      },
    },
  });
  const calls = Array.from({ length: 300 }, (_, i) => plugin.callText("back", `${i} `.padEnd(5000, "x")));
  for (const [i, reply] of (await Promise.all(calls)).entries()) assert.equal(reply.split(" ")[0], String(i));
  assert.equal(most, 4);
  await plugin.stop();
});

test("configuration, metadata, levels and versions", async () => {
  const config = { dir: "/tmp", secret: "é" };
  const plugin = await Plugin.start(GUEST, {
    ...quiet,
    config,
    // Of the protocol's keys only these are a program's own.
    metadata: { Host: "tests", "pipeplug.name": "its host", "pipeplug.window": "7" },
    interfaceVersions: [2, 3],
    logLevel: "debug",
    env: { TEST_MODE: "versions" },
  });
  assert.deepEqual(plugin.metadata, { Description: "is tested", Cmd: "guest" });
  assert.deepEqual(await plugin.callJson("config"), config);
  const metadata = await plugin.callText("metadata");
  assert.match(metadata, /"Host":"tests"/);
  assert.match(metadata, /"pipeplug.name":"its host"/);
  assert.match(metadata, /"pipeplug.window":"4194304"/);
  assert.doesNotMatch(metadata, /secret/);
  assert.equal(plugin.interfaceVersion, 2);
  assert.equal(await plugin.callText("version"), "2");
  assert.equal(await plugin.callText("level"), "debug");
  plugin.setLogLevel("off");
  assert.equal(await plugin.callText("level"), "off");
  await plugin.stop();
  const mismatch = Plugin.start(GUEST, { ...quiet, interfaceVersions: [3, 4], env: { TEST_MODE: "versions" } });
  await assert.rejects(
    mismatch,
    /speaks the versions 3, 4 of the interface, and plugin "guest.mjs" 1, 2: plugin "guest.mjs" is older/,
  );
  await assert.rejects(Plugin.start(GUEST, { ...quiet, config: "x".repeat(1 << 20) }), /the limit is 1048576/);
});

test("a start call-back runs first, and may fail", async () => {
  const plugin = await Plugin.start(GUEST, {
    ...quiet,
    env: { TEST_MODE: "asks" },
    commands: { who: () => "the host" },
  });
  assert.equal(await plugin.callText("told"), "the host");
  await plugin.stop();
  const start = (mode) =>
    Plugin.start(GUEST, { ...quiet, env: { TEST_MODE: mode } }).then(assert.fail, (error) => error);
  const failed = await start("fails");
  assert.ok(failed instanceof StartError);
  assert.match(
    failed.message,
    /ended before it answered: exit status 1, last on its stderr: .*there is no dictionary$/,
  );
  assert.match((await start("crashes")).message, /exit status 3, nothing on its stderr; is it a plugin/);
});

test("programs that are no plugins", async () => {
  const start = (path, options) =>
    Plugin.start(path, { ...quiet, ...options }).then(assert.fail, (error) => error.message);
  assert.match(await start("/bin/true"), /ended before it answered: exit status 0/);
  assert.match(await start("/bin/cat", { stdio: true, startTimeout: 300 }), /copies its input to its output/);
  assert.match(await start("/bin/sleep", { args: ["60"], startTimeout: 300 }), /did not answer|ended before/);
  assert.match(
    await start("/bin/echo", { stdio: true }),
    /wrote what is no message: .*broken chunk at byte 0.*, nothing on its stderr; a plugin on stdin and/,
  );
  const controller = new AbortController();
  setTimeout(() => controller.abort(new Error("changed my mind")), 100);
  assert.equal(await start("/bin/sleep", { stdio: true, args: ["60"], signal: controller.signal }), "changed my mind");
});

withPlugin("streams in both directions", { streamWindow: 2000 }, async (plugin) => {
  const call = plugin.stream("upper");
  const sending = call.sender.sendAll(Array.from({ length: 2000 }, (_, i) => `part ${i}`));
  let count = 0;
  for await (const part of call) assert.equal(part.toString(), `PART ${count++}`);
  await sending;
  assert.equal(count, 2000);
  assert.equal((await call.reply).toString(), "done");
  const large = plugin.stream("sum");
  for (let i = 0; i < 20; i++) await large.send(Buffer.alloc(1_000_000));
  await large.finish();
  assert.equal((await large.reply).toString(), "20000000");
});

withPlugin("ends of streams", {}, async (plugin) => {
  const counted = plugin.stream("count");
  await counted.finish();
  let last;
  for await (const part of counted) {
    last = part.toString();
    if (last === "1000") break;
  }
  await counted.reply;
  assert.equal(await seen(plugin), "counted for count");

  const first = plugin.stream("first");
  await first.send("one");
  assert.equal((await first.reply).toString(), "one");
  await assert.rejects(first.send("two"), (error) => error instanceof StreamError && error.kind === "enough");

  const ignored = plugin.stream("ignores");
  assert.equal((await ignored.reply).toString(), "ignored");
  assert.match(ignored.sender.refusal.message, /the handler takes no parts/);

  const aborted = plugin.stream("collect");
  await aborted.send("one");
  aborted.sender.abort("the file is gone");
  await aborted.reply;
  assert.equal(await seen(plugin), "aborted: the file is gone");

  const controller = new AbortController();
  const cancelled = plugin.stream("collect", "", { signal: controller.signal });
  await cancelled.send("one");
  await plugin.ping();
  controller.abort(new Error("given up"));
  await assert.rejects(cancelled.reply, { message: "given up" });
  await assert.rejects(cancelled.send("two"), { name: "StreamError" });
  await assert.rejects(
    async () => {
      for await (const _ of cancelled) assert.fail();
    },
    { message: "given up" },
  );
  assert.match(await seen(plugin), /^cancelled/);

  const notice = plugin.notifyStream("collect");
  await notice.sendAll(["a", "b", "c"]);
  await plugin.ping();
  assert.equal(await seen(plugin), "abc");

  const failing = plugin.stream("fail", "x");
  await assert.rejects(failing.reply, { code: "not_found" });
  await assert.rejects(failing.parts.next(), { code: "not_found" });

  const open = plugin.stream("collect");
  await plugin.kill();
  await assert.rejects(open.reply, { kind: "closed" });
  await assert.rejects(open.send("x"), { name: "StreamError" });
});

test("services, from both sides", async () => {
  const plugin = await Plugin.start(path("../samples/greeter-plugin.mjs"), quiet);
  const service = plugin.client(greeter);
  assert.deepEqual(await service.languages(), ["de", "en", "fr"]);
  assert.equal(await service.greet({ name: "Ann" }), "hello, Ann");
  await assert.rejects(service.greet({ name: "Ann", language: "tlh" }), {
    code: "method_error",
    data: { UnknownLanguage: { language: "tlh" } },
  });
  await assert.rejects(service.greet({ name: 7 }), { code: "invalid_argument", data: { field: "name" } });
  await assert.rejects(service.greet({}), { code: "invalid_argument", data: { field: "name" } });
  assert.throws(() => plugin.client({ ...greeter, version: 2 }), /serves version 1 .*upgrade/);
  assert.throws(
    () => plugin.client({ name: "other", version: 1, methods: [] }),
    /has no service "other"; it has greeter/,
  );
  assert.ok(client(plugin, greeter).greet);
  await plugin.stop();
});

for (const stdio of [true, false]) {
  test(`what a plugin prints never reaches the wire, ${stdio ? "stdin and stdout" : "descriptors"}`, async () => {
    const lines = [];
    const plugin = await Plugin.start(GUEST, { stdio, onLine: (line) => lines.push(line) });
    assert.equal(await plugin.callText("prints"), "nothing on the wire");
    await plugin.ping();
    await plugin.stop();
    const printed = ["a child", "a write to 1", "console.info", "console.log", "process.stdout"];
    assert.deepEqual(
      lines.sort(),
      printed.map((by) => `printed by ${by}`),
    );
  });
}

withPlugin("the end of a plugin fails its calls, and is told", {}, async (plugin) => {
  const call = assert.rejects(plugin.call("sleep", "60000"), { kind: "closed", sent: true });
  await assert.rejects(plugin.call("exit", "7"), { kind: "closed" });
  await call;
  await assert.rejects(plugin.call("echo"), { kind: "closed", sent: false });
  assert.equal((await plugin.closed).kind, "endOfFile");
  assert.deepEqual(await plugin.stop(), { status: 7, signal: null, by: "itself" });
});

withPlugin("an exception outside of a handler ends the plugin", {}, async (plugin) => {
  await plugin.call("throws");
  await plugin.closed;
  assert.deepEqual(await plugin.stop(), { status: 1, signal: null, by: "itself" });
  assert.match(plugin.stderrTail.join("\n"), /a bug outside of any handler/);
});

withPlugin("a stop waits for handlers that run", {}, async (plugin) => {
  const call = plugin.callText("sleep", "300");
  await plugin.ping();
  const stopped = plugin.stop();
  assert.equal(await call, "slept");
  assert.deepEqual(await stopped, { status: 0, signal: null, by: "stop" });
});

for (const signal of ["SIGTERM", "SIGINT"]) {
  withPlugin(`${signal} ends a plugin`, {}, async (plugin) => {
    process.kill(plugin.pid, signal);
    await plugin.closed;
    assert.deepEqual(await plugin.stop(), { status: null, signal, by: "itself" });
  });
}

test("a plugin that hangs is killed", async () => {
  const plugin = await Plugin.start(GUEST, { ...quiet, grace: { stop: 100, endOfFile: 100, term: 2000 } });
  const call = assert.rejects(plugin.call("sleep", "60000"), { kind: "closed" });
  await plugin.ping();
  const stopped = await plugin.stop();
  await call;
  assert.deepEqual(stopped, { status: null, signal: "SIGTERM", by: "term" });
});

test("a one-way that fails is logged, and not without limit", async () => {
  const lines = [];
  const plugin = await Plugin.start(GUEST, { onLine: (line) => lines.push(line) });
  for (let i = 0; i < 100; i++) await plugin.notify("fail", "x");
  await plugin.stop();
  assert.equal(lines[0], 'guest.mjs: the one-way "fail" has failed: there is no x');
  assert.equal(lines.length, 7);
});

test("a plugin ends with its host, however that ends", { timeout: 60_000 }, async () => {
  const script = `
    import { Plugin } from "pipeplug";
    const plugin = await Plugin.start(${JSON.stringify(GUEST)});
    console.log(plugin.pid);
    if (process.argv.at(-1) === "exit") process.exit(5);
    if (process.argv.at(-1) === "unref") plugin.unref();
  `;
  const ends = {
    exit: ["", [5, null]],
    unref: ["", [0, null]],
    kill: ["SIGKILL", [null, "SIGKILL"]],
    interrupt: ["SIGINT", [null, "SIGINT"]],
  };
  for (const [way, [signal, expected]] of Object.entries(ends)) {
    const host = spawn(process.execPath, ["--input-type=module", "-e", script, way], {
      cwd: path(".."),
      stdio: ["ignore", "pipe", "ignore"],
    });
    const exit = once(host, "exit");
    const pid = Number(String(await once(host.stdout, "data")));
    if (signal !== "") host.kill(signal);
    assert.deepEqual(await exit, expected, way);
    for (let tries = 0; isRunning(pid); tries++) {
      assert.ok(tries < 500, `the plugin runs on after ${way}`);
      await sleep(10);
    }
  }
});

function isRunning(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

test("a lost host is exit status 1, and none is 2", async () => {
  const run = async (args, stdio) => {
    const child = spawn(process.execPath, [GUEST, ...args], { stdio });
    let text = "";
    child.stderr.on("data", (some) => {
      text += some;
    });
    child.stdin?.end("1\u00002\u00008\u0000cmd.ping\u00000\u0000");
    const [status] = await once(child, "close");
    return [status, text];
  };
  const [lost, said] = await run([], ["pipe", "ignore", "pipe"]);
  assert.equal(lost, 1);
  assert.match(said, /^guest.mjs: the host is gone: the other side closed the pipe\n$/);
  const [none, hint] = await run([], ["ignore", "pipe", "pipe"]);
  assert.equal(none, 2);
  assert.match(hint, /guest.mjs is a plugin: a host starts it/);
  assert.match((await run(["98", "99"], ["ignore", "ignore", "pipe"])).join(" "), /^2 descriptor 98, .* is not open/);
});

test("a plugin that waits for its host", async () => {
  const directory = mkdtempSync(join(tmpdir(), "pipeplug-test-"));
  const socket = join(directory, "socket");
  const child = spawn(process.execPath, [GUEST, "--pipeplug-listen", socket], { stdio: ["ignore", "inherit", "pipe"] });
  await once(child.stderr, "data");
  assert.equal(statSync(socket).mode & 0o777, 0o600);
  const plugin = await Plugin.attach(socket);
  assert.equal(statSync(socket, { throwIfNoEntry: false }), undefined);
  const data = Buffer.alloc(1_000_000, "x");
  assert.ok((await plugin.call("echo", data)).equals(data));
  const exit = once(child, "exit");
  assert.equal((await plugin.stop()).by, "letGo");
  assert.deepEqual(await exit, [0, null]);
  await assert.rejects(Plugin.attach(socket), /no plugin waits at/);
  rmSync(directory, { recursive: true });
});
