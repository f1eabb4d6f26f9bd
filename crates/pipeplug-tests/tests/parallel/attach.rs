//! Plugins that were started by hand, and wait for their host at a socket.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use pipeplug_host::launcher::Attach;
use pipeplug_host::process::SpawnErrorKind;
use pipeplug_host::{
    Crash, Grace, Plugin, PluginBuilder, StartError, StartErrorKind, StoppedBy, WaitStatus,
};
use pipeplug_tests::{LONG, eventually, is_running, is_stopped, send, wait_exit};
use tempfile::TempDir;

use crate::on_host_exit::Host;
use crate::{LONELY_HOST, MISBEHAVE};

/// A plugin that waits for its host.
struct Guest {
    process: Child,
    stderr: BufReader<ChildStderr>,
    /// First line of its output.
    said: String,
}

impl Guest {
    fn listen(socket: &Path) -> Self {
        Self::listen_as(&mut Command::new(MISBEHAVE), socket)
    }

    fn listen_as(command: &mut Command, socket: &Path) -> Self {
        command.arg("--pipeplug-listen").arg(socket).args(["plain", "7", "its own"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut stderr = BufReader::new(process.stderr.take().unwrap());
        let mut said = String::new();
        stderr.read_line(&mut said).unwrap();
        Self { process, stderr, said }
    }

    fn pid(&self) -> i32 {
        self.process.id().try_into().unwrap()
    }

    /// Waits for its end, and gives what it said since.
    fn end(mut self) -> (Option<i32>, String) {
        let code = wait_exit(&mut self.process).code();
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        (code, rest)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    (dir, socket)
}

fn attach(socket: &Path) -> PluginBuilder {
    Plugin::preinstalled("attached").launcher(Attach::new(socket)).handshake_timeout(LONG)
}

/// Error of attaching to this plugin.
#[track_caller]
fn refused(socket: &Path) -> (StartError, String) {
    let error = attach(socket).start().unwrap_err();
    assert!(
        matches!(error.kind(), StartErrorKind::Spawn(SpawnErrorKind::Launcher { .. })),
        "{error:?}"
    );
    let message = error.to_string();
    assert!(message.contains(&format!("{socket:?}")), "{message}");
    (error, message)
}

#[test]
fn one_host_attaches_and_stops_it() {
    let (_dir, socket) = place();
    let guest = Guest::listen(&socket);
    assert!(
        guest.said.contains(&format!("pipeplug run --attach {} ", socket.display())),
        "{}",
        guest.said
    );
    let plugin = attach(&socket).start().unwrap();
    assert_eq!(plugin.pid().as_raw(), guest.pid());
    assert!(!socket.exists(), "it is for one host");
    assert_eq!(plugin.call("echo", "hello").unwrap(), "hello");
    assert_eq!(plugin.call("args", "").unwrap(), "plain 7 its own");
    assert_eq!(plugin.call("echo", vec![b'x'; 5 << 20]).unwrap().len(), 5 << 20);
    assert_eq!(plugin.status(), None);
    let stopped = plugin.stop().unwrap();
    assert_eq!((stopped.status, stopped.by), (WaitStatus::Unknown, StoppedBy::Stop));
    assert_eq!(guest.end(), (Some(0), String::new()));
}

#[test]
fn only_its_user_may_connect_from_the_first_moment() {
    for _ in 0..20 {
        let (_dir, socket) = place();
        let mut guest = Command::new("sh")
            .args(["-c", "umask 0; exec \"$0\" --pipeplug-listen \"$1\" plain", MISBEHAVE])
            .arg(&socket)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let meta = loop {
            if let Ok(meta) = fs::symlink_metadata(&socket) {
                break meta;
            }
            assert!(guest.try_wait().unwrap().is_none(), "it waits");
        };
        guest.kill().unwrap();
        guest.wait().unwrap();
        assert!(meta.file_type().is_socket());
        assert_eq!(meta.permissions().mode() & 0o7777, 0o600);
    }
}

#[test]
fn a_socket_that_is_in_use_is_left_to_its_process() {
    let (_dir, socket) = place();
    let first = Guest::listen(&socket);
    let second = Guest::listen(&socket);
    assert!(second.said.contains("another process listens there"), "{}", second.said);
    assert_eq!(second.end().0, Some(2));
    let plugin = attach(&socket).start().unwrap();
    assert_eq!(plugin.pid().as_raw(), first.pid(), "it has not been taken for a host");
}

#[test]
fn a_socket_that_was_left_behind_is_replaced() {
    let (_dir, socket) = place();
    drop(Guest::listen(&socket));
    assert!(socket.exists(), "it was killed");
    let (error, message) = refused(&socket);
    assert!(
        !error.is_permanent() && message.contains("no process listens there any more"),
        "{message}"
    );
    let guest = Guest::listen(&socket);
    let plugin = attach(&socket).start().unwrap();
    assert_eq!(plugin.pid().as_raw(), guest.pid());
}

/// Number of plugins that start at once, and of repetitions.
const RIVALS: usize = 4;
const RACES: usize = 150;

#[test]
fn of_several_at_one_stale_socket_one_gets_it() {
    for stale in [true, false] {
        for race in 0..RACES {
            let (_dir, socket) = place();
            if stale {
                // Its process has ended, and left the file.
                drop(UnixListener::bind(&socket).unwrap());
            }
            let rivals: Vec<_> = (0..RIVALS)
                .map(|_| {
                    let socket = socket.clone();
                    std::thread::spawn(move || Guest::listen(&socket))
                })
                .collect();
            let all: Vec<_> = rivals.into_iter().map(|rival| rival.join().unwrap()).collect();
            let said: Vec<_> = all.iter().map(|guest| guest.said.clone()).collect();
            let (won, lost): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|guest| guest.said.contains("waits for its host"));
            assert_eq!(won.len(), 1, "race {race}: {said:#?}");
            let plugin =
                attach(&socket).start().unwrap_or_else(|error| panic!("race {race}: {error}"));
            assert_eq!(plugin.pid().as_raw(), won[0].pid());
            for guest in lost {
                assert!(
                    guest.said.contains("another process listens there: end that"),
                    "{}",
                    guest.said
                );
                assert_eq!(guest.end().0, Some(2));
            }
        }
    }
}

#[test]
fn a_directory_that_is_locked_is_told() {
    let (dir, socket) = place();
    let directory = fs::File::open(dir.path()).unwrap();
    directory.lock().unwrap();
    let guest = Guest::listen(&socket);
    assert!(guest.said.contains("has locked its directory"), "{}", guest.said);
    assert_eq!(guest.end().0, Some(2));
    // For a moment only.
    let unlocks = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        drop(directory);
    });
    assert!(Guest::listen(&socket).said.contains("waits for its host"));
    unlocks.join().unwrap();
}

