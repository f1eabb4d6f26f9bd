// The pipeplug protocol for a plugin, in both formats, with Node.js alone.
//
// `serve` reads requests and has asynchronous handlers answer them. Calls to the host and streams are not here:
// docs/protocol.md of pipeplug has the whole protocol.

import { once } from 'node:events';
import { Socket } from 'node:net';
import { isUtf8 } from 'node:buffer';

const [ONE_WAY, REQUEST, RESPONSE] = ['1', '2', '3'];
// Limits in bytes: of a command, of its data, and of all that waits to be handled or to be read by the host.
const [LONGEST_COMMAND, LONGEST_DATA, MOST_WAITING] = [64 << 10, 256 << 20, 64 << 20];

/**
 * Answers requests by `answer(command, data)`, which may be async, until the host stops the plugin. `data` is a Buffer,
 * the reply a Buffer or a string.
 */
export async function serve(answer, metadata) {
  const { source, sink } = connect();
  const reader = new Reader(source);
  const handling = new Set();
  let waiting = 0;
  let woken = () => {};

  const send = (id, command, data) => {
    const reply = Buffer.isBuffer(data) ? data : Buffer.from(data ?? '');
    const length = Buffer.byteLength(command);
    const zeroless = (digits) => (String(digits) === '0' ? '' : digits);
    const head = reader.isClassic
      ? `${zeroless(id)}\x003\0${command} ${zeroless(reply.length)}\0`
      : `${id}\x003\0${length}\0${command}\0${reply.length}\0`;
    sink.write(Buffer.concat([Buffer.from(head), reply]));
  };
  const handle = async (id, direction, command, data) => {
    try {
      const reply = await answer(command, data);
      if (direction === REQUEST) send(id, command, reply);
    } catch (error) {
      if (direction === REQUEST) send(id, 'cmd.error', error.message ?? String(error));
      else console.error(`${command}: ${error.message ?? error}`);
    }
    waiting -= data.length + 64;
    woken();
  };

  try {
    for (;;) {
      const { id, direction, command, data } = await reader.chunk();
      if (direction === ONE_WAY && command === 'cmd.stop') break;
      if (direction === REQUEST && (command === null || data === null)) {
        send(id, 'cmd.error', `over the limit of ${LONGEST_COMMAND} bytes for a command, ${LONGEST_DATA} for data`);
      } else if (![ONE_WAY, REQUEST].includes(direction) || command === null || data === null) {
        continue;
      } else if (direction === REQUEST && command === 'GetMetadata') {
        send(id, command, JSON.stringify(metadata));
      } else if (direction === REQUEST && command === 'cmd.ping') {
        send(id, command, '');
      } else if (direction === REQUEST || !command.startsWith('cmd.')) {
        waiting += data.length + 64;
        const done = handle(id, direction, command, data);
        handling.add(done);
        done.finally(() => handling.delete(done));
      }
      while (waiting > MOST_WAITING) await new Promise((resolve) => (woken = resolve));
      while (sink.writableLength > MOST_WAITING) await once(sink, 'drain');
    }
  } catch (error) {
    console.error(`the connection has ended: ${error.message}`);
    process.exit(1);
  }
  await Promise.all(handling);
  sink.end(() => process.exit(0));
}

// Streams of the descriptors that the arguments name, or else of stdin and stdout.
function connect() {
  const numbers = process.argv.slice(2, 4);
  let descriptors = [0, 1];
  if (numbers.length === 2 && numbers.every((number) => /^[0-9]+$/.test(number))) {
    process.argv.splice(2, 2);
    descriptors = numbers.map(Number);
  } else {
    // Nothing else may be written between chunks.
    console.log = console.info = console.debug = console.error;
  }
  const [source, sink] = descriptors;
  const reading = new Socket({ fd: source, readable: true, writable: false });
  const writing = new Socket({ fd: sink, readable: false, writable: true });
  writing.on('error', (error) => {
    console.error(`the host does not read: ${error.message}`);
    process.exit(1);
  });
  return { source: reading, sink: writing };
}

// Chunks of a stream. The first one shows the format.
class Reader {
  constructor(stream) {
    this.pieces = stream[Symbol.asyncIterator]();
    this.piece = Buffer.alloc(0);
    this.at = 0;
    this.isClassic = null;
  }

  // The next chunk. What is over its limit is null. Ids stay text, since they may exceed what a number holds.
  async chunk() {
    let id = await this.digits();
    let direction = await this.digits();
    let third = null;
    if (this.isClassic === null) {
      this.isClassic = id.digits === '' || direction.digits === '';
      if (!this.isClassic) {
        third = await this.digits();
        this.isClassic = third.end !== 0 || third.digits.length > 20;
      }
    }
    id = this.number(id);
    direction = this.number(direction);
    let command;
    if (this.isClassic) {
      command = await this.classicCommand(third);
    } else {
      command = await this.field(this.number(third ?? (await this.digits())), LONGEST_COMMAND);
      if ((await this.byte()) !== 0) throw new Error('no NUL after a command');
    }
    const isKnown = [ONE_WAY, REQUEST, RESPONSE].includes(direction);
    if (isKnown && command !== null && !isUtf8(command)) throw new Error('a command that is not UTF-8');
    const data = await this.field(this.number(await this.digits()), LONGEST_DATA);
    return { id, direction, command: command && command.toString(), data };
  }

  async more() {
    const { value, done } = await this.pieces.next();
    if (done) throw new Error('end of the input');
    this.piece = value;
    this.at = 0;
  }

  async byte() {
    while (this.at === this.piece.length) await this.more();
    return this.piece[this.at++];
  }

  // At most `count` bytes, at least one.
  async some(count) {
    while (this.at === this.piece.length) await this.more();
    const some = this.piece.subarray(this.at, this.at + count);
    this.at += some.length;
    return some;
  }

  // Digits, 21 at most, and the byte after them.
  async digits() {
    let digits = '';
    while (digits.length <= 20) {
      const byte = await this.byte();
      if (byte < 0x30 || byte > 0x39) return { digits, end: byte };
      digits += String.fromCharCode(byte);
    }
    return { digits, end: null };
  }

  number({ digits, end }) {
    const isValid = this.isClassic ? /^(0|[1-9][0-9]*)?$/ : /^(0|[1-9][0-9]*)$/;
    if (end !== 0 || !isValid.test(digits) || BigInt(digits) >= 1n << 64n) {
      throw new Error(`not a number of a chunk: ${JSON.stringify(digits)} before byte ${end}`);
    }
    return digits || '0';
  }

  // A command of the classic format, which a space ends. `read` is what was read of it.
  async classicCommand(read) {
    const bytes = Array.from(read?.digits ?? '', (digit) => digit.charCodeAt(0));
    let length = bytes.length;
    let byte = read?.end ?? (await this.byte());
    for (; byte !== 0x20; byte = await this.byte()) {
      if (byte === 0) throw new Error('a NUL in a command');
      if (++length <= LONGEST_COMMAND) bytes.push(byte);
    }
    return length <= LONGEST_COMMAND ? Buffer.from(bytes) : null;
  }

  async field(digits, limit) {
    const length = Number(digits);
    const pieces = [];
    for (let left = length; left > 0; ) {
      const some = await this.some(left);
      left -= some.length;
      if (length <= limit) pieces.push(some);
    }
    return length <= limit ? Buffer.concat(pieces) : null;
  }
}
