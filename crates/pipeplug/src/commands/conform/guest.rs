//! A plugin under test: how it is started, and its process beside its [`Peer`].

use std::convert::Infallible;
use std::fs::File;
use std::io::Read as _;
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use pipeplug_host::launcher::Process;
use pipeplug_host::process::Signal;
use pipeplug_host::{PluginBuilder, StartError, WaitStatus};
use pipeplug_wire::{Format, command};
use serde_json::{Map, Value, json};

use super::outcome::{Checked, Stop, came, not_applicable};
use super::peer::{Peer, is_error, shown};
use crate::output::text::{Escaped, took};

/// Bytes of standard error that are kept.
const STDERR_MAX: usize = 64 << 10;
/// Time for the status of a process whose pipe has ended.
const STATUS_TIMEOUT: Duration = Duration::from_millis(500);

/// Head of the message about a plugin that could not be started.
pub(super) const NOT_STARTED: &str = "it could not be started: ";

/// Every feature of the protocol.
pub(super) const FEATURES: &str = "flow context cancel stream failure progress config log";

/// Way to reach the plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// As the command line says.
    Usual,
    /// Descriptors 3 and 4.
    Pipes,
    /// Standard input and output.
    Stdio,
    /// Descriptors of these numbers.
    Numbers(u8, u8),
}

/// A call that the checks may make.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) cmd: String,
    pub(super) data: Vec<u8>,
}

/// Settings of all checks of a plugin.
pub(super) struct Setup<'a> {
    /// Makes a builder of the plugin, or says why the plugin cannot be reached in this way.
    pub(super) builder: Box<dyn Fn(Way) -> Result<PluginBuilder, String> + Send + Sync + 'a>,
    pub(super) format: Format,
    pub(super) limit: Duration,
    /// Call that is answered.
    pub(super) call: Call,
    /// Call that takes a second.
    pub(super) slow: Call,
    /// Answers to requests of the plugin.
    pub(super) answers: Vec<Call>,
    pub(super) config: Option<String>,
    /// Metadata of the host, beside that of the protocol.
    pub(super) metadata: Vec<(String, String)>,
    /// True if the pipes are the plugin's own, and no program in between passes the bytes on.
    pub(super) is_direct: bool,
}

/// A running plugin.
pub(super) struct Guest<'a> {
    pub(super) setup: &'a Setup<'a>,
    pub(super) peer: Peer,
    pub(super) process: Box<dyn Process>,
    stderr: Drained,
    /// Answer to `GetMetadata`.
    pub(super) metadata: Map<String, Value>,
}

impl Setup<'_> {
    /// Metadata of the host, naming these features and further keys.
    pub(super) fn offer(&self, features: &str, keys: &[(&str, &str)]) -> Vec<u8> {
        let mut offer = Map::new();
        for (key, value) in &self.metadata {
            offer.insert(key.clone(), json!(value));
        }
        offer.insert("pipeplug.protocol".into(), json!("1"));
        offer.insert("pipeplug.features".into(), json!(features));
        offer.insert("pipeplug.name".into(), json!("pipeplug conform"));
        if let Some(config) = &self.config {
            offer.insert("pipeplug.config".into(), json!(config));
        }
        for (key, value) in keys {
            offer.insert((*key).into(), json!(value));
        }
        Value::Object(offer).to_string().into_bytes()
    }

    /// Starts the plugin, and sends nothing.
    pub(super) fn start(&self) -> Checked<Guest<'_>> {
        self.start_by(Way::Usual, self.format)
    }

    /// Starts the plugin in this way, to speak this format.
    pub(super) fn start_by(&self, way: Way, format: Format) -> Checked<Guest<'_>> {
        let builder = (self.builder)(way).map_err(not_applicable)?;
        let started = builder.start_process().map_err(|error| not_started(&error, way))?;
        let (from_guest, to_guest) = (started.from_guest, started.to_guest);
        let mut peer = Peer::new("the plugin", from_guest, to_guest, format, self.limit)
            .map_err(|error| came(format!("its pipes cannot be used: {error}")))?;
        peer.known =
            self.answers.iter().map(|answer| (answer.cmd.clone(), answer.data.clone())).collect();
        let stderr = started.stderr.map_or_else(Drained::default, drain);
        drop(started.stdout.map(drain));
        let (process, metadata) = (started.process, Map::new());
        Ok(Guest { setup: self, peer, process, stderr, metadata })
    }

    /// Starts the plugin and exchanges metadata, naming no feature.
    pub(super) fn begin(&self) -> Checked<Guest<'_>> {
        self.begin_with("", &[])
    }

    /// Starts the plugin and exchanges metadata, naming these features and further keys.
    pub(super) fn begin_with(&self, features: &str, keys: &[(&str, &str)]) -> Checked<Guest<'_>> {
        let mut guest = self.start()?;
        guest.hello(features, keys)?;
        Ok(guest)
    }

    /// Starts the plugin, naming these features. Not applicable if the plugin does not name all of
    /// them.
    pub(super) fn negotiate(&self, features: &str, keys: &[(&str, &str)]) -> Checked<Guest<'_>> {
        let guest = self.begin_with(features, keys)?;
        for feature in features.split(' ') {
            if !guest.names(feature) {
                return Err(not_applicable(format!("the plugin does not name `{feature}`")));
            }
        }
        Ok(guest)
    }
}

