//! Container engines.

use std::fmt;
use std::path::PathBuf;

use super::client;

/// A container engine, used through its client on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Engine {
    /// Docker, whose daemon `DOCKER_HOST` and `docker context` choose.
    Docker,
    /// Podman, which needs no daemon.
    Podman,
}

impl Engine {
    /// Finds an engine whose client is in `PATH`, Docker before Podman. Does not check that the
    /// engine works.
    #[must_use]
    pub fn installed() -> Option<Self> {
        [Self::Docker, Self::Podman].into_iter().find(|engine| engine.path().is_some())
    }

    /// Name of the engine's client.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    /// The shell's commands that remove a container, with the client as `$1` and the container's
    /// name as `$2`. They succeed where there was one, which `rm --force` does not tell.
    pub(super) fn removal(self) -> &'static str {
        match self {
            // A daemon that is being restarted removes nothing.
            Self::Docker => {
                r#"for pause in 2 4 8 16 30 60; do "$1" version && break; sleep "$pause"; done
                "$1" kill "$2" && killed=yes; "$1" rm --force --volumes "$2"; [ "$killed" ]"#
            }
            // Where a start is removed that is under way, the monitor (conmon) and what it started
            // stay for ever, and Podman knows nothing of them.
            Self::Podman => {
                r#"i=0
                while [ "$i" -lt 150 ]; do
                    state=$("$1" container inspect --format "{{.State.Status}}" "$2") || break
                    case $state in configured|created|initialized) ;; *) break;; esac
                    sleep 0.2 || sleep 1
                    i=$((i + 1))
                done
                "$1" kill "$2" && killed=yes; "$1" rm --force --volumes "$2"; [ "$killed" ]"#
            }
        }
    }

    pub(super) fn path(self) -> Option<PathBuf> {
        client::find(self.program().as_ref())
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "Docker",
            Self::Podman => "Podman",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    /// Runs the removal with a client that is this script, which has its own directory in `$dir`;
    /// gives its exit code and what the client was told.
    fn removed(engine: Engine, client: &str) -> (Option<i32>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let (log, path) = (dir.path().join("log"), dir.path().display());
        // A function in place of a file, which another test's child could hold open for writing.
        let script = format!(
            "dir={path}\nclient() {{ echo \"$1\" >>\"$dir/log\"\n{client}\n}}\nremove() \
             {{\n{}\n}}\nremove client name",
            engine.removal()
        );
        let status = Command::new("/bin/sh").args(["-c", &script]).status().unwrap();
        let told = fs::read_to_string(log).unwrap().lines().map(str::to_owned).collect();
        (status.code(), told)
    }

    #[test]
    fn a_start_is_over_before_its_container_is_removed() {
        let starting = r#"[ "$1" = container ] || return 0
            case $(grep -c container "$dir/log") in 1) echo created;; 2) echo initialized;; *) echo running;; esac"#;
        let all = ["container", "container", "container", "kill", "rm"];
        assert_eq!(removed(Engine::Podman, starting), (Some(0), all.map(str::to_owned).into()));
        // None is there (yet): nothing is waited for, and there is another attempt later.
        let none = ["container", "kill", "rm"];
        let client = r#"[ "$1" = rm ]"#;
        assert_eq!(removed(Engine::Podman, client), (Some(1), none.map(str::to_owned).into()));
    }

    #[test]
    fn a_daemon_that_is_restarted_is_waited_for() {
        let client = r#"[ "$1" != version ] || [ "$(grep -c version "$dir/log")" -gt 1 ]"#;
        let all = ["version", "version", "kill", "rm"];
        assert_eq!(removed(Engine::Docker, client), (Some(0), all.map(str::to_owned).into()));
    }
}
