//! `pipeplug top`: the plugins of hosts that opted in.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::common::{LONG, Place, Run, wait};
use crate::controlling::Session;
use crate::new::{path_with_program, project};
use crate::terminal::in_terminal_of;

/// Hosts and `top` with the same runtime directory.
fn pipeplug(place: &Place, args: &[&str]) -> Run {
    let mut run = place.pipeplug(args);
    run.command.env("XDG_RUNTIME_DIR", place.path()).env("PIPEPLUG_TOP", "1");
    run
}

/// A host that runs until it is ended; its stdin has the lines.
fn host(place: &Place, args: &[&str], lines: &str) -> Child {
    let mut run = pipeplug(place, args).in_place();
    run.command.env("PATH", path_with_program());
    run.command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = run.command.spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(lines.as_bytes()).unwrap();
    child
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap())
}

fn end(child: Child, signal: Signal) {
    kill(pid(&child), signal).unwrap();
    wait(child);
}

fn look(place: &Place) -> Value {
    pipeplug(place, &["top", "--once", "--json"]).run().exits(0).json().remove(0)
}

/// Looks until this is true.
#[track_caller]
fn until(place: &Place, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + LONG;
    loop {
        let shown = look(place);
        if is_so(&shown) {
            return shown;
        }
        assert!(Instant::now() < deadline, "{shown:#}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn state(shown: &Value) -> &str {
    shown["hosts"][0]["plugins"][0]["state"].as_str().unwrap_or_default()
}

/// The directory of the status files.
fn files(place: &Place) -> PathBuf {
    let dir = place.path().join("pipeplug");
    if !dir.exists() {
        DirBuilder::new().mode(0o700).create(&dir).unwrap();
    }
    dir
}

/// Name of the file of a process that runs.
fn name_of(pid: u32) -> (u32, u64) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let begun = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap();
    (pid, begun.parse().unwrap())
}

#[test]
fn a_host_that_opted_in_is_shown_with_its_figures() {
    let place = Place::new();
    let host = host(
        &place,
        &["shell", "@echo"],
        "repeat 100 call echo x\n& call sleep 600000\nrepeat 1 call echo x\ncall sleep 600000\n",
    );
    let shown = until(&place, |shown| {
        let plugin = &shown["hosts"][0]["plugins"][0];
        plugin["in_flight"] == 2 && plugin["calls"].as_u64() >= Some(101)
    });
    let (of_host, plugin) = (&shown["hosts"][0], &shown["hosts"][0]["plugins"][0]);
    assert_eq!((&of_host["name"], &of_host["pid"]), (&"pipeplug".into(), &host.id().into()));
    assert_eq!((&plugin["name"], &plugin["state"]), (&"echo".into(), &"running".into()));
    assert_eq!((&plugin["restarts"], &plugin["calls"]), (&0.into(), &101.into()));
    let (p50, p99) = (plugin["p50_us"].as_f64().unwrap(), plugin["p99_us"].as_f64().unwrap());
    assert!(p50 > 1.0 && p50 <= p99 && p99 < 60e6, "{p50} {p99}");
    if cfg!(target_os = "linux") {
        assert!(plugin["memory"].as_u64() > Some(100_000), "{plugin}");
        assert!(of_host["memory"].as_u64() > Some(100_000), "{of_host}");
    }
    // For this user alone.
    let dir = files(&place);
    assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
    for file in fs::read_dir(&dir).unwrap() {
        assert_eq!(file.unwrap().metadata().unwrap().mode() & 0o777, 0o600);
    }
    let table = pipeplug(&place, &["top", "--once"]).run().exits(0);
    let row = table.text().lines().find(|line| line.starts_with("  echo ")).unwrap();
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!(cells[1..4], [&*plugin["pid"].to_string(), "running", "2"], "{row}");
    end(host, Signal::SIGTERM);
}

#[test]
fn a_host_that_ends_removes_its_file() {
    let place = Place::new();
    let mut host = host(&place, &["shell", "@echo"], "call echo x\n");
    until(&place, |shown| state(shown) == "running");
    // The end of its input. A signal may end it while threads still hold the plugin.
    drop(host.stdin.take());
    assert_eq!(wait(host), Some(0));
    assert_eq!(fs::read_dir(files(&place)).unwrap().count(), 0);
}

#[test]
fn a_host_that_did_not_opt_in_is_not_shown_and_what_to_do_is() {
    let place = Place::new();
    let mut run = pipeplug(&place, &["run", "@echo", "--call", "sleep", "600000", "--json"]);
    run.command.env("PIPEPLUG_TOP", "0").stdout(Stdio::piped()).stderr(Stdio::null());
    let mut host = run.command.spawn().unwrap();
    let mut begun = String::new();
    BufReader::new(host.stdout.take().unwrap()).read_line(&mut begun).unwrap();
    assert_eq!(look(&place), serde_json::json!({ "hosts": [], "problems": [] }));
    pipeplug(&place, &["top", "--once"])
        .run()
        .exits(0)
        .prints_part("no host of yours publishes its plugins")
        .prints_part("PIPEPLUG_TOP=1")
        .prints_part("publish_status()");
    assert!(!place.path().join("pipeplug").exists());
    end(host, Signal::SIGKILL);
}

#[cfg(target_os = "linux")]
#[test]
fn the_file_of_a_killed_host_is_removed() {
    let place = Place::new();
    let host = host(&place, &["run", "@echo", "--call", "sleep", "600000"], "");
    until(&place, |shown| state(shown) == "running");
    end(host, Signal::SIGKILL);
    let dir = files(&place);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    assert_eq!(look(&place)["hosts"], Value::Array(Vec::new()));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    // The number of a process that ended is another one's now; and a file was half written.
    let (pid, begun) = name_of(std::process::id());
    let later = begun + 1;
    for name in [format!("{pid}-{later}.json"), format!("{pid}-{later}.json.new")] {
        fs::write(dir.join(name), r#"{"version":1,"name":"old"}"#).unwrap();
    }
    // Of a host that is about to replace its file.
    let unfinished = dir.join(format!("{pid}-{begun}.json.new"));
    fs::write(&unfinished, "{").unwrap();
    assert_eq!(look(&place), serde_json::json!({ "hosts": [], "problems": [] }));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    assert!(unfinished.exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_host_that_is_stopped_is_silent() {
    let place = Place::new();
    let host = host(&place, &["run", "@echo", "--call", "sleep", "600000"], "");
    until(&place, |shown| state(shown) == "running");
    kill(pid(&host), Signal::SIGSTOP).unwrap();
    let stat = || fs::read_to_string(format!("/proc/{}/stat", host.id())).unwrap();
    while !stat().contains(") T ") {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(look(&place)["hosts"][0]["is_silent"], false);
    let path = fs::read_dir(files(&place)).unwrap().next().unwrap().unwrap().path();
    let earlier = SystemTime::now() - Duration::from_secs(10);
    File::options().write(true).open(path).unwrap().set_modified(earlier).unwrap();
    assert_eq!(look(&place)["hosts"][0]["is_silent"], true);
    pipeplug(&place, &["top", "--once"]).run().prints_part(" silent ");
    kill(pid(&host), Signal::SIGCONT).unwrap();
    until(&place, |shown| shown["hosts"][0]["is_silent"] == false);
    end(host, Signal::SIGTERM);
}

#[test]
fn restarts_of_a_supervisor_are_counted_and_shown() {
    let place = Place::new();
    let dir = project(&place, "hello", &["--lang", "sh"]);
    let script = fs::read_to_string(dir.join("hello.sh")).unwrap();
    // Outside of the project: a change there is a new version.
    let broken = place.path().join("broken");
    let (first, rest) = script.split_once('\n').unwrap();
    let check = format!("[ -e {} ] && exit 7", broken.display());
    fs::write(dir.join("hello.sh"), format!("{first}\n{check}\n{rest}")).unwrap();
    let host = host(&place, &["dev", "hello/hello.sh"], "");
    let shown = until(&place, |shown| state(shown) == "running");
    let pid = |shown: &Value| shown["hosts"][0]["plugins"][0]["pid"].as_i64();
    let first = pid(&shown).unwrap();
    assert_eq!(shown["hosts"][0]["plugins"].as_array().unwrap().len(), 1, "{shown:#}");
    fs::write(&broken, "").unwrap();
    let group = nix::unistd::getpgid(Some(Pid::from_raw(first.try_into().unwrap()))).unwrap();
    nix::sys::signal::killpg(group, Signal::SIGKILL).unwrap();
    let shown = until(&place, |shown| matches!(state(shown), "restarting" | "gave up"));
    assert_eq!(pid(&shown), None, "{shown:#}");
    fs::remove_file(&broken).unwrap();
    // If it gave up, a new version starts it.
    fs::write(dir.join("hello.sh"), format!("{first}\n{rest}\n# changed\n", first = "#!/bin/sh"))
        .unwrap();
    let shown = until(&place, |shown| {
        state(shown) == "running" && pid(shown).is_some_and(|pid| pid != first)
    });
    let restarts = shown["hosts"][0]["plugins"][0]["restarts"].as_u64();
    assert!(restarts >= Some(1), "{shown:#}");
    end(host, Signal::SIGTERM);
}

#[test]
fn a_directory_that_others_may_write_is_refused() {
    let place = Place::new();
    let dir = files(&place);
    fs::set_permissions(&dir, Permissions::from_mode(0o777)).unwrap();
    let refused = |part: &str| {
        pipeplug(&place, &["top", "--once"])
            .run()
            .exits(1)
            .prints("")
            .says("the status of plugins cannot be read: ")
            .says(part);
        // The host goes on without.
        let run = ["run", "@echo", "--call", "echo", "x", "--call", "sleep", "200"];
        pipeplug(&place, &run)
            .run()
            .exits(0)
            .prints("x")
            .says("the status of the plugins cannot be published")
            .says(part);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    };
    refused("other users may use the directory (mode 777); make it yours with `chmod 700`");
    if nix::unistd::geteuid().is_root() {
        fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
        nix::unistd::chown(&dir, Some(4711.into()), None).unwrap();
        refused("the directory belongs to user 4711, not to you (user 0)");
    }
}

#[test]
fn without_a_runtime_directory_there_is_a_fallback() {
    let place = Place::new();
    let fallback = |args: &[&str]| {
        let mut run = pipeplug(&place, args);
        run.command.env_remove("XDG_RUNTIME_DIR").env("TMPDIR", place.path());
        run
    };
    let mut host = fallback(&["run", "@echo", "--call", "sleep", "600000"]);
    let host = host.command.stdout(Stdio::null()).spawn().unwrap();
    let dir = place.path().join(format!("pipeplug-{}", nix::unistd::geteuid()));
    let deadline = Instant::now() + LONG;
    loop {
        let shown = fallback(&["top", "--once", "--json"]).run().exits(0).json().remove(0);
        if state(&shown) == "running" {
            break;
        }
        assert!(Instant::now() < deadline, "{shown:#}");
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(fs::metadata(dir).unwrap().mode() & 0o777, 0o700);
    end(host, Signal::SIGTERM);
}

/// Processes that hosts of any version or intent could be.
struct Others(Vec<Child>);

impl Drop for Others {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Others {
    /// Path of the file of one more process.
    fn file(&mut self, place: &Place) -> PathBuf {
        self.0.push(std::process::Command::new("sleep").arg("600").spawn().unwrap());
        let (pid, begun) = name_of(self.0.last().unwrap().id());
        files(place).join(format!("{pid}-{begun}.json"))
    }
}

#[cfg(target_os = "linux")]
#[test]
fn no_line_is_wider_than_a_narrow_terminal() {
    let place = Place::new();
    let mut others = Others(Vec::new());
    let once = |columns| {
        let mut run = pipeplug(&place, &["top", "--once"]);
        run.command.env("NO_COLOR", "1");
        let (text, code) = in_terminal_of(run, columns);
        assert_eq!(code, Some(0), "{text}");
        let lines: Vec<_> = text.lines().map(|line| line.trim_end().to_owned()).collect();
        for line in &lines {
            assert!(line.chars().count() <= usize::from(columns), "{columns}: {line:?}");
        }
        lines
    };
    assert!(once(40).len() > 6, "what to do is wrapped");
    let path = others.file(&place);
    fs::write(&path, "no JSON").unwrap();
    fs::write(others.file(&place), r#"{"version":1,"name":"h","plugins":[]}"#).unwrap();
    for columns in [10, 40, 79] {
        let lines = once(columns);
        // Of the path the end is left, which is the name of the file.
        let name = path.file_name().unwrap().to_str().unwrap();
        let end = format!("{}:", &name[name.len() - 7..]);
        assert!(lines.iter().any(|line| line.contains(&end)), "{end:?} is not in: {lines:?}");
    }
}

#[test]
fn files_of_other_versions_and_hostile_ones_are_named_and_steer_nothing() {
    let place = Place::new();
    let mut others = Others(Vec::new());
    let name = "\u{1b}[2Jhost\r\n\u{202e}".to_owned() + &"x".repeat(5000);
    let odd = serde_json::json!({
        "version": 2, "name": name, "new": { "a": [1] },
        "plugins": [{
            "name": "evil\u{1b}]0;title\u{7}", "state": "\u{9b}31m".repeat(100), "pid": 1, "new": 1,
            "memory": 1, "in_flight": u64::MAX, "calls_per_s": 1e300, "p50_us": -5.0,
            "p99_us": 1e300, "restarts": u64::MAX, "uptime_s": 1e300, "launcher": null
        }]
    });
    fs::write(others.file(&place), odd.to_string()).unwrap();
    let mut cases = Vec::new();
    for (content, problem) in [
        ("no JSON\u{1b}[2J", "it is not the status of a host: "),
        ("", "it is not the status of a host: EOF"),
        ("{}", "it is not the status of a host: it has no version"),
        (r#"{"version":1,"plugins":7}"#, "it is not the status of a host: "),
        (
            r#"{"version":9,"plugins":{"\u001b[2J":7}}"#,
            "it has version 9 of the format, and this program knows 1: update it",
        ),
        (&"[".repeat(500_000), "it is not the status of a host: "),
    ] {
        let path = others.file(&place);
        fs::write(&path, content).unwrap();
        cases.push((path, problem));
    }
    let path = others.file(&place);
    File::create(&path).unwrap().set_len(6 << 30).unwrap();
    cases.push((path, "it has 6442450944 bytes, the limit is 1048576"));
    let path = others.file(&place);
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    cases.push((path, "it is a FIFO, not a regular file"));
    let path = files(&place).join("notes.txt");
    fs::write(&path, "").unwrap();
    cases.push((path, "this is no file of a host; remove it"));

    let shown = look(&place);
    let problems = shown["problems"].as_array().unwrap();
    assert_eq!(problems.len(), cases.len(), "{shown:#}");
    for (path, problem) in &cases {
        let found = problems.iter().find(|it| it["file"].as_str() == path.to_str()).unwrap();
        assert!(found["problem"].as_str().unwrap().starts_with(problem), "{found}");
    }
    let plugin = &shown["hosts"][0]["plugins"][0];
    assert_eq!((shown["hosts"].as_array().unwrap().len(), &plugin["pid"]), (1, &1.into()));
    assert_eq!(plugin["memory"], Value::Null, "{plugin}");

    let mut run = pipeplug(&place, &["top", "--once", "--color", "never"]);
    run.command.env("TERM", "xterm");
    let (table, code) = in_terminal_of(run, 80);
    assert_eq!(code, Some(0));
    let table = table.replace("\r\n", "\n");
    assert!(!table.chars().any(|c| c.is_control() && c != '\n'), "{table:?}");
    let rows: Vec<_> = table.lines().skip_while(|line| !line.starts_with("HOST")).take(3).collect();
    assert_eq!(rows.len(), 3, "{table}");
    for row in rows {
        assert!(row.chars().count() <= 80, "{row:?}");
    }
    for (path, _) in &cases {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(table.replace('\n', "").contains(name), "{name} is not in {table}");
    }
}

/// Settings of a session at a terminal.
fn session(place: &Place) -> Session {
    let dir = place.path().to_str().unwrap();
    Session::start_with(place, &["top"], &[("TERM", "xterm"), ("XDG_RUNTIME_DIR", dir)])
}

#[test]
fn a_terminal_shows_it_until_a_key_and_is_left_as_it_was() {
    let place = Place::new();
    let host = host(&place, &["run", "@echo", "--call", "sleep", "600000"], "");
    until(&place, |shown| state(shown) == "running");
    for (key, code) in [("q", 0), ("\u{3}", 0)] {
        let mut top = session(&place);
        assert!(top.echoes(), "as a terminal begins");
        // The second one is a redraw.
        top.until("\x1b[?1049h");
        top.until("echo");
        top.until("q ends\x1b[H");
        assert!(!top.echoes());
        top.type_in(&format!("\u{1a}x{key}"));
        top.until("\x1b[?1049l");
        let deadline = Instant::now() + LONG;
        while !top.echoes() {
            assert!(Instant::now() < deadline);
            thread::sleep(Duration::from_millis(2));
        }
        assert!(top.text().ends_with("\x1b[?25h\x1b[?1049l"), "{:?}", top.text());
        assert_eq!(top.code(), Some(code), "{key:?}");
    }
    // By a signal, while nothing is shown.
    end(host, Signal::SIGTERM);
    let mut top = session(&place);
    top.until("no host of yours publishes its plugins");
    kill(pid(&top.child), Signal::SIGTERM).unwrap();
    top.until("\x1b[?1049l");
    assert_eq!(top.code(), Some(143));
}

#[test]
fn hosts_that_begin_and_end_meanwhile_come_and_go() {
    let place = Place::new();
    let begin = || host(&place, &["run", "@echo", "--call", "sleep", "600000"], "");
    let none = "no host of yours publishes its plugins";
    let mut top = session(&place);
    top.until(none);
    let host = begin();
    top.until("  echo ");
    end(host, Signal::SIGTERM);
    let deadline = Instant::now() + LONG;
    while !top.text().rsplit_once("  echo ").unwrap().1.contains(none) {
        assert!(Instant::now() < deadline, "{:?}", top.text());
        thread::sleep(Duration::from_millis(2));
    }
    top.type_in("q");
    assert_eq!(top.code(), Some(0));

    let mut run = pipeplug(&place, &["top", "--json", "--interval", "100ms"]);
    let mut top = run.command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(top.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut until = |count: usize| {
        lines.any(|line| {
            let shown: Value = serde_json::from_str(&line).unwrap();
            shown["hosts"].as_array().unwrap().len() == count
        })
    };
    assert!(until(0));
    let host = begin();
    assert!(until(1));
    end(host, Signal::SIGKILL);
    assert!(until(0));
    end(top, Signal::SIGTERM);
}

#[test]
fn an_error_is_shown_on_the_first_screen() {
    let place = Place::new();
    fs::set_permissions(files(&place), Permissions::from_mode(0o755)).unwrap();
    let mut top = session(&place);
    top.until("make it yours with `chmod 700`");
    assert!(!top.text().contains("\x1b[?1049h"), "{:?}", top.text());
    assert_eq!(top.code(), Some(1));
}

#[test]
fn in_a_pipe_it_is_shown_once_or_with_an_interval_again() {
    let place = Place::new();
    // Once.
    pipeplug(&place, &["top"]).run().exits(0).prints_part("no host of yours");
    for (args, part) in [
        (&["top", "--interval", "100ms"][..], "no host of yours publishes its plugins"),
        (&["top", "--json", "--interval", "100ms"], r#"{"hosts":[],"problems":[]}"#),
        (&["top", "--json"], r#"{"hosts":[],"problems":[]}"#),
    ] {
        let mut run = pipeplug(&place, args);
        let mut top = run.command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(top.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert_eq!(lines.filter(|line| line == part).take(3).count(), 3, "{args:?}");
        // Its reader is gone.
        assert_eq!(wait(top), Some(0), "{args:?}");
    }
    pipeplug(&place, &["top", "--interval", "1ms"])
        .run()
        .exits(2)
        .says("the shortest interval is 100 ms");
    pipeplug(&place, &["top", "--once", "--interval", "1s"]).run().exits(2);
}
