//! Options for plugins in a container: network, user, limits, mounts.

use std::path::PathBuf;

use clap::Args;
use pipeplug_host::launcher::{Container, Engine};

use crate::args::units::parse_bytes;

/// Argument group of `launcher.rs`. Each option below requires one option of the group.
const GROUP: &str = "container";

/// Options for a container. The defaults: no network, a read-only root, no capabilities, an
/// unprivileged user (65534), and limits.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Container (with --docker or --podman)")]
pub(crate) struct ContainerArgs {
    /// Network of the engine to connect the plugin to [default: none]
    #[arg(long, value_name = "NAME", requires = GROUP)]
    network: Option<String>,

    /// User to run as: NAME, UID or UID:GID [default: 65534:65534, which has no privileges]
    #[arg(long, value_name = "USER", requires = GROUP)]
    user: Option<String>,

    /// Memory limit, as 64M or 1G [default: 512M]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, requires = GROUP)]
    memory: Option<u64>,

    /// CPU limit, in CPUs: 0.5, 1, 2 [default: 1]
    #[arg(long, value_name = "NUMBER", value_parser = parse_cpus, requires = GROUP)]
    cpus: Option<f64>,

    /// Limit of processes and threads [default: 256]
    #[arg(long, value_name = "NUMBER", requires = GROUP)]
    pids: Option<u32>,

    /// Mount a file or directory, read-only unless :rw follows: ./data:/data;
    /// repeatable
    #[arg(long = "mount", value_name = "SOURCE:TARGET[:rw]", value_parser = parse_mount, requires = GROUP)]
    mounts: Vec<Mount>,

    /// Make the root file system writable; it is removed with the container
    #[arg(long, requires = GROUP)]
    writable_root: bool,

    /// Download the image if it is missing; --timeout has to allow for the download
    #[arg(long, requires = GROUP)]
    pull: bool,

    /// Pass an option to `docker run` or `podman run`: --engine-arg=--tmpfs=/tmp; repeatable
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
        _ => Err("not a number of CPUs; write 0.5, 1 or 2".to_owned()),
    }
}

fn parse_mount(text: &str) -> Result<Mount, String> {
    let (text, access) = match text.strip_suffix(":rw") {
        Some(text) => (text, Access::ReadWrite),
        None => (text.strip_suffix(":ro").unwrap_or(text), Access::ReadOnly),
    };
    match text.split_once(':') {
        Some((source, target))
            if !source.is_empty() && target.starts_with('/') && !target.contains(':') =>
        {
            Ok(Mount { source: source.into(), target: target.into(), access })
        }
        Some(_) => {
            Err("SOURCE is a path on this machine, TARGET an absolute path in the container, \
                 neither with a colon"
                .to_owned())
        }
        None => Err("there is no `:`; write SOURCE:TARGET, as in --mount ./data:/data".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_only_by_default() {
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
