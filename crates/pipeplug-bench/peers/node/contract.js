// The contract with the benchmark's driver; it is that of the Rust peers, ../rust/contract.
'use strict';

const readline = require('node:readline');

const NUMBERS = { sequential: 3, callers: 3, tasks: 3, flight: 3, stream: 3, oneway: 2, bulk: 2, spawn: 1 };

function fail(error) {
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
}

/** The work of the plugin: none, or a busy CPU. */
function handlerFromEnv() {
  const micros = Number(process.env.BENCH_HANDLER_US ?? 0);
  if (!Number.isInteger(micros) || micros < 0) fail(new Error('BENCH_HANDLER_US is no number'));
  if (micros === 0) return () => {};
  return () => {
    const from = performance.now();
    while ((performance.now() - from) * 1000 < micros);
  };
}

function check(sent, reply) {
  if (reply.length !== sent.length) {
    throw new Error(`sent ${sent.length} bytes, but ${reply.length} came back`);
  }
  // Longer ones would be most of the time.
  if (sent.length <= 64 * 1024 && reply !== sent) throw new Error('other bytes came back than were sent');
}

/** Measures what the driver asks for. */
async function host(start) {
  const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const line = async () => (await lines.next()).value;
  const [command, ...numbers] = parse((await line()) ?? '');
  const begin = async (pid) => {
    console.log(`BEGIN ${pid}`);
    if ((await line()) === undefined) throw new Error('the driver went away after BEGIN');
  };

  let stop = () => {};
  const connect = () => {
    const peer = start();
    stop = peer.stop;
    return peer;
  };
  try {
    const result = await measure(command, numbers, connect, begin);
    console.log(typeof result === 'string' ? `NA ${result}` : `END ${JSON.stringify(result)}`);
    for (let last = ''; last !== undefined && last !== 'quit'; ) last = await line();
  } finally {
    await stop();
  }
  process.exit();
}

/** What came out, or why there is no such thing. */
async function measure(command, numbers, start, begin) {
  if (command === 'callers') return 'there is one thread';
  if (command === 'stream') return 'there are no streams';
  if (command === 'spawn') return spawn(start, begin, numbers[0]);
  const peer = start();
  const text = 'x'.repeat(numbers.at(-1));
  switch (command) {
    case 'sequential':
      return calls(peer, begin, text, 1, numbers[0], numbers[1]);
    case 'bulk':
      return calls(peer, begin, text, 1, warmup(numbers[0]), numbers[0]);
    case 'tasks':
      return calls(peer, begin, text, numbers[0], warmup(numbers[1]), numbers[1]);
    case 'flight':
      return atOnce(peer, begin, numbers[1], (count) => peer.flight(numbers[0], count, text));
    default:
      return atOnce(peer, begin, numbers[0], (count) => peer.oneWays(count, text));
  }
}

function parse(line) {
  const [command, ...words] = line.split(' ');
  const numbers = words.map(Number);
  const good = numbers.every((number) => Number.isInteger(number) && number >= 0);
  if (numbers.length !== NUMBERS[command] || !good) throw new Error(`bad command: ${line}`);
  return [command, ...numbers];
}

const warmup = (calls) => Math.max(1, Math.floor(calls / 20));
const share = (calls, callers, caller) => Math.floor(calls / callers) + (caller < calls % callers ? 1 : 0);

function summary(seconds, count, millis) {
  const sorted = Float64Array.from(millis).sort();
  const at = (quantile) => sorted[Math.ceil(quantile * sorted.length) - 1] * 1000;
  return { seconds, count, p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: at(1) };
}

async function spawn(start, begin, times) {
  const text = 'x'.repeat(64);
  const millis = [];
  await begin(0);
  for (let time = 0; time < times; time += 1) {
    const from = performance.now();
    const peer = start();
    check(text, await peer.call(text));
    millis.push(performance.now() - from);
    await peer.stop();
  }
  const seconds = millis.reduce((sum, one) => sum + one, 0) / 1000;
  return summary(seconds, times, millis);
}

/** Callers that each make one call at a time. */
async function calls(peer, begin, text, callers, warm, count) {
  const caller = async (calls, millis) => {
    let last = performance.now();
    for (let call = 0; call < calls; call += 1) {
      check(text, await peer.call(text));
      const now = performance.now();
      millis.push(now - last);
      last = now;
    }
  };
  const run = (count, millis) =>
    Promise.all(Array.from({ length: callers }, (_, number) => caller(share(count, callers, number), millis)));
  await run(warm, []);
  await begin(peer.pid);
  const millis = [];
  const from = performance.now();
  await run(count, millis);
  return summary((performance.now() - from) / 1000, count, millis);
}

async function atOnce(peer, begin, count, run) {
  await run(warmup(count));
  await begin(peer.pid);
  const from = performance.now();
  await run(count);
  return { seconds: (performance.now() - from) / 1000, count };
}

module.exports = { check, fail, handlerFromEnv, host };
