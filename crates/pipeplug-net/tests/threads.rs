//! Threads and descriptors that are left over. One test alone in its process, so that it counts
//! only its own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use common::{Gate, Way, echo, eventually, pair_on, watchdog};
use pipeplug_net::{EventLoop, Options, Refuse, Reply, Request};

fn descriptors() -> Vec<String> {
    let mut open: Vec<_> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        // What reads the folder is in it itself.
        .filter(|target| !target.starts_with("/proc/"))
        .collect();
    open.sort();
    open
}

/// How many threads of this process have a name that begins so.
fn threads(name: &str) -> usize {
    fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok())
        .filter(|comm| comm.starts_with(name))
        .count()
}

#[test]
fn nothing_is_left_over() {
    let _watchdog = watchdog();
    assert_eq!(threads("pipeplug"), 0);
    let before = descriptors();
    let events = EventLoop::new().unwrap();
    let with_loop = descriptors().len();

    // Threads end a while after a burst, and no sooner than that: the next burst finds them.
    let gate = Gate::default();
    let handler_gate = gate.clone();
    let (host, guest) = pair_on(
        (&events, &events),
        &Options::default(),
        Way::PLAIN,
        Refuse,
        move |_: &mut Request| {
            handler_gate.pass();
            Ok(Reply::empty())
        },
    );
    let calls: Vec<_> = (0..50).map(|_| host.request("block", "").begin().unwrap()).collect();
    // One of them on the reader's thread.
    eventually("fifty handlers run", || threads("pipeplug-handle") >= 49);
    gate.open();
    let idle = Instant::now();
    // On a thread of its own, which takes with it what it keeps for waiting.
    thread::scope(|scope| {
        scope.spawn(|| calls.into_iter().for_each(|call| drop(call.wait().unwrap())));
    });
    assert!(threads("pipeplug-handle") >= 49);
    eventually("idle threads end", || threads("pipeplug-handle") == 0);
    assert!(idle.elapsed() >= Duration::from_secs(4), "threads end at once: {:?}", idle.elapsed());
    drop((host, guest));

    for round in 0..300 {
        let ways = [Way::PLAIN, Way::SMALL_PIPES];
        let (host, guest) =
            pair_on((&events, &events), &Options::default(), ways[round % 2], echo, echo);
        thread::scope(|scope| {
            scope.spawn(|| assert_eq!(host.call("echo", "hello").unwrap(), "hello"));
            scope.spawn(|| {
                assert_eq!(guest.call("echo", vec![b'x'; 100_000]).unwrap().len(), 100_000)
            });
        });
        match round % 4 {
            0 => drop((host, guest)),
            1 => drop((guest, host)),
            2 => host.end("enough"),
            _ => {
                guest.close();
                host.close();
                host.wait_closed(common::LONG).unwrap();
            }
        }
    }
    eventually("the descriptors of all connections are closed", || {
        descriptors().len() == with_loop
    });
    assert_eq!(threads("pipeplug-loop"), 1);

    drop(events);
    eventually("the loop's thread and its handlers' end", || threads("pipeplug") == 0);
    eventually("the loop's descriptors are closed", || descriptors().len() == before.len());
}
