//! The options of what a plugin in a container may do.

use std::path::PathBuf;

use clap::Args;
use pipeplug_host::launcher::{Container, Engine};

use crate::args::units::parse_bytes;

/// The options of `launcher.rs` of which one has to be there for any of these to mean something.
const GROUP: &str = "container";

/// Without any of these: no network, a read-only root, no capability, the user nobody, limits.
#[derive(Debug, Args)]
#[command(next_help_heading = "In a container")]
pub(crate) struct ContainerArgs {
    /// The engine's network that the plugin is in [default: none]
    #[arg(long, value_name = "NAME", requires = GROUP)]
    network: Option<String>,

    /// Its user, as NAME, UID or UID:GID [default: 65534:65534, nobody]
    #[arg(long, value_name = "USER", requires = GROUP)]
    user: Option<String>,

    /// The most memory it may have [default: 512M]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, requires = GROUP)]
    memory: Option<u64>,

    /// How many CPUs' time it may take [default: 1]
    #[arg(long, value_name = "NUMBER", value_parser = parse_cpus, requires = GROUP)]
    cpus: Option<f64>,

    /// How many processes and threads it may have [default: 256]
    #[arg(long, value_name = "NUMBER", requires = GROUP)]
    pids: Option<u32>,

    /// Show it a file or directory; to read, unless :rw follows
    #[arg(long = "mount", value_name = "SOURCE:TARGET[:rw]", value_parser = parse_mount, requires = GROUP)]
    mounts: Vec<Mount>,

    /// Let it write to its root file system, which goes with the container
    #[arg(long, requires = GROUP)]
    writable_root: bool,

    /// Download the image where it is not here; --timeout has to leave time for that
    #[arg(long, requires = GROUP)]
    pull: bool,

    /// One more option of `docker run` or `podman run`: --engine-arg=--tmpfs=/tmp
    #[arg(long = "engine-arg", value_name = "ARG", allow_hyphen_values = true, requires = GROUP)]
    engine_args: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    source: PathBuf,
    target: PathBuf,
    access: Access,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    ReadOnly,
    ReadWrite,
}

impl ContainerArgs {
    pub(crate) fn container(&self, engine: Engine, image: &str) -> Container {
        let mut container = Container::new(engine, image);
        if let Some(network) = &self.network {
            container = container.network(network);
        }
        if let Some(user) = &self.user {
            container = container.user(user);
        }
        if let Some(bytes) = self.memory {
            container = container.memory(bytes);
        }
        if let Some(cpus) = self.cpus {
            container = container.cpus(cpus);
        }
        if let Some(pids) = self.pids {
            container = container.pids(pids);
        }
        for Mount { source, target, access } in &self.mounts {
            container = match access {
                Access::ReadOnly => container.mount(source, target),
                Access::ReadWrite => container.mount_writable(source, target),
            };
        }
        if self.writable_root {
            container = container.writable_root();
        }
        if self.pull {
            container = container.pull_missing();
        }
        self.engine_args.iter().fold(container, Container::engine_arg)
    }
}

fn parse_cpus(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(cpus) if cpus > 0.0 && f64::is_finite(cpus) => Ok(cpus),
        _ => Err("no number of CPUs; write 0.5, 1 or 2".to_owned()),
    }
}

fn parse_mount(text: &str) -> Result<Mount, String> {
    let (text, access) = match text.strip_suffix(":rw") {
        Some(text) => (text, Access::ReadWrite),
        None => (text.strip_suffix(":ro").unwrap_or(text), Access::ReadOnly),
    };
    match text.split_once(':') {
        Some((source, target)) if !source.is_empty() && target.starts_with('/') && !target.contains(':') => {
            Ok(Mount { source: source.into(), target: target.into(), access })
        }
        Some(_) => {
            Err("SOURCE is a path here, TARGET one from the root of the container, neither with a colon"
                .to_owned())
        }
        None => Err("there is no `:`; write SOURCE:TARGET, as in --mount ./data:/data".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_to_read_unless_told_otherwise() {
        let mount = |access| Ok(Mount { source: "./a".into(), target: "/b".into(), access });
        assert_eq!(parse_mount("./a:/b"), mount(Access::ReadOnly));
        assert_eq!(parse_mount("./a:/b:ro"), mount(Access::ReadOnly));
        assert_eq!(parse_mount("./a:/b:rw"), mount(Access::ReadWrite));
        assert!(parse_mount("./a").unwrap_err().contains("there is no `:`"));
        for text in ["./a:b", ":/b", "a:/b:c", "a:"] {
            assert!(parse_mount(text).unwrap_err().contains("neither with a colon"), "{text}");
        }
    }

    #[test]
    fn cpus_are_a_number_above_zero() {
        assert_eq!(parse_cpus("0.5"), Ok(0.5));
        for text in ["0", "-1", "inf", "NaN", "two"] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
    }
}
