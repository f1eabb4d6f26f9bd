//! Complaints of engines about a container that did not start.

use pipeplug_net::Escaped;

use super::run::Run;
use super::{Container, Engine};
use crate::launcher::Diagnosis;

/// The part of a start that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The engine's own (status 125).
    Engine,
    /// The execution of the program (126, 127), or what Podman reports as that.
    Program,
}

/// The cause of a complaint and the next step; `None` where it may be the plugin's own.
pub(super) fn diagnose(
    container: &Container,
    run: &Run,
    phase: Phase,
    complaint: &str,
) -> Option<Diagnosis> {
    let text = complaint.to_lowercase();
    of_client(container, run, &text)
        .or_else(|| of_image(container, complaint, &text))
        .or_else(|| of_settings(container, run, complaint, &text))
        .or_else(|| of_program(phase, &text))
        .or_else(|| {
            let words = Escaped(Engine::words(complaint));
            let is_engine = phase == Phase::Engine || Engine::words(complaint) != complaint;
            is_engine.then(|| Diagnosis::passing(format!("{} refuses: {words}", container.engine)))
        })
}

fn says(text: &str, parts: &[&str]) -> bool {
    parts.iter().any(|part| text.contains(part))
}

/// The way to the engine.
fn of_client(container: &Container, run: &Run, text: &str) -> Option<Diagnosis> {
    let engine = container.engine;
    Some(if says(text, &["error waiting for container"]) {
        Diagnosis::passing(format!(
            "the connection to {engine}'s daemon broke off, as when the daemon is killed or \
             restarted: the container {name} may run on; once the daemon answers again it is \
             removed within two minutes, or by `{client} rm --force {name}`",
            name = run.name,
            client = engine.program(),
        ))
    } else if says(text, &["context not found", "context \""])
        && says(text, &["endpoint", "context not found"])
    {
        Diagnosis::permanent(
            "there is no such context of Docker: `docker context ls` lists them, and \
             DOCKER_CONTEXT, or `docker context use`, chooses one",
        )
    } else if says(
        text,
        &[
            "unable to resolve docker endpoint",
            "invalid bind address",
            "unable to parse docker host",
        ],
    ) {
        Diagnosis::permanent(
            "DOCKER_HOST, or the context, names no place to connect to: write it as \
             unix:///run/docker.sock, tcp://HOST:PORT or ssh://USER@HOST",
        )
    } else if says(
        text,
        &["permission denied while trying to connect", "connect: permission denied"],
    ) {
        Diagnosis::permanent(format!(
            "this user may not use {engine}'s daemon: add the user to the group `docker`, or use \
             rootless Docker or Podman"
        ))
    } else if says(
        text,
        &[
            "cannot connect to the docker daemon",
            "error during connect",
            "cannot connect to podman",
        ],
    ) {
        Diagnosis::passing(format!(
            "{engine}'s daemon does not answer: start it, as with `systemctl start docker`, or \
             have DOCKER_HOST say where it listens"
        ))
    } else if says(text, &["newuidmap", "newgidmap"]) && says(text, &["not found", "no such file"])
    {
        Diagnosis::permanent(
            "Podman without root needs newuidmap and newgidmap: install uidmap (shadow-utils on \
             Fedora)",
        )
    } else if says(text, &["xdg_runtime_dir", "mkdir /run/user"]) {
        Diagnosis::permanent(
            "Podman without root needs a directory of the user's own in XDG_RUNTIME_DIR: log in as \
             that user (not by su or sudo), or set it to one that the user alone may use",
        )
    } else {
        return None;
    })
}

