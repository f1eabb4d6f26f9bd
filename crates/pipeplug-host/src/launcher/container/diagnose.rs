//! What the end of an engine's client means.

use nix::sys::signal::Signal;

use super::Container;
use crate::launcher::Diagnosis;
use crate::wait_status::WaitStatus;

/// How it is told from within the container, ahead of the plugin.
const FATAL: [&str; 3] = ["[FATAL tini", "ERROR (catatonit", "exec /"];

pub(super) fn diagnose(container: &Container, status: WaitStatus, stderr: &[String]) -> Option<Diagnosis> {
    let code = status.code()?;
    let complaint = match code {
        // The engine itself; podman also says so of what it cannot execute.
        125 => complaint(
            stderr,
            &["docker: ", "Error: ", "Error response ", "unknown flag", "permission denied"],
        )?,
        // What cannot be executed, as the engine tells it, its runtime, or the init in the container.
        126 | 127 => complaint(stderr, &["docker: ", "Error: ", FATAL[0], FATAL[1], FATAL[2]])?,
        // The same; but a plugin of its own accord says `Error: …` and exits so too.
        1 | 255 => complaint(stderr, &FATAL)?,
        129..=192 => return of_signal(container, code - 128),
        _ => return None,
    };
    let Container { engine, image, .. } = container;
    let says = |texts: &[&str]| {
        let complaint = complaint.to_lowercase();
        texts.iter().any(|text| complaint.contains(text))
    };
    Some(if says(&["cannot connect to the docker daemon", "error during connect", "connection refused"]) {
        Diagnosis::passing(format!(
            "{engine}'s daemon does not answer: start it, as with `systemctl start docker`, or have DOCKER_HOST say where it listens"
        ))
    } else if says(&["permission denied while trying to connect", "dial unix", "connect: permission denied"])
    {
        Diagnosis::permanent(format!(
            "this user may not use {engine}'s daemon: add the user to the group `docker`, or use rootless Docker or Podman"
        ))
    } else if says(&["no such image", "image not known", "unable to find image"]) {
        Diagnosis::permanent(format!(
            "there is no image {image:?} on this machine: `{} pull {image}` downloads it, `pipeplug pack` makes one",
            engine.program()
        ))
    } else if says(&["pull access denied", "manifest unknown", "repository does not exist"]) {
        Diagnosis::permanent(format!("there is no image {image:?} to download: check its name, or log in"))
    } else if says(&["exec format error"]) {
        Diagnosis::permanent(format!(
            "the program in the image is built for another machine, or is a script without a `#!` line: \
             use an image for {}",
            std::env::consts::ARCH
        ))
    } else if says(&["setting rlimit"]) {
        Diagnosis::permanent(
            "the engine may not raise a limit here: set the one that it names as low as its own, as with \
             `--ulimit=nofile=1024:1024` for rlimit type 7 (`Container::engine_arg`, --engine-arg)",
        )
    } else if says(&["container-init binary not found"]) {
        Diagnosis::permanent(
            "Podman's init is not installed: install catatonit, or do without it (`Container::without_init`, \
             --engine-arg=--init=false)",
        )
    } else if says(&["bind source path does not exist", "statfs"]) {
        Diagnosis::permanent("what is to be mounted does not exist where the engine runs: check the path")
    } else if says(&["no such file or directory", "not found"]) && code != 125 {
        // Where exec(2) refuses a file, the init tries `/bin/sh` on it, and tells that there is none.
        Diagnosis::permanent(format!(
            "there is no such program in the image, or it cannot run there: it needs a dynamic loader, or the interpreter \
             of its `#!` line, which the image has not (link it statically), or it is built for another machine than \
             this {}",
            std::env::consts::ARCH
        ))
    } else if says(&["permission denied"]) {
        Diagnosis::permanent(
            "the program in the image may not be executed: it needs the mode 0755, and must be no directory",
        )
    } else if code == 125 {
        let complaint = ["docker: ", "Error response from daemon: ", "Error: "]
            .iter()
            .fold(complaint, |text, beginning| text.strip_prefix(beginning).unwrap_or(text));
        Diagnosis::passing(format!("{engine} refuses: {}", complaint.escape_debug()))
    } else {
        return None;
    })
}

/// 128 and the signal's number, as the init and the engines tell it.
fn of_signal(container: &Container, number: i32) -> Option<Diagnosis> {
    let signal = Signal::try_from(number).ok()?;
    Some(Diagnosis::passing(match (signal, container.memory) {
        (Signal::SIGKILL, Some(bytes)) => format!(
            "which is SIGKILL: the kernel sends it where the limit of {} MiB of memory is exceeded",
            bytes >> 20
        ),
        (signal, _) => format!("which is {}", signal.as_str()),
    }))
}

/// The first line that begins like that.
fn complaint<'a>(stderr: &'a [String], beginnings: &[&str]) -> Option<&'a str> {
    let is_one = |line: &&String| beginnings.iter().any(|beginning| line.starts_with(beginning));
    stderr.iter().find(is_one).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(code: i32, stderr: &str) -> Option<Diagnosis> {
        let stderr: Vec<_> = stderr.lines().map(str::to_owned).collect();
        diagnose(&Container::docker("image"), WaitStatus::Exited(code), &stderr)
    }

    #[track_caller]
    fn assert_told(code: i32, stderr: &str, text: &str) {
        let told = problem(code, stderr).unwrap().problem;
        assert!(told.contains(text), "{told}");
    }

    #[test]
    fn what_clients_of_several_years_say_is_known() {
        let daemon =
            "Cannot connect to the Docker daemon at unix:///run/docker.sock. Is the docker daemon running?";
        assert_told(
            125,
            &format!("docker: {daemon}.\nSee 'docker run --help'."),
            "does not answer: start it",
        );
        assert!(!problem(125, &format!("docker: {daemon}")).unwrap().is_permanent);
        let socket = "permission denied while trying to connect to the Docker daemon socket at unix:///run/docker.sock";
        assert_told(125, &format!("docker: {socket}"), "group `docker`");
        assert_told(
            125,
            "docker: Error response from daemon: No such image: image:latest.",
            "`docker pull image`",
        );
        assert_told(125, "Error: image: image not known", "there is no image \"image\"");
        let denied = "docker: Error response from daemon: pull access denied for image, repository does not exist or may";
        assert_told(125, denied, "to download: check its name");
        let init = "Error: container-init binary not found on the host: stat /usr/libexec/podman/catatonit: no such file";
        assert_told(125, init, "install catatonit");
        assert_told(
            125,
            "docker: Error response from daemon: out of cheese.",
            "Docker refuses: out of cheese.",
        );
    }

    #[test]
    fn what_the_plugin_itself_says_is_no_word_of_the_engine() {
        assert_eq!(problem(1, "Error: no such file or directory: settings.toml"), None);
        assert_eq!(problem(2, "docker: Error response from daemon"), None);
        assert_eq!(problem(127, "sh: 1: settings: not found"), None);
        assert_eq!(problem(0, ""), None);
    }

    #[test]
    fn an_end_by_signal_is_told() {
        assert_told(128 + 9, "", "SIGKILL: the kernel sends it where the limit of 512 MiB");
        assert_told(128 + 11, "", "which is SIGSEGV");
        let unlimited = Container::docker("image").memory(None);
        let told = diagnose(&unlimited, WaitStatus::Exited(128 + 9), &[]).unwrap();
        assert_eq!(told.problem, "which is SIGKILL");
    }
}
