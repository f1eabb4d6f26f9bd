//! Input from the controlling terminal: keys, and its end.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::termios::{LocalFlags, tcgetattr};

use crate::common::{LONG, Place, wait};

/// Both ends of a new terminal; no process gets the first one, which would keep it open.
fn terminal() -> (File, File) {
    let master =
        posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
            .unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let slave = File::options()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NOCTTY.bits())
        .open(ptsname_r(&master).unwrap())
        .unwrap();
    (File::from(OwnedFd::from(master)), slave)
}

/// The program in a session of its own, with a terminal.
pub(crate) struct Session {
    pub(crate) child: Child,
    terminal: File,
    shown: Vec<u8>,
}

impl Session {
    pub(crate) fn start(place: &Place, args: &[&str]) -> Self {
        Self::start_with(place, args, &[("TERM", "xterm")])
    }

    /// Starts it with these variables of the environment.
    pub(crate) fn start_with(place: &Place, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let (master, slave) = terminal();
        let run = place.pipeplug(args);
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(run.command.get_program()).args(run.command.get_args());
        for (name, value) in run.command.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.envs(variables.iter().copied());
        command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
        let child = command.spawn().unwrap();
        drop(command);
        Self { child, terminal: master, shown: Vec::new() }
    }

    /// Output so far.
    pub(crate) fn text(&mut self) -> String {
        let mut buffer = [0; 1024];
        // Nothing yet, or EIO from a terminal that no process has open any more: pty(7).
        while let Ok(count @ 1..) = self.terminal.read(&mut buffer) {
            self.shown.extend_from_slice(&buffer[..count]);
        }
        String::from_utf8_lossy(&self.shown).into_owned()
    }

    #[track_caller]
    pub(crate) fn until(&mut self, text: &str) {
        let deadline = Instant::now() + LONG;
        while !self.text().contains(text) {
            assert!(Instant::now() < deadline, "{text:?} is not in {:?}", self.text());
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn type_in(&mut self, keys: &str) {
        self.terminal.write_all(keys.as_bytes()).unwrap();
    }

    /// True if the terminal shows what is typed.
    pub(crate) fn echoes(&self) -> bool {
        // The settings are those of both ends: pty(7).
        tcgetattr(&self.terminal).unwrap().local_flags.contains(LocalFlags::ECHO)
    }

    /// Ends by itself.
    pub(crate) fn code(self) -> Option<i32> {
        wait(self.child)
    }

    /// Ends for want of its terminal.
    fn close(self) -> Option<i32> {
        drop(self.terminal);
        wait(self.child)
    }
}

/// Says on stderr that it runs, leaves a file where it is interrupted and another one where it is
/// asked to stop.
fn attentive(place: &Place) -> String {
    let dir = place.path().display();
    let body = format!(
        "trap 'touch {dir}/interrupted' INT; recv; send 3 x '{{}}'; echo 'it is up' >&2
        while recv; do [ \"$cmd\" = cmd.stop ] && {{ touch {dir}/asked; exit 0; }}; done; sleep 600"
    );
    place.standard("attentive", &body).to_str().unwrap().to_owned()
}

#[test]
fn a_plugin_may_ask_the_user() {
    let place = Place::new();
    let body = "recv; send 3 x '{}'; recv; printf 'name? '; IFS= read -r name; send 3 x \"hello, \
                $name\"; recv";
    let path = place.standard("asks", body);
    let args = [
        "run",
        path.to_str().unwrap(),
        "--stdout",
        "inherit",
        "--timeout",
        "20s",
        "--call",
        "greet",
    ];
    let mut session = Session::start(&place, &[&args[..], &["--stdin", "inherit"]].concat());
    session.until("name? ");
    session.type_in("you\n");
    session.until("hello, you\r\n");
    assert_eq!(session.code(), Some(0));

    // Without the terminal there is no user to ask.
    let mut session = Session::start(&place, &args);
    session.until("hello, \r\n");
    assert_eq!(session.code(), Some(0));
}

#[test]
fn a_plugin_that_the_terminal_stops_is_told_of() {
    let place = Place::new();
    let body = "recv; send 3 x '{}'; recv; read -r name </dev/tty; send 3 x \"$name\"; recv";
    let path = place.standard("reads", body);
    let args = ["run", path.to_str().unwrap(), "--grace", "50ms", "--call", "greet"];
    let mut session = Session::start(&place, &args);
    session.until("is stopped (SIGTTIN), since it used the terminal: --stdin inherit");
    session.type_in("\x03");
    session.until("did not stop when asked: stopped by SIGTERM");
    assert_eq!(session.code(), Some(130));
}

#[test]
fn ctrl_c_reaches_the_program_which_asks_the_plugin_to_stop() {
    let place = Place::new();
    let mut session = Session::start(&place, &["run", &attentive(&place)]);
    session.until("it is up");
    session.type_in("\x03");
    assert_eq!(session.code(), Some(130));
    assert!(place.path().join("asked").exists());
    assert!(!place.path().join("interrupted").exists());
}

#[test]
fn ctrl_c_reaches_a_plugin_that_has_the_terminal_too() {
    let place = Place::new();
    let mut session = Session::start(&place, &["run", &attentive(&place), "--stdin", "inherit"]);
    session.until("it is up");
    session.type_in("\x03");
    assert_eq!(session.code(), Some(130));
    assert!(place.path().join("interrupted").exists());
}

#[test]
fn a_terminal_that_is_closed_stops_the_plugin() {
    let place = Place::new();
    let mut session = Session::start(&place, &["run", &attentive(&place)]);
    session.until("it is up");
    assert_eq!(session.close(), Some(129));
    assert!(place.path().join("asked").exists());
}
