//! Plugins that take what they can get: how much memory the host spends on each, and how its other
//! plugins fare.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use pipeplug_host::Responder;
use pipeplug_host::{EventLoop, Grace, HandlerError, Plugin, PluginBuilder, Reply, Request};
use pipeplug_testkit::Gate;
use pipeplug_tests::{LONG, forget_memory_peak, memory_in_use, memory_peak};

use crate::{alone, misbehave};

const MIB: usize = 1 << 20;

/// Duration of each attack.
const TIME: Duration = Duration::from_millis(500);

/// A call to a plugin that does as it should never takes longer, whatever the other one does;
/// thousands of times what it takes, since nothing is promised of a machine that is busy with
/// something else.
const WORST: Duration = Duration::from_secs(2);

/// Behaviour of the host's handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handler {
    Refuses,
    /// Gives 64 KiB.
    Answers,
    /// Never returns, until all is over.
    Blocks,
    /// Puts every answer off.
    PutsOff,
    /// Calls the plugin, which never answers.
    CallsBack,
}

/// Activity of the host during the attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    /// A call, for which it has to read on.
    Waits,
    /// Nothing.
    GaveUp,
    /// Four threads that call and notify as fast as they can.
    Sends,
}

/// Makes a test of each row, so that each has a process of its own where the runner does that:
/// memory that one has given back may be the next one's.
macro_rules! bounded {
    ($($name:ident: $how:expr, $handler:ident, $host:ident, $most:literal;)*) => {$(
        #[test]
        fn $name() {
            measure(&$how, Handler::$handler, Host::$host, $most);
        }
    )*};
}

// Arguments of `misbehave`, what the host does, and the most memory that this may take, in MiB.
bounded! {
    requests_and_reads_no_answer: ["floods", "", "requests"], Answers, GaveUp, 64;
    requests_that_are_read_on_for: ["floods", "", "requests"], Answers, Waits, 128;
    requests_whose_handlers_call_back: ["floods", "", "requests"], CallsBack, Waits, 128;
    requests_that_are_put_off: ["floods", "", "requests"], PutsOff, Waits, 128;
    one_ways_that_are_stuck: ["floods", "", "one-ways"], Blocks, GaveUp, 48;
    one_ways_that_are_read_on_for: ["floods", "", "one-ways"], Blocks, Waits, 128;
    empty_one_ways: ["floods", "", "empty-one-ways"], Blocks, Waits, 128;
    one_ways_past_what_was_agreed: ["floods", "flow", "empty-one-ways"], Blocks, GaveUp, 48;
    one_ways_past_what_was_agreed_that_are_read_on_for: ["floods", "flow", "empty-one-ways"], Blocks, Waits, 128;
    a_million_requests_that_are_put_off: ["asks", "1000000"], PutsOff, Waits, 128;
    a_million_requests_that_are_stuck: ["asks", "1000000"], Blocks, Waits, 128;
    replies_that_come_twice: ["answers-twice"], Refuses, Sends, 32;
    what_is_never_read: ["never-reads"], Refuses, Sends, 32;
    pings: ["floods", "", "pings"], Refuses, Waits, 48;
    unknown_requests: ["floods", "", "unknown"], Refuses, Waits, 48;
    commands_over_the_limit: ["floods", "", "commands"], Refuses, Waits, 48;
    // What waits while a handler says no is held to the same bound as what waits for a slow one.
    long_commands: ["floods", "", "long-commands"], Refuses, Waits, 128;
    one_ways: ["floods", "", "one-ways"], Refuses, GaveUp, 48;
    a_buffer_that_is_declared: ["declares-buffer"], Refuses, Waits, 8;
    a_command_that_is_declared: ["declares-command"], Refuses, Waits, 8;
    skipped_chunks: ["floods", "", "directions"], Refuses, Waits, 8;
    unasked_replies: ["floods", "", "unasked"], Refuses, Waits, 8;
    stops: ["floods", "", "stops"], Refuses, Waits, 8;
    credits: ["floods", "", "credits"], Refuses, Waits, 8;
    cancels: ["floods", "", "cancels"], Refuses, Waits, 8;
    contexts: ["floods", "", "contexts"], Refuses, Waits, 8;
    a_line_without_end: ["line-without-end"], Refuses, Waits, 16;
    lines_without_end: ["lines-without-end"], Refuses, Waits, 16;
}

/// State of a handler.
#[derive(Clone)]
struct Means {
    /// Shut until the plugin has done its worst.
    gate: Gate,
    /// None once nothing is to be put off any more.
    put_off: Arc<Mutex<Option<Vec<Responder>>>>,
}

