//! Large buffers, one after the other: what the memory of one held is not seen in the next.

mod common;

use common::{Way, echo, negotiate, pair_on, watchdog};
use pipeplug_net::{EventLoop, Options, Refuse};

const MIB: usize = 1 << 20;

#[test]
fn memory_that_is_used_again_shows_nothing_of_what_it_held() {
    let _watchdog = watchdog();
    for way in [Way::PLAIN, Way::SHARED, Way::SMALL_PIPES, Way::short(4095)] {
        // One loop, so that both sides give each other theirs.
        let events = EventLoop::new().unwrap();
        let (host, guest) = pair_on((&events, &events), &Options::default(), way, Refuse, echo);
        negotiate(&host, &guest);
        let lens = [2 * MIB, MIB, MIB + 1, 700_001, 2 * MIB, 300_000, 70_000, 300_001, 299_999];
        for (fill, len) in (1..).zip(lens) {
            let sent = vec![fill; len];
            let reply = host.call_bytes("echo", sent.clone()).unwrap();
            assert!(reply == sent, "{len} bytes of {fill}, {way:?}");
            assert!(reply.capacity() <= 2 * len, "{} for {len} bytes", reply.capacity());
        }
    }
}
