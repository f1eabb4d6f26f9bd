// vscode-jsonrpc: JSON-RPC over the plugin's stdin and stdout, as between an editor and its language server.
'use strict';

const { spawn } = require('node:child_process');
const rpc = require('vscode-jsonrpc/node');
const contract = require('./contract');

const ECHO = new rpc.RequestType1('echo');
const COUNT = new rpc.RequestType0('count');
const ONE_WAY = new rpc.NotificationType1('oneWay');

/** Answers the host until it closes this plugin's stdin. */
function serve() {
  const handler = contract.handlerFromEnv();
  const connection = rpc.createMessageConnection(process.stdin, process.stdout);
  let oneWays = 0;
  connection.onRequest(ECHO, (text) => {
    handler();
    return text;
  });
  connection.onRequest(COUNT, () => oneWays);
  connection.onNotification(ONE_WAY, () => {
    handler();
    oneWays += 1;
  });
  connection.onClose(() => process.exit());
  connection.listen();
}

/** Starts this program again as the plugin. */
function start() {
  const child = spawn(process.execPath, [__filename, 'plugin'], { stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  const connection = rpc.createMessageConnection(child.stdout, child.stdin);
  // Nobody else tells those who wait for a reply.
  connection.onClose(() => connection.dispose());
  connection.onError(([error]) => contract.fail(error));
  connection.listen();

  const call = (text) => connection.sendRequest(ECHO, text);
  let oneWays = 0;
  return {
    pid: child.pid,
    call,
    stop() {
      child.kill('SIGKILL');
      return ended;
    },

    /** Makes calls, at most `window` of them in flight. */
    flight: (window, calls, text) =>
      new Promise((resolve, reject) => {
        let sent = 0;
        let arrived = 0;
        const reply = (echoed) => {
          contract.check(text, echoed);
          arrived += 1;
          if (arrived === calls) resolve();
          else send();
        };
        const send = () => {
          for (; sent < calls && sent - arrived < window; sent += 1) call(text).then(reply).catch(reject);
        };
        send();
      }),

    /** Sends one-ways, and has the plugin confirm that all arrived. */
    async oneWays(count, text) {
      for (let sent = 1; sent <= count; sent += 1) {
        const written = connection.sendNotification(ONE_WAY, text);
        // Those that are not yet written pile up in memory otherwise.
        if (sent % 1000 === 0) await written;
      }
      oneWays += count;
      const arrived = await connection.sendRequest(COUNT);
      if (arrived !== oneWays) throw new Error(`${oneWays} one-ways were sent, but ${arrived} arrived`);
    },
  };
}

switch (process.argv[2]) {
  case 'host':
    contract.host(start).catch(contract.fail);
    break;
  case 'plugin':
    serve();
    break;
  default:
    contract.fail(new Error(`expected host or plugin, got ${process.argv[2]}`));
}
