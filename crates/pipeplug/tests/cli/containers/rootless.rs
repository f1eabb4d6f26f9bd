//! Podman without root.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::unistd::geteuid;

use super::{built, missing};
use crate::common::{Place, Run};

/// The number of a user that there is in the test's own mount namespaces only.
const USER: u32 = 61_847;

/// How that user comes to be: the system's files say so where the client runs.
const AS_USER: &str = r#"#!/bin/sh
exec unshare --mount /bin/sh -c '
    place=$1 user=$2
    shift 2
    for file in passwd subuid subgid; do mount --bind "$place/$file" "/etc/$file" || exit; done
    cd "$place/home" || exit
    exec setpriv --reuid="$user" --regid="$user" --clear-groups \
        env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME="$place/home" XDG_RUNTIME_DIR="$place/run" podman "$@"
' sh "PLACE" "USER" "$@"
"#;

/// Podman as another user, under its own name in a directory for `PATH`.
struct Rootless {
    place: Place,
    bin: PathBuf,
}

impl Rootless {
    /// `None` where that cannot be, which is told; with `CI=true` that is a failure.
    fn new() -> Option<Self> {
        if !geteuid().is_root() {
            missing("another user takes root");
            return None;
        }
        let place = Place::new();
        let path = |name: &str| place.path().join(name);
        let directory = |name: &str, owner: u32| {
            fs::create_dir_all(path(name)).unwrap();
            chown(path(name), Some(owner), Some(owner)).unwrap();
        };
        chown(place.path(), Some(USER), Some(USER)).unwrap();
        for name in ["home", "run", "home/.config", "home/.config/containers"] {
            directory(name, USER);
        }
        directory("bin", 0);
        let settings = "[engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger \
                        = \"none\"\n";
        place.file("home/.config/containers/containers.conf", settings.as_bytes());
        place.file("home/.config/containers/storage.conf", b"[storage]\ndriver = \"vfs\"\n");
        let users = fs::read_to_string("/etc/passwd").unwrap();
        let home = path("home");
        let user = format!("pipeplug-test:x:{USER}:{USER}::{}:/bin/sh\n", home.display());
        place.file("passwd", (users + &user).as_bytes());
        for file in ["subuid", "subgid"] {
            place.file(file, b"pipeplug-test:1600000000:65536\n");
        }
        let script = AS_USER
            .replace("PLACE", place.path().to_str().unwrap())
            .replace("USER", &USER.to_string());
        place.executable("bin/podman", &script);
        let this = Self { bin: path("bin"), place };
        let info =
            this.podman(&["info", "--format", "{{.Host.Security.Rootless}}"]).output().unwrap();
        if String::from_utf8_lossy(&info.stdout).trim() != "true" {
            let said = String::from_utf8_lossy(&info.stderr);
            missing(&format!(
                "Podman does not run without root (Debian: apt-get install podman runc uidmap): \
                 {said}"
            ));
            return None;
        }
        Some(this)
    }

    fn podman(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.bin.join("podman"));
        command.args(args).stdin(Stdio::null());
        command
    }

    fn pipeplug(&self, args: &[&str]) -> Run {
        let mut run = self.place.pipeplug(args);
        let path = std::env::var("PATH").unwrap();
        run.command.env("PATH", format!("{}:{path}", self.bin.display()));
        run
    }

    /// An image of the plugin.
    fn pack(&self) -> &'static str {
        let plugin = built(&self.place, &["-C", "target-feature=+crt-static"]);
        self.pipeplug(&["pack", plugin.to_str().unwrap(), "-t", "spell", "--podman"])
            .run()
            .exits(0);
        "spell"
    }

    fn run(&self, image: &str, args: &[&str]) -> Run {
        let limits =
            ["--engine-arg=--ulimit=nofile=1000:1000", "--engine-arg=--ulimit=nproc=1000:1000"];
        self.pipeplug(&[&["run", "--podman", image], &limits[..], args].concat())
    }

    fn ignores_limits(&self) -> bool {
        let output =
            self.podman(&["info", "--format", "{{.Host.CgroupsVersion}}"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim() == "v1"
    }
}

impl Drop for Rootless {
    fn drop(&mut self) {
        // It ends the process that holds the user's namespaces.
        let _ = self.podman(&["system", "migrate"]).output();
    }
}

#[test]
fn a_plugin_runs_without_root() {
    let Some(rootless) = Rootless::new() else { return };
    let image = rootless.pack();
    let run = |args: &[&str]| rootless.run(image, args);
    let ran = run(&["--call", "echo", "hello"]).run().exits(0).prints("hello");
    if !rootless.ignores_limits() {
        return eprintln!("with cgroups v2 limits are not ignored");
    }
    // A default limit is reported,
    ran.says("Podman ignores the limits on memory, CPUs and processes here");
    // and a demanded one fails the start.
    for (limit, resource) in [
        (&["--memory", "64M"][..], "memory"),
        (&["--pids", "64"], "processes"),
        (&["--cpus", "0.5"], "CPUs"),
        (&["--engine-arg=--memory=64m"], "memory"),
    ] {
        let told = format!(
            "did not start in a container of \"spell\" (podman): Podman ignores the limit on \
             {resource} that was set"
        );
        run(&[limit, &["--call", "echo", "hello"]].concat()).run().exits(4).prints("").says(&told);
    }
    let left = rootless.podman(&["ps", "--all", "--quiet"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
}

#[test]
fn missing_ranges_of_users_are_told() {
    let Some(rootless) = Rootless::new() else { return };
    // The ones that it has go with its namespaces.
    assert!(rootless.podman(&["system", "migrate"]).output().unwrap().status.success());
    for file in ["subuid", "subgid"] {
        rootless.place.file(file, b"");
    }
    let image = rootless.pack();
    let run = |args: &[&str]| rootless.run(image, &[args, &["--call", "echo", "hello"]].concat());
    run(&[]).run().exits(4).says("Podman without root needs ranges for this user in /etc/subuid");
    run(&["--user", "0"]).run().exits(0).prints("hello");
}
