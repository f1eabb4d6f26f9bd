//! Deadlines and calls that are given up, between processes.

use std::fs;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use pipeplug_host::{CallError, HandlerError, PendingCall, Plugin, Reply, Request};
use pipeplug_host::{Direction, Format};
use pipeplug_tests::{LONG, Script, eventually, read_chunk};

use crate::{plain, ready};

const SHORT: Duration = Duration::from_millis(100);

fn left(request: &Request) -> String {
    let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
    request
        .deadline()
        .map_or_else(|| "none".into(), |deadline| left(deadline).as_millis().to_string())
}

/// The host's part of a relay; see the plugin's.
fn relay(plugin: &Plugin, request: &mut Request) -> Result<Reply, HandlerError> {
    match (request.command(), request.text()?.split_once(' ')) {
        ("relay", None) => Ok(left(request).into()),
        ("relay", Some((_, rest))) => {
            Ok(format!("{} {}", left(request), plugin.call("relay", rest)?).into())
        }
        _ => request.unknown(),
    }
}

fn seen(plugin: &Plugin) -> Vec<String> {
    plugin.call("seen", "").unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_deadline_goes_from_host_to_guest_to_host_to_guest() {
    let plugin = plain().handler(relay).start().unwrap();
    for (timeout, most) in [(Some(LONG), LONG.as_millis()), (None, 0)] {
        let words = "guest host guest host";
        let reply = match timeout {
            Some(timeout) => plugin.request("relay", words).timeout(timeout).wait_text().unwrap(),
            None => plugin.call("relay", words).unwrap(),
        };
        let left: Vec<_> = reply.split(' ').collect();
        assert_eq!(left.len(), 4);
        for left in left {
            match timeout {
                Some(_) => assert!((most / 2..=most).contains(&left.parse().unwrap()), "{reply}"),
                None => assert_eq!(left, "none"),
            }
        }
    }
}

#[test]
fn a_handler_of_one_plugin_hands_its_deadline_on_to_another() {
    let second = plain().start().unwrap();
    let handler = move |_: &Plugin, request: &mut Request| match request.command() {
        "relay" => Ok(second.call("left", "")?.into()),
        _ => request.unknown(),
    };
    let first = plain().handler(handler).start().unwrap();
    let reply = first.request("relay", "to-host done").timeout(LONG).wait_text().unwrap();
    let left: Vec<u128> = reply.split(' ').map(|left| left.parse().unwrap()).collect();
    assert!(left.len() == 2 && left.iter().all(|left| *left > LONG.as_millis() / 2), "{reply}");
}

#[test]
fn a_call_that_is_given_up_reaches_the_plugins_handler() {
    let give_up: [fn(PendingCall); 3] =
        [PendingCall::cancel, drop, |call| assert!(call.wait_timeout(SHORT).is_err())];
    let plugin = ready(&plain());
    for (count, give_up) in (1..).zip(give_up) {
        let call = plugin.request("until-cancelled", "").begin().unwrap();
        eventually("it is handled", || seen(&plugin).len() == 2 * count - 1);
        give_up(call);
        eventually("it is told", || seen(&plugin).len() == 2 * count);
        assert_eq!(seen(&plugin).last().unwrap(), "cancelled");
    }
    // Told by the deadline itself, its answer may come just in time.
    let late = match plugin.request("until-cancelled", "").timeout(SHORT).wait_text() {
        Err(CallError::TimedOut { after: SHORT, .. }) => 4,
        Err(error) => panic!("{error}"),
        Ok(_) => 3,
    };
    eventually("it is told", || seen(&plugin).len() == 8);
    assert_eq!(seen(&plugin).last().unwrap(), "cancelled");
    eventually("the late replies are dropped", || plugin.connection().stats().late_replies == late);
    assert_eq!(
        (plugin.connection().stats().unknown_replies, plugin.connection().stats().open_calls),
        (0, 0)
    );
    plugin.stop().unwrap();
}

#[test]
fn a_call_that_the_plugin_gives_up_reaches_the_hosts_handler() {
    let (tell, told) = mpsc::channel();
    let handler = move |_: &Plugin, request: &mut Request| {
        let cancelled = request.cancellation().wait_timeout(LONG);
        tell.send(cancelled)?;
        Ok(Reply::empty())
    };
    let plugin = plain().handler(handler).start().unwrap();
    let error = plugin.request("relay", "to-host done").timeout(SHORT).wait_text().unwrap_err();
    // The plugin's own call ends with the same deadline, and what it says of that may come just in
    // time.
    assert!(matches!(error, CallError::TimedOut { .. } | CallError::Remote { .. }), "{error}");
    assert!(told.recv_timeout(LONG).unwrap(), "by the deadline that it inherited");
}

#[test]
fn the_hosts_handler_is_told_when_the_plugin_dies() {
    let (tell, told) = mpsc::channel();
    let handler = move |_: &Plugin, request: &mut Request| {
        tell.send(false)?;
        tell.send(request.cancellation().wait_timeout(LONG))?;
        Ok(Reply::empty())
    };
    let plugin = plain().handler(handler).start().unwrap();
    let call = plugin.request("call-host", "x").begin().unwrap();
    assert!(!told.recv_timeout(LONG).unwrap());
    plugin.kill().unwrap();
    assert!(told.recv_timeout(LONG).unwrap());
    assert!(matches!(call.wait(), Err(CallError::Closed { .. })));
}

#[test]
fn a_plugin_that_negotiated_nothing_is_sent_nothing_of_it() {
    let script = Script::answering("cat <&3 >\"$dir/got\"");
    let plugin = script.builder().start().unwrap();
    let begun = Instant::now();
    let error = plugin.request("slow", "").timeout(SHORT).wait_text().unwrap_err();
    assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
    assert!((SHORT..LONG / 2).contains(&begun.elapsed()));
    plugin.request("dropped", "").begin().unwrap().cancel();
    drop(plugin.request("dropped", "").timeout(LONG).begin().unwrap());
    plugin.stop().unwrap();
    // All of its first request but the byte that it has looked at.
    let got = [&b"1"[..], &fs::read(script.dir().join("got")).unwrap()].concat();
    let mut got = got.as_slice();
    let mut commands = Vec::new();
    while let Some(chunk) = read_chunk(Format::Standard, &mut got) {
        commands.push((chunk.direction, chunk.command));
    }
    let commands: Vec<_> =
        commands.iter().map(|(direction, command)| (*direction, command.as_str())).collect();
    assert_eq!(
        commands,
        [
            (Direction::Request, "GetMetadata"),
            (Direction::Request, "slow"),
            (Direction::Request, "dropped"),
            (Direction::Request, "dropped"),
            (Direction::OneWay, "cmd.stop"),
        ]
    );
}

#[test]
fn late_replies_of_a_plugin_reach_no_other_call() {
    let plugin = ready(&plain());
    let given_up: usize = thread::scope(|scope| {
        let threads = (0..4).map(|thread| {
            let plugin = &plugin;
            scope.spawn(move || {
                (0..500)
                    .filter(|i| {
                        let text = format!("{thread} {i}");
                        match plugin
                            .request("echo", &text)
                            .timeout(Duration::from_micros(20 + i % 60))
                            .wait_text()
                        {
                            Ok(reply) => assert_eq!(reply, text),
                            Err(CallError::TimedOut { .. } | CallError::NotSent { .. }) => {
                                return true;
                            }
                            Err(error) => panic!("{error}"),
                        }
                        false
                    })
                    .count()
            })
        });
        threads.collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(given_up > 0);
    assert_eq!(plugin.call("echo", "last").unwrap(), "last");
    let stats = plugin.connection().stats();
    assert_eq!((stats.open_calls, stats.unknown_replies), (0, 0));
    assert!(stats.late_replies <= given_up as u64);
    plugin.stop().unwrap();
}