#[test]
fn what_is_no_socket_of_a_plugin_is_left_alone() {
    let (dir, socket) = place();
    fs::write(&socket, "precious").unwrap();
    let guest = Guest::listen(&socket);
    assert!(guest.said.contains("not a socket: use another path"), "{}", guest.said);
    assert_eq!(guest.end().0, Some(2));
    assert_eq!(fs::read_to_string(&socket).unwrap(), "precious");
    let (error, message) = refused(&socket);
    assert!(error.is_permanent() && message.contains("not a socket"), "{message}");

    let other = dir.path().join("datagrams");
    let _receiver = UnixDatagram::bind(&other).unwrap();
    let (error, message) = refused(&other);
    assert!(error.is_permanent() && message.contains("of another kind"), "{message}");
    assert!(Guest::listen(&other).said.contains("another process listens there"));
}

#[test]
fn a_path_that_no_socket_can_have_is_told() {
    let (dir, _) = place();
    let long = dir.path().join("x".repeat(120));
    let guest = Guest::listen(&long);
    assert!(guest.said.contains("bytes long, and that of a socket at most"), "{}", guest.said);
    assert_eq!(guest.end().0, Some(2));
    let (error, message) = refused(&long);
    assert!(
        error.is_permanent() && message.contains("bytes long, which is too long for a socket"),
        "{message}"
    );

    let nowhere = dir.path().join("no/such/directory/s");
    assert!(Guest::listen(&nowhere).said.contains("No such file or directory"));
    let (error, message) = refused(&nowhere);
    assert!(
        !error.is_permanent() && message.contains("there is no such file: start the plugin with"),
        "{message}"
    );
}

#[test]
fn an_option_without_a_path_is_told() {
    for args in [&["--pipeplug-listen"][..], &["--pipeplug-listen", ""]] {
        let output = Command::new(MISBEHAVE).args(args).stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("--pipeplug-listen needs the path"), "{said}");
    }
}

