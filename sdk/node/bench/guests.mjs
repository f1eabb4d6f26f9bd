// The echo of each subject: guests.mjs NAME.
import { createRequire } from "node:module";

const subject = process.argv.at(-1);
if (subject.startsWith("pipeplug")) {
  const { register } = await import("pipeplug");
  const echo = subject === "pipeplug" ? (request) => request.buffer : (request) => request.text();
  register({ commands: { echo } });
} else if (subject.startsWith("ipc")) {
  process.on("message", (message) => process.send(message));
  process.on("disconnect", () => process.exit());
} else {
  const rpc = createRequire(import.meta.url)("vscode-jsonrpc/node");
  const connection = rpc.createMessageConnection(
    new rpc.StreamMessageReader(process.stdin),
    new rpc.StreamMessageWriter(process.stdout),
  );
  connection.onRequest("echo", ({ data }) => ({ data }));
  connection.onClose(() => process.exit());
  connection.listen();
}
