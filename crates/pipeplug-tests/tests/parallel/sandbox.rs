//! A plugin that tries to break out: each wall with the attack that it holds off, and that works
//! without it.

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pipeplug_host::SandboxSupport;
use pipeplug_host::process::SpawnErrorKind;
use pipeplug_host::{Plugin, Sandbox, StartErrorKind, WaitStatus};
use pipeplug_tests::{LONG, Script, eventually, system_calls};

use crate::BURGLAR;

/// The ABI of Landlock that confines files, and the one that knows ports.
const FILES: u32 = 3;
const PORTS: u32 = 4;
const SIGNALS: u32 = 6;

const MIB: u64 = 1 << 20;

/// True if the kernel supports the feature under test. If not, the test is skipped, or fails in CI.
fn kernel_has(landlock_abi: u32) -> bool {
    let support = SandboxSupport::of_system();
    let has = support.seccomp && support.landlock_abi >= landlock_abi;
    if !has {
        assert!(
            std::env::var_os("CI").is_none(),
            "ABI {landlock_abi} of Landlock is needed, there is: {support}"
        );
        eprintln!("skipped: ABI {landlock_abi} of Landlock is needed, there is: {support}");
    }
    has
}

fn free() -> Plugin {
    Plugin::start(BURGLAR).unwrap()
}

fn within(sandbox: Sandbox) -> Plugin {
    Plugin::builder(BURGLAR).sandbox(sandbox).start().unwrap()
}

/// Tries an attack. Returns `done`, or the error that stopped it.
#[track_caller]
fn tries(plugin: &Plugin, command: &str, data: impl ToString) -> String {
    let said = plugin.call(command, data.to_string()).unwrap();
    if said.starts_with("done") { "done".to_owned() } else { said }
}

/// Asserts that an attack works without a sandbox, and that the sandbox stops it.
#[track_caller]
fn stopped(sandbox: &Plugin, command: &str, data: impl ToString, by: &str) {
    let data = data.to_string();
    assert_eq!(tries(&free(), command, &data), "done", "without a sandbox: {command} {data}");
    assert_eq!(tries(sandbox, command, &data), by, "{command} {data}");
}

#[test]
fn a_plugin_within_walls_does_its_work() {
    if !kernel_has(FILES) {
        return;
    }
    for sandbox in [Sandbox::basic(), Sandbox::strict()] {
        let plugin = within(sandbox);
        assert_eq!(tries(&plugin, "allocate", 64 * MIB), "done");
        assert_eq!(tries(&plugin, "execute", "/bin/true"), "done", "programs of the system run");
        assert_eq!(tries(&plugin, "append", "/dev/null"), "done");
        assert_eq!(tries(&plugin, "pair", ""), "done");
        let descriptors = plugin.call("descriptors", "").unwrap();
        assert_eq!(
            descriptors.lines().count(),
            5,
            "nothing of the sandbox is left open: {descriptors}"
        );
        assert!(plugin.stop().unwrap().status.success());
    }
}

#[test]
fn files_that_nobody_named_are_out_of_reach() {
    if !kernel_has(FILES) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    let program = dir.path().join("program");
    fs::write(&secret, "secret").unwrap();
    fs::write(&program, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let strict = within(Sandbox::strict());
    for (attack, path) in [
        ("read", secret.as_path()),
        ("append", &secret),
        ("truncate", &secret),
        ("list", dir.path()),
        ("execute", &program),
        ("create", &dir.path().join("new")),
        ("list", "/var".as_ref()),
        ("read", "/etc/hostname".as_ref()),
        ("read", format!("/proc/{}/environ", std::process::id()).as_ref()),
        ("read", &std::env::current_exe().unwrap()),
    ] {
        stopped(&strict, attack, path.display(), "ENOENT");
    }
    assert_eq!(tries(&strict, "remove", secret.display()), "ENOENT");
    // A way around by a link changes nothing; making it is denied as well.
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&secret, &link).unwrap();
    stopped(&strict, "read", link.display(), "ENOENT");
}

#[test]
fn a_basic_plugin_changes_no_file_that_is_out_of_reach() {
    if !kernel_has(FILES) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "secret").unwrap();
    let basic = within(Sandbox::basic().read("/usr"));
    for attack in ["chmod", "chown", "set-times", "set-attribute", "watch"] {
        stopped(&basic, attack, file.display(), "EPERM");
    }
}

