#!/usr/bin/env node
// The smallest plugin: `echo` says back what it is told, `upper` says it louder, `log` goes to
// standard error.
import { register } from "pipeplug";

register({
  metadata: { Description: "says back what it is told" },
  commands: {
    echo: (request) => request.buffer,
    upper: (request) => request.text().toUpperCase(),
    log: (request) => console.log(request.text()),
  },
});
