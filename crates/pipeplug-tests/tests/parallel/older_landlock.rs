//! Sandboxes on kernels with an older Landlock, each version of its interface.

use std::fs;
use std::net::TcpListener;

use pipeplug_host::SandboxSupport;

use crate::sandbox_host::{Kind, SandboxHost, open_dir};

/// The versions of this kernel, and 0 for none.
fn versions() -> impl Iterator<Item = (u32, String)> {
    let newest = SandboxSupport::of_system().landlock_abi;
    assert!(
        newest > 6 || std::env::var_os("CI").is_none(),
        "only the versions up to {newest} can be tested here"
    );
    (0..=newest).map(|abi| (abi, abi.to_string()))
}

fn found(abi: u32) -> String {
    if abi == 0 { "there is none".to_owned() } else { format!("there is ABI {abi}") }
}

#[test]
fn what_is_demanded_is_refused_with_the_version_that_it_needs() {
    for (abi, version) in versions() {
        let outcome = |level, options: &[&str]| {
            SandboxHost::outcome(level, &[&["--landlock", &version], options].concat())
        };
        for (needed, level, options, what) in [
            (3, "basic", &["--read", "/etc"][..], "limits on files need Landlock ABI 3 (Linux 6.2"),
            (4, "strict", &["--connect", "80"], "TCP ports need Landlock ABI 4 (Linux 6.7"),
            (4, "basic", &["--bind", "80"], "TCP ports need Landlock ABI 4 (Linux 6.7"),
        ] {
            let said = outcome(level, options);
            if abi >= needed {
                assert!(said.starts_with("started "), "ABI {abi}, {level} {options:?}: {said}");
                continue;
            }
            assert!(
                said.contains(what) && said.contains(&found(abi)),
                "ABI {abi}, {level} {options:?}: {said}"
            );
            // A best effort says the same, and goes on.
            let said = outcome(level, &[&["--log", "--best-effort"], options].concat());
            assert!(
                said.contains("the sandbox lacks something: ") && said.contains(what),
                "ABI {abi}: {said}"
            );
            assert!(said.contains("started "), "ABI {abi}: {said}");
        }
        // A root of its own, and the list of system calls alone, need none of it.
        for level in ["strict", "basic"] {
            let said = outcome(level, &["--log"]);
            assert!(said.starts_with("started "), "ABI {abi}: {said}");
        }
    }
}

#[test]
fn every_version_confines_as_far_as_it_goes() {
    let dir = open_dir();
    let [secret, granted] = ["secret", "granted"].map(|name| dir.path().join(name));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for (abi, version) in versions() {
        for file in [&secret, &granted] {
            fs::write(file, "some text").unwrap();
        }
        let [secret, granted] = [&secret, &granted].map(|path| path.to_str().unwrap());
        let options = ["--landlock", &version, "--read", granted, "--connect", "9"];
        let mut host = SandboxHost::start(Kind::WithoutNamespaces, "strict", &options);
        let mut tries = |command: &str, data: &str| host.tries(command, data) == "done";
        assert!(tries("read", granted), "ABI {abi}");
        assert_eq!(tries("read", secret), abi < 1, "ABI {abi}");
        assert_eq!(tries("append", granted), abi < 1, "ABI {abi}");
        assert_eq!(tries("truncate", granted), abi < 3, "ABI {abi}");
        assert_eq!(tries("connect", &port.to_string()), abi < 4, "ABI {abi}");
        host.stop();

        // Within a root of its own nothing of that is there, whatever Landlock knows.
        let mut host =
            SandboxHost::start(Kind::Own, "strict", &["--landlock", &version, "--read", granted]);
        let mut tries = |command: &str, data: &str| host.tries(command, data) == "done";
        assert!(tries("read", granted), "ABI {abi}");
        for (command, data) in [
            ("read", secret),
            ("append", granted),
            ("truncate", granted),
            ("connect", &port.to_string()),
        ] {
            assert!(!tries(command, data), "ABI {abi}: {command}");
        }
        host.stop();
    }
}