#[test]
fn files_that_somebody_named_are_let_in_as_they_were_named() {
    if !kernel_has(FILES) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (reads, writes) = (dir.path().join("reads"), dir.path().join("writes"));
    for dir in [&reads, &writes] {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("file"), "some text").unwrap();
        fs::copy("/bin/true", dir.join("program")).unwrap();
    }
    let plugin = within(Sandbox::strict().read(&reads).write(&writes));
    let on_both = |attack: &str, name: &str| {
        [&reads, &writes].map(|dir| tries(&plugin, attack, dir.join(name).display()))
    };
    assert_eq!(on_both("read", "file"), ["done", "done"]);
    assert_eq!(on_both("append", "file"), ["EROFS", "done"]);
    assert_eq!(on_both("create", "new"), ["EROFS", "done"]);
    assert_eq!(on_both("truncate", "file"), ["EROFS", "done"]);
    assert_eq!(on_both("remove", "file"), ["EROFS", "done"]);
    assert_eq!(on_both("execute", "program"), ["done", "EACCES"]);
    // A basic sandbox allows all files, until a path is granted.
    let basic = within(Sandbox::basic());
    assert_eq!(tries(&basic, "read", reads.join("file").display()), "done");
    let named = within(Sandbox::basic().read(&writes));
    assert_eq!(tries(&named, "read", reads.join("file").display()), "EACCES");
}

#[test]
fn the_network_is_out_of_reach() {
    if !kernel_has(FILES) {
        return;
    }
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let _named = UnixListener::bind(&socket).unwrap();
    let name = format!("pipeplug-test-{}", std::process::id());
    let _abstract =
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let strict = within(Sandbox::strict().read(dir.path()));
    stopped(&strict, "connect", port, "EPERM");
    stopped(&strict, "listen", 0, "EPERM");
    stopped(&strict, "udp", "", "EPERM");
    stopped(&strict, "unix", socket.display(), "EPERM");
    stopped(&strict, "abstract", &name, "EPERM");
    stopped(&strict, "datagram-pair", "", "EPERM");
    // A basic sandbox does not limit the network.
    assert_eq!(tries(&within(Sandbox::basic()), "connect", port), "done");
}

#[test]
fn a_network_namespace_of_its_own_has_no_way_out() {
    let support = SandboxSupport::of_system();
    if !kernel_has(FILES) {
        return;
    }
    if !support.namespaces {
        eprintln!("skipped: this process may make no network namespace");
        return;
    }
    let namespace =
        |plugin: &Plugin| fs::read_link(format!("/proc/{}/ns/net", plugin.pid())).unwrap();
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(namespace(&free()), own);
    assert_eq!(namespace(&within(Sandbox::basic())), own);
    assert_ne!(namespace(&within(Sandbox::strict())), own);
    // With a port that it may use it needs the network that has it.
    if kernel_has(PORTS) {
        assert_eq!(namespace(&within(Sandbox::strict().connect(80))), own);
    }
}

#[test]
fn only_the_ports_that_somebody_named_can_be_used() {
    if !kernel_has(PORTS) {
        return;
    }
    let [open, other] = [(); 2].map(|()| TcpListener::bind(("127.0.0.1", 0)).unwrap());
    let [open_port, other_port] =
        [&open, &other].map(|listener| listener.local_addr().unwrap().port());
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let _named = UnixListener::bind(&socket).unwrap();
    let plugin = within(Sandbox::strict().connect(open_port));
    assert_eq!(tries(&plugin, "connect", open_port), "done");
    stopped(&plugin, "connect", other_port, "EACCES");
    stopped(&plugin, "listen", 0, "EPERM");
    // Landlock looks at connect(2) and bind(2), and not at these.
    stopped(&plugin, "fast-open", other_port, "EPERM");
    stopped(&plugin, "listen-unbound", "", "EPERM");
    stopped(&within(Sandbox::basic().connect(open_port)), "fast-open", other_port, "EPERM");
    stopped(&within(Sandbox::basic().connect(open_port)), "listen-unbound", "", "EPERM");
    stopped(&plugin, "udp", "", "EPERM");
    stopped(&plugin, "unix", socket.display(), "EPERM");
    // Listening needs a free port.
    let port = { TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port() };
    let plugin = within(Sandbox::strict().bind(port));
    assert_eq!(tries(&plugin, "listen", port), "done");
    stopped(&plugin, "listen", 0, "EACCES");
    assert_eq!(tries(&plugin, "connect", open_port), "EPERM");
}

#[test]
fn other_processes_are_out_of_reach() {
    if !kernel_has(SIGNALS) {
        return;
    }
    let strict = within(Sandbox::strict());
    stopped(&strict, "signal", std::process::id(), "ESRCH");
    assert_eq!(tries(&strict, "signal", 2), "done", "its own it may signal");
}

#[test]
fn system_calls_that_no_plugin_needs_fail() {
    if !kernel_has(0) {
        return;
    }
    let free = free();
    let basic = within(Sandbox::basic());
    for call in system_calls() {
        assert_eq!(tries(&basic, "system-call", call), "EPERM", "{call}");
    }
    // What root may do shows that it is not just anything that fails so.
    let privileged = free.call("privileges", "").unwrap().contains("CapEff: 000001ff");
    for call in system_calls().filter(|_| privileged) {
        assert_ne!(tries(&free, "system-call", call), "EPERM", "{call}");
    }
    // Threads and processes are started in spite of all that.
    assert_eq!(tries(&basic, "execute", "/bin/true"), "done");
}

