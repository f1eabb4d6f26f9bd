//! Running the program, and plugins made of shell scripts.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pipeplug_host::SandboxSupport;
use serde_json::Value;
use tempfile::TempDir;

/// Far more than anything here takes; only a hang runs into it.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Reads and writes chunks in the standard format: `recv` sets id, dir, cmd and data; `send
/// DIRECTION CMD DATA`.
const STANDARD: &str = r#"
recv() {
    IFS= read -r -d '' id <&"$in" && IFS= read -r -d '' dir <&"$in" && IFS= read -r -d '' _ <&"$in" &&
        IFS= read -r -d '' cmd <&"$in" && IFS= read -r -d '' len <&"$in" || exit 0
    data=
    if ((len > 0)); then IFS= read -r -N "$len" data <&"$in"; fi
}
send() { printf '%s\0%s\0%s\0%s\0%s\0%s' "$id" "$1" "${#2}" "$2" "${#3}" "$3" >&"$out"; }
"#;

/// The same in the classic format.
const CLASSIC: &str = r#"
recv() {
    IFS= read -r -d '' id <&"$in" && IFS= read -r -d '' dir <&"$in" && IFS= read -r -d '' cmd <&"$in" || exit 0
    len=${cmd##* } cmd=${cmd% *} data=
    if ((len > 0)); then IFS= read -r -N "$len" data <&"$in"; fi
}
send() { len=${#3}; printf '%s\0%s\0%s %s\0%s' "$id" "$1" "$2" "${len#0}" "$3" >&"$out"; }
"#;

/// Answers each request with its command and data, until it is told to stop.
pub(crate) const MIRROR: &str = r#"
while recv; do
    case $cmd in
    cmd.stop) exit 0 ;;
    GetMetadata) send 3 "$cmd" '{"Description":"a mirror"}' ;;
    *) send 3 "$cmd" "<$cmd $data>" ;;
    esac
done
"#;

/// Answers each request with `{}`, until it is told to stop. It knows no features.
pub(crate) const ANSWERS: &str = r#"
while recv; do
    case $cmd in
    cmd.stop) exit 0 ;;
    *) send 3 "$cmd" '{}' ;;
    esac
done
"#;

/// A directory of plugins, which goes with it; the program's home too.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A file with this content.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Makes a FIFO without a writer.
    pub(crate) fn fifo(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        path
    }

    /// An executable, written by another process: a descriptor of ours that is open for writing
    /// could be inherited by a child that another test starts just then, and nothing could execute
    /// the file (ETXTBSY).
    pub(crate) fn executable(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path().join(name);
        let mut writer = Command::new("/bin/sh")
            .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        writer.stdin.take().unwrap().write_all(content.as_bytes()).unwrap();
        assert!(writer.wait().unwrap().success());
        path
    }

    pub(crate) fn standard(&self, name: &str, body: &str) -> PathBuf {
        self.script(name, STANDARD, body)
    }

    pub(crate) fn classic(&self, name: &str, body: &str) -> PathBuf {
        self.script(name, CLASSIC, body)
    }

    fn script(&self, name: &str, format: &str, body: &str) -> PathBuf {
        self.executable(
            name,
            &format!("#!/bin/bash\nLC_ALL=C in=${{1:-0}} out=${{2:-1}}\n{format}\n{body}\n"),
        )
    }

    /// The program, with this place for its home and for the plugins that it finds.
    pub(crate) fn pipeplug<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Run {
        let mut run = Run::new(args);
        run.command.env("HOME", self.path()).env("PIPEPLUG_PATH", self.path());
        run.place = Some(self.path().to_owned());
        run
    }
}

/// The program, with an environment that says nothing, before it runs.
pub(crate) struct Run {
    pub(crate) command: Command,
    stdin: Vec<u8>,
    /// Directory of the plugins.
    place: Option<PathBuf>,
}

/// Output and exit status of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    pub(crate) code: Option<i32>,
}

pub(crate) fn pipeplug<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Run {
    Run::new(args)
}

