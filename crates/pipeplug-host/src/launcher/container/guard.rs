//! What removes a container where neither it nor the host does.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{self, Path};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

use crate::process::{Channel, HostLost, Launch, Leftovers, SpawnError, spawn};

/// How long the shell may take to leave the guard behind.
const PATIENCE: Duration = Duration::from_secs(30);

/// A shell that waits for a word, or for the end of the pipe that the host alone can write to; it runs in the background, as
/// nobody's child, so that it is there when all else is killed, and nobody has to reap it.
///
/// Where the client was killed within its start, the engine may yet be making the container: hence more than one attempt.
const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM
cd /
exec 3<&0
(
    read -r word || word=$1
    [ "$word" = remove ] || exit 0
    for pause in 0 2 8; do
        sleep "$pause"
        "$2" kill "$3" && last=yes
        "$2" rm --force --volumes "$3"
        [ -z "$last" ] || break
    done
) <&3 3<&- >/dev/null 2>&1 &
"#;

const REMOVE: &str = "remove";
const OVER: &str = "over";

/// Removes the container when it is dropped, or when this process ends.
#[derive(Debug)]
pub(super) struct Guard {
    pipe: OwnedFd,
    container: String,
    then: &'static str,
}

impl Guard {
    /// # Blocking
    /// Until the shell has forked.
    pub(super) fn set(engine: &Path, container: &str, host_lost: HostLost) -> Result<Self, SpawnError> {
        let at_end = match host_lost {
            HostLost::Kill => REMOVE,
            HostLost::EndOfFile => OVER,
        };
        let system = |attempt| move |error| SpawnError::Os { path: engine.to_owned(), attempt, error };
        let engine = path::absolute(engine).map_err(system("finding the working directory"))?;
        let mut launch = Launch::new("/bin/sh");
        launch.channel = Channel::Stdio;
        launch.host_lost = HostLost::EndOfFile;
        launch.args = vec![
            "-c".into(),
            SCRIPT.into(),
            "pipeplug-guard".into(),
            at_end.into(),
            engine.clone().into_os_string(),
            container.into(),
        ];
        let shell = spawn(&launch)?;
        let ended = shell.child.wait_timeout(PATIENCE, Leftovers::Leave);
        match ended.map_err(|error| SpawnError::Os {
            path: engine.clone(),
            attempt: "waiting for its guard",
            error,
        })? {
            Some(_) => Ok(Self { pipe: shell.to_guest, container: container.to_owned(), then: REMOVE }),
            None => Err(SpawnError::Os {
                path: engine,
                attempt: "starting its guard",
                error: io::Error::new(io::ErrorKind::TimedOut, "the shell does not end"),
            }),
        }
    }

    /// The container is gone.
    pub(super) fn release(mut self) {
        self.then = OVER;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let told = self.pipe.try_clone().and_then(|pipe| say(self.then, pipe));
        if let Err(error) = told
            && self.then == REMOVE
        {
            let container = &self.container;
            tracing::warn!(%container, %error, "a container may be left: what was to remove it is gone");
        }
    }
}

/// Writes to a pipe that nobody may read any more. A SIGPIPE of that goes to the thread that wrote, and with it.
fn say(word: &'static str, pipe: OwnedFd) -> io::Result<()> {
    let write = move || {
        SigSet::from(Signal::SIGPIPE).thread_block()?;
        File::from(pipe).write_all(format!("{word}\n").as_bytes())
    };
    let thread = thread::Builder::new().name("pipeplug-guard".into()).spawn(write)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that tells it panicked")))
}