#[test]
fn privileges_are_gone_and_do_not_come_back() {
    if !kernel_has(0) {
        return;
    }
    let none = "0000000000000000";
    let has = within(Sandbox::basic()).call("privileges", "").unwrap();
    assert_eq!(
        has,
        format!(
            "done: CapInh: {none} CapPrm: {none} CapEff: {none} CapBnd: {none} CapAmb: {none} \
             NoNewPrivs: 1"
        )
    );
    assert!(free().call("privileges", "").unwrap().ends_with("NoNewPrivs: 0"));
}

#[test]
fn resources_have_limits() {
    if !kernel_has(0) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    let memory = within(Sandbox::basic().memory(512 * MIB));
    stopped(&memory, "allocate", 1024 * MIB, "ENOMEM");
    assert_eq!(tries(&memory, "allocate", 16 * MIB), "done");
    stopped(&within(Sandbox::basic().open_files(32)), "open", 40, "EMFILE");

    let plugin = within(Sandbox::basic().file_size(1 << 16));
    assert_eq!(tries(&plugin, "grow", format!("{} 65536", file.display())), "done");
    let error = plugin.call("grow", format!("{} 65537", file.display())).unwrap_err();
    let status = plugin.wait(LONG).unwrap();
    assert!(
        matches!(status, Some(WaitStatus::Signaled { signal: nix::libc::SIGXFSZ, .. })),
        "{status:?}: {error}"
    );

    let plugin = within(Sandbox::basic().cpu(Duration::from_secs(1)));
    plugin.call("spin", "").unwrap_err();
    let status = plugin.wait(LONG).unwrap();
    assert!(
        matches!(status, Some(WaitStatus::Signaled { signal: nix::libc::SIGXCPU, .. })),
        "{status:?}"
    );
}

/// The limit counts all processes of a user and does not apply to root.
#[test]
fn processes_have_a_limit() {
    if !kernel_has(0) {
        return;
    }
    let limits = |plugin: &Plugin| {
        let limits = fs::read_to_string(format!("/proc/{}/limits", plugin.pid())).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max processes")).unwrap();
        line.split_whitespace().skip(2).take(2).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(limits(&within(Sandbox::basic().processes(4321))), "4321 4321");
    assert_ne!(limits(&free()), "4321 4321");
}

#[test]
fn core_dumps_are_off() {
    if !kernel_has(0) {
        return;
    }
    let (_, most) = getrlimit(Resource::RLIMIT_CORE).unwrap();
    setrlimit(Resource::RLIMIT_CORE, most, most).unwrap();
    let plugin = within(Sandbox::basic());
    let limits = plugin.call("limit", "core").unwrap();
    assert_eq!(limits, format!("done: {0} {0}", most.min(1)));
    plugin.call("abort", "").unwrap_err();
    let status = plugin.wait(LONG).unwrap();
    assert_eq!(
        status,
        Some(WaitStatus::Signaled { signal: nix::libc::SIGABRT, core_dumped: false })
    );
}

#[test]
fn it_has_a_session_of_its_own() {
    if !kernel_has(0) {
        return;
    }
    let plugin = within(Sandbox::basic());
    assert_eq!(plugin.call("session", "").unwrap(), format!("done: {}", plugin.pid()));
    assert_eq!(tries(&plugin, "terminal", ""), "ENXIO");
    assert_ne!(free().call("session", "").unwrap(), format!("done: {}", free().pid()));
    // What it starts goes with it, as ever.
    let script = Script::answering("sleep 1000 & echo $! >&2; exec cat <&3 >/dev/null");
    let plugin = script.builder().sandbox(Sandbox::basic()).start().unwrap();
    eventually("it says whom it started", || plugin.stderr_tail().len() == 1);
    let child: i32 = plugin.stderr_tail()[0].parse().unwrap();
    plugin.kill().unwrap();
    eventually("it is gone", || !pipeplug_tests::is_running(child));
}

#[test]
fn scripts_run_within_walls() {
    if !kernel_has(FILES) {
        return;
    }
    let script = Script::answering("echo \"$0 $3\" >&2; exec cat <&3 >/dev/null");
    let plugin = script.builder().arg("own").sandbox(Sandbox::strict()).start().unwrap();
    eventually("it runs", || plugin.stderr_tail() == [format!("{} own", script.path().display())]);
    plugin.kill().unwrap();
}

#[test]
fn what_cannot_be_had_starts_nothing() {
    if !kernel_has(FILES) {
        return;
    }
    let sandbox = Sandbox::strict().read("/no/such/file");
    let error =
        Plugin::builder(BURGLAR).sandbox(sandbox.clone().best_effort()).start().unwrap_err();
    assert!(error.is_permanent());
    assert!(
        matches!(error.kind(), StartErrorKind::Spawn(SpawnErrorKind::Grant { .. })),
        "{error:?}"
    );
    assert!(error.to_string().contains("\"/no/such/file\" cannot be granted"), "{error}");
}
