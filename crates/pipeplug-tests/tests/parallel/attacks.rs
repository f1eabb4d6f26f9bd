//! Attacks on a strict sandbox, with three hosts: root, a user without rights, and a user without
//! namespaces. Each attack works without the sandbox.

use std::fs;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::termios::{LocalFlags, tcgetattr};
use pipeplug_host::SandboxSupport;
use pipeplug_host::process::SpawnErrorKind;
use pipeplug_host::{Plugin, Sandbox, StartErrorKind};
use pipeplug_tests::{Script, command_lines_with, eventually, time_that_is_set};

use crate::BURGLAR;
use crate::sandbox_host::{Kind, SandboxHost, open_dir, terminal};

/// True if the system supports a strict sandbox. If not, the test is skipped, or fails in CI.
fn is_supported() -> bool {
    let support = SandboxSupport::of_system();
    let is = support.seccomp && support.namespaces && support.landlock_abi >= 6;
    if !is {
        assert!(
            std::env::var_os("CI").is_none(),
            "namespaces and Landlock are needed, there is: {support}"
        );
        eprintln!("skipped: namespaces and Landlock are needed, there is: {support}");
    }
    is
}

/// A file of the host's user, with a link to it.
struct Secret {
    dir: tempfile::TempDir,
}

impl Secret {
    fn of(kind: Kind) -> Self {
        let dir = open_dir();
        let file = dir.path().join("file");
        fs::write(&file, "secret").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        symlink(&file, dir.path().join("link")).unwrap();
        for path in [dir.path(), &file] {
            chown(path, Some(kind.user().as_raw()), None).unwrap();
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }
}

/// The attacks on files: with the outcome in a root file system of the plugin's own, and in the
/// host's.
const ON_FILES: [(&str, &str, &str, &str); 16] = [
    ("stat", "file", "ENOENT", "done"),
    ("access", "file", "ENOENT", "done"),
    ("open-path", "file", "ENOENT", "done"),
    ("read-link", "link", "ENOENT", "done"),
    ("read", "file", "ENOENT", "EACCES"),
    ("append", "file", "ENOENT", "EACCES"),
    ("truncate", "file", "ENOENT", "EACCES"),
    ("list", "", "ENOENT", "EACCES"),
    ("create", "new", "ENOENT", "EACCES"),
    ("chmod", "file", "ENOENT", "EPERM"),
    ("chown", "file", "ENOENT", "EPERM"),
    ("set-times", "file", "ENOENT", "EPERM"),
    ("set-attribute", "file", "ENOENT", "EPERM"),
    ("watch", "", "ENOENT", "EPERM"),
    ("rename", "file", "ENOENT", "EACCES"),
    ("remove", "link", "ENOENT", "EACCES"),
];

#[test]
fn files_that_were_not_granted_are_not_there() {
    if !is_supported() {
        return;
    }
    for kind in Kind::all() {
        let secret = Secret::of(kind);
        let before = fs::metadata(secret.path("file")).unwrap();
        let mut strict = SandboxHost::start(kind, "strict", &[]);
        for (attack, name, own_root, hosts_root) in ON_FILES {
            let expected = if kind == Kind::WithoutNamespaces { hosts_root } else { own_root };
            let got = strict.tries(attack, secret.path(name));
            assert_eq!(got, expected, "{kind:?}: {attack} {name}");
        }
        let after = fs::metadata(secret.path("file")).unwrap();
        assert_eq!(after.permissions(), before.permissions(), "{kind:?}");
        assert_eq!(after.modified().unwrap(), before.modified().unwrap(), "{kind:?}");
        // What is tried gets through where nothing stops it.
        let mut free = SandboxHost::start(kind, "none", &[]);
        for (attack, name, ..) in ON_FILES {
            assert_eq!(free.tries(attack, secret.path(name)), "done", "{kind:?}: {attack} {name}");
            if attack == "rename" {
                fs::rename(secret.path("file.renamed"), secret.path("file")).unwrap();
            }
        }
        let after = fs::metadata(secret.path("file")).unwrap();
        // A change of the owner takes the set-user-id bit away again.
        assert_eq!(after.permissions().mode() & 0o777, 0o777, "{kind:?}");
        assert_eq!(after.modified().unwrap(), time_that_is_set(), "{kind:?}");
    }
}

/// The attacks on the host's process: with the outcome in a pid namespace of the plugin's own, and
/// in the host's.
const ON_THE_HOST: [(&str, &str, &str); 4] = [
    ("signal", "ESRCH", "EPERM"),
    ("affinity", "ESRCH", "EPERM"),
    ("priority", "ESRCH", "EPERM"),
    ("io-priority", "ESRCH", "EPERM"),
];

#[test]
fn processes_of_the_host_are_not_there() {
    if !is_supported() {
        return;
    }
    for kind in Kind::all() {
        let (mut strict, mut free) =
            (SandboxHost::start(kind, "strict", &[]), SandboxHost::start(kind, "none", &[]));
        for (attack, own, hosts) in ON_THE_HOST {
            let expected = if kind == Kind::WithoutNamespaces { hosts } else { own };
            assert_eq!(strict.tries(attack, strict.pid()), expected, "{kind:?}: {attack}");
            assert_eq!(free.tries(attack, free.pid()), "done", "{kind:?}: {attack}");
        }
        let environment = |host: &SandboxHost| format!("/proc/{}/environ", host.pid());
        let expected = if kind == Kind::WithoutNamespaces { "EACCES" } else { "ENOENT" };
        let path = environment(&strict);
        assert_eq!(strict.tries("read", path), expected, "{kind:?}");
        let path = environment(&free);
        assert_eq!(free.tries("read", path), "done", "{kind:?}");
    }
}

#[test]
fn memory_that_is_not_mapped_has_a_limit_too() {
    if !is_supported() {
        return;
    }
    for kind in Kind::all() {
        let mut strict = SandboxHost::start(kind, "strict", &[]);
        assert_eq!(strict.tries("memory-file", 1), "ENOSYS", "{kind:?}");
        if kind == Kind::WithoutNamespaces {
            continue;
        }
        for dir in ["/tmp", "/dev/shm"] {
            let got = strict.says("fill", format!("{dir}/file"));
            assert_eq!(got, "done: 64 MiB, then StorageFull", "{kind:?}: {dir}");
        }
        // No size is no limit to tmpfs.
        let mut none = SandboxHost::start(kind, "strict", &["--scratch", "0"]);
        assert_eq!(none.says("fill", "/tmp/file"), "done: 0 MiB, then StorageFull", "{kind:?}");
        assert_eq!(strict.tries("create", "/file"), "EROFS", "{kind:?}");
        assert_eq!(strict.tries("create", "/dev/file"), "EROFS", "{kind:?}");
    }
}

#[test]
fn nothing_outlives_a_strict_plugin_wherever_it_went() {
    if !is_supported() {
        return;
    }
    for kind in Kind::all().into_iter().filter(|kind| *kind != Kind::WithoutNamespaces) {
        for end in ["stop", "kill", "kill the plugin"] {
            let mut host = SandboxHost::start(kind, "strict", &[]);
            let mark = format!("pipeplug-mark-{}-{end}", host.pid());
            for way in ["leave-by-session", "leave-by-group", "leave-as-orphan"] {
                assert_eq!(host.tries(way, &mark), "done", "{kind:?}: {way}");
            }
            eventually("all run", || command_lines_with(&mark).len() == 3);
            match end {
                "stop" => host.stop(),
                "kill" => host.kill(),
                _ => {
                    pipeplug_tests::send(host.plugin(), nix::sys::signal::Signal::SIGKILL);
                    eventually("all are gone, and the host is not", || {
                        command_lines_with(&mark).is_empty()
                    });
                    assert!(pipeplug_tests::is_running(host.pid()));
                }
            }
            eventually("all are gone", || command_lines_with(&mark).is_empty());
        }
    }
}

#[test]
fn the_terminal_is_not_handed_over_with_standard_output() {
    if !is_supported() {
        return;
    }
    for (level, expected) in [("none", "done"), ("basic", "ENOTTY"), ("strict", "ENOTTY")] {
        let (user, programs) = terminal();
        let stdout = Stdio::from(programs.try_clone().unwrap());
        let mut host = SandboxHost::start_with(Kind::Own, level, &["--inherit-stdout"], stdout);
        assert_eq!(host.tries("echo-off", ""), expected, "{level}");
        let has_echo = tcgetattr(programs.as_fd()).unwrap().local_flags.contains(LocalFlags::ECHO);
        assert_eq!(has_echo, expected != "done", "{level}");
        drop(user);
    }
}

#[test]
fn what_the_host_has_written_is_not_handed_over_with_standard_output() {
    if !is_supported() {
        return;
    }
    for kind in Kind::all() {
        for (level, expected) in [("none", "done"), ("strict", "EINVAL")] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(b"of the host").unwrap();
            let stdout = Stdio::from(file.try_clone().unwrap());
            let mut host = SandboxHost::start_with(kind, level, &["--inherit-stdout"], stdout);
            assert_eq!(host.tries("truncate-output", ""), expected, "{kind:?}: {level}");
            let bytes = file.metadata().unwrap().len();
            assert_eq!(bytes == 0, expected == "done", "{kind:?}: {level}");
        }
    }
}

