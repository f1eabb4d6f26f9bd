//! `pipeplug pack`, and plugins that run in containers of a real engine.

mod daemon;
mod rootless;

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::{LONG, Place, Run};

/// A plugin that needs nothing but the standard library, and so can be linked statically by the
/// compiler alone. With the argument `stubborn` it heeds neither a stop nor the end of its input.
const PLUGIN: &str = r#"
use std::io::{Read, Write};

fn field() -> Vec<u8> {
    let mut field = Vec::new();
    for byte in std::io::stdin().bytes() {
        match byte.unwrap() {
            0 => return field,
            byte => field.push(byte),
        }
    }
    end()
}

fn counted() -> Vec<u8> {
    let mut bytes = vec![0; String::from_utf8(field()).unwrap().parse().unwrap()];
    std::io::stdin().read_exact(&mut bytes).unwrap();
    bytes
}

fn end() -> ! {
    while std::env::args().any(|arg| arg == "stubborn") {
        std::thread::park();
    }
    std::process::exit(0)
}

fn main() {
    loop {
        let (id, _direction, command) = (field(), field(), counted());
        field();
        let data = counted();
        let data = match &command[..] {
            b"cmd.stop" => end(),
            b"GetMetadata" => b"{}".to_vec(),
            b"hang" => loop {
                std::thread::park();
            },
            b"user" => std::fs::read_to_string("/proc/self/status").unwrap().into_bytes(),
            _ => data,
        };
        let (command_len, data_len) = (command.len().to_string(), data.len().to_string());
        let fields = [&id[..], b"3", command_len.as_bytes(), &command, data_len.as_bytes(), &data];
        let chunk = fields.join(&0);
        std::io::stdout().write_all(&chunk).unwrap();
        std::io::stdout().flush().unwrap();
    }
}
"#;

/// An engine that works, with an image of the plugin that goes with this.
struct Image {
    engine: &'static str,
    name: String,
}

impl Image {
    /// `None` where the engine does not work here, which is told; with `CI=true` that is a failure.
    fn pack(engine: &'static str, place: &Place) -> Option<Self> {
        if !works(engine) {
            missing(&format!("{engine} is missing, or `{engine} info` fails"));
            return None;
        }
        let plugin = built(place, &["-C", "target-feature=+crt-static"]);
        // The place's name is its own.
        let name = place
            .path()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_start_matches('.')
            .to_lowercase();
        let image = Self { engine, name: format!("pipeplug-packed:{name}") };
        let option = format!("--{engine}");
        place
            .pipeplug(["pack", plugin.to_str().unwrap(), "-t", &image.name, &option])
            .run()
            .exits(0)
            .says_only("");
        Some(image)
    }

    /// The program, told to run the image's entry point, with these arguments behind.
    fn run(&self, place: &Place, args: &[&str]) -> Run {
        let option = format!("--{}", self.engine);
        let label = format!("--engine-arg=--label=pipeplug.test={}", self.name);
        // What any engine may set, wherever it runs.
        let limits =
            ["--engine-arg=--ulimit=nofile=1000:1000", "--engine-arg=--ulimit=nproc=1000:1000"];
        place.pipeplug([&["run", &option, &self.name, &label], &limits[..], args].concat())
    }

