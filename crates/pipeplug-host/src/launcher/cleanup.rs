//! Removal of a container or a pod that outlives its host.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{self, PathBuf};
use std::time::Duration;

use super::client;
use crate::process::{Leftovers, OnHostExit, SpawnError, SpawnErrorKind, spawn};

/// Time for the shell to fork the process that waits.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Shell script that waits for a word, or for the end of the pipe that only the host can write to.
/// It runs in the background as an orphan: it is still there when all else is killed, and the host
/// does not have to reap it.
///
/// The engine may still be creating the container, hence more than one attempt.
const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM
cd /
exec 3<&0
(
    read -r word || word=$1
    [ "$word" = remove ] || exit 0
    shift
    for pause in 0 2 8; do
        sleep "$pause"
        remove "$@" && break
    done
) <&3 3<&- >/dev/null 2>&1 &
"#;

const REMOVE: &str = "remove";
const OVER: &str = "over";

/// Command that removes a container or a pod.
#[derive(Debug)]
pub(super) struct Removal {
    /// Name in logs.
    pub(super) what: String,
    /// Script of the shell: `$1` is the program, the arguments follow. Succeeds if there was
    /// something to remove.
    pub(super) script: &'static str,
    pub(super) program: PathBuf,
    pub(super) args: Vec<OsString>,
}

/// Removes something when it is dropped, or when this process ends.
#[derive(Debug)]
pub(super) struct Cleanup {
    pipe: OwnedFd,
    what: String,
    then: &'static str,
}

impl Cleanup {
    /// # Blocking
    /// Until the shell has forked.
    pub(super) fn arm(removal: Removal, on_host_exit: OnHostExit) -> Result<Self, SpawnError> {
        let Removal { what, script, program, args } = removal;
        let at_end = match on_host_exit {
            OnHostExit::Kill => REMOVE,
            OnHostExit::EndOfFile => OVER,
        };
        let system = |attempt| {
            let program = program.clone();
            move |error| SpawnErrorKind::Os { attempt, error }.at(&program)
        };
        let absolute = path::absolute(&program).map_err(system("finding the working directory"))?;
        let mut launch = client::tool("/bin/sh");
        let script = format!("remove() {{\n{script}\n}}\n{SCRIPT}");
        launch.args = vec![
            "-c".into(),
            script.into(),
            "pipeplug-cleanup".into(),
            at_end.into(),
            absolute.into(),
        ];
        launch.args.extend(args);
        let shell = spawn(&launch)?;
        let ended = shell.child.wait_timeout(TIMEOUT, Leftovers::Leave);
        match ended.map_err(system("waiting for the shell that removes it"))? {
            Some(_) => Ok(Self { pipe: shell.to_guest, what, then: REMOVE }),
            None => {
                let error = io::Error::new(io::ErrorKind::TimedOut, "the shell does not end");
                Err(system("starting the shell that removes it")(error))
            }
        }
    }

    /// Ends the cleanup: nothing is left to remove.
    pub(super) fn release(mut self) {
        self.then = OVER;
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        let told = self.pipe.try_clone().and_then(|pipe| {
            let word = format!("{}\n", self.then);
            client::without_sigpipe("pipeplug-cleanup", || {
                File::from(pipe).write_all(word.as_bytes())
            })
        });
        if let Err(error) = told
            && self.then == REMOVE
        {
            let what = &self.what;
            tracing::warn!(%error, "{what} may be left behind: its cleanup process is gone");
        }
    }
}