#[test]
fn no_device_of_the_host_is_handed_over() {
    if !is_supported() {
        return;
    }
    for kind in Kind::all() {
        let expected = if kind == Kind::WithoutNamespaces { "EPERM" } else { "EROFS" };
        let mut strict = SandboxHost::start(kind, "strict", &[]);
        for standard in [0, 1] {
            assert_eq!(
                strict.tries("chmod-descriptor", standard),
                expected,
                "{kind:?}: {standard}"
            );
        }
    }
    if nix::unistd::geteuid().is_root() {
        let mut free = SandboxHost::start(Kind::Own, "none", &[]);
        assert_eq!(free.tries("chmod-descriptor", 0), "done");
    }
}

#[test]
fn nobody_becomes_the_host_by_a_file_that_it_made() {
    if !is_supported() {
        return;
    }
    for kind in Kind::all() {
        let dir = open_dir();
        chown(dir.path(), Some(kind.user().as_raw()), None).unwrap();
        let file = dir.path().join("file");
        let path = file.to_str().unwrap();
        let options = ["--write", dir.path().to_str().unwrap()];
        let mut strict = SandboxHost::start(kind, "strict", &options);
        assert_eq!(strict.tries("create", path), "done", "{kind:?}");
        assert_eq!(strict.tries("set-user-id", path), "EPERM", "{kind:?}");
        let expected = if kind == Kind::WithoutNamespaces { "EPERM" } else { "done" };
        assert_eq!(strict.tries("chmod", path), expected, "{kind:?}: other modes it may set");
        let mut free = SandboxHost::start(kind, "none", &[]);
        assert_eq!(free.tries("set-user-id", path), "done", "{kind:?}");
    }
}

