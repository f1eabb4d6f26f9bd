//! Options for launchers: how and where a plugin is started.

use std::time::Duration;
#[cfg(target_os = "linux")]
use std::{ffi::OsStr, path::PathBuf};

use clap::Args;
use pipeplug_host::PluginBuilder;
#[cfg(target_os = "linux")]
use pipeplug_host::launcher::Attach;
use pipeplug_host::launcher::{CommandPrefix, Engine, Ssh};

use crate::args::container::ContainerArgs;
use crate::args::kubectl::KubectlArgs;

/// Options that allow PLUGIN to be left out, since the launcher provides one.
pub(crate) const WITH_PLUGIN: &[&str] = &[
    "docker",
    "podman",
    "kubectl",
    #[cfg(target_os = "linux")]
    "attach",
];

/// Options that start the plugin by a launcher. Without them it is a process on this machine.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Launcher (one of these)")]
#[group(id = "launcher", multiple = false)]
pub(crate) struct LauncherArgs {
    /// Prefix PLUGIN with this command, which passes on stdin and stdout: "sudo -n -u guest",
    /// "bwrap
    /// --ro-bind / /"
    #[arg(long, value_name = "COMMAND", value_parser = parse_command)]
    via: Option<PrefixWords>,

    /// Run in a container of this image, with Docker
    #[arg(long, value_name = "IMAGE", group = "container")]
    docker: Option<String>,

    /// Run in a container of this image, with Podman
    #[arg(long, value_name = "IMAGE", group = "container")]
    podman: Option<String>,

    /// Run on another machine over ssh; PLUGIN is a path there
    #[arg(long, value_name = "USER@HOST")]
    ssh: Option<String>,

    /// Run in a pod of this image, with kubectl; the start takes longer, which --timeout has to
    /// allow
    #[arg(long, value_name = "IMAGE")]
    kubectl: Option<String>,

    /// Attach to a plugin that was started by hand or in a debugger with --pipeplug-listen PATH;
    /// leave PLUGIN out
    #[cfg(target_os = "linux")]
    #[arg(
        long,
        value_name = "PATH",
        conflicts_with_all = ["plugin", "args", "stdio", "stdin", "stdout", "env", "cwd"]
    )]
    attach: Option<PathBuf>,
}

/// Program with its first arguments, before the path of the plugin.
#[derive(Debug, Clone)]
struct PrefixWords(Vec<String>);

impl LauncherArgs {
    /// Sets the launcher and its options. `timeout` limits the connection of ssh too.
    pub(crate) fn apply(
        &self,
        builder: PluginBuilder,
        container: &ContainerArgs,
        kubectl: &KubectlArgs,
        timeout: Option<Duration>,
    ) -> PluginBuilder {
        if let Some(PrefixWords(words)) = &self.via {
            return builder.launcher(CommandPrefix::new(words));
        }
        if let Some((engine, image)) = self.image() {
            return builder.launcher(container.container(engine, image));
        }
        if let Some(destination) = &self.ssh {
            let ssh = Ssh::new(destination);
            // Whole seconds, and shorter than the start timeout, so that ssh reports its own error.
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

    /// Name of the plugin that the launcher provides if PLUGIN is left out. `None` if PLUGIN is a
    /// path on this machine.
    pub(crate) fn preinstalled_name(&self) -> Option<&str> {
        let image = self.image().map(|(_, image)| image);
        image.or(self.ssh.as_deref()).or(self.kubectl.as_deref()).or_else(|| self.socket())
    }

    /// True if a launcher was given. A launcher applies no sandbox of this program.
    pub(crate) fn is_given(&self) -> bool {
        self.via.is_some() || self.preinstalled_name().is_some()
    }

    /// Name of the plugin to attach to.
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

/// Splits text into words with the quoting rules of a shell, without any expansion.
fn parse_command(text: &str) -> Result<PrefixWords, String> {
    match shlex::split(text) {
        Some(words) if !words.is_empty() => Ok(PrefixWords(words)),
        Some(_) => Err("the command is empty; name a program, as in \"nice -n 10\"".to_owned()),
        None => Err("a quotation mark is not closed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_a_shell() {
        let PrefixWords(words) = parse_command("sh -c 'exec \"$@\"' 'a b'").unwrap();
        assert_eq!(words, ["sh", "-c", "exec \"$@\"", "a b"]);
        assert!(parse_command("  ").unwrap_err().contains("empty"));
        assert!(parse_command("a 'b").unwrap_err().contains("not closed"));
    }
}
