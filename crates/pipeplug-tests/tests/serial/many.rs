//! Many plugins at once.

use std::fs;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pipeplug_host::{EventLoop, Plugin, StoppedBy};
use pipeplug_tests::{HostFootprint, LONG, descriptors, threads};

use crate::{alone, misbehave};

const PLUGINS: usize = 100;

/// Descriptors of the host for one plugin: in, out, stderr, its process, and kill-on-host-exit.
/// Portable builds have both ends of a pipe for the end of the process instead of the last.
const DESCRIPTORS_EACH: usize = 5;

/// Does something with each of them, all at the same time.
fn at_once<T: Send, U: Send>(
    all: impl IntoIterator<Item = T>,
    f: impl Fn(T) -> U + Sync,
) -> Vec<U> {
    thread::scope(|scope| {
        let f = &f;
        let running: Vec<_> = all.into_iter().map(|one| scope.spawn(move || f(one))).collect();
        running.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

#[test]
fn a_hundred_plugins_share_one_loop() {
    let _alone = alone();
    let before = HostFootprint::now();
    {
        let events = EventLoop::new().unwrap();
        let descriptors_before = descriptors();
        let builder = misbehave(&["plain"]).event_loop(events);
        let plugins: Vec<Plugin> =
            at_once(0..PLUGINS, |i| builder.clone().name(format!("plugin {i}")).start().unwrap());
        assert_eq!(descriptors() - descriptors_before, PLUGINS * DESCRIPTORS_EACH);

        at_once(&plugins, |plugin| {
            for i in 0..20 {
                assert_eq!(
                    plugin.call("echo", format!("{i} {}", plugin.name())).unwrap(),
                    format!("{i} {}", plugin.name())
                );
            }
        });
        assert_eq!(threads("pipeplug-loop"), 1, "they have one thread, which runs by now");
        // Nothing was asked of the host, so that no handler ran.
        assert!(threads("pipeplug-") <= 4, "{} threads", threads("pipeplug-"));

        let mut pids: Vec<_> = plugins.iter().map(|plugin| plugin.pid().as_raw()).collect();
        pids.sort_unstable();
        pids.dedup();
        assert_eq!(pids.len(), PLUGINS);
        for stopped in at_once(&plugins, |plugin| plugin.stop().unwrap()) {
            assert!(stopped.status.success(), "{}", stopped.status);
            assert_eq!(stopped.by, StoppedBy::Stop);
        }
    }
    before.assert_restored();
}

/// The delayed work may be the end of a connection, which its owner waits for.
#[test]
fn what_finds_no_thread_is_done_once_there_is_one() {
    let _alone = alone();
    let events = EventLoop::new().unwrap();
    let (tell, told) = mpsc::channel();
    // Its own thread is there.
    let at_first = tell.clone();
    events.after(Duration::ZERO, move || at_first.send("the loop runs").unwrap());
    assert_eq!(told.recv_timeout(LONG), Ok("the loop runs"));
    let (soft, hard) = getrlimit(Resource::RLIMIT_AS).unwrap();
    let in_use: u64 =
        fs::read_to_string("/proc/self/statm").unwrap().split(' ').next().unwrap().parse().unwrap();
    // Too little for the stack of a thread, and enough for all else; and what others have left of
    // theirs is taken.
    setrlimit(Resource::RLIMIT_AS, in_use * 4096 + (1 << 20), hard).unwrap();
    let (go, may_go) = mpsc::channel::<()>();
    let may_go = Arc::new(Mutex::new(may_go));
    let take = || {
        let may_go = Arc::clone(&may_go);
        thread::Builder::new().spawn(move || may_go.lock().unwrap().recv().is_ok()).ok()
    };
    let all: Vec<_> = std::iter::from_fn(take).collect();
    events.spawn(move || tell.send("done").unwrap());
    let early = told.recv_timeout(Duration::from_millis(50));
    setrlimit(Resource::RLIMIT_AS, soft, hard).unwrap();
    drop(go);
    assert!(all.into_iter().all(|one| !one.join().unwrap()), "nothing is sent");
    assert!(early.is_err(), "there was a thread");
    assert_eq!(told.recv_timeout(LONG), Ok("done"));
}
