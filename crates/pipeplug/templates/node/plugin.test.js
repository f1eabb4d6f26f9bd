// Tests of the plugin {{name}}: node --test

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { answer } from './{{name}}.js';

test('greets', () => {
  assert.equal(answer('hello', Buffer.from('world')).toString(), 'hello, world');
});

test('other commands are errors', () => {
  assert.throws(() => answer('nonsense', Buffer.alloc(0)), /unknown command "nonsense"/);
});

test('speaks the protocol', () => {
  // The request 1 and a stop, in the standard format: threadID, direction, len(cmd), cmd, len(buffer), buffer.
  const input = '1\x002\x005\x00hello\x005\x00world' + '0\x001\x008\x00cmd.stop\x000\x00';
  const path = fileURLToPath(new URL('./{{name}}.js', import.meta.url));
  const ran = spawnSync(process.execPath, [path], { input, timeout: 60_000 });
  assert.equal(ran.stdout.toString(), '1\x003\x005\x00hello\x0012\x00hello, world');
  assert.equal(ran.status, 0);
});
