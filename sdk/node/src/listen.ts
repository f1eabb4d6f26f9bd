/** Waiting for a host that attaches, for a plugin that a person or a debugger starts. */

import { chmodSync, lstatSync, rmSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { PassThrough } from "node:stream";

import type { Ends } from "./transport.js";

/** Makes a socket at the path that only this user may connect to, and waits for one host. */
export function listen(path: string, name: string, refuse: (error: Error) => void): Ends {
  const reader = new PassThrough();
  const writer = new PassThrough();
  const failed = (reason: string): void =>
    refuse(new Error(`cannot wait for a host at ${JSON.stringify(path)}: ${reason}`));
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat !== undefined && !stat.isSocket()) failed("the file there is not a socket: use another path");
  const server = createServer({ allowHalfOpen: true }, (socket: Socket) => {
    server.close();
    rmSync(path, { force: true });
    socket.pipe(reader);
    writer.pipe(socket);
    socket.on("error", (error) => reader.destroy(error));
  });
  server.maxConnections = 1;
  let isStale = stat !== undefined;
  server.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EADDRINUSE" && isStale) {
      isStale = false;
      removeStale(
        path,
        () => open(),
        () => failed("another process listens there: end that, or take another path"),
      );
    } else {
      failed(error.message);
    }
  });
  const open = (): void => {
    // From the first moment on: it cannot be connected to with other rights in between.
    const mask = process.umask(0o177);
    try {
      server.listen(path, () => {
        process.stderr.write(`${name} waits for its host: pipeplug run --attach ${path} --call COMMAND [DATA]\n`);
      });
      chmodSync(path, 0o600);
    } catch {
      // The server's error event tells.
    } finally {
      process.umask(mask);
    }
  };
  open();
  return { reader, writer };
}

/** Removes the socket of a process that has ended. */
function removeStale(path: string, removed: () => void, inUse: () => void): void {
  const probe = connect(path);
  probe.on("connect", () => {
    probe.destroy();
    inUse();
  });
  probe.on("error", () => {
    rmSync(path, { force: true });
    removed();
  });
}