impl Run {
    fn new<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipeplug"));
        command.args(args);
        for name in [
            "PIPEPLUG_PATH",
            "XDG_DATA_HOME",
            "XDG_CACHE_HOME",
            "XDG_RUNTIME_DIR",
            "PIPEPLUG_TOP",
            "NO_COLOR",
            "CLICOLOR_FORCE",
            "COLUMNS",
        ] {
            command.env_remove(name);
        }
        // Not even root can make anything there.
        command.env("HOME", "/proc/nonexistent");
        Self { command, stdin: Vec::new(), place: None }
    }

    /// Runs it in the directory of the plugins.
    pub(crate) fn in_place(mut self) -> Self {
        self.command.current_dir(self.place.as_ref().unwrap());
        self
    }

    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Runs it to its end.
    pub(crate) fn run(mut self) -> Ran {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = self.stdin;
        // It may end without having read.
        let writer = thread::spawn(move || drop(stdin.write_all(&input)));
        let stdout = read_all(child.stdout.take());
        let stderr = read_all(child.stderr.take());
        let code = wait(child);
        writer.join().unwrap();
        let stderr = String::from_utf8(stderr.join().unwrap()).unwrap();
        Ran { stdout: stdout.join().unwrap(), stderr, code }
    }

    /// Starts it with `--json` among its arguments, to look at what it does while it runs.
    pub(crate) fn watch(mut self) -> Watched {
        let mut child = self
            .command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let events = BufReader::new(child.stdout.take().unwrap());
        Watched { child, events }
    }
}

impl Ran {
    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "stdout: {:?}\nstderr: {}",
            self.stdout.escape_ascii().to_string(),
            self.stderr
        );
        self
    }

    #[track_caller]
    pub(crate) fn prints(self, stdout: &str) -> Self {
        assert_eq!(
            self.stdout.escape_ascii().to_string(),
            stdout.as_bytes().escape_ascii().to_string(),
            "{}",
            self.stderr
        );
        self
    }

    #[track_caller]
    pub(crate) fn prints_part(self, stdout: &str) -> Self {
        assert!(self.text().contains(stdout), "{stdout:?} is not in: {}", self.text());
        self
    }

    #[track_caller]
    pub(crate) fn says(self, stderr: &str) -> Self {
        assert!(self.stderr.contains(stderr), "{stderr:?} is not in: {}", self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn says_only(self, stderr: &str) -> Self {
        assert_eq!(self.stderr, stderr);
        self
    }

    /// The objects on stdout.
    #[track_caller]
    pub(crate) fn json(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// The program while it runs.
pub(crate) struct Watched {
    child: Child,
    events: BufReader<ChildStdout>,
}

impl Watched {
    /// The next event of this kind.
    #[track_caller]
    pub(crate) fn event(&mut self, kind: &str) -> Value {
        loop {
            let mut line = String::new();
            assert!(self.events.read_line(&mut line).unwrap() > 0, "it ended without {kind:?}");
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["event"] == kind {
                return event;
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    pub(crate) fn code(self) -> Option<i32> {
        // Kept open until it has ended, so that it can still write.
        let Self { child, events } = self;
        let drained = read_all(Some(events));
        let code = wait(child);
        drained.join().unwrap();
        code
    }
}

/// Waits until a file that has just been written is old enough for a listing to remember it.
pub(crate) fn settle() {
    thread::sleep(Duration::from_millis(150));
}

/// True if this system supports the strict sandbox. Panics in CI if it does not.
pub(crate) fn has_strict_sandbox() -> bool {
    let support = SandboxSupport::of_system();
    let has = support.landlock_abi >= 3 && support.seccomp;
    if !has {
        assert!(
            std::env::var_os("CI").is_none(),
            "ABI 3 of Landlock is needed, there is: {support}"
        );
        eprintln!("skipped: ABI 3 of Landlock is needed, there is: {support}");
    }
    has
}

/// Tells that a test is skipped, since something is missing; with `CI=true` that is a failure.
pub(crate) fn missing(what: &str) {
    let in_ci = matches!(std::env::var("CI").as_deref(), Ok("true" | "1"));
    assert!(!in_ci, "{what}; with CI=true nothing may be left out");
    eprintln!("skipped: {what}");
}

/// Looks for a program in `PATH`, and tells where it is missing.
pub(crate) fn has_tool(program: &str, package: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = std::env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .any(|dir| dir.join(program).is_file());
    if !has {
        missing(&format!("{program} is missing (Debian: apt-get install {package})"));
    }
    has
}

/// True if no process has this id.
pub(crate) fn is_gone(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH)
}

fn read_all(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    let mut stream = stream.unwrap();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// Waits for its end; one that hangs is killed, and has no exit code then.
pub(crate) fn wait(mut child: Child) -> Option<i32> {
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    let (ended, hung) = channel();
    let guard = thread::spawn(move || {
        if hung.recv_timeout(LONG).is_err() {
            kill(pid, Signal::SIGKILL).unwrap();
        }
    });
    let status = child.wait().unwrap();
    // Where the guard was faster it waits no more.
    let _ = ended.send(());
    guard.join().unwrap();
    status.code()
}