/// The image, and where it comes from.
fn of_image(container: &Container, complaint: &str, text: &str) -> Option<Diagnosis> {
    let Container { engine, image, .. } = container;
    let client = engine.program();
    Some(if says(text, &["error getting credentials"]) {
        let helper = complaint
            .split('"')
            .find(|word| word.starts_with("docker-credential"))
            .unwrap_or("the credential helper");
        Diagnosis::permanent(format!(
            "{helper:?} fails, which is to give the login for the registry of {image:?}: install \
             it, or take `credsStore` and `credHelpers` out of the client's settings \
             (~/.docker/config.json)"
        ))
    } else if says(text, &["no such image", "image not known", "unable to find image"]) {
        Diagnosis::permanent(format!(
            "there is no image {image:?} on this machine: `{client} pull {image}` downloads it, \
             `pipeplug pack` makes one"
        ))
    } else if says(text, &["unauthorized", "authentication required", "no basic auth credentials"])
    {
        Diagnosis::permanent(format!(
            "the registry of {image:?} wants a login: `{client} login` with the registry's name \
             gives it"
        ))
    } else if says(
        text,
        &["pull access denied", "manifest unknown", "repository does not exist", "name unknown"],
    ) {
        Diagnosis::permanent(format!(
            "there is no image {image:?} to download: check its name, or log in"
        ))
    } else if says(
        text,
        &[
            "pinging container registry",
            "/v2/",
            "tls handshake timeout",
            "failed to resolve reference",
        ],
    ) {
        Diagnosis::passing(format!(
            "the registry of {image:?} is not reached from where {engine} runs: check its name and \
             the network there, or download the image with `{client} pull {image}` and leave \
             `--pull` out"
        ))
    } else if says(text, &["did not resolve to an alias", "unqualified-search"]) {
        Diagnosis::permanent(format!(
            "the name {image:?} says not which registry it is from: write it in full, as \
             docker.io/library/NAME:TAG"
        ))
    } else if says(text, &["does not match the specified platform", "no matching manifest"]) {
        Diagnosis::permanent(format!(
            "the image {image:?} is for another machine than was asked for: pull or build it for \
             {}",
            std::env::consts::ARCH
        ))
    } else if says(text, &["invalid reference format"]) {
        Diagnosis::permanent(format!(
            "{image:?} is no name of an image: write NAME:TAG, with small letters"
        ))
    } else if says(text, &["no command specified", "no command or entrypoint"]) {
        Diagnosis::permanent(format!(
            "the image {image:?} names no program: give the program's path in it as PLUGIN \
             (Plugin::builder)"
        ))
    } else {
        return None;
    })
}