#[test]
fn init_is_left_alone() {
    if !is_supported() {
        return;
    }
    for kind in Kind::all().into_iter().filter(|kind| *kind != Kind::WithoutNamespaces) {
        let mut strict = SandboxHost::start(kind, "strict", &[]);
        for attack in ["affinity", "priority", "io-priority"] {
            assert_eq!(strict.tries(attack, 1), "EPERM", "{kind:?}: {attack}");
            assert_eq!(strict.tries(attack, 2), "done", "{kind:?}: {attack}, of its own");
        }
        // By its pipe, a plugin could keep it from noticing the end of the host.
        let mut without_landlock = SandboxHost::start(kind, "strict", &["--without-landlock"]);
        for host in [&mut strict, &mut without_landlock] {
            assert_eq!(host.tries("append", "/proc/1/fd/0"), "EACCES", "{kind:?}");
        }
        assert_eq!(
            without_landlock.tries("append", "/proc/2/fd/3"),
            "done",
            "{kind:?}: of its own"
        );
    }
}

#[test]
fn the_machine_is_not_looked_into_by_its_processes() {
    if !is_supported() {
        return;
    }
    for kind in Kind::all().into_iter().filter(|kind| *kind != Kind::WithoutNamespaces) {
        let (mut strict, mut free) =
            (SandboxHost::start(kind, "strict", &[]), SandboxHost::start(kind, "none", &[]));
        for file in ["interrupts", "slabinfo", "timer_list", "vmallocinfo"] {
            let path = format!("/proc/{file}");
            if free.tries("read", &path) == "done" {
                assert_eq!(strict.says("read", &path), "done: 0 bytes", "{kind:?}: {file}");
            }
        }
    }
}

