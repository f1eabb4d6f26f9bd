#!/usr/bin/env node
// The plugin {{name}}.

import { realpathSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { serve } from './protocol.js';

const METADATA = {
  Cmd: 'hello',
  Description: 'greets whom it is told',
  'pipeplug.name': '{{name}}',
  'pipeplug.version': '0.1.0',
};

/** Answers a request; it may be async. An exception is an error for the caller. */
export function answer(command, data) {
  if (command === 'hello') return Buffer.concat([Buffer.from('hello, '), data]);
  throw new Error(`unknown command "${command}", there is only hello`);
}

// Not when a test imports it.
if (realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) serve(answer, METADATA);
