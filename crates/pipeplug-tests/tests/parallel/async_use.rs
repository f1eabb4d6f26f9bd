//! Statements of docs/async.md.

use std::time::{Duration, Instant};

use pipeplug_host::{CallError, Plugin, Supervisor};
use pipeplug_tests::{LONG, SOON, eventually};

use crate::plain;

/// A runtime of one thread, which anything that blocks stops.
fn within<T>(task: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(task)
}

/// Fails where the runtime stands still for a moment while the future is awaited.
async fn beside_a_heart<T>(task: impl Future<Output = T>) -> T {
    let beats = async {
        loop {
            let begun = Instant::now();
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert!(begun.elapsed() < SOON, "the runtime stood still for {:?}", begun.elapsed());
        }
    };
    tokio::select! {
        done = task => done,
        never = beats => never,
    }
}

fn saw(plugin: &Plugin, what: &str) -> bool {
    plugin.call("seen", "").unwrap().lines().any(|line| line == what)
}

#[test]
fn a_call_that_is_dropped_ends_the_work_of_the_plugin() {
    let plugin = plain().start().unwrap();
    within(beside_a_heart(async {
        let call = plugin.request("until-cancelled", "").begin().unwrap();
        tokio::time::timeout(Duration::from_millis(50), call).await.unwrap_err();
        let task = tokio::spawn(plugin.request("until-cancelled", "").begin().unwrap());
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }));
    eventually("both were cancelled", || {
        plugin.call("seen", "").unwrap().matches("cancelled").count() >= 1
    });
    assert!(!saw(&plugin, "not cancelled"));
    plugin.stop().unwrap();
}

#[test]
fn a_plugin_that_does_not_read_blocks_no_task_that_tries() {
    let plugin = plain().start().unwrap();
    pipeplug_tests::send(plugin.pid().as_raw(), nix::sys::signal::Signal::SIGSTOP);
    within(beside_a_heart(async {
        let mut open = Vec::new();
        let error = loop {
            match plugin.request("echo", vec![0; 100_000]).nonblocking().begin() {
                Ok(call) => open.push(call),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, CallError::WouldBlock { .. }), "{error}");
        let begun = Instant::now();
        // With room in the queue the wait is the task's, and its time counts without a timer of the
        // runtime.
        let late = open.pop().unwrap();
        tokio::time::timeout(Duration::from_millis(20), late).await.unwrap_err();
        drop(open);
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    }));
    // What blocks is done elsewhere, beside the tasks.
    within(beside_a_heart(async {
        let owned = plugin.clone();
        let call = tokio::task::spawn_blocking(move || {
            owned.request("echo", vec![0; 100_000_000]).timeout(Duration::from_millis(300)).begin()
        });
        assert!(call.await.unwrap().is_err());
        let owned = plugin.clone();
        tokio::task::spawn_blocking(move || owned.kill()).await.unwrap().unwrap();
        drop(plugin);
    }));
}

#[test]
fn a_supervised_plugin_is_started_beside_the_tasks() {
    let supervisor = Supervisor::builder(plain()).build().unwrap();
    within(beside_a_heart(async {
        let owned = supervisor.clone();
        let call = tokio::task::spawn_blocking(move || owned.request("echo", "x").begin())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(call.await.unwrap(), b"x");
        // It runs.
        let call = supervisor.request("echo", "y").timeout(LONG).begin().unwrap();
        assert_eq!(call.await.unwrap(), b"y");
        tokio::task::spawn_blocking(move || drop(supervisor)).await.unwrap();
    }));
}