#[test]
fn what_a_user_has_in_all_is_not_used_up() {
    if !is_supported() {
        return;
    }
    for kind in Kind::all() {
        let mut strict = SandboxHost::start(kind, "strict", &[]);
        assert_eq!(strict.says("limit", "pending signals"), "done: 1024 1024", "{kind:?}");
        let instances = strict.says("watch-much", "");
        let most = if kind == Kind::WithoutNamespaces { 0 } else { 32 };
        assert_eq!(instances, format!("done: {most} instances"), "{kind:?}");
        // The limit does not hold for root, for whom the numbers of processes are limited: since
        // Linux 6.14.
        if kind == Kind::WithoutNamespaces || kind.user().is_root() && !has_numbers_of_its_own() {
            continue;
        }
        let processes = strict.says("fork-bomb", "");
        let number: u32 = processes.split_whitespace().nth(1).unwrap().parse().unwrap();
        let expected = if kind.user().is_root() { 1000..1324 } else { 1000..1024 };
        assert!(expected.contains(&number), "{kind:?}: {processes}");
    }
    let hosts = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap();
    assert!(
        hosts.trim().parse::<u32>().unwrap() > 2000,
        "that of the machine is as it was: {hosts}"
    );
}

/// True if a pid namespace has a `kernel.pid_max` of its own.
fn has_numbers_of_its_own() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>());
    let version = (numbers.next().unwrap().unwrap(), numbers.next().unwrap().unwrap());
    if version < (6, 14) {
        eprintln!(
            "skipped: the number of processes of a root host has no limit on this kernel: {release}"
        );
    }
    version >= (6, 14)
}

#[test]
fn a_path_that_is_swapped_grants_nothing_else() {
    if !is_supported() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("secret"), "secret").unwrap();
    // The program, and a grant in a directory that the plugin may write to: both are exchanged with
    // links to all there is.
    let program = path("program");
    fs::hard_link(BURGLAR, &program).or_else(|_| fs::copy(BURGLAR, &program).map(drop)).unwrap();
    symlink("/", path("root")).unwrap();
    let (own, granted) = (path("own"), path("own/granted"));
    fs::create_dir_all(&granted).unwrap();
    symlink("/", path("own/root")).unwrap();
    let over = AtomicBool::new(false);
    let (mut starts, mut attempts) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                exchange(&program, &path("root"));
                exchange(&granted, &path("own/root"));
                thread::yield_now();
            }
        });
        let _over = AtDrop(|| over.store(true, Ordering::Relaxed));
        while starts < 30 && attempts < 300 {
            attempts += 1;
            let builder =
                Plugin::builder(&program).sandbox(Sandbox::strict().write(&own).read(&granted));
            let Ok(plugin) = builder.start() else { continue };
            starts += 1;
            // By its path, and by the ones that it had if a link were what was granted.
            for root in ["".as_ref(), granted.as_path(), program.as_path(), &path("own/root")] {
                let got = plugin
                    .call("read", format!("{}{}", root.display(), path("secret").display()))
                    .unwrap();
                assert!(["ENOENT", "ENOTDIR"].contains(&got.as_str()), "{}: {got}", root.display());
            }
            plugin.kill().unwrap();
        }
    });
    assert!(starts > 0, "the plugin was never started, in {attempts} attempts");
}

