//! Standard input and output of user code in a plugin, and descriptors that it passes on.

use pipeplug_host::{Plugin, Stdout};
use pipeplug_tests::eventually;

use crate::{plain, ready};

/// On stdin and stdout, where a stray print would do harm, and on descriptors of its own.
fn both() -> [Plugin; 2] {
    [
        ready(&plain().stdio().stderr_tail(1000)),
        ready(&plain().stdout(Stdout::Null).stderr_tail(1000)),
    ]
}

#[test]
fn what_is_printed_lands_on_stderr_and_never_in_the_stream() {
    let plugin = ready(&plain().stdio().stderr_tail(1000));
    let printing: Vec<_> =
        (0..4).map(|_| plugin.request("print", "200").begin().unwrap()).collect();
    // A child, at the level of C, has the same standard output.
    let child = plugin.request("sh-prints", "seq 1 200; printf unfinished").begin().unwrap();
    for i in 0..500 {
        assert_eq!(plugin.call("echo", i.to_string()).unwrap(), i.to_string());
    }
    for call in printing {
        assert_eq!(call.wait().unwrap(), b"");
    }
    assert_eq!(child.wait().unwrap(), b"exit status: 0");
    eventually("all was read", || plugin.stderr_tail().len() >= 1000);
    plugin.stop().unwrap();
    let tail = plugin.stderr_tail();
    // What is printed behind the unfinished line is part of it.
    let whole = |it: &String| it.strip_prefix("unfinished").unwrap_or(it).to_owned();
    let count = |line: &str| tail.iter().filter(|it| whole(it) == line).count();
    // The 1,000 lines that are kept are the last of 1,001, and only the first can be missing.
    assert!((1..200).all(|i| count(&format!("printed line {i}")) == 4), "{tail:?}");
    assert!((2..=199).all(|i| count(&i.to_string()) == 1), "{tail:?}");
    assert!(tail.iter().any(|line| line.contains("unfinished")), "{tail:?}");
}

#[test]
fn a_read_of_stdin_is_at_its_end() {
    for plugin in both() {
        for _ in 0..2 {
            assert_eq!(plugin.call("read-stdin", "").unwrap(), "0");
        }
        assert_eq!(plugin.call("sh", "cat; echo nothing").unwrap(), "nothing\n");
        assert_eq!(plugin.call("echo", "x").unwrap(), "x");
    }
}

#[test]
fn children_of_the_guest_get_0_1_and_2_only() {
    for plugin in both() {
        // Something to keep open for: calls in flight, and a thread that waits for the host.
        let busy = plugin.request("sleep", "200").begin().unwrap();
        // The shell's own, once it has closed the directory that it looked through.
        let listed = plugin
            .call("sh", r#"for fd in /proc/$$/fd/*; do [ -e "$fd" ] && echo "${fd##*/}"; done"#)
            .unwrap();
        assert_eq!(listed, "0\n1\n2\n");
        busy.wait().unwrap();
    }
}
