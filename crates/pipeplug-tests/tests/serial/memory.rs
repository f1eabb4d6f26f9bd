//! Memory: input that comes faster than it is handled is held back, not kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use pipeplug_host::EventLoop;
use pipeplug_tests::{
    LONG, eventually, forget_memory_peak, memory_in_use, memory_peak, page_faults,
};

use crate::{alone, misbehave};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

#[test]
fn a_guest_keeps_no_more_one_ways_than_its_window() {
    let _alone = alone();
    const MESSAGES: usize = 20_000;
    for window in [64 * KIB, 4 * MIB] {
        let plugin = misbehave(&["one-at-a-time", &window.to_string()])
            .event_loop(EventLoop::new().unwrap())
            .start()
            .unwrap();
        plugin.call("echo", vec![0; 100 * KIB]).unwrap();
        let pid = plugin.pid().as_raw().try_into().unwrap();
        let before = memory_peak(pid);
        for _ in 0..MESSAGES {
            plugin.notify("slow-count", vec![0; KIB]).unwrap();
        }
        let grown = memory_peak(pid).saturating_sub(before);
        eventually("all were handled", || {
            plugin.call("counted", "").unwrap() == MESSAGES.to_string()
        });
        // They are 20 MiB in all.
        assert!(grown < 2 * window + 4 * MIB, "window {window}: {grown} bytes more");
    }
}

#[test]
fn a_host_keeps_few_of_the_lines_that_wait_for_their_handler() {
    let _alone = alone();
    const LINES: usize = 100_000;
    let go_on = Arc::new(AtomicBool::new(false));
    let seen = Arc::new(AtomicUsize::new(0));
    let (waits, counted) = (Arc::clone(&go_on), Arc::clone(&seen));
    let plugin = misbehave(&["plain"])
        .event_loop(EventLoop::new().unwrap())
        .on_line(move |_, line| {
            while !waits.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
            // One that is missing, or out of its order, is the last that counts.
            if line.starts_with(&format!("line {} ", counted.load(Ordering::SeqCst))) {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        })
        .start()
        .unwrap();
    // It has left its start behind, until which everything waits.
    plugin.call("echo", "").unwrap();
    forget_memory_peak();
    let before = memory_peak(std::process::id());
    let writing = plugin.request("long-err-lines", LINES.to_string()).begin().unwrap();
    for i in 0..300 {
        assert_eq!(plugin.call("echo", i.to_string()).unwrap(), i.to_string());
    }
    go_on.store(true, Ordering::SeqCst);
    writing.wait_timeout(LONG).unwrap();
    eventually("all came", || seen.load(Ordering::SeqCst) == LINES);
    // They are 100 MiB in all.
    let grown = memory_peak(std::process::id()).saturating_sub(before);
    assert!(grown < 20 * MIB, "{grown} bytes more");
}

#[test]
fn a_large_buffer_takes_the_memory_of_the_last_one_which_is_kept_for_a_moment() {
    let _alone = alone();
    // So much is not kept by the allocator.
    const LEN: usize = 48 * MIB;
    let plugin = misbehave(&["plain"]).event_loop(EventLoop::new().unwrap()).start().unwrap();
    plugin.call("echo", "").unwrap();
    let pids = [std::process::id(), plugin.pid().as_raw().try_into().unwrap()];
    let before = pids.map(memory_in_use);
    let mut buffer = plugin.call_bytes("echo", vec![1; LEN]).unwrap();
    // A reply may begin to come before its request has been put away, so that once in a while one
    // has memory of its own.
    let reused = (0..20).any(|_| {
        let before = pids.map(page_faults);
        buffer = plugin.call_bytes("echo", std::mem::take(&mut buffer)).unwrap();
        let after = pids.map(page_faults);
        (0..pids.len()).all(|i| after[i] - before[i] < LEN / 4096 / 4)
    });
    assert!(reused, "each call took new memory");
    assert!(buffer.len() == LEN && buffer.iter().all(|byte| *byte == 1));
    drop(buffer);
    eventually("it was given back", || {
        (0..pids.len()).all(|i| memory_in_use(pids[i]) < before[i] + LEN / 2)
    });
}
