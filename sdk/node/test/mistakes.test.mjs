// Mistakes of a program: names and types of options and arguments, codes of errors, and files that are no plugins.
import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";
import { inspect } from "node:util";
import { CallError, Failure, MethodError, Plugin, register, StartError } from "pipeplug";

const GUEST = fileURLToPath(new URL("guest.mjs", import.meta.url));
const quiet = { onLine: () => {} };

/** The one message that an option leads to, in all functions that take it. */
async function refused(functions, message) {
  for (const run of functions) {
    await assert.rejects(async () => run(), { name: "TypeError", message });
  }
}

test("options that do not exist, and values of other types", async () => {
  const plugin = await Plugin.start(GUEST, quiet);
  const calls = (options) => [
    () => plugin.call("echo", "x", options),
    () => plugin.callText("echo", "x", options),
    () => plugin.callJson("echo", 1, options),
    () => plugin.ping(options),
    () => plugin.stream("upper", "", options).reply,
  ];
  const notices = (options) => [
    () => plugin.notify("echo", "x", options),
    () => plugin.notifyStream("collect", "", options),
  ];
  await refused(calls({ timout: 5000 }), 'a call has no option "timout" (it was given 5000); did you mean "timeout"?');
  await refused(
    calls({ timeout: "5" }),
    'the option "timeout" of a call has to be a number of milliseconds, not the string "5"',
  );
  await refused(calls({ timeout: Number.NaN }), /has to be a number of milliseconds, not NaN$/);
  await refused(calls({ timeout: null }), /has to be a number of milliseconds, not null$/);
  await refused(calls({ Signal: AbortSignal.timeout(1000) }), /did you mean "signal"\?$/);
  await refused(calls({ signal: new AbortController() }), /an AbortSignal, not an object of AbortController$/);
  await refused(calls({ context: { user: 7 } }), /"context" of a call has to be an object of strings, not an object$/);
  await refused(calls({ onProgress: true }), /has to be a function, not true$/);
  await refused(calls({ retries: 3 }), /\(it was given 3\); it has context, signal, timeout, onProgress$/);
  await refused(calls(5000), "the options of a call have to be an object, not 5000");
  await refused(notices({ timeout: 5 }), 'a one-way has no option "timeout" (it was given 5); it has context, signal');
  await refused([() => plugin.stop({ kill: 5 })], /^stop has no option "kill"/);
  // Undefined is as good as nothing.
  assert.equal(await plugin.callText("echo", "x", { timeout: undefined, signal: undefined }), "x");
  assert.equal(await plugin.callText("echo", "x", { timeout: Number.POSITIVE_INFINITY }), "x");

  const starts = (options) => [() => Plugin.start(GUEST, options), () => Plugin.attach("/nowhere", options)];
  for (const [options, message] of [
    [{ startTimout: 1 }, /^a plugin's start has no option "startTimout" .* did you mean "startTimeout"\?$/],
    [{ startTimeout: -1 }, /"startTimeout" .* has to be a number of milliseconds from 0 on, not -1$/],
    [{ grace: { term: -1 } }, /"term" .* has to be a number of milliseconds from 0 on, not -1$/],
    [{ window: -1 }, /"window" .* has to be a number of bytes from 0 on, not -1$/],
    [{ startTimeout: "1s" }, /has to be a number of milliseconds from 0 on, not the string "1s"$/],
    [{ format: "modern" }, /has to be "standard" or "classic", not the string "modern"$/],
    [{ grace: { stopp: 1 } }, /^the grace of a plugin has no option "stopp" .* did you mean "stop"\?$/],
    [{ limits: { buffer: "1M" } }, /^the option "buffer" of the limits has to be a number of bytes/],
    [{ args: "--verbose" }, /has to be an array of strings, not the string "--verbose"$/],
    [{ args: [1] }, /has to be an array of strings, not an array$/],
    [{ env: { DEBUG: 1 } }, /has to be an object of strings/],
    [{ commands: { upper: "x" } }, /has to be an object of functions, by command/],
    [{ services: {} }, /has to be an array of services/],
    [{ inOrder: ["a"] }, /has to be true, or an array of arrays of commands/],
    [{ logLevel: "verbose" }, /"debug" or "trace", not the string "verbose"$/],
    [{ metadata: { Version: 1 } }, /has to be an object of strings/],
  ]) {
    await refused(starts(options), message);
  }
  await refused(
    [() => Plugin.start(), () => Plugin.attach()],
    "the path of a plugin has to be a string, not undefined",
  );
  for (const [options, message] of [
    [{ comands: {} }, /^register has no option "comands" \(it was given an object\); did you mean "commands"\?$/],
    [{ commands: { upper: 5 } }, /has to be an object of functions/],
    [{ onEnd: "quit" }, /has to be "exit" or "stay"/],
    [{ handlers: "all" }, /has to be a number/],
  ]) {
    assert.throws(() => register(options), { name: "TypeError", message });
  }
  await plugin.stop();
});

test("a command that is none", async () => {
  const plugin = await Plugin.start(GUEST, quiet);
  const message = "the command of a call has to be a string, not undefined";
  await refused(
    [() => plugin.call(), () => plugin.callText(), () => plugin.callJson(), () => plugin.stream()],
    message,
  );
  await refused([() => plugin.callText(undefined, "x", { timeout: 1 })], message);
  await refused([() => plugin.notify(), () => plugin.notifyStream()], /^the command of a one-way has to be a string/);
  await refused([() => plugin.call(Buffer.from("echo"))], /has to be a string, not an object of Buffer$/);
  await plugin.stop();
});

test("codes and data of errors are shown", async () => {
  const plugin = await Plugin.start(GUEST, quiet);
  const error = await plugin.call("fail", "x").catch((error) => error);
  assert.equal(String(error), 'CallError: there is no x (not_found, {"name":"x"})');
  assert.match(inspect(error), /there is no x.*code: 'not_found'.*data: \{ name: 'x' \}/s);
  assert.equal(String(await plugin.call("plain").catch((error) => error)), "CallError: it is plain");
  assert.equal(String(new Failure("busy", "try later")), "Failure: try later (busy)");
  assert.match(String(new MethodError("no", { Some: { case: 1 } })), /no \(method_error, \{"Some":\{"case":1\}\}\)$/);
  const own = Object.assign({}, { self: 1n });
  assert.equal(String(new Failure("odd", "x", own)), "Failure: x (odd)");
  for (const code of ["Not Found", "NotFound", "not-found", "_x", "x_", "x__y", "1x", "é", 404, undefined, null]) {
    assert.throws(() => new Failure(code, "x"), { name: "TypeError", message: /^the code of a Failure has to be/ });
  }
  for (const code of ["", "x", "not_found", "http_404"]) assert.equal(new Failure(code, "x").code, code);
  const service = { name: "notes", version: 1, methods: [] };
  assert.throws(() => plugin.client(service), { message: 'the other side has no service "notes"; it has none at all' });
  await plugin.stop();
});

test("errors of this side have codes", async () => {
  const plugin = await Plugin.start(GUEST, quiet);
  const code = (...call) => plugin.call(...call).then(assert.fail, (error) => [error.kind, error.code]);
  assert.deepEqual(await code("cmd.stop"), ["reserved", "invalid"]);
  assert.deepEqual(await code("echo", "", { context: { x: "x".repeat(5000) } }), ["invalid", "invalid"]);
  assert.deepEqual(await code("sleep", "1000", { timeout: 1 }), ["timedOut", "deadline"]);
  const open = code("sleep", "60000");
  await plugin.kill();
  assert.deepEqual(await open, ["closed", "closed"]);
  assert.deepEqual(await code("echo"), ["closed", "closed"]);
});

test("files that are no programs", async () => {
  const directory = mkdtempSync(join(tmpdir(), "pipeplug-test-"));
  const file = (name, content, mode = 0o755) => {
    const path = join(directory, name);
    writeFileSync(path, content);
    chmodSync(path, mode);
    return path;
  };
  mkdirSync(join(directory, "folder"));
  symlinkSync("nowhere", join(directory, "dangling"));
  symlinkSync("loop", join(directory, "loop"));
  const DOS = /; its `#!` line ends with a carriage return: save the file with Unix line ends$/;
  const script = "#!/bin/sh\n";
  const before = readdirSync("/proc/self/fd").length;
  for (const [path, message] of [
    [join(directory, "missing"), /^no plugin at "\/.*missing": no such file; check the path, `PATH` is not searched$/],
    ["sh", /^no plugin at "\/.*\/sh": no such file/],
    [join(directory, "dangling"), /: no such file, it is a symbolic link to "nowhere"; check/],
    [join(file("plain", script), "below"), /: "\/.*\/plain" is not a directory; name the file itself$/],
    [join(directory, "folder"), /folder" is a directory: name the executable file inside it$/],
    ["/dev/null", /^plugin "\/dev\/null" is a device, which cannot be executed/],
    [file("mode", script, 0o644), / is not executable \(mode 0644\): run `chmod \+x` on it$/],
    [file("empty", ""), / is not a program: it is empty; start a script with a line like/],
    [file("text", "echo hello\n"), / is not a program: it has neither a `#!` line nor an ELF header; start a script/],
    [file("elf", "\x7fELF?"), / is not a program: its ELF header is damaged/],
    [
      file("interpreter", "#!/nonexistent/sh -e\n"),
      / needs the interpreter "\/nonexistent\/sh", which does not exist: /,
    ],
    [
      file("dos", "#!/bin/sh\r\n"),
      /"\/bin\/sh\\r", which does not exist: its `#!` line ends with a carriage return: save the file with Unix line/,
    ],
    ["", /^no plugin at "": the path is empty; name the plugin's executable file or socket$/],
    [join(directory, "plain", "x", "y"), /: "\/.*\/plain" is not a directory; name the file itself$/],
    [
      file("below", "#!/etc/passwd/foo\n"),
      / needs the interpreter "\/etc\/passwd\/foo", which does not exist: install it/,
    ],
    [
      file("loops", `#!${join(directory, "loop")}\n`),
      / needs the interpreter "\/.*\/loop", which cannot be used \(ELOOP\):/,
    ],
    [join(directory, "loop"), /^no plugin at "\/.*\/loop": ELOOP/],
    [join(directory, "a\0b"), /^no plugin at "/],
    [file("env-dos", "#!/usr/bin/env nonexistent-js\r\n"), DOS],
    [file("option-dos", "#!/bin/sh -e\r\nexit 1\r\n"), DOS],
    [
      file("calls-dos", `${script}exec "${join(directory, "env-dos")}"\n`),
      /; the `#!` line of a script ends with a carr/,
    ],
    [file("passwd", "#!/etc/passwd\n"), /its interpreter "\/etc\/passwd" is not executable$/],
    [file("none", "#!\n"), /its `#!` line names no interpreter$/],
    [file("env", "#!/usr/bin/env nonexistent-js\n"), /127, .*; command "nonexistent-js" was not found: install it, or/],
    [file("dash", `${script}nonexistent-tool\n`), /127, .*; command "nonexistent-tool" was not found: install it, or/],
    [
      file("killed", `${script}echo oh no >&2\nkill -9 $$\n`),
      /: killed by SIGKILL, last on its stderr: oh no; is it a/,
    ],
    [
      file("shows.mjs", "process.exit(3)", 0o644),
      /: exit status 3, nothing on its stderr; is it a plugin\? If it speaks/,
    ],
  ]) {
    const error = await Plugin.start(path, quiet).then(assert.fail, (error) => error);
    assert.ok(error instanceof StartError, inspect(error));
    assert.match(error.message, message);
  }
  const start = (options) => Plugin.start(join(directory, "plain"), { ...quiet, ...options });
  await assert.rejects(start({ cwd: "/nonexistent" }), /cannot start in the working directory "\/nonexistent": /);
  for (const [path, message] of [
    ["", /^no plugin at "": the path is empty; /],
    ["/nonexistent/socket", /^no plugin waits at "\/nonexistent\/socket": .*ENOENT/],
    ["a\0b", /^no plugin waits at /],
  ]) {
    await assert.rejects(Plugin.attach(path), { name: "StartError", message });
  }
  const temporary = process.env.TMPDIR;
  process.env.TMPDIR = "/nonexistent";
  await assert.rejects(start(), { name: "StartError", message: /^pipes cannot be made: ENOENT.*; have TMPDIR name/ });
  if (temporary === undefined) delete process.env.TMPDIR;
  else process.env.TMPDIR = temporary;
  await assert.rejects(start({ args: ["a\0b"] }), { code: "ERR_INVALID_ARG_VALUE" });
  await assert.rejects(start({ args: ["x".repeat(1 << 20)] }), /its arguments and variables are too long$/);
  // Sockets of the process that was killed last may still be closed.
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(readdirSync("/proc/self/fd").length, before, "a start that fails leaves no descriptors");
  rmSync(directory, { recursive: true });
});

test("a plugin that is killed is named, with its last words", async () => {
  const lines = [];
  const plugin = await Plugin.start(GUEST, { onLine: (line) => lines.push(line) });
  await plugin.call("says", "first\n\nI am ill");
  const calls = [plugin.call("sleep", "60000"), plugin.stream("collect").reply];
  await plugin.ping();
  process.kill(plugin.pid, "SIGKILL");
  const what = `guest.mjs (process ${plugin.pid}) has ended: killed by SIGKILL, last on its stderr: first | I am ill`;
  for (const [i, command] of ["sleep", "collect"].entries()) {
    const error = await calls[i].then(assert.fail, (error) => error);
    assert.ok(error instanceof CallError);
    assert.equal(error.message, `no reply to "${command}": ${what}`);
    assert.deepEqual([error.kind, error.code, error.sent], ["closed", "closed", true]);
  }
  await assert.rejects(plugin.call("echo"), { message: `"echo" was not sent: ${what}`, code: "closed", sent: false });
  assert.deepEqual(await plugin.closed, { kind: "endOfFile", message: what });
  assert.deepEqual(await plugin.stop(), { status: null, signal: "SIGKILL", by: "itself" });
});

test("a call that begins while a plugin ends has the same error", async () => {
  const plugin = await Plugin.start(GUEST, quiet);
  const results = [];
  const timer = setInterval(() => results.push(plugin.call("echo").catch((error) => error)), 1);
  await plugin.call("exit", "7").catch(() => {});
  clearInterval(timer);
  const late = plugin.stop();
  for (const result of [...(await Promise.all(results)), await plugin.call("echo").catch((error) => error)]) {
    if (result instanceof Error) assert.match(result.message, /guest.mjs \(process \d+\) has ended: exit status 7, /);
  }
  assert.equal((await late).by, "itself");
});

test("a plugin that closes its pipe and runs on", async () => {
  const plugin = await Plugin.start(GUEST, quiet);
  await plugin.call("closes").catch((error) => {
    assert.match(error.message, /: the other side closed the pipe, and it runs on, nothing on its stderr$/);
  });
  assert.equal((await plugin.kill()).by, "kill");
});

for (const command of ["sleep", "sleep and fail", "sleep and say"]) {
  test(`what comes after the deadline is dropped, whichever event is looked at first: ${command}`, async () => {
    const plugin = await Plugin.start(GUEST, quiet);
    const settled = [];
    const note = (promise) =>
      promise.then(
        () => settled.push("replied"),
        (error) => settled.push(error.code),
      );
    const stream = plugin.stream(command, "150", { timeout: 100 });
    const calls = [note(plugin.call(command, "150", { timeout: 100 })), note(stream.reply), note(stream.parts.next())];
    // Its chunk has 65,536 bytes and fills what is read into, so that what has come behind it is read at once,
    // before the timers are looked at.
    await plugin.call("echo", Buffer.alloc(65_519));
    for (const until = performance.now() + 300; performance.now() < until; );
    await Promise.all(calls);
    assert.deepEqual(settled, ["deadline", "deadline", "deadline"]);
    await plugin.stop();
  });
}

test("a call whose time is over before it can be sent is not sent", async () => {
  const plugin = await Plugin.start(GUEST, quiet);
  for (const timeout of [0, -5]) {
    await assert.rejects(plugin.call("append", "x", { timeout }), { kind: "timedOut", code: "deadline", sent: false });
  }
  assert.equal(await plugin.callText("seen"), "");
  await plugin.stop();
});