    fn containers(&self) -> String {
        let filter = format!("--filter=label=pipeplug.test={}", self.name);
        let output =
            Command::new(self.engine).args(["ps", "--all", "--quiet", &filter]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn assert_no_container(&self) {
        let begun = Instant::now();
        while !self.containers().is_empty() {
            assert!(begun.elapsed() < LONG, "a container is left: {}", self.containers());
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // It is one of many, and small.
        let _ = Command::new(self.engine).args(["rmi", "--force", &self.name]).output();
    }
}

/// Tells that a test is skipped, which fails it with `CI=true`.
fn missing(what: &str) {
    assert!(!matches!(env::var("CI").as_deref(), Ok("true" | "1")), "{what}");
    eprintln!("skipped: {what}");
}

fn works(engine: &str) -> bool {
    let info = Command::new(engine).arg("info").stdin(Stdio::null()).output();
    info.is_ok_and(|output| output.status.success())
}

/// The plugin's executable, compiled so.
fn built(place: &Place, how: &[&str]) -> PathBuf {
    let source = place.file("plugin.rs", PLUGIN.as_bytes());
    let executable = place.path().join("plugin");
    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let built =
        Command::new(compiler).args(how).arg("-o").arg(&executable).arg(source).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    executable
}

fn a_packed_plugin_runs(engine: &'static str) {
    let place = Place::new();
    let Some(image) = Image::pack(engine, &place) else { return };
    image.run(&place, &["--call", "echo", "hello"]).run().exits(0).prints("hello").says_only("");
    // By its path in the image, and with another user.
    let ran =
        image.run(&place, &["/plugin", "--user", "1234:5678", "--call", "user"]).run().exits(0);
    assert!(ran.text().contains("Uid:\t1234\t1234\t1234\t1234\nGid:\t5678\t"), "{}", ran.text());
    image.assert_no_container();
}

fn a_killed_host_leaves_no_container(engine: &'static str) {
    let place = Place::new();
    let Some(image) = Image::pack(engine, &place) else { return };
    let mut host = image.run(&place, &["--json", "--", "stubborn"]).watch();
    host.event("metadata");
    assert!(!image.containers().is_empty());
    host.signal(Signal::SIGKILL);
    assert_eq!(host.code(), None);
    image.assert_no_container();
}

fn ctrl_c_leaves_no_container(engine: &'static str) {
    let place = Place::new();
    let Some(image) = Image::pack(engine, &place) else { return };
    let mut host = image.run(&place, &["--json", "--grace", "100ms", "--", "stubborn"]).watch();
    host.event("metadata");
    host.signal(Signal::SIGINT);
    assert_eq!(host.code(), Some(130));
    image.assert_no_container();
}

#[test]
fn a_packed_plugin_runs_in_docker() {
    a_packed_plugin_runs("docker");
}

#[test]
fn a_packed_plugin_runs_in_podman() {
    a_packed_plugin_runs("podman");
}

#[test]
fn a_killed_host_leaves_no_container_of_docker() {
    a_killed_host_leaves_no_container("docker");
}

#[test]
fn a_killed_host_leaves_no_container_of_podman() {
    a_killed_host_leaves_no_container("podman");
}

#[test]
fn ctrl_c_leaves_no_container_of_docker() {
    ctrl_c_leaves_no_container("docker");
}

#[test]
fn ctrl_c_leaves_no_container_of_podman() {
    ctrl_c_leaves_no_container("podman");
}

/// The processes with this text among their arguments.
fn processes(with: &str) -> Vec<(i32, String)> {
    let numbers = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    // One may end meanwhile, and a zombie has no arguments.
    let line = |pid: i32| Some((pid, std::fs::read(format!("/proc/{pid}/cmdline")).ok()?));
    numbers
        .filter_map(line)
        .map(|(pid, line)| (pid, String::from_utf8_lossy(&line).replace('\0', " ")))
        .filter(|(_, line)| line.contains(with))
        .collect()
}

#[test]
fn a_host_killed_within_the_start_leaves_nothing_of_podman() {
    let place = Place::new();
    let Some(image) = Image::pack("podman", &place) else { return };
    let names: Vec<_> = (0..24)
        .map(|i| {
            let mut run = image.run(&place, &["--call", "echo", "hello"]);
            run.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut host = run.command.spawn().unwrap();
            // No event tells how far Podman is: each host is killed at another moment of the start.
            thread::sleep(Duration::from_millis(30 + 20 * i));
            host.kill().unwrap();
            host.wait().unwrap();
            format!("pipeplug-{}-", host.id())
        })
        .collect();
    // Its monitor has the container's name; the guard and the clients have, too.
    let left = || names.iter().flat_map(|name| processes(name)).collect::<Vec<_>>();
    let begun = Instant::now();
    while !left().is_empty() {
        assert!(begun.elapsed() < LONG, "{:#?}", left());
        thread::sleep(Duration::from_millis(100));
    }
    image.assert_no_container();
}

#[test]
fn a_daemon_that_does_not_answer_is_told() {
    let place = Place::new();
    let mut run = place.pipeplug(["run", "--docker", "image"]);
    if Command::new("docker").arg("--version").output().is_err() {
        return missing("docker is missing (Debian: apt-get install docker.io)");
    }
    run.command.env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    run.run()
        .exits(4)
        .says(
            "plugin \"image\" did not start in a container of \"image\" (docker): Docker's \
               daemon does not answer: start it",
        )
        .says("Cannot connect to the Docker daemon");
}

#[test]
fn a_missing_engine_is_told() {
    for engine in ["docker", "podman"] {
        let place = Place::new();
        let mut run = place.pipeplug(["run", &format!("--{engine}"), "image"]);
        run.command.env("PATH", place.path());
        let told = format!(
            "plugin \"image\" was not started: there is no program \"{engine}\"; install it"
        );
        run.run().exits(4).says(&told);
        let mut run = place.pipeplug(["pack", env!("CARGO_BIN_EXE_pipeplug"), "-t", "image"]);
        run.command.env("PATH", place.path());
        run.run().exits(1).says("neither docker nor podman is in `PATH`: install one of them");
    }
}

#[test]
fn what_cannot_be_alone_in_an_image_is_told() {
    let place = Place::new();
    let pack =
        |path: &str| place.pipeplug(["pack", path, "-t", "image", "--docker"]).run().prints("");
    pack("/no/such/file").exits(3).says("plugin \"/no/such/file\" cannot be read: No such file");
    let script = place.executable("script", "#!/bin/sh\n");
    pack(script.to_str().unwrap())
        .exits(1)
        .says("it is a script for \"/bin/sh\"; an image of one file has no interpreter");
    let dynamic = built(&place, &["-C", "target-feature=-crt-static"]);
    pack(dynamic.to_str().unwrap())
        .exits(1)
        .says("is dynamically linked (it needs \"/lib")
        .says("RUSTFLAGS=\"-C target-feature=+crt-static\" cargo build --release --target ");
    let mut foreign = std::fs::read(dynamic).unwrap();
    foreign[18..20].copy_from_slice(&[0xfe, 0xfe]);
    let foreign = place.file("foreign", &foreign);
    pack(foreign.to_str().unwrap())
        .exits(1)
        .says("is built for another machine (machine number 65278, 64 bits");
}

#[test]
fn options_of_containers_go_with_a_container() {
    let usage = |args: &[&str], told: &str| {
        let place = Place::new();
        place.pipeplug([&["run"], args].concat()).run().exits(2).prints("").says(told);
    };
    usage(&["@echo", "--memory", "64M"], "--docker <IMAGE>|--podman <IMAGE>");
    usage(&["--docker", "a", "--podman", "b"], "cannot be used with '--podman <IMAGE>'");
    usage(&["--docker", "a", "--via", "nice"], "cannot be used with");
    usage(&["--docker", "a", "--mount", "b"], "there is no `:`; write SOURCE:TARGET");
    usage(&["--docker", "a", "--cpus", "none"], "not a number of CPUs; write 0.5, 1 or 2");
}
