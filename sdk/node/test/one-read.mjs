// A plugin of the classic format that names no features, as those of the Go package, but reads each buffer whole.
import { createReadStream, writeSync } from "node:fs";

let bytes = Buffer.alloc(0);
createReadStream("", { fd: 3 }).on("data", (more) => {
  bytes = Buffer.concat([bytes, more]);
  for (;;) {
    const [header, id, direction, command, digits] =
      /^(\d*)\0(\d)\0([^ ]*) (\d*)\0/.exec(bytes.toString("latin1", 0, 200)) ?? [];
    if (header === undefined || bytes.length < header.length + Number(digits)) return;
    bytes = bytes.subarray(header.length + Number(digits));
    if (command === "cmd.stop") process.exit(0);
    const reply = command === "GetMetadata" ? "{}" : digits;
    if (direction === "2") writeSync(4, `${id}\x003\0${command} ${reply.length}\0${reply}`);
  }
});
