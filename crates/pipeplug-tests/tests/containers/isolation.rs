//! Isolation of a plugin in a container. Each test also shows that the attack works without the
//! option that prevents it.

use std::os::unix::fs::PermissionsExt;

use pipeplug_host::launcher::{Container, Engine};
use pipeplug_host::{Crash, Plugin};
use pipeplug_tests::Containers;

crate::with_each_engine! {
    it_has_no_network,
    it_cannot_write_to_its_root,
    it_has_no_capability_and_gets_none,
    it_cannot_become_root,
    it_has_its_share_of_memory,
    it_has_its_share_of_threads,
    it_has_its_share_of_the_cpu,
    it_sees_nothing_of_the_hosts_environment,
    it_sees_only_what_is_mounted,
    nothing_that_it_says_is_logged,
}

fn start(containers: &Containers, container: Container) -> Plugin {
    containers.builder(container).start().unwrap()
}

#[track_caller]
fn fails(plugin: &Plugin, command: &str, data: &str, with: &str) {
    let error = plugin.call(command, data).unwrap_err().to_string();
    assert!(error.contains(with), "{error}");
}

/// A line of `/proc/self/status`.
fn status(plugin: &Plugin, key: &str) -> String {
    let status = plugin.call("read", "/proc/self/status").unwrap();
    status.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned()
}

fn it_has_no_network(containers: &Containers) {
    let plugin = start(containers, containers.container());
    fails(&plugin, "connect", "192.0.2.1:80", "Network is unreachable");
    assert_eq!(plugin.call("interfaces", "").unwrap(), "lo");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    fails(&plugin, "connect", &address, "Connection refused");
    let open = start(containers, containers.container().network("host"));
    open.call("connect", address).unwrap();
}

fn it_cannot_write_to_its_root(containers: &Containers) {
    // Podman gives the directory itself a mode that only this capability goes past.
    let root = || containers.container().user("0").capability("DAC_OVERRIDE");
    fails(&start(containers, root()), "write", "/new", "Read-only file system");
    start(containers, root().writable_root()).call("write", "/new").unwrap();
}

fn it_has_no_capability_and_gets_none(containers: &Containers) {
    let plugin = start(containers, containers.container().user("0"));
    for set in ["CapEff:", "CapPrm:", "CapBnd:", "CapAmb:"] {
        assert_eq!(status(&plugin, set), "0000000000000000", "{set}");
    }
    assert_eq!(status(&plugin, "NoNewPrivs:"), "1");
    let more = containers.container().user("0").capability("CHOWN").new_privileges();
    let plugin = start(containers, more);
    assert_eq!(status(&plugin, "CapBnd:"), "0000000000000001");
    assert_eq!(status(&plugin, "NoNewPrivs:"), "0");
}

fn it_cannot_become_root(containers: &Containers) {
    let plugin = start(containers, containers.container());
    assert_eq!(status(&plugin, "Uid:"), "65534\t65534\t65534\t65534");
    assert_eq!(status(&plugin, "Gid:"), "65534\t65534\t65534\t65534");
    fails(&plugin, "become-root", "", "EPERM");
    start(containers, containers.container().user("0")).call("become-root", "").unwrap();
}

fn it_has_its_share_of_memory(containers: &Containers) {
    let plugin = start(containers, containers.container().memory(64 << 20));
    let error = plugin.call("allocate", "200").unwrap_err();
    let diagnosis = Crash::of(&error).unwrap().diagnosis.clone().unwrap();
    let cause = match containers.engine {
        Engine::Docker => {
            "which stands for SIGKILL: the kernel sent it as the limit of 64 MiB of memory was \
             exceeded"
        }
        // It does not tell.
        _ => {
            "which stands for SIGKILL: the kernel sends it where the limit of 64 MiB of memory is \
             exceeded"
        }
    };
    assert!(diagnosis.starts_with(cause), "{diagnosis}");
    let plugin = start(containers, containers.container());
    assert_eq!(plugin.call("allocate", "200").unwrap(), "200");
}

fn it_has_its_share_of_threads(containers: &Containers) {
    let plugin = start(containers, containers.container().pids(50));
    let had: usize = plugin.call("threads", "300").unwrap().parse().unwrap();
    assert!((1..50).contains(&had), "{had}");
    let plugin = start(containers, containers.container().pids(None));
    assert_eq!(plugin.call("threads", "300").unwrap(), "300");
}

fn it_has_its_share_of_the_cpu(containers: &Containers) {
    let plugin = start(containers, containers.container().cpus(0.1));
    let had: u64 = plugin.call("burn", "1000").unwrap().parse().unwrap();
    assert!(had < 500, "{had} ms of CPU in a second");
}

fn it_sees_nothing_of_the_hosts_environment(containers: &Containers) {
    // Cargo sets it for tests.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let builder =
        containers.builder(containers.container()).env("GREETING", "a, b\nc").env("GOAL", "=");
    let env = builder.start().unwrap().call("env", "").unwrap();
    assert!(!env.contains("CARGO"), "{env}");
    assert!(env.contains("GREETING=a, b\nc\n") && env.contains("GOAL==\n"), "{env}");
}

fn it_sees_only_what_is_mounted(containers: &Containers) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::write(dir.path().join("file"), "the content").unwrap();
    let path = dir.path().join("file").to_str().unwrap().to_owned();
    let plugin = start(containers, containers.container());
    fails(&plugin, "read", &path, "No such file");
    let plugin = start(containers, containers.container().mount(dir.path(), "/data, all"));
    assert_eq!(plugin.call("read", "/data, all/file").unwrap(), "the content");
    fails(&plugin, "write", "/data, all/new", "Read-only file system");
    let plugin = start(containers, containers.container().mount_writable(dir.path(), "/data"));
    plugin.call("write", "/data/new").unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("new")).unwrap(), "something");
}

fn nothing_that_it_says_is_logged(containers: &Containers) {
    let _plugin = start(containers, containers.container());
    assert_eq!(containers.inspect("{{.HostConfig.LogConfig.Type}}"), "none");
}
