#!/usr/bin/env node
// A plugin on standard input and output that does what programs in Node do: `work` answers with the names of the parts
// that went well, or says which one did not.
'use strict';

const assert = require('node:assert');
const childProcess = require('node:child_process');
const crypto = require('node:crypto');
const fs = require('node:fs/promises');
const os = require('node:os');
const path = require('node:path');
const { promisify } = require('node:util');
const { Worker } = require('node:worker_threads');
const zlib = require('node:zlib');

const ONE_WAY = 1, REQUEST = 2, RESPONSE = 3;

const parts = {
  async threads() {
    const worker = new Worker("require('node:worker_threads').parentPort.postMessage(6 * 7)", { eval: true });
    assert.equal(await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject)), 42);
    await worker.terminate();
  },
  async programs() {
    const { stdout } = await promisify(childProcess.execFile)('/bin/echo', ['hi']);
    assert.equal(stdout, 'hi\n');
    assert.equal(childProcess.spawnSync('exit 3', { shell: true }).status, 3);
    const child = childProcess.fork('-e', ['process.send(1)'], { execArgv: ['-e', 'process.send(1)'] });
    assert.equal(await new Promise((resolve, reject) => child.once('message', resolve).once('error', reject)), 1);
  },
  async files() {
    const dir = await fs.mkdtemp(path.join(os.tmpdir(), 'at-work-'));
    const file = path.join(dir, 'file');
    await fs.writeFile(file, 'x'.repeat(8192));
    await fs.rename(file, file + '2');
    assert.deepEqual((await fs.readdir(dir)).sort(), ['file2']);
    assert.equal((await fs.stat(file + '2')).size, 8192);
    await fs.copyFile(file + '2', file);
    await fs.chmod(file, 0o600);
    await fs.utimes(file, 1, 1);
    await fs.rm(dir, { recursive: true });
  },
  async computing() {
    assert.equal((await promisify(crypto.scrypt)('a', 'b', 16)).length, 16);
    assert.equal((await promisify(zlib.gzip)('a')).length > 0, true);
    assert.ok(WebAssembly.validate(new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0])));
    require('node:tls').createSecureContext();
    assert.ok(os.cpus().length > 0 && os.totalmem() > 0);
  },
  async waiting() {
    await promisify(setTimeout)(1);
    const caught = new Promise((resolve) => process.once('SIGUSR2', resolve));
    process.kill(process.pid, 'SIGUSR2');
    await caught;
  },
};

async function answer(cmd) {
  if (cmd === 'GetMetadata') return [cmd, '{"Cmd":"at-work"}'];
  if (cmd === 'cmd.ping') return [cmd, ''];
  if (cmd !== 'work') return ['cmd.error', 'there is only work'];
  for (const [name, part] of Object.entries(parts)) {
    try {
      await part();
    } catch (error) {
      return ['cmd.error', `${name}: ${error.stack}`];
    }
  }
  return [cmd, Object.keys(parts).join(' ')];
}

// A chunk at the beginning of `input`, or nothing while a part of it is missing.
function take(input) {
  let at = 0;
  const number = () => {
    const end = input.indexOf(0, at);
    if (end < 0) return NaN;
    const text = input.toString('latin1', at, end);
    at = end + 1;
    return Number(text);
  };
  const bytes = (length) => {
    at += length;
    return at <= input.length ? input.subarray(at - length, at) : null;
  };
  const id = number(), direction = number();
  const cmd = bytes(number());
  at += 1; // The NUL behind it.
  const buffer = bytes(number());
  return buffer && { id, direction, cmd: cmd.toString(), length: at };
}

let input = Buffer.alloc(0);
process.stdin.on('data', async (bytes) => {
  input = Buffer.concat([input, bytes]);
  for (let chunk; (chunk = take(input)); ) {
    input = input.subarray(chunk.length);
    if (chunk.direction === ONE_WAY && chunk.cmd === 'cmd.stop') process.exit(0);
    if (chunk.direction !== REQUEST) continue;
    const [cmd, buffer] = await answer(chunk.cmd);
    const lengths = [cmd, buffer].map(Buffer.byteLength);
    process.stdout.write(`${chunk.id}\0${RESPONSE}\0${lengths[0]}\0${cmd}\0${lengths[1]}\0${buffer}`);
  }
});