/// Complaints about settings of the host that the engine cannot apply.
fn of_settings(container: &Container, run: &Run, complaint: &str, text: &str) -> Option<Diagnosis> {
    let Container { engine, user, .. } = container;
    let directory = run.directory.as_deref().map_or("it".to_owned(), |dir| format!("{dir:?}"));
    Some(
        if says(text, &["unable to find user", "unable to find group", "no matching entries in"]) {
            Diagnosis::permanent(format!(
                "the image knows no user or group {user:?}: name one of its /etc/passwd and \
                 /etc/group, or numbers, as 65534:65534 (`--user`, Container::user)"
            ))
        } else if says(
            text,
            &[
                "unable to setup user",
                "insufficient uids or gids",
                "no subuid ranges",
                "setresuid",
                "setgroups",
            ],
        ) {
            Diagnosis::permanent(format!(
                "the user {user:?} has no number of this machine: {engine} without root needs \
                 ranges for this user in /etc/subuid and /etc/subgid (`usermod --add-subuids \
                 100000-165535 --add-subgids 100000-165535 NAME`, then `podman system migrate`), \
                 or the plugin runs as the only user there is (`--user 0`)"
            ))
        } else if says(text, &["working directory", "workdir"])
            && says(text, &["absolute", "invalid"])
        {
            Diagnosis::permanent(
                "the working directory is one in the container, from its root: write it with a `/` \
                 first",
            )
        } else if says(text, &["workdir", "cannot mkdir", "chdir to cwd"])
            && says(text, &["not a directory"])
        {
            Diagnosis::permanent(format!(
                "the working directory {directory} is no directory in the image: name another one"
            ))
        } else if says(text, &["workdir", "chdir to cwd"]) && says(text, &["permission denied"]) {
            Diagnosis::permanent(format!(
                "the user {user:?} may not enter the working directory {directory} of the image: \
                 name another one, or another user"
            ))
        } else if says(text, &["workdir", "chdir to cwd"]) {
            Diagnosis::permanent(format!(
                "the working directory {directory} is not in the image: name one of the image, or \
                 mount one there (`--cwd`, `--mount`)"
            ))
        } else if says(text, &["setting rlimit"]) {
            Diagnosis::permanent(
                "the engine may not raise a limit here: set the one that it names as low as its \
                 own, as with `--ulimit=nofile=1024:1024` for rlimit type 7 \
                 (`Container::engine_arg`, --engine-arg)",
            )
        } else if says(text, &["container-init binary not found", "docker-init"]) {
            Diagnosis::permanent(format!(
                "{engine}'s init is not installed: install {}, or do without it \
                 (`Container::without_init`, --engine-arg=--init=false)",
                match engine {
                    Engine::Docker => "tini (docker-init)",
                    Engine::Podman => "catatonit",
                }
            ))
        } else if says(text, &["bind source path does not exist", "statfs"]) {
            Diagnosis::permanent(
                "what is to be mounted does not exist where the engine runs: check the path",
            )
        } else if says(text, &["unknown capability"]) {
            let name = complaint.rsplit('"').nth(1).unwrap_or_default();
            Diagnosis::permanent(format!(
                "there is no capability {name:?}: capabilities(7) lists them"
            ))
        } else if says(text, &["unable to set memory limit", "minimum memory limit"]) {
            Diagnosis::permanent(
                "the limit on memory is less than a container takes to start: allow more with \
                 `--memory` (Container::memory)",
            )
        } else if says(text, &["range of cpus"]) {
            Diagnosis::permanent(
                "the machine has fewer CPUs: allow at most as many as it has, with `--cpus` \
                 (Container::cpus)",
            )
        } else if says(text, &["cgroup"])
            && says(text, &["permission denied", "not available", "not delegated"])
        {
            Diagnosis::permanent(format!(
                "{engine} may not set limits here: have the user's cgroups delegated (systemd's \
                 `Delegate=cpu memory pids`), or do without limits (Container::memory, cpus and \
                 pids with None)"
            ))
        } else if says(text, &["runtime"])
            && says(text, &["unknown runtime", "oci runtime \"", "runtime specified"])
        {
            Diagnosis::permanent("the engine has no such runtime: install it, or name another one")
        } else {
            return None;
        },
    )
}

