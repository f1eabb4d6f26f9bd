//! Many plugins at once.

use std::thread;

use pipeplug_host::{EventLoop, Plugin, StoppedBy};
use pipeplug_tests::{HostFootprint, descriptors, threads};

use crate::{alone, misbehave};

const PLUGINS: usize = 100;

/// What the host has open for one plugin: in, out, stderr, its process, and what ties that to the host; in place of the
/// latter portable builds have both ends of a pipe that tells of the process.
const DESCRIPTORS_EACH: usize = 5;

/// Does something with each of them, all at the same time.
fn at_once<T: Send, U: Send>(all: impl IntoIterator<Item = T>, f: impl Fn(T) -> U + Sync) -> Vec<U> {
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