impl Guest<'_> {
    /// Exchanges metadata.
    pub(super) fn hello(&mut self, features: &str, keys: &[(&str, &str)]) -> Checked {
        let offer = self.setup.offer(features, keys);
        self.hello_raw(&offer)?;
        if features.split(' ').any(|feature| feature == "flow") && self.names("flow") {
            self.peer.credit = Some(0);
        }
        Ok(())
    }

    /// Exchanges metadata with this buffer.
    pub(super) fn hello_raw(&mut self, buffer: &[u8]) -> Checked {
        let response =
            self.call(command::GET_METADATA, buffer).map_err(|stop| self.explained(stop))?;
        if is_error(&response) {
            return Ok(());
        }
        match serde_json::from_slice(&response.buffer) {
            Ok(Value::Object(metadata)) => self.metadata = metadata,
            _ => {
                return Err(came(format!(
                    "metadata that are no JSON object: {}",
                    shown(&response)
                )));
            }
        }
        Ok(())
    }

    /// True if the plugin names the feature.
    pub(super) fn names(&self, feature: &str) -> bool {
        self.words("pipeplug.features").any(|word| word == feature)
    }

    /// Words of a value of the metadata.
    pub(super) fn words(&self, key: &str) -> impl Iterator<Item = &str> {
        let value = self.metadata.get(key).and_then(Value::as_str).unwrap_or_default();
        value.split(' ').filter(|word| !word.is_empty())
    }

    /// Value of a window in the metadata.
    pub(super) fn window(&self, key: &str, default: u64) -> u64 {
        let value = self.metadata.get(key).and_then(Value::as_str).and_then(parse_number);
        value.unwrap_or(default).max(1)
    }

    /// Makes the user's call, which has to be answered by something other than an error.
    pub(super) fn users_call(&mut self) -> Checked<Call> {
        let call = self.setup.call.clone();
        let response = self.call(&call.cmd, &call.data)?;
        if is_error(&response) {
            return Err(not_applicable(format!(
                "the plugin has no command that answers: {:?} gives {}; --call CMD=DATA names one",
                call.cmd,
                shown(&response)
            )));
        }
        Ok(call)
    }

    /// Begins the user's slow call, and returns its id.
    pub(super) fn begin_slow(&mut self) -> Checked<u64> {
        let call = self.setup.slow.clone();
        let id = self.request(&call.cmd, &call.data)?;
        match self.find(super::probe::SLOW, |chunk| super::peer::is_response(chunk, id))? {
            Some(response) => Err(not_applicable(format!(
                "the plugin has no slow command: {:?} gives {} at once; --slow CMD=DATA names one",
                call.cmd,
                shown(&response)
            ))),
            None => Ok(id),
        }
    }

    /// Waits for the end of the process.
    pub(super) fn status(&mut self, timeout: Duration) -> Checked<Option<WaitStatus>> {
        // Its last answers must not keep it.
        let until = Instant::now() + timeout;
        loop {
            self.settle_if_open()?;
            let left = until.saturating_duration_since(Instant::now());
            let step = left.min(Duration::from_millis(20));
            match self.process.wait_timeout(step) {
                Ok(Some(status)) => return Ok(Some(status)),
                Ok(None) if left.is_zero() => return Ok(None),
                Ok(None) => {}
                Err(error) => return Err(came(format!("its process cannot be watched: {error}"))),
            }
        }
    }

    fn settle_if_open(&mut self) -> Checked {
        self.peer.find(Duration::ZERO, |_| false).map(drop)
    }

    /// Waits for the end of the process, which has to come.
    pub(super) fn exits(&mut self) -> Checked<WaitStatus> {
        let limit = self.setup.limit;
        self.status(limit)?.ok_or_else(|| came(format!("it still ran after {}", took(limit))))
    }

    /// Waits for the end of the process, with the exit status 0.
    pub(super) fn exits_with_0(&mut self) -> Checked {
        match self.exits()? {
            status if status.success() => Ok(()),
            status => Err(came(self.with_last_words(format!("it ended with {status}")))),
        }
    }

    /// Sends a signal to the plugin.
    pub(super) fn signal(&self, signal: Signal) -> Checked {
        self.process.signal(signal).map(drop).map_err(|error| came(error.to_string()))
    }

    /// Text that the plugin has written to its standard error.
    pub(super) fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until all is read that the plugin has written to its standard error. It has ended, and so have those that
    /// it started, or a moment is over.
    pub(super) fn wait_for_stderr(&self) {
        self.stderr.wait_end(STATUS_TIMEOUT);
    }

    /// Adds the exit status and the last line of standard error, if the plugin has ended.
    pub(super) fn explained(&mut self, stop: Stop) -> Stop {
        let Stop::Failed(mut text) = stop else { return stop };
        if self.state != super::peer::Input::Open
            && let Ok(Some(status)) = self.process.wait_timeout(STATUS_TIMEOUT)
        {
            text.push_str(&format!("; it ended with {status}"));
            return came(self.with_last_words(text));
        }
        came(with_last_line(text, &self.stderr()))
    }

    /// Adds the last line of standard error of a plugin that has ended, which may still be on its way.
    fn with_last_words(&self, text: String) -> String {
        self.wait_for_stderr();
        with_last_line(text, &self.stderr())
    }
}

