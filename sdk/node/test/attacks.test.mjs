// What goes wrong on the other side, or is done wrong on this one. See attacked.mjs.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import test from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Plugin } from "pipeplug";

const GUEST = fileURLToPath(new URL("attacked.mjs", import.meta.url));
const METADATA = "1\x002\x0011\x00GetMetadata\x000\x00";
const ECHO = "7\x002\x004\x00echo\x005\x00hello";
const STOP = "0\x001\x008\x00cmd.stop\x000\x00";
const ANSWER = "7\x003\x004\x00echo\x005\x00hello";

/** A test with a plugin, which ends with it. */
function attack(name, run) {
  test(name, { timeout: 30_000 }, async () => {
    const plugin = await Plugin.start(GUEST);
    try {
      await run(plugin);
      if (plugin.exit === undefined) assert.equal(await plugin.callText("echo", "alive"), "alive");
    } finally {
      await plugin.kill();
    }
  });
}

attack("many large answers at once, and one that is larger than all limits of what waits", async (plugin) => {
  const sizes = [...Array(48).fill(2 << 20), 100 << 20];
  const replies = await Promise.all(sizes.map((size) => plugin.call("big", String(size))));
  assert.deepEqual(
    replies.map((reply) => reply.length),
    sizes,
  );
});

attack("data that is neither text nor bytes", async (plugin) => {
  for (const data of [5, {}, { length: 3 }, new ArrayBuffer(4), new Uint16Array(20_000), () => {}]) {
    await assert.rejects(plugin.call("echo", data), TypeError);
    await assert.rejects(plugin.call("echo", data, { timeout: 1000 }), TypeError);
    await assert.rejects(plugin.notify("echo", data), TypeError);
    assert.throws(() => plugin.stream("echo", data), TypeError);
    assert.throws(() => plugin.notifyStream("echo", data), TypeError);
  }
});

test("what a peer of the classic format may lose in a second read is not sent", async () => {
  const path = fileURLToPath(new URL("one-read.mjs", import.meta.url));
  const plugin = await Plugin.start(path, { format: "classic" });
  const refused = {
    kind: "invalid",
    sent: false,
    message: /^"length" was not sent: 6\d{4} bytes do not fit into a pipe/,
  };
  for (const size of [65_501, 65_536]) {
    const data = Buffer.alloc(size);
    for (const options of [undefined, { timeout: 60_000 }]) {
      await assert.rejects(plugin.call("length", data, options), refused);
      await assert.rejects(plugin.notify("length", data), refused);
    }
  }
  await assert.rejects(plugin.call("length", "é".repeat(33_000)), refused);
  assert.equal(await plugin.callText("length", Buffer.alloc(65_480)), "65480");
  await plugin.stop();

  const host = (size) => {
    const input = `7\x002\x00echo ${size}\x00${"x".repeat(size)}\x001\x00cmd.stop \x00`;
    return spawnSync(process.execPath, [GUEST], { input, timeout: 20_000 }).stdout.toString();
  };
  assert.match(host(70_000).split("\0").at(-1), /^the answer is not sent: 70000 bytes do not fit into a pipe, and/);
  assert.equal(host(60_000), `7\x003\x00echo 60000\x00${"x".repeat(60_000)}`);
});

attack("a thousand calls with one signal", async (plugin) => {
  const warnings = [];
  const warned = (warning) => warnings.push(warning.name);
  process.on("warning", warned);
  const controller = new AbortController();
  const { signal } = controller;
  assert.equal(await plugin.callText("echo", "x", { signal }), "x");
  const calls = Array.from({ length: 1000 }, () => plugin.call("wait", "", { signal }));
  await sleep(20);
  controller.abort(new Error("enough of it"));
  for (const call of await Promise.allSettled(calls)) assert.equal(call.reason?.message, "enough of it");
  process.off("warning", warned);
  assert.deepEqual(warnings, []);
});

attack("a report call-back that throws", async (plugin) => {
  const onProgress = () => {
    throw new Error("not for me");
  };
  await assert.rejects(plugin.call("report", "", { onProgress }), /not for me/);
});

attack("finish after the answer", async (plugin) => {
  const call = plugin.stream("early");
  assert.equal(String(await call.reply), "early");
  await call.finish();
  await assert.rejects(call.send("x"), { kind: "enough" });
});

attack("a time that is over before the call", async (plugin) => {
  for (const timeout of [0, 1, 20]) await assert.rejects(plugin.call("wait", "", { timeout }), { kind: "timedOut" });
});

attack("handlers that give nothing, or throw it", async (plugin) => {
  assert.equal((await plugin.call("undefined")).length, 0);
  await assert.rejects(plugin.call("number"), { kind: "remote", message: /has returned 5, not text/ });
  await assert.rejects(plugin.call("throw null"), { kind: "remote", message: "null" });
  await assert.rejects(plugin.call("reject undefined"), { kind: "remote", message: "undefined" });
});

attack("a kill half-way through an answer", async (plugin) => {
  const others = Array.from({ length: 10 }, () => plugin.call("wait"));
  await assert.rejects(plugin.call("half an answer"), { kind: "closed", message: /in the middle of a chunk/ });
  for (const other of await Promise.allSettled(others)) assert.equal(other.reason?.kind, "closed");
  assert.equal((await plugin.stop()).signal, "SIGKILL");
});