/// The program in the image.
fn of_program(phase: Phase, text: &str) -> Option<Diagnosis> {
    Some(if says(text, &["exec format error"]) {
        Diagnosis::permanent(format!(
            "the program in the image is built for another machine, or is a script without a `#!` \
             line: use an image for {}",
            std::env::consts::ARCH
        ))
    } else if says(text, &["no such file or directory", "not found"]) && phase == Phase::Program {
        // Where exec(2) refuses a file, the init tries `/bin/sh` on it, and tells that there is
        // none.
        Diagnosis::permanent(format!(
            "there is no such program in the image, or it cannot run there: it needs a dynamic \
             loader, or the interpreter of its `#!` line, which the image lacks (link it \
             statically), or it is built for another machine than this {}",
            std::env::consts::ARCH
        ))
    } else if says(text, &["permission denied", "is a directory"]) {
        Diagnosis::permanent(
            "the program in the image may not be executed: it needs the mode 0755, and must not be \
             a directory",
        )
    } else {
        return None;
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(engine: Engine, phase: Phase, complaint: &str) -> Diagnosis {
        let run = Run {
            name: "pipeplug-7".to_owned(),
            replaces_command: None,
            directory: Some("/srv/data".into()),
        };
        diagnose(&Container::new(engine, "image").user("spell"), &run, phase, complaint).unwrap()
    }

    #[track_caller]
    fn told(engine: Engine, phase: Phase, complaint: &str, text: &str) -> Diagnosis {
        let problem = problem(engine, phase, complaint);
        assert!(problem.problem.contains(text), "{}", problem.problem);
        problem
    }

    #[track_caller]
    fn docker(complaint: &str, text: &str) -> Diagnosis {
        told(Engine::Docker, Phase::Engine, complaint, text)
    }

    #[track_caller]
    fn podman(complaint: &str, text: &str) -> Diagnosis {
        told(Engine::Podman, Phase::Program, complaint, text)
    }

    #[test]
    fn what_clients_of_several_years_say_is_known() {
        let daemon = "Cannot connect to the Docker daemon at unix:///run/docker.sock. Is the \
                      docker daemon running?";
        assert!(!docker(&format!("docker: {daemon}."), "does not answer: start it").is_permanent);
        let socket = "permission denied while trying to connect to the Docker daemon socket at \
                      unix:///run/docker.sock: dial unix /run/docker.sock: connect: permission \
                      denied";
        docker(&format!("docker: {socket}"), "group `docker`");
        docker(
            "docker: Error response from daemon: No such image: image:latest.",
            "`docker pull image`",
        );
        told(
            Engine::Podman,
            Phase::Engine,
            "Error: image: image not known",
            "there is no image \"image\"",
        );
        let denied = "docker: Error response from daemon: pull access denied for image, repository \
                      does not exist or may";
        docker(denied, "to download: check its name");
        let init = "Error: container-init binary not found on the host: stat \
                    /usr/libexec/podman/catatonit: no such file";
        told(Engine::Podman, Phase::Engine, init, "install catatonit");
        let other = docker(
            "docker: Error response from daemon: out of cheese.",
            "Docker refuses: out of cheese.",
        );
        assert!(!other.is_permanent);
    }

    #[test]
    fn the_way_to_docker_is_told() {
        // Docker 28.2.
        docker(
            "Failed to initialize: unable to resolve docker endpoint: context \"nosuch\": context \
             not found: open contexts/meta/9e62/meta.json: no such file or directory",
            "there is no such context of Docker: `docker context ls` lists them",
        );
        docker(
            "Failed to initialize: unable to resolve docker endpoint: invalid bind address format: \
             foo://x",
            "DOCKER_HOST, or the context, names no place",
        );
        docker(
            "docker: error during connect: Head \"http://docker.example.com/_ping\": command [ssh \
             -T -- nosuch.invalid docker system dial-stdio] has exited with exit status 255",
            "does not answer",
        );
        let broken = docker(
            "time=\"2026-11-28T16:13:27Z\" level=error msg=\"error waiting for container: \
             unexpected EOF\"",
            "the container pipeplug-7 may run on; once the daemon answers again",
        );
        assert!(broken.problem.contains("`docker rm --force pipeplug-7`") && !broken.is_permanent);
    }

    #[test]
    fn the_way_to_an_image_is_told() {
        let helper = "docker: error getting credentials - err: exec: \"docker-credential-nosuch\": \
                      executable file not found in $PATH, out: ``";
        told(
            Engine::Docker,
            Phase::Program,
            helper,
            "\"docker-credential-nosuch\" fails, which is to give the login",
        );
        for registry in [
            "docker: Error response from daemon: Get \"https://registry.invalid/v2/\": dial tcp: \
             lookup registry.invalid on 192.0.2.1:53: no such host",
            "docker: Error response from daemon: Get \"http://127.0.0.1:1/v2/\": dial tcp \
             127.0.0.1:1: connect: connection refused",
            "Error: initializing source docker://127.0.0.1:1/x:1: pinging container registry \
             127.0.0.1:1: Get \"https://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: \
             connection refused",
        ] {
            assert!(
                !docker(
                    registry,
                    "the registry of \"image\" is not reached from where Docker runs"
                )
                .is_permanent
            );
        }
        docker(
            "Error: short-name \"nosuchshort\" did not resolve to an alias and no \
             unqualified-search registries are defined",
            "write it in full",
        );
        docker(
            "docker: invalid reference format: repository name (library/Bad) must be lowercase",
            "is no name of an image",
        );
        docker(
            "docker: Error response from daemon: image with reference bb was found but does not \
             match the specified platform: wanted linux/arm64, actual: linux/amd64",
            "for another machine than was asked for",
        );
    }

    #[test]
    fn what_podman_reports_as_126_is_told_apart() {
        // Podman 4.3 with runc 1.1.
        podman(
            "Error: unable to find user nosuchuser: no matching entries in passwd file",
            "knows no user or group \"spell\"",
        );
        podman(
            "Error: unable to find group nosuchgroup: no matching entries in group file",
            "knows no user or group",
        );
        podman(
            "Error: workdir \"/srv/data\" does not exist on container 4383e469",
            "the working directory \"/srv/data\" is not in the image",
        );
        podman(
            "Error: workdir \"/srv/data\" exists on container d33a68ce, but is not a directory",
            "\"/srv/data\" is no directory in the image",
        );
        podman(
            "Error: OCI runtime error: runc: runc create failed: unable to start container \
             process: unable to setup user: invalid argument",
            "ranges for this user in /etc/subuid",
        );
        podman(
            "Error: OCI runtime error: runc: runc create failed: unable to start container \
             process: error during container init: error setting cgroup config for procHooks \
             process: unable to set memory limit to 1048576 (current usage: 2334720)",
            "less than a container takes to start",
        );
        podman(
            "Error: runc: runc create failed: unable to start container process: error during \
             container init: error setting rlimits for ready process: error setting rlimit type 6: \
             operation not permitted: OCI permission denied",
            "--ulimit=nofile=1024:1024",
        );
        podman(
            "the path in $XDG_RUNTIME_DIR must be writable by the user",
            "XDG_RUNTIME_DIR: log in as that user",
        );
        podman(
            "Error: runc: runc create failed: unable to start container process: exec: \"x\": \
             executable file not found in $PATH: OCI runtime attempted to invoke a command that \
             was not found",
            "there is no such program in the image",
        );
        podman(
            "Error: command required for rootless mode with multiple IDs: exec: \"newuidmap\": \
             executable file not found in $PATH",
            "install uidmap",
        );
        podman(
            "Error: crun: something new: OCI runtime error",
            "Podman refuses: crun: something new",
        );
    }

    #[test]
    fn settings_that_docker_refuses_are_told() {
        docker(
            "docker: Error response from daemon: unable to find user nosuch: no matching entries \
             in passwd file",
            "no user or",
        );
        docker(
            "docker: Error response from daemon: the working directory 'relative' is invalid, it \
             needs to be an absolute path",
            "with a `/` first",
        );
        docker(
            "docker: Error response from daemon: Cannot mkdir: /bin/sh is not a directory",
            "is no directory in the image",
        );
        docker(
            "docker: Error response from daemon: invalid CapAdd: unknown \
             capability: \"CAP_NOSUCH\"",
            "no capability \"CAP_NOSUCH\"",
        );
        docker(
            "docker: Error response from daemon: Minimum memory limit allowed is 6MB",
            "less than a container takes",
        );
        docker(
            "docker: Error response from daemon: Range of CPUs is from 0.01 to 2.00, as there are \
             only 2 CPUs available",
            "fewer CPUs",
        );
        docker(
            "docker: Error response from daemon: Unknown runtime specified nosuch",
            "no such runtime",
        );
        docker(
            "Error: default OCI runtime \"nosuch\" not found: invalid argument",
            "no such runtime",
        );
    }
}