fn with_last_line(mut text: String, stderr: &str) -> String {
    if let Some(line) = stderr.lines().rfind(|line| !line.trim().is_empty()) {
        text.push_str(&format!("; its stderr ends with: {}", Escaped(line)));
    }
    text
}

impl Deref for Guest<'_> {
    type Target = Peer;

    fn deref(&self) -> &Peer {
        &self.peer
    }
}

impl DerefMut for Guest<'_> {
    fn deref_mut(&mut self) -> &mut Peer {
        &mut self.peer
    }
}

/// Parses a `number` of the protocol's grammar.
pub(super) fn parse_number(text: &str) -> Option<u64> {
    let is_number =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_number)
}

fn not_started(error: &StartError, way: Way) -> Stop {
    match way {
        Way::Usual => came(format!("{NOT_STARTED}{error}")),
        _ => not_applicable(format!("it cannot be started in this way: {error}")),
    }
}

/// Last bytes of a stream, which a thread reads to its end.
#[derive(Debug, Default)]
pub(super) struct Drained {
    kept: Arc<Mutex<Vec<u8>>>,
    /// Disconnected at the end of the stream. `None` if there is no stream.
    end: Option<Receiver<Infallible>>,
}

impl Drained {
    /// Text of what was read until now.
    pub(super) fn text(&self) -> String {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&kept).into_owned()
    }

    /// Waits until the stream has ended and all of it was read, at most for this time.
    pub(super) fn wait_end(&self, limit: Duration) {
        if let Some(end) = &self.end {
            // Nothing is ever sent: both errors end the wait.
            let _ = end.recv_timeout(limit);
        }
    }
}

/// Reads a stream until its end, on a thread of its own.
pub(super) fn drain(fd: OwnedFd) -> Drained {
    // The host's ends do not block; this thread has nothing else to do.
    let flags = fcntl(&fd, FcntlArg::F_GETFL).map_or(OFlag::empty(), OFlag::from_bits_retain);
    if fcntl(&fd, FcntlArg::F_SETFL(flags & !OFlag::O_NONBLOCK)).is_err() {
        return Drained::default();
    }
    let (until_end, end) = mpsc::channel();
    let drained = Drained { kept: Arc::default(), end: Some(end) };
    let kept = Arc::clone(&drained.kept);
    let mut pipe = File::from(fd);
    thread::spawn(move || {
        // Dropped with the thread.
        let _until_end: mpsc::Sender<Infallible> = until_end;
        let mut some = vec![0; 4096];
        loop {
            match pipe.read(&mut some) {
                Ok(0) => return,
                Ok(count) => {
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    kept.extend_from_slice(&some[..count]);
                    let surplus = kept.len().saturating_sub(STDERR_MAX);
                    kept.drain(..surplus);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    drained
}
