//! A sandbox in words, for people.

use std::fmt::Display;
use std::path::PathBuf;

use super::{Files, Level, Limits, Sandbox};

impl Sandbox {
    /// The files, network and resources that it grants, for people: a line for each kind, as `TCP:
    /// connections to port 80`.
    #[must_use]
    pub fn in_words(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match (&self.files, self.level) {
            (None, _) => lines.push("files: all that its user may use".to_owned()),
            (Some(Files { read, look_at, write, .. }), level) => {
                let own = match level {
                    Level::Strict => {
                        format!(
                            "its own, the system's programs and libraries, /tmp and /dev/shm of {} \
                             bytes each",
                            self.scratch
                        )
                    }
                    Level::Basic => "its own, and the system's programs and libraries".to_owned(),
                };
                lines.push(format!("files: {own}"));
                lines.extend(named("read", read));
                lines.extend(named("read, not execute", look_at));
                lines.extend(named("write", write));
            }
        }
        match &self.ports {
            None => lines.push("network: all of the host's".to_owned()),
            Some(ports) if ports.connect.is_empty() && ports.bind.is_empty() => {
                lines.push("network: none".to_owned());
            }
            Some(ports) => {
                let connect =
                    listed(&ports.connect).map(|ports| format!("connections to port {ports}"));
                let bind = listed(&ports.bind).map(|ports| format!("listening on port {ports}"));
                let both: Vec<_> = connect.into_iter().chain(bind).collect();
                lines.push(format!("network: TCP only, {}", both.join(", ")));
            }
        }
        let Limits { memory, cpu, open_files, processes, file_size, pending_signals: _ } =
            self.limits;
        let limits: Vec<_> = [
            memory.map(|bytes| format!("{bytes} bytes of address space")),
            cpu.map(|time| format!("{time:?} of CPU time")),
            open_files.map(|count| format!("{count} open files")),
            processes.map(|count| format!("{count} processes and threads")),
            file_size.map(|bytes| format!("files of {bytes} bytes")),
        ]
        .into_iter()
        .flatten()
        .collect();
        if !limits.is_empty() {
            lines.push(format!("limits: {}", limits.join(", ")));
        }
        lines
    }
}

fn named(what: &str, paths: &[PathBuf]) -> Option<String> {
    let paths: Vec<_> = paths.iter().map(|path| format!("{path:?}")).collect();
    listed(&paths).map(|paths| format!("{what}: {paths}"))
}

fn listed(all: &[impl Display]) -> Option<String> {
    let all: Vec<_> = all.iter().map(ToString::to_string).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_granted_is_said() {
        assert_eq!(
            Sandbox::basic().in_words(),
            ["files: all that its user may use", "network: all of the host's"]
        );
        let strict = Sandbox::strict()
            .read("/srv/a b")
            .read("/opt")
            .write("/var/x")
            .connect(80)
            .connect(443)
            .bind(8080);
        assert_eq!(
            strict.processes(7).in_words(),
            [
                "files: its own, the system's programs and libraries, /tmp and /dev/shm of \
                 67108864 bytes each",
                "read: \"/srv/a b\", \"/opt\"",
                "write: \"/var/x\"",
                "network: TCP only, connections to port 80, 443, listening on port 8080",
                "limits: 4294967296 bytes of address space, 256 open files, 7 processes and \
                 threads, files of 1073741824 bytes",
            ]
        );
        assert_eq!(Sandbox::strict().in_words()[1], "network: none");
    }
}
