//! A whole connection, with open calls and a handler, against a hostile peer.
//!
//! The first bytes of an input are the plan (settings, calls, cuts), up to the first 0xff; the peer
//! sends what follows and closes its side. What has to come of it is told by the codec alone, which
//! reads the same stream.

#![no_main]

mod model;

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{PipeReader, Read, Write, pipe};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use model::{Model, Plan, is_of_stream};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use pipeplug_net::wire::{Chunk, Direction, Limits, Received, Receiver, command};
use pipeplug_net::{
    CallError, CloseReason, Connection, Endpoint, EventLoop, Handler, HandlerError, Options,
    PendingCall, ProgressReports, Reading, Reply, Request, StreamCall,
};

/// Far more than anything takes here; what runs into it hangs.
const LONG: Duration = Duration::from_secs(20);

/// Nothing that a pipe does not hold, so that the peer need not wait.
const MOST: usize = 16 << 10;

/// Largest number of descriptors of the process at rest, however many connections there were.
const DESCRIPTORS: usize = 200;

fuzz_target!(init: {
    // As the start of a Rust program does: writing to a peer that is gone is an error, and does
    // not kill the process. Threads inherit it.
    SigSet::from(Signal::SIGPIPE).thread_block().expect("it is a signal");
}, |data: &[u8]| {
    let Some(at) = data.iter().position(|&byte| byte == 0xff) else { return };
    let (plan, stream) = (Plan::new(&data[..at]), &data[at + 1..data.len().min(at + 1 + MOST)]);
    attack(&plan, stream);
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    if COUNT.fetch_add(1, Ordering::Relaxed) % 1024 == 1023 {
        // A handler's thread that has called has a descriptor to be woken by, and stays for a
        // while.
        let until = std::time::Instant::now() + LONG;
        while descriptors() >= DESCRIPTORS {
            assert!(std::time::Instant::now() < until, "{} descriptors stay open", descriptors());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
});

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Answers, calls back, and counts how often it is told of the end.
#[derive(Default)]
struct Victim {
    ended: AtomicUsize,
    closed: AtomicUsize,
}

impl Handler for Victim {
    fn handle(&self, request: &mut Request) -> Result<Reply, HandlerError> {
        match request.command() {
            "e" => Ok(request.take_buffer().into()),
            // Ends with the connection at the latest.
            "c" => match request
                .connection()
                .request("x", request.buffer())
                .begin()?
                .wait_timeout(LONG)
            {
                Err(CallError::TimedOut { .. }) => hangs("a call of a handler"),
                ended => Ok(ended?.into()),
            },
            "l" => {
                let (buffer, responder) = (request.take_buffer(), request.responder());
                let events = request.connection().events().clone();
                events.spawn(move || {
                    responder.into_iter().for_each(|responder| responder.answer(buffer.as_slice()))
                });
                Ok(Reply::empty())
            }
            "d" => Ok(drop(request.responder()).into()),
            // Parts end with the connection at the latest.
            "s" => {
                let parts = request.parts().map(|part| part.map(|part| part.len()));
                Ok(parts.sum::<Result<usize, _>>()?.to_string().into())
            }
            "p" => {
                let mut reply = request.reply_parts()?;
                for part in request.parts() {
                    reply.send(part?)?;
                }
                Ok(Reply::empty())
            }
            // Each part may have to wait for credit, which comes or does not.
            "o" => {
                let (part, count) = (request.take_buffer(), 20);
                let mut reply = request.reply_parts()?;
                for _ in 0..count {
                    reply.send(part.as_slice())?;
                }
                Ok(Reply::empty())
            }
            "a" => Ok(request.reply_parts()?.abort("as planned").into()),
            "w" => {
                let mut sender = request.connection().notify_stream("x", "")?;
                for _ in 0..3 {
                    sender.send(request.buffer())?;
                }
                Ok(sender.finish()?.into())
            }
            "g" => {
                let count = request.buffer().len() as u64;
                for done in 0..=count {
                    request.progress(done, Some(count), "at work");
                }
                Ok(request.take_buffer().into())
            }
            // Reports before a part, after it, and before an error.
            "r" => {
                request.progress(0, None, "");
                if let Ok(mut reply) = request.reply_parts() {
                    reply.send("part")?;
                    request.progress(1, None, "");
                }
                Err("as planned".into())
            }
            "h" => Ok(Iterator::take(request.parts(), 1).count().to_string().into()),
            "n" => Ok(request.connection().notify("x", request.buffer())?.into()),
            "k" => Ok(request.connection().close().into()),
            _ => request.unknown(),
        }
    }

    fn ended(&self, _reason: &Arc<CloseReason>) {
        self.ended.fetch_add(1, Ordering::SeqCst);
    }

    fn closed(&self, _reason: &Arc<CloseReason>, _connection: Option<&Connection>) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A call, and the counter of its wake-ups where it was polled before its end.
type Call = (PendingCall, Option<Arc<Woken>>);

fn attack(plan: &Plan, stream: &[u8]) {
    static EVENTS: OnceLock<EventLoop> = OnceLock::new();
    let events = EVENTS.get_or_init(|| EventLoop::new().expect("there is a thread"));
    let ((reader, mut output), (mut input, writer)) =
        (pipe().expect("a pipe"), pipe().expect("a pipe"));
    let (reader, writer) = (Endpoint::exclusive(reader), Endpoint::exclusive(writer));
    let connection =
        events.connect(reader, writer, options(plan), Victim::default()).expect("they are pipes");
    let features = [
        ("flow", plan.peer_window.is_some()),
        ("context", plan.has_streams || plan.has_progress),
        ("cancel stream", plan.has_streams),
        ("progress", plan.has_progress),
    ];
    let features = features.map(|(name, is_named)| if is_named { name } else { "" }).join(" ");
    if !features.trim().is_empty() {
        let window = plan.peer_window.as_deref().unwrap_or("100");
        let offered = BTreeMap::from([
            ("pipeplug.features", features.as_str()),
            ("pipeplug.window", window),
            ("pipeplug.stream_window", window),
        ]);
        pipeplug_net::internal::handshake::accept(&connection, |key| offered.get(key).copied());
    }
    let (calls, progress) = begin_calls(plan, &connection);
    let streams = begin_streams(plan, &connection);
    for piece in plan.cut(stream) {
        if output.write_all(piece).is_err() {
            break; // the connection ended for what came ahead
        }
    }
    if plan.closes_input {
        drop(input);
        drop(output);
        check_calls(calls, None);
        check_streams(streams);
        progress.into_iter().for_each(end_of_progress);
        check_end(&connection);
        return;
    }
    let model = Model::of(plan, stream);
    drop(output);
    let (answers, reports) = drain(&mut input, &model);
    check_calls(calls, (!model.may_close).then_some(&model));
    check_streams(streams);
    progress.into_iter().for_each(end_of_progress);
    check_end(&connection);
    model.check_answers(&answers);
    model.check_progress(plan, stream, &reports);
}

fn options(plan: &Plan) -> Options {
    let mut options = Options::default();
    options.name = "fuzz".into();
    options.format = plan.format;
    options.limits = plan.limits();
    options.transfer = plan.transfer;
    options.spin = Duration::ZERO;
    if plan.is_dedicated {
        options.reading = Reading::Dedicated;
    }
    if plan.is_narrow {
        (options.window, options.outgoing, options.handlers) = (1, 1, NonZeroUsize::MIN);
    }
    options
}

/// Some calls, in each way to wait for one; those that are given up at once are not among them.
fn begin_calls(plan: &Plan, connection: &Connection) -> (Vec<Call>, Vec<ProgressReports>) {
    let (mut calls, mut reports) = (Vec::new(), Vec::new());
    for number in 0..plan.calls {
        // Not where it would have to wait.
        let mut request = connection.request("x", "hello").nonblocking();
        if plan.has_progress && number % 2 == 1 {
            let (with_progress, these) = request.progress();
            request = with_progress;
            reports.push(these);
        }
        let Ok(mut call) = request.begin() else { continue };
        match number % 3 {
            0 => drop(call),
            1 => calls.push((call, None)),
            _ => {
                let woken = Arc::new(Woken::default());
                let waker = Waker::from(Arc::clone(&woken));
                let polled = Pin::new(&mut call).poll(&mut Context::from_waker(&waker));
                assert!(polled.is_pending(), "there is a reply before any byte: {polled:?}");
                calls.push((call, Some(woken)));
            }
        }
    }
    (calls, reports)
}

/// One stream of each kind. The ids of calls come first.
fn begin_streams(plan: &Plan, connection: &Connection) -> Vec<StreamCall> {
    if !plan.has_streams {
        return Vec::new();
    }
    // Not where it would have to wait.
    if plan.peer_window.is_none()
        && plan.format.is_some()
        && let Ok(mut sender) = connection.notify_stream("x", "")
    {
        let _ = sender.send("part"); // the window takes one
    }
    let call = connection.request("x", "hello").nonblocking().timeout(LONG);
    call.stream().into_iter().collect()
}

/// The reports of a call that has ended are at most the last one that came.
fn end_of_progress(reports: ProgressReports) {
    assert!(reports.count() <= 1, "reports are kept that were overtaken");
}

/// Every stream ends.
fn check_streams(streams: Vec<StreamCall>) {
    for stream in streams {
        let (mut sender, parts) = stream.split();
        if let Err(CallError::TimedOut { .. }) = parts.reply() {
            hangs("a stream");
        }
        // The call has ended.
        assert!(sender.send("part").is_err());
    }
}

/// Every call ends, and with what the stream says.
fn check_calls(calls: Vec<Call>, model: Option<&Model>) {
    for (mut call, woken) in calls {
        let id = call.thread_id().as_u64();
        let outcome = match &woken {
            None => call.wait_timeout(LONG),
            Some(woken) => {
                let deadline = std::time::Instant::now() + LONG;
                while woken.0.load(Ordering::SeqCst) == 0 {
                    assert!(std::time::Instant::now() < deadline, "a call that was polled hangs");
                    std::thread::sleep(Duration::from_micros(20));
                }
                match Pin::new(&mut call).poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(outcome) => outcome,
                    Poll::Pending => panic!("a call woke who polled it, and has not ended"),
                }
            }
        };
        if let Err(CallError::TimedOut { .. }) = &outcome {
            hangs("a call");
        }
        if let Some(woken) = woken {
            assert_eq!(woken.0.load(Ordering::SeqCst), 1, "a call ends once");
        }
        if let Some(model) = model {
            model.check_call(id, &outcome);
        }
    }
}

fn check_end(connection: &Connection) {
    if connection.wait_closed(LONG).is_none() {
        hangs("the connection");
    }
    let victim: &Victim = connection.handler().expect("it was made with one");
    let [ended, closed] = [&victim.ended, &victim.closed].map(|count| count.load(Ordering::SeqCst));
    assert_eq!((ended, closed), (1, 1), "its end is told once");
    let stats = connection.stats();
    assert_eq!((stats.open_calls, stats.open_streams, stats.held), (0, 0, 0), "{stats:?}");
}

/// Reads what the connection sends, up to its end: the answers by their ids, and how many of them
/// came before the last report of progress with that id.
fn drain(
    input: &mut PipeReader,
    model: &Model,
) -> (BTreeMap<u64, Vec<Chunk>>, BTreeMap<u64, usize>) {
    let mut receiver = Receiver::new(model.format, Limits::default());
    let mut answers = BTreeMap::<_, Vec<_>>::new();
    let mut reports = BTreeMap::new();
    let mut bytes = [0; 4096];
    loop {
        let mut fds = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(LONG).unwrap_or(PollTimeout::MAX);
        if poll(&mut fds, timeout) == Ok(0) {
            hangs("what the connection sends");
        }
        match input.read(&mut bytes).expect("a pipe can be read") {
            0 => break,
            count => receiver.push(&bytes[..count]),
        }
        loop {
            let chunk = match receiver.next().expect("a connection sends chunks") {
                Some(Received::Chunk(chunk)) => chunk.to_chunk(),
                Some(Received::Large(chunk)) => chunk,
                Some(Received::Skipped(skipped)) => {
                    panic!("a connection sends what can be taken: {skipped}")
                }
                None => break,
            };
            if chunk.direction != Direction::Response || is_of_stream(&chunk) {
                continue;
            }
            let id = chunk.thread_id.as_u64();
            if chunk.command == command::PROGRESS {
                reports.insert(id, answers.get(&id).map_or(0, Vec::len));
            } else {
                answers.entry(id).or_default().push(chunk);
            }
        }
    }
    (answers, reports)
}

fn hangs(what: &str) -> ! {
    eprintln!("{what} hangs: no end within {LONG:?}");
    std::process::abort()
}