attack("stop twice, and calls after it", async (plugin) => {
  const [first, second] = await Promise.all([plugin.stop(), plugin.stop()]);
  assert.deepEqual(first, { status: 0, signal: null, by: "stop" });
  assert.deepEqual(second, first);
  const closed = { kind: "closed", sent: false };
  await assert.rejects(plugin.call("echo"), closed);
  await assert.rejects(plugin.notify("echo"), closed);
  await assert.rejects(plugin.ping(), closed);
  await assert.rejects(plugin.stream("echo").reply, closed);
});

test("a plugin of the original Go package is told to use stdin and stdout", { timeout: 30_000 }, async () => {
  for (const [format, args, told] of [
    ["classic", ["own"], "0 1 own"],
    ["standard", ["own"], "own"],
    ["standard", ["5", "6"], "0 1 5 6"],
  ]) {
    const plugin = await Plugin.start(GUEST, { stdio: true, format, args });
    assert.equal(await plugin.callText("arguments"), told);
    await plugin.stop();
  }
});

test("a pipeline into a plugin", { timeout: 60_000 }, () => {
  for (const mode of ["", "starts"]) {
    for (const chunks of [ECHO, ECHO + STOP, METADATA + ECHO, METADATA + ECHO + STOP, METADATA + METADATA + ECHO]) {
      const env = { ...process.env, TEST_MODE: mode };
      const began = performance.now();
      const { stdout, status } = spawnSync(GUEST, [], { env, input: chunks, timeout: 10_000 });
      const about = `${JSON.stringify(chunks)} ${mode}: ${JSON.stringify(String(stdout))}`;
      assert.ok(stdout.includes(ANSWER), about);
      assert.equal(
        String(stdout).split("\x003\x0011\x00GetMetadata").length,
        chunks.split("GetMetadata").length,
        about,
      );
      assert.equal(status, chunks.includes("cmd.stop") ? 0 : 1, about);
      assert.ok(performance.now() - began < 5900, `${about} took as long as the grace time`);
    }
  }
});

test("requests with the same number and a stream", { timeout: 30_000 }, async () => {
  const child = spawn(GUEST, [], { stdio: ["pipe", "pipe", "ignore"] });
  const offer = '{"pipeplug.features":"context cancel stream"}';
  const chunk = (id, direction, command, data) =>
    `${id}\0${direction}\0${command.length}\0${command}\0${data.length}\0${data}`;
  let text = chunk(1, 2, "GetMetadata", offer);
  // Twice the limit of streams.
  for (let i = 0; i < 2048; i++) {
    text += chunk("18446744073709551615", 1, "cmd.context", '{"stream":"receive"}');
    text += chunk("18446744073709551615", 2, "echo", "x") + chunk("18446744073709551615", 2, "echo", "x");
  }
  text += chunk(9, 1, "cmd.context", '{"stream":"receive"}') + chunk(9, 2, "echo", "last") + STOP;
  child.stdin.end(text);
  let out = "";
  for await (const bytes of child.stdout) out += bytes;
  assert.ok(out.includes(chunk(9, 3, "echo", "last")));
  assert.equal(out.split("18446744073709551615\x003\x004\x00echo").length, 4097);
});

test("a peer that sends and does not read", { timeout: 30_000 }, async () => {
  const child = spawn(GUEST, [], { stdio: ["pipe", "pipe", "ignore"] });
  child.stdin.on("error", () => {});
  child.stdin.write(METADATA);
  await once(child.stdout, "readable");
  const request = `7\x002\x004\x00echo\x00${1 << 16}\x00${"x".repeat(1 << 16)}`;
  // 200 MB, of which a plugin that stops to read takes a few.
  for (let i = 0; i < 3000; i++) child.stdin.write(request);
  await sleep(1500);
  const resident = Number(/VmRSS:\s*(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"))?.[1]);
  child.kill("SIGKILL");
  assert.ok(resident < 160_000, `${resident} KiB`);
});

test("a standard error that is gone does not cut the end short", { timeout: 30_000 }, async () => {
  const script = `(printf '${METADATA.replaceAll("\0", "\\000")}'; sleep 0.5) | { "$0" 2>/dev/full >/dev/null; echo $?; }`;
  const child = spawn("sh", ["-c", script, GUEST], {
    env: { ...process.env, TEST_MODE: "stay" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  let out = "";
  for await (const bytes of child.stdout) out += bytes;
  assert.equal(out.trim(), "41");
});

test("a program ends with what it has stopped, or let go", { timeout: 30_000 }, () => {
  const run = (then) =>
    spawnSync(
      process.execPath,
      [
        "--input-type=module",
        "-e",
        `import { Plugin } from "pipeplug";
         const plugin = await Plugin.start(process.argv.at(-1));
         await plugin.call("echo", "x", { timeout: 20_000, signal: new AbortController().signal });
         ${then};`,
        GUEST,
      ],
      { timeout: 10_000, cwd: fileURLToPath(new URL("..", import.meta.url)) },
    );
  assert.equal(run("await plugin.stop({ stop: 20_000 })").status, 0);
  assert.equal(run("plugin.unref()").status, 0);
});
