#!/usr/bin/env node
// The plugin {{name}}.

import { register } from './pipeplug.js';

register({
  metadata: {
    Cmd: 'hello',
    Description: 'greets whom it is told',
    'pipeplug.name': '{{name}}',
    'pipeplug.version': '0.1.0',
  },
  commands: {
    // Answers with text or bytes, at once or by a promise. An exception is an error for the caller.
    hello: (request) => `hello, ${request.text()}`,
  },
});
