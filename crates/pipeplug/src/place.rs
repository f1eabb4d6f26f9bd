//! The options of where a plugin runs.

use clap::Args;
use pipeplug_host::Builder;
use pipeplug_host::launcher::{Engine, Via};

use crate::container::ContainerArgs;

/// The options with which PLUGIN may be left out, since the place has one.
pub(crate) const WITH_PLUGIN: [&str; 2] = ["docker", "podman"];

/// Where a plugin runs; as a process of this machine, unless one of these says otherwise.
#[derive(Debug, Args)]
#[command(next_help_heading = "Where it runs")]
#[group(id = "place", multiple = false)]
pub(crate) struct PlaceArgs {
    /// Start it by this command, which carries its stdin and stdout: "sudo -n -u guest", "bwrap --ro-bind / /"
    #[arg(long, value_name = "COMMAND", value_parser = parse_command)]
    via: Option<Command>,

    /// Run it in a container of this image, by Docker
    #[arg(long, value_name = "IMAGE", group = "container")]
    docker: Option<String>,

    /// Run it in a container of this image, by Podman
    #[arg(long, value_name = "IMAGE", group = "container")]
    podman: Option<String>,
}

/// A command with its arguments.
#[derive(Debug, Clone)]
struct Command(Vec<String>);

impl PlaceArgs {
    /// The same builder with the place set, and what a plugin in a container may do.
    pub(crate) fn apply(&self, builder: Builder, container: &ContainerArgs) -> Builder {
        if let Some(Command(words)) = &self.via {
            return builder.launcher(Via::new(words));
        }
        if let Some((engine, image)) = self.image() {
            return builder.launcher(container.container(engine, image));
        }
        builder
    }

    /// Where PLUGIN is a path in the place, what it is called that starts without a PLUGIN; `None` where it is one of this
    /// machine.
    pub(crate) fn of_its_own(&self) -> Option<&str> {
        self.image().map(|(_, image)| image)
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
