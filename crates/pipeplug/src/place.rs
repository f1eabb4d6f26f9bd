//! The options of where a plugin runs.

use std::time::Duration;
#[cfg(target_os = "linux")]
use std::{ffi::OsStr, path::PathBuf};

use clap::Args;
use pipeplug_host::PluginBuilder;
#[cfg(target_os = "linux")]
use pipeplug_host::launcher::Attach;
use pipeplug_host::launcher::{CommandPrefix, Engine, Ssh};

use crate::container::ContainerArgs;
use crate::kubectl::KubectlArgs;

/// The options with which PLUGIN may be left out, since the place has one.
pub(crate) const WITH_PLUGIN: &[&str] = &[
    "docker",
    "podman",
    "kubectl",
    #[cfg(target_os = "linux")]
    "attach",
];

/// Where a plugin runs; as a process of this machine, unless one of these says otherwise.
#[derive(Debug, Args)]
#[command(next_help_heading = "Where it runs")]
#[group(id = "place", multiple = false)]
pub(crate) struct PlaceArgs {
    /// Start it by this command, which carries its stdin and stdout: "sudo -n -u guest", "bwrap
    /// --ro-bind / /"
    #[arg(long, value_name = "COMMAND", value_parser = parse_command)]
    via: Option<Command>,

    /// Run it in a container of this image, by Docker
    #[arg(long, value_name = "IMAGE", group = "container")]
    docker: Option<String>,

    /// Run it in a container of this image, by Podman
    #[arg(long, value_name = "IMAGE", group = "container")]
    podman: Option<String>,

    /// Run it on another machine, by your ssh; PLUGIN is a path there
    #[arg(long, value_name = "USER@HOST")]
    ssh: Option<String>,

    /// Run it in a pod of this image, by your kubectl; a start takes longer there, which --timeout
    /// has to allow
    #[arg(long, value_name = "IMAGE")]
    kubectl: Option<String>,

    /// Attach to one that was started by hand, or in a debugger, with --pipeplug-listen PATH;
    /// without PLUGIN
    #[cfg(target_os = "linux")]
    #[arg(
        long,
        value_name = "PATH",
        conflicts_with_all = ["plugin", "args", "stdio", "stdin", "stdout", "env", "cwd"]
    )]
    attach: Option<PathBuf>,
}

/// A command with its arguments.
#[derive(Debug, Clone)]
struct Command(Vec<String>);

impl PlaceArgs {
    /// The same builder with the place set, and what a plugin in a container or a pod may do. A
    /// time-out of the start is also one of the way there.
    pub(crate) fn apply(
        &self,
        builder: PluginBuilder,
        container: &ContainerArgs,
        kubectl: &KubectlArgs,
        timeout: Option<Duration>,
    ) -> PluginBuilder {
        if let Some(Command(words)) = &self.via {
            return builder.launcher(CommandPrefix::new(words));
        }
        if let Some((engine, image)) = self.image() {
            return builder.launcher(container.container(engine, image));
        }
        if let Some(destination) = &self.ssh {
            let ssh = Ssh::new(destination);
            // In whole seconds and less than the start has, so that it is ssh that tells.
            let connecting =
                timeout.map(|timeout| Duration::from_secs((timeout * 4 / 5).as_secs()));
            return builder.launcher(match connecting {
                Some(time) => ssh.connect_timeout(time),
                None => ssh,
            });
        }
        if let Some(image) = &self.kubectl {
            return builder.launcher(kubectl.kubectl(image));
        }
        #[cfg(target_os = "linux")]
        if let Some(path) = &self.attach {
            return builder.launcher(Attach::new(path));
        }
        builder
    }

    /// Where PLUGIN is a path in the place, what it is called that starts without a PLUGIN; `None`
    /// where it is one of this machine.
    pub(crate) fn of_its_own(&self) -> Option<&str> {
        let image = self.image().map(|(_, image)| image);
        image.or(self.ssh.as_deref()).or(self.kubectl.as_deref()).or_else(|| self.socket())
    }

    /// Looks for a place that sees to no sandbox: all but a process that this program starts.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.via.is_some() || self.of_its_own().is_some()
    }

    /// What a plugin is called that is attached to.
    fn socket(&self) -> Option<&str> {
        #[cfg(target_os = "linux")]
        if let Some(path) = &self.attach {
            return Some(path.file_name().and_then(OsStr::to_str).unwrap_or("plugin"));
        }
        None
    }

    fn image(&self) -> Option<(Engine, &str)> {
        let docker = self.docker.as_deref().map(|image| (Engine::Docker, image));
        docker.or(self.podman.as_deref().map(|image| (Engine::Podman, image)))
    }
}

/// The words as a shell has them, with quotes, and nothing else of a shell.
fn parse_command(text: &str) -> Result<Command, String> {
    match shlex::split(text) {
        Some(words) if !words.is_empty() => Ok(Command(words)),
        Some(_) => Err("it is empty; name a program, as in \"nice -n 10\"".to_owned()),
        None => Err("a quotation mark is not closed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_a_shell() {
        let Command(words) = parse_command("sh -c 'exec \"$@\"' 'a b'").unwrap();
        assert_eq!(words, ["sh", "-c", "exec \"$@\"", "a b"]);
        assert!(parse_command("  ").unwrap_err().contains("empty"));
        assert!(parse_command("a 'b").unwrap_err().contains("not closed"));
    }
}
