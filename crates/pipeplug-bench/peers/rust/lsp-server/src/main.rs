//! lsp-server: JSON-RPC over the plugin's stdin and stdout, as between an editor and its language
//! server.
//!
//! The crate is the server's side; the client's is here what it would be: a thread that writes, one
//! that reads, and a table of what waits.

use std::collections::HashMap;
use std::io::{BufReader, BufWriter};
use std::process::{ChildStdin, ChildStdout};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use contract::process::Plugin;
use contract::{Handler, Mode, Payload as _, Role, role, threads};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use lsp_server::{Connection, Message, Notification, Request, RequestId, Response};
use serde_json::Value;

const ECHO: &str = "echo";
const ONE_WAY: &str = "oneWay";
const COUNT: &str = "count";

fn main() -> Result<()> {
    match role()? {
        Role::Host { mode } => threads::host(&mode, start),
        Role::Plugin { .. } => serve(Handler::from_env()?),
    }
}

fn serve(handler: Handler) -> Result<()> {
    let (connection, io) = Connection::stdio();
    let mut one_ways = 0_u64;
    for message in &connection.receiver {
        match message {
            Message::Request(request) => {
                let result = if request.method == COUNT {
                    one_ways.into()
                } else {
                    handler.run();
                    request.params
                };
                connection.sender.send(Response::new_ok(request.id, result).into())?;
            }
            Message::Notification(_) => {
                handler.run();
                one_ways += 1;
            }
            Message::Response(_) => {}
        }
    }
    drop(connection);
    io.join().context("cannot talk to the host")
}

fn start(mode: &Mode) -> Result<(Plugin, Client)> {
    let (plugin, stdin, stdout) = Plugin::over_pipes(mode)?;
    Ok((plugin, Client::over(stdin, stdout)))
}

/// Where a response goes, or that there will be none.
type Waiter = Sender<Option<Response>>;

/// Sender for each caller that waits for a response; `None` once there will be none.
type Waiting = Arc<Mutex<Option<HashMap<RequestId, Waiter>>>>;

struct Client {
    messages: Sender<Message>,
    waiting: Waiting,
    next_id: AtomicI32,
    one_ways: Mutex<u64>,
}

impl Client {
    fn over(stdin: ChildStdin, stdout: ChildStdout) -> Self {
        let (messages, to_write) = unbounded();
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let answered = waiting.clone();
        thread::spawn(move || write(stdin, &to_write));
        thread::spawn(move || read(stdout, &answered));
        Self { messages, waiting, next_id: AtomicI32::new(0), one_ways: Mutex::new(0) }
    }

    fn send(&self, method: &str, params: Value, waiter: Waiter) -> Result<()> {
        let id = RequestId::from(self.next_id.fetch_add(1, Ordering::Relaxed));
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.as_mut().context("the plugin is gone")?.insert(id.clone(), waiter);
        }
        let request = Request { id, method: method.to_owned(), params };
        self.messages.send(request.into()).context("the plugin is gone")
    }

    fn request(&self, method: &str, params: Value) -> Result<Value> {
        let (sender, receiver) = bounded(1);
        self.send(method, params, sender)?;
        result_of(&receiver)
    }
}

fn write(mut stdin: ChildStdin, messages: &Receiver<Message>) {
    for message in messages {
        // The plugin is gone: its callers hear it from the thread that reads.
        if message.write(&mut BufWriter::new(&mut stdin)).is_err() {
            return;
        }
    }
}

fn read(stdout: ChildStdout, waiting: &Waiting) {
    let mut stdout = BufReader::new(stdout);
    while let Ok(Some(message)) = Message::read(&mut stdout) {
        if let Message::Response(response) = message {
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(caller) = waiting.as_mut().and_then(|waiting| waiting.remove(&response.id))
            {
                // The caller may have given up.
                let _ = caller.send(Some(response));
            }
        }
    }
    let waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
    for caller in waiting.into_iter().flat_map(HashMap::into_values) {
        // As above.
        let _ = caller.send(None);
    }
}

fn result_of(responses: &Receiver<Option<Response>>) -> Result<Value> {
    let response = responses.recv().ok().flatten().context("the plugin is gone")?;
    response.response_result.map_err(|error| anyhow!("error {}: {}", error.code, error.message))
}

fn text_of(value: Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(anyhow!("expected a string, got {other}")),
    }
}

impl threads::Client for Client {
    type Payload = String;

    fn call(&self, payload: &String) -> Result<String> {
        text_of(self.request(ECHO, payload.as_str().into())?)
    }

    fn flight(&self, window: usize, calls: usize, payload: &String) -> Result<()> {
        let (sender, receiver) = unbounded();
        for call in 0..calls {
            if call >= window {
                payload.check(&text_of(result_of(&receiver)?)?)?;
            }
            self.send(ECHO, payload.as_str().into(), sender.clone())?;
        }
        for _ in 0..window.min(calls) {
            payload.check(&text_of(result_of(&receiver)?)?)?;
        }
        Ok(())
    }

    fn one_ways(&self, count: usize, payload: &String) -> Result<()> {
        let params = Value::from(payload.as_str());
        for _ in 0..count {
            let notification = Notification { method: ONE_WAY.to_owned(), params: params.clone() };
            self.messages.send(notification.into()).context("the plugin is gone")?;
        }
        let mut sent = self.one_ways.lock().unwrap_or_else(PoisonError::into_inner);
        *sent += count as u64;
        let arrived = self.request(COUNT, Value::Null)?;
        ensure!(arrived == *sent, "{sent} one-ways were sent, but {arrived} arrived");
        Ok(())
    }
}