fn builder(how: &[&str], handler: Handler, means: &Means) -> PluginBuilder {
    let (means, gate) = (means.clone(), means.gate.clone());
    misbehave(how)
        .grace(Grace::each(Duration::from_millis(10)))
        .on_line(move |_, _| gate.pass())
        .handler(move |_: &Plugin, request: &mut Request| -> Result<Reply, HandlerError> {
            match handler {
                Handler::Refuses => return request.unknown(),
                Handler::Answers => return Ok(vec![b'.'; 64 << 10].into()),
                Handler::Blocks => means.gate.pass(),
                Handler::PutsOff => match &mut *means.put_off.lock().unwrap() {
                    Some(put_off) => put_off.extend(request.responder()),
                    // What still waits at the end is not kept.
                    None => return request.unknown(),
                },
                Handler::CallsBack => return Ok(request.connection().call_bytes("x", "")?.into()),
            }
            Ok(Reply::empty())
        })
}

/// Latencies of the calls within `time`, the shortest first.
fn latencies(plugin: &Plugin, time: Duration) -> Vec<Duration> {
    let end = Instant::now() + time;
    let mut all = Vec::new();
    while Instant::now() < end {
        let begun = Instant::now();
        assert_eq!(plugin.call("echo", "hello").unwrap(), "hello");
        all.push(begun.elapsed());
    }
    all.sort_unstable();
    all
}

fn at(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() - 1) * percent / 100]
}

fn send_without_end(plugin: &Plugin, number: usize) {
    let large = vec![b'.'; 100_000];
    for i in 0.. {
        let buffer = if i % 2 == 0 { &large[..] } else { b"" };
        let sent = match number % 2 {
            0 => plugin.notify("tell", buffer).is_ok(),
            // Given up at once, so that the calls do not add up.
            _ => plugin.request("ask", buffer).begin().map(drop).is_ok(),
        };
        if !sent {
            return;
        }
    }
}

/// Lets one do its worst, and says what that took.
fn measure(how: &[&str], handler: Handler, host: Host, most: usize) {
    let _alone = alone();
    let events = EventLoop::new().unwrap();
    let good = misbehave(&["plain"]).event_loop(events.clone()).start().unwrap();
    latencies(&good, Duration::from_millis(50));
    let before = latencies(&good, Duration::from_millis(200));
    let means = Means { gate: Gate::default(), put_off: Arc::new(Mutex::new(Some(Vec::new()))) };
    let bad = builder(how, handler, &means).event_loop(events).start().unwrap();
    forget_memory_peak();
    let memory = memory_in_use(std::process::id());

    let call = bad.request("x", "").begin().unwrap();
    let open = (host != Host::GaveUp).then_some(call);
    let (during, peak) = thread::scope(|scope| {
        let bad = &bad;
        if host == Host::Sends {
            for number in 0..4 {
                scope.spawn(move || send_without_end(bad, number));
            }
        }
        let during = latencies(&good, TIME);
        // Another plugin's life goes on, too.
        let (told, lines) = mpsc::channel();
        let events = good.connection().events().clone();
        let third = misbehave(&["plain"])
            .event_loop(events)
            .on_line(move |_, line| told.send(line.to_owned()).unwrap());
        let third = third.start().unwrap();
        third.call("err-lines", "1").unwrap();
        assert_eq!(lines.recv_timeout(LONG).unwrap(), "line 0");
        third.stop().unwrap();
        let peak = memory_peak(std::process::id());
        bad.kill().unwrap();
        (during, peak)
    });
    let grown = peak.saturating_sub(memory) / MIB;
    drop(open);
    let ratio = |percent| at(&during, percent).as_secs_f64() / at(&before, percent).as_secs_f64();
    println!(
        "| {} | {handler:?} | {host:?} | {grown} | {:.1?} | {:.1?} | {:.1} | {:.1} |",
        how.join(" "),
        at(&during, 50),
        at(&during, 99),
        ratio(50),
        ratio(99)
    );
    means.gate.open();
    let put_off = means.put_off.lock().unwrap().take();
    drop(put_off);
    assert!(grown <= most, "{how:?} {handler:?} {host:?}: {grown} MiB more");
    assert!(at(&during, 99) < WORST, "{how:?} {handler:?} {host:?}: {:?}", at(&during, 99));
    assert!(bad.connection().wait_closed(LONG).is_some());
}