#[test]
fn users_do_not_mix() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can be another user");
        return;
    }
    const NOBODY: u32 = 65534;
    // Other users cannot enter the directories of the tests.
    let (dir, _) = place();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
    let plugin = dir.path().join("plugin");
    assert!(Command::new("cp").arg(MISBEHAVE).arg(&plugin).status().unwrap().success());
    let socket = dir.path().join("s");
    let guest = Guest::listen_as(Command::new(&plugin).uid(NOBODY).gid(NOBODY), &socket);

    // The host would talk to any process that made a socket there.
    let (error, message) = refused(&socket);
    assert!(
        error.is_permanent() && message.contains("belongs to user 65534, and this host to user 0"),
        "{message}"
    );

    // The plugin would do what any host says that the mode does not keep out.
    let mut stream = UnixStream::connect(&socket).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "it hangs up");
    assert!(is_running(guest.pid()) && socket.exists(), "it still waits for its host");

    // The system keeps out whom the mode does, before it comes to that.
    let own = dir.path().join("own");
    let _guest = Guest::listen(&own);
    let host = dir.path().join("host");
    assert!(Command::new("cp").arg(LONELY_HOST).arg(&host).status().unwrap().success());
    let args =
        [OsStr::new("--attach"), own.as_os_str(), OsStr::new("exits"), OsStr::new("attached")];
    let output = Command::new(&host)
        .args(args)
        .uid(NOBODY)
        .gid(NOBODY)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("it belongs to another user"), "{said}");
}

#[test]
fn one_that_does_not_heed_a_stop_is_let_go_of() {
    let (_dir, socket) = place();
    let guest = Guest::listen(&socket);
    let plugin = attach(&socket).start().unwrap();
    // As at a breakpoint.
    send(guest.pid(), Signal::SIGSTOP);
    let stopped = plugin.stop_within(Grace::each(Duration::from_millis(50))).unwrap();
    assert_eq!((stopped.status, stopped.by), (WaitStatus::Unknown, StoppedBy::LetGo));
    assert!(is_running(guest.pid()));
    assert_eq!(plugin.status(), Some(WaitStatus::Unknown), "it counts as ended");
    drop(plugin);
    send(guest.pid(), Signal::SIGCONT);
    assert_eq!(guest.end().0, Some(0), "it was told to stop");
}

#[test]
fn nothing_kills_it() {
    let (_dir, socket) = place();
    let guest = Guest::listen(&socket);
    let plugin = attach(&socket).start().unwrap();
    send(guest.pid(), Signal::SIGSTOP);
    eventually("it is stopped", || is_stopped(guest.pid()));
    let call = plugin.request("echo", "").begin().unwrap();
    assert_eq!(plugin.kill().unwrap().by, StoppedBy::LetGo);
    call.wait_timeout(LONG).unwrap_err();
    drop(plugin);
    assert!(is_running(guest.pid()));
    send(guest.pid(), Signal::SIGCONT);
    let (code, said) = guest.end();
    assert!(code == Some(1) && said.contains("the host is gone"), "{code:?} {said}");
}

#[test]
fn its_end_is_noticed_and_not_explained() {
    let (_dir, socket) = place();
    let guest = Guest::listen(&socket);
    let plugin = attach(&socket).start().unwrap();
    let call = plugin.request("never", "").begin().unwrap();
    send(guest.pid(), Signal::SIGKILL);
    let error = call.wait_timeout(LONG).unwrap_err();
    let crash = Crash::of(&error).unwrap();
    assert_eq!(crash.launcher.as_deref(), Some(&*format!("at the socket {socket:?}")));
    // If the connection ended before the process, its status is not known yet.
    assert_eq!(crash.diagnosis.is_some(), crash.status == Some(WaitStatus::Unknown), "{crash:?}");
    assert_eq!(plugin.wait(LONG).unwrap(), Some(WaitStatus::Unknown));
    assert_eq!(plugin.stop().unwrap().by, StoppedBy::Itself);
}

#[test]
fn it_ends_by_itself_when_its_host_is_killed() {
    let (_dir, socket) = place();
    let guest = Guest::listen(&socket);
    let mut host =
        Host::launched(&["--attach", socket.to_str().unwrap()], "parks", "attached", &[]);
    assert_eq!(host.plugin, guest.pid());
    host.end("parks");
    let (code, said) = guest.end();
    assert!(code == Some(1) && said.contains("the host is gone"), "{code:?} {said}");
}

#[test]
fn attaching_again_and_again_leaves_nothing() {
    let (_dir, socket) = place();
    for _ in 0..20 {
        let guest = Guest::listen(&socket);
        let plugin = attach(&socket).start().unwrap();
        drop(plugin);
        assert_eq!(guest.end().0, Some(0));
    }
    eventually("nothing is left", || fs::read_dir(socket.parent().unwrap()).unwrap().count() == 0);
}
