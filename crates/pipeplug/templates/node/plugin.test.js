// Tests of the plugin {{name}}: node --test

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { Plugin } from './pipeplug.js';

let plugin;
before(async () => {
  plugin = await Plugin.start(fileURLToPath(new URL('./{{name}}.js', import.meta.url)));
});
after(() => plugin?.stop());

test('greets', async () => {
  assert.equal(await plugin.callText('hello', 'world', { timeout: 60_000 }), 'hello, world');
});

test('other commands are errors', async () => {
  await assert.rejects(plugin.call('nonsense', '', { timeout: 60_000 }), { code: 'unknown_command' });
});
