//! Options of a start: arguments, environment, directory, output, format.

use std::fs;
use std::os::unix::fs::symlink;

use pipeplug_host::Format;
use pipeplug_host::{Output, Plugin, Stdout};
use pipeplug_tests::eventually;
use std::sync::{Arc, Mutex};

use crate::{MISBEHAVE, misbehave, plain};

#[test]
fn own_arguments_come_behind_the_descriptors() {
    let plugin = misbehave(&["plain", "--own", "", "two words"]).start().unwrap();
    assert_eq!(plugin.call("args", "").unwrap(), "plain --own  two words");
    let line = fs::read(format!("/proc/{}/cmdline", plugin.pid())).unwrap();
    let args: Vec<_> = line.split(|byte| *byte == 0).collect();
    assert_eq!(args[1..4], [&b"3"[..], b"4", b"plain"]);
}

#[test]
fn own_arguments_on_stdin_and_stdout_have_nothing_ahead() {
    let plugin = misbehave(&["plain", "--own"]).stdio().start().unwrap();
    assert_eq!(plugin.call("args", "").unwrap(), "plain --own");
    let line = fs::read(format!("/proc/{}/cmdline", plugin.pid())).unwrap();
    assert_eq!(line.split(|byte| *byte == 0).nth(1), Some(&b"plain"[..]));
}

#[test]
fn own_arguments_that_look_like_descriptors_stay_the_plugins() {
    for args in [&["5", "6"][..], &["3", "4", "plain"], &["0", "1"], &["7"]] {
        let piped = misbehave(args).start().unwrap();
        assert_eq!(piped.call("args", "").unwrap(), args.join(" "), "over pipes");
        let stdio = misbehave(args).stdio().start().unwrap();
        assert_eq!(stdio.call("args", "").unwrap(), args.join(" "), "over stdin and stdout");
        assert_eq!(stdio.call("echo", "x").unwrap(), "x");
    }
}

#[test]
fn a_working_directory_is_not_what_the_programs_path_is_relative_to() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    // The tests run in the package's directory; a link there would be left behind, a path with dots
    // is not.
    let here = std::env::current_dir().unwrap();
    let up = "../".repeat(here.components().count());
    let relative = format!("{up}{}", MISBEHAVE.trim_start_matches('/'));
    let plugin = Plugin::builder(relative).arg("plain").current_dir(&dir).start().unwrap();
    assert_eq!(plugin.call("cwd", "").unwrap(), dir.display().to_string());
}

#[test]
fn a_plugin_is_named_after_its_file_and_told_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("another-name");
    symlink(MISBEHAVE, &link).unwrap();
    let plugin = Plugin::builder(&link).arg("plain").start().unwrap();
    assert_eq!(plugin.name(), "another-name");
    assert_eq!(plugin.path(), link);
    assert_eq!(plugin.call("arg0", "").unwrap(), link.display().to_string());
}

#[test]
fn argument_0_is_what_the_builder_says() {
    let plugin = plain().arg0("something else").start().unwrap();
    assert_eq!(plugin.call("arg0", "").unwrap(), "something else");
    assert_eq!(plugin.call("args", "").unwrap(), "plain");
}

#[test]
fn both_formats_work_over_both_kinds_of_descriptors() {
    for format in [Format::Standard, Format::Classic] {
        let builders = [plain(), plain().stdio()];
        for builder in builders {
            let plugin = builder.format(format).start().unwrap();
            assert_eq!(plugin.metadata().value("Cmd"), Some("misbehave"), "{format}");
            assert_eq!(plugin.call("echo", "").unwrap(), "");
            let binary: Vec<u8> = (0..=255).cycle().take(300_000).collect();
            assert_eq!(plugin.call_bytes("echo", binary.clone()).unwrap(), binary, "{format}");
        }
    }
}

#[test]
fn standard_output_goes_where_the_host_says() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&lines);
    let logged = plain()
        .stdout(Stdout::Log)
        .on_line(move |output, line| seen.lock().unwrap().push((output, line.to_owned())))
        .start()
        .unwrap();
    logged.call("print", "3").unwrap();
    eventually("the lines came", || lines.lock().unwrap().len() == 3);
    for (i, line) in lines.lock().unwrap().iter().enumerate() {
        assert_eq!(line, &(Output::Stdout, format!("printed line {i}")));
    }
    assert_eq!(logged.stderr_tail(), Vec::<String>::new(), "output is no error");

    let silent = plain().stdout(Stdout::Null).start().unwrap();
    silent.call("print", "3").unwrap();
    let target = fs::read_link(format!("/proc/{}/fd/1", silent.pid())).unwrap();
    assert_eq!(target.to_str(), Some("/dev/null"));

    let inherits = plain().stdout(Stdout::Inherit).start().unwrap();
    let target = fs::read_link(format!("/proc/{}/fd/1", inherits.pid())).unwrap();
    assert_eq!(target, fs::read_link("/proc/self/fd/1").unwrap());
}