/// Does something when it is dropped, by a panic too.
struct AtDrop<F: Fn()>(F);

impl<F: Fn()> Drop for AtDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Exchanges two names, in one step.
fn exchange(one: &Path, other: &Path) {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE).unwrap();
}

#[test]
fn a_link_that_the_plugin_could_have_made_leads_nowhere() {
    if !is_supported() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("own");
    fs::create_dir(&own).unwrap();
    symlink("/etc", own.join("data")).unwrap();
    symlink(own.join("data"), dir.path().join("to-data")).unwrap();
    let more = own.join("above");
    fs::create_dir(&more).unwrap();
    let alias = dir.path().join("alias");
    symlink(&own, &alias).unwrap();
    let around = own.join("../own");
    for sandbox in [
        Sandbox::strict().write(&own).read(own.join("data")),
        Sandbox::strict().write(&own).write(own.join("data")),
        // Whichever other directories may be written to, and whatever this one is called.
        Sandbox::strict().write(&own).write(&more).write(own.join("data")),
        Sandbox::strict().write(&alias).read(own.join("data")),
        Sandbox::strict().write(&own).read(alias.join("data")),
        Sandbox::strict().write(&own).read(around.join("data")),
        // By a name that sorts before the one of the directory itself.
        Sandbox::strict().write(&own).write(alias.join("data")),
        // By a link outside of it, to the one inside.
        Sandbox::strict().write(&own).read(dir.path().join("to-data")),
    ] {
        let error = Plugin::builder(BURGLAR).sandbox(sandbox.clone()).start().unwrap_err();
        assert!(
            matches!(error.kind(), StartErrorKind::Spawn(SpawnErrorKind::Grant { .. })),
            "{error:?}"
        );
        assert!(error.to_string().contains("cannot be granted"), "{sandbox:?}: {error}");
    }
}

#[test]
fn what_is_granted_below_a_directory_that_may_be_written_to_is_there() {
    if !is_supported() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let below = dir.path().join("below");
    fs::create_dir(&below).unwrap();
    for sandbox in [
        Sandbox::strict().write(dir.path()).read(&below),
        Sandbox::strict().write(dir.path()).write(&below).read(&below),
    ] {
        let plugin = Plugin::builder(BURGLAR).sandbox(sandbox).start().unwrap();
        assert_eq!(plugin.call("list", below.to_str().unwrap()).unwrap(), "done: 0 entries");
    }
}

#[test]
fn nothing_is_granted_because_a_program_names_it() {
    if !is_supported() {
        return;
    }
    // The interpreter of a script.
    let dir = open_dir();
    let shell = dir.path().join("shell");
    fs::copy("/bin/sh", &shell).unwrap();
    let script = Script::with_interpreter(shell.to_str().unwrap(), "exit 0");
    let start = |path: &Path| {
        Plugin::builder(path).sandbox(Sandbox::strict()).start().unwrap_err().to_string()
    };
    let error = start(&script.path());
    assert!(error.contains("is out of reach") && error.contains("--sandbox-read"), "{error}");
    // The dynamic loader of a program.
    let loader = dir.path().join("loader");
    fs::copy("/lib64/ld-linux-x86-64.so.2", &loader).unwrap_or_default();
    if let Some(program) = with_loader(&fs::read(BURGLAR).unwrap(), &loader) {
        let path = dir.path().join("program");
        fs::write(&path, program).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let error = start(&path);
        assert!(error.contains("is out of reach") && error.contains("loader"), "{error}");
    }
}

