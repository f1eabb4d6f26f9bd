// The echo of each subject: guests.mjs NAME.
import { createRequire } from "node:module";

const subject = process.argv.at(-1);
if (subject === "pipeplug") {
  const { register } = await import("pipeplug");
  register({ commands: { echo: (request) => request.buffer } });
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
