// A program that uses the package, for the type checker: as ESM and as CJS.
import {
  CallError,
  Failure,
  type Handler,
  type Payload,
  Plugin,
  type PluginOptions,
  register,
  type ServiceDescription,
  service,
} from "pipeplug";

export const shout: Handler = (request) => request.text().toUpperCase();

export async function* numbers(): AsyncGenerator<Payload, string> {
  yield "1";
  yield Buffer.of(2);
  return "done";
}

const description: ServiceDescription = { name: "adder", version: 1, methods: [{ name: "add" }] };

export function guest(): void {
  const main = register({
    metadata: { Description: "adds" },
    commands: {
      shout,
      numbers,
      fail: () => {
        throw new Failure("not_found", "there is none", { at: 7 });
      },
      async ask(request) {
        return main.callText("name", undefined, { signal: request.signal });
      },
    },
    services: [service(description, { add: ({ a, b }: { a: number; b: number }) => a + b })],
  });
}

export async function host(path: string): Promise<number> {
  const options: PluginOptions = { config: { dir: "/tmp" }, commands: { name: () => "host" } };
  const plugin = await Plugin.start(path, options);
  try {
    const text: string = await plugin.callText("shout", "a", { timeout: 1000, signal: AbortSignal.timeout(500) });
    const call = plugin.stream("numbers");
    for await (const part of call) console.log(text, part.toString());
    return await plugin
      .client<{ add(args: { a: number; b: number }): Promise<number> }>(description)
      .add({ a: 1, b: 2 });
  } catch (error) {
    if (error instanceof CallError && error.code === "not_found") return 0;
    throw error;
  } finally {
    await plugin.stop();
  }
}