/// The program with another loader, if its path is not longer than the one that it has.
fn with_loader(program: &[u8], loader: &Path) -> Option<Vec<u8>> {
    const OWN: &[u8] = b"/lib64/ld-linux-x86-64.so.2\0";
    let at = program.windows(OWN.len()).position(|window| window == OWN)?;
    let path = loader.to_str().unwrap().as_bytes();
    let mut program = program.to_vec();
    let room = program.get_mut(at..at + OWN.len())?;
    room.fill(0);
    room.get_mut(..path.len()).filter(|_| path.len() < OWN.len())?.copy_from_slice(path);
    Some(program)
}

#[test]
fn grants_within_grants_are_as_they_were_named() {
    if !is_supported() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (outer, inner) = (dir.path().join("outer"), dir.path().join("outer/inner"));
    fs::create_dir_all(&inner).unwrap();
    let on = |plugin: &Plugin, path: &Path| {
        plugin.call("create", path.join("new").to_str().unwrap()).unwrap()
    };
    let sandbox = Sandbox::strict().write(&inner).read(&outer);
    let plugin = Plugin::builder(BURGLAR).sandbox(sandbox).start().unwrap();
    assert_eq!([on(&plugin, &outer), on(&plugin, &inner)], ["EROFS", "done: created"]);
    let sandbox = Sandbox::strict().write(&outer).read(&inner);
    let plugin = Plugin::builder(BURGLAR).sandbox(sandbox).start().unwrap();
    assert_eq!([on(&plugin, &outer), on(&plugin, &inner)], ["done: created", "EROFS"]);
    // All of the host's files may be read, but for what the plugin has of its own.
    let plugin = Plugin::builder(BURGLAR).sandbox(Sandbox::strict().read("/")).start().unwrap();
    assert_eq!(plugin.call("create", "/new").unwrap(), "EROFS");
    assert!(plugin.call("list", "/var").unwrap().starts_with("done"));
    let hosts = format!("/proc/{}/environ", std::process::id());
    assert_eq!(plugin.call("read", hosts).unwrap(), "ENOENT");
    // A program in a directory that it may write to runs all the same, and cannot be replaced.
    let program = outer.join("program");
    fs::copy(BURGLAR, &program).unwrap();
    let plugin =
        Plugin::builder(&program).sandbox(Sandbox::strict().write(&outer)).start().unwrap();
    assert_eq!(plugin.call("remove", program.to_str().unwrap()).unwrap(), "EBUSY");
}

#[test]
fn one_that_is_left_alone_ends_by_itself_and_leaves_nothing() {
    if !is_supported() {
        return;
    }
    let mut host = SandboxHost::start(Kind::Own, "strict", &["--leave"]);
    let mark = format!("pipeplug-mark-{}", host.pid());
    assert_eq!(host.tries("leave-by-session", &mark), "done");
    eventually("it runs", || command_lines_with(&mark).len() == 1);
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace(host.plugin()).unwrap();
    let plugin = host.plugin();
    pipeplug_tests::send(plugin, nix::sys::signal::Signal::SIGSTOP);
    host.kill();
    assert!(pipeplug_tests::is_running(plugin), "it is left alone");
    pipeplug_tests::send(plugin, nix::sys::signal::Signal::SIGCONT);
    eventually("the plugin and its init are gone", || {
        let all = fs::read_dir("/proc").unwrap().flatten();
        !all.filter_map(|it| it.file_name().to_str()?.parse().ok())
            .any(|pid| namespace(pid).as_ref() == Some(&own))
    });
    assert!(command_lines_with(&mark).is_empty());
}

#[test]
fn what_cannot_be_enforced_is_named_and_starts_nothing() {
    if !is_supported() {
        return;
    }
    let host = std::process::Command::new(crate::SANDBOX_HOST)
        .args(["--without-namespaces", "strict", BURGLAR])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&host.stderr);
    assert!(
        !host.status.success() && !said.lines().any(|line| line.starts_with("started ")),
        "{said}"
    );
    for part in ["namespaces cannot be made", "Operation not permitted", "outlives it"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}
