//! A plugin that is confined to its permissions, and tries to get more.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::{Arc, Mutex};

use pipeplug_host::{
    HandlerError, LockFile, Permissions, Plugin, PluginBuilder, Reply, Request, Sandbox,
    SandboxSupport, StartErrorKind,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::BURGLAR;
use crate::sandbox_host::SandboxHost;

/// Environment variable of the burglar with the permissions that it declares.
const DECLARES: &str = "BURGLAR_DECLARES";

/// True if the kernel can enforce permissions with ports. If not, the test is skipped, or fails in CI.
fn kernel_enforces() -> bool {
    let support = SandboxSupport::of_system();
    let enforces = support.namespaces && support.seccomp && support.landlock_abi >= 4;
    assert!(enforces || std::env::var_os("CI").is_none(), "there is only {support}");
    if !enforces {
        eprintln!("skipped: permissions with ports cannot be enforced, there is only {support}");
    }
    enforces
}

fn permissions(value: Value) -> Permissions {
    value.to_string().parse().unwrap()
}

/// The burglar in a folder of its own, with `data` and `out` beside it, and a secret elsewhere.
struct House {
    dir: TempDir,
}

impl House {
    fn new() -> Self {
        let house = Self { dir: tempfile::tempdir().unwrap() };
        for folder in ["plugin", "plugin/data", "plugin/out", "elsewhere"] {
            fs::create_dir(house.path(folder)).unwrap();
        }
        fs::copy(BURGLAR, house.path("plugin/burglar")).unwrap();
        for file in ["plugin/data/words", "plugin/out/old", "elsewhere/secret"] {
            fs::write(house.path(file), "text").unwrap();
        }
        let tool = house.path("plugin/data/tool");
        fs::copy("/bin/true", &tool).unwrap();
        house
    }

    fn path(&self, name: &str) -> String {
        // Without links, as a permission has to name it.
        let dir = self.dir.path().canonicalize().unwrap();
        dir.join(name).to_str().unwrap().to_owned()
    }

    fn builder(&self) -> PluginBuilder {
        Plugin::builder(self.path("plugin/burglar"))
    }

    fn with(&self, allowed: Value) -> Plugin {
        self.builder().permissions(permissions(allowed)).start().unwrap()
    }

    /// The problem of a start with these permissions.
    fn refused(&self, allowed: Value) -> String {
        self.builder().permissions(permissions(allowed)).start().unwrap_err().to_string()
    }
}

/// Tries an attack. Returns `done`, or the error that stopped it.
#[track_caller]
fn tries(plugin: &Plugin, command: &str, data: impl ToString) -> String {
    let said = plugin.call(command, data.to_string()).unwrap();
    if said.starts_with("done") { "done".to_owned() } else { said }
}

#[test]
fn files_are_as_they_were_allowed_and_no_others() {
    if !kernel_enforces() {
        return;
    }
    let house = House::new();
    let free = house.builder().start().unwrap();
    let plugin = house.with(json!({ "read": ["{plugin}/data"], "write": ["{plugin}/out"] }));
    let outside = house.path("plugin/data/../../elsewhere/secret");
    for (command, path, by) in [
        ("append", house.path("plugin/data/words"), "EROFS"),
        ("create", house.path("plugin/data/new"), "EROFS"),
        ("execute", house.path("plugin/data/tool"), "EACCES"),
        ("read", house.path("elsewhere/secret"), "ENOENT"),
        ("read", outside, "ENOENT"),
    ] {
        assert_eq!(tries(&free, command, &path), "done", "free: {command} {path}");
        let said = tries(&plugin, command, &path);
        assert!(said == by || said == "EACCES" || said == "EPERM", "{command} {path}: {said}");
    }
    assert_eq!(tries(&plugin, "read", house.path("plugin/data/words")), "done");
    assert_eq!(tries(&plugin, "read", house.path("plugin/out/old")), "done");
    assert_eq!(tries(&plugin, "create", house.path("plugin/out/new")), "done");
    // The rest of its folder is not that of the machine.
    tries(&plugin, "create", house.path("plugin/new"));
    assert!(!fs::exists(house.path("plugin/new")).unwrap());
    // It is told where its folder is.
    let environment = plugin.call("environment", "").unwrap().to_string();
    let line = format!("PIPEPLUG_PLUGIN_DIR={}", house.path("plugin"));
    assert!(environment.lines().any(|it| it.trim_start_matches("done: ") == line), "{environment}");
    // What may be executed may be read, and not written.
    let plugin = house.with(json!({ "execute": ["{plugin}/data"], "read": ["{plugin}/data"] }));
    assert_eq!(tries(&plugin, "execute", house.path("plugin/data/tool")), "done");
    assert_ne!(tries(&plugin, "append", house.path("plugin/data/words")), "done");
    // A file that is not there is nothing to read.
    let plugin = house.with(json!({ "read": ["{plugin}/missing", "/nonexistent/x"] }));
    assert_eq!(tries(&plugin, "read", house.path("plugin/missing")), "ENOENT");
    let problem = house.refused(json!({ "write": ["{plugin}/missing"] }));
    assert!(
        problem.contains("cannot be granted") && problem.contains("make it first"),
        "{problem}"
    );
}

#[test]
fn a_link_leads_nowhere_that_was_not_allowed() {
    if !kernel_enforces() {
        return;
    }
    let house = House::new();
    let secret = house.path("elsewhere/secret");
    // Below a folder that is allowed.
    symlink(&secret, house.path("plugin/data/link")).unwrap();
    symlink(house.path("elsewhere"), house.path("plugin/out/link")).unwrap();
    let free = house.builder().start().unwrap();
    let plugin = house.with(json!({ "read": ["{plugin}/data"], "write": ["{plugin}/out"] }));
    for link in ["plugin/data/link", "plugin/out/link/secret"] {
        assert_eq!(tries(&free, "read", house.path(link)), "done");
        assert_eq!(tries(&plugin, "read", house.path(link)), "ENOENT", "{link}");
    }
    // In place of one that is allowed, or on the way to it.
    for kind in ["read", "write", "execute"] {
        for path in ["{plugin}/data/link", "{plugin}/out/link/secret", "{plugin}/out/link"] {
            let problem = house.refused(json!({ kind: [path] }));
            assert!(problem.contains("a symbolic link leads from"), "{path}: {problem}");
            assert!(problem.contains(&house.path("elsewhere")), "{problem}");
        }
        let named = house.path("plugin/data/link");
        let problem = house.refused(json!({ kind: [named] }));
        assert!(problem.contains("a symbolic link leads from"), "{problem}");
    }
    // Not within the folder either: a version of the plugin that may write there could have made it.
    symlink("words", house.path("plugin/data/same")).unwrap();
    let problem = house.refused(json!({ "read": ["{plugin}/data/same"] }));
    assert!(problem.contains("a permission names the target of a link"), "{problem}");
}

#[test]
fn a_plugin_cannot_be_allowed_to_change_itself_or_its_lock_file() {
    if !kernel_enforces() {
        return;
    }
    let house = House::new();
    for path in ["{plugin}", "{plugin}/burglar", "/", &house.path("plugin"), &house.path("")] {
        let path = path.trim_end_matches('/');
        let problem = house.refused(json!({ "write": [if path.is_empty() { "/" } else { path }] }));
        assert!(problem.contains("the plugin could change"), "{path}: {problem}");
    }
    let lock_path = house.path("elsewhere/pipeplug.lock");
    let allow = |allowed: Value| {
        let program = house.path("plugin/burglar");
        LockFile::update(&lock_path, |lock| lock.allow(&program, Some(permissions(allowed))))
            .unwrap();
        house.builder().permissions_from(&lock_path).start()
    };
    allow(json!({ "write": [house.path("plugin/out")] })).unwrap();
    let problem = allow(json!({ "write": [house.path("elsewhere")] })).unwrap_err().to_string();
    assert!(
        problem.contains("the plugin could change") && problem.contains(&lock_path),
        "{problem}"
    );
    // Nor a link that leads to the lock file, in place of which it could put a file of its own.
    let link = house.path("plugin/out/link.lock");
    symlink(&lock_path, &link).unwrap();
    symlink(house.path("elsewhere"), house.path("plugin/out/folder")).unwrap();
    allow(json!({ "write": [house.path("plugin/out")] })).unwrap();
    for named in [link, house.path("plugin/out/folder/pipeplug.lock")] {
        let error = house.builder().permissions_from(&named).start().unwrap_err();
        assert!(error.to_string().contains("the plugin could change"), "{named}: {error}");
    }
    // Nor a hard link, of which no path tells.
    let name = house.path("plugin/out/hard.lock");
    fs::hard_link(&lock_path, &name).unwrap();
    for named in [lock_path.as_str(), &name] {
        let error = house.builder().permissions_from(named).start().unwrap_err().to_string();
        assert!(error.contains("has 2 hard links") && error.contains(named), "{error}");
    }
    // One that writes to nothing changes nothing.
    LockFile::update(&lock_path, |lock| {
        lock.allow(house.path("plugin/burglar"), Some(permissions(json!({}))))
    })
    .unwrap();
    fs::remove_file(&name).unwrap();
    fs::hard_link(&lock_path, &name).unwrap();
    house.builder().permissions_from(&lock_path).start().unwrap();
}

#[test]
fn ports_are_as_they_were_allowed() {
    if !kernel_enforces() {
        return;
    }
    let house = House::new();
    let [open, other] = [(); 2].map(|()| TcpListener::bind(("127.0.0.1", 0)).unwrap());
    let [open_port, other_port] =
        [&open, &other].map(|listener| listener.local_addr().unwrap().port());
    let plugin = house.with(json!({ "connect": [open_port] }));
    assert_eq!(tries(&plugin, "connect", open_port), "done");
    assert_eq!(tries(&plugin, "connect", other_port), "EACCES");
    assert_eq!(tries(&plugin, "listen", 0), "EPERM");
    assert_eq!(tries(&plugin, "udp", ""), "EPERM");
    let plugin = house.with(json!({ "bind": [1] }));
    assert_eq!(tries(&plugin, "connect", open_port), "EPERM");
    let plugin = house.with(json!({}));
    assert_ne!(tries(&plugin, "connect", open_port), "done");
}

#[test]
fn only_commands_that_were_allowed_reach_the_host() {
    if !kernel_enforces() {
        return;
    }
    let house = House::new();
    let handled = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&handled);
    let builder = house.builder().handler(
        move |_: &Plugin, request: &mut Request| -> Result<Reply, HandlerError> {
            seen.lock().unwrap().push(request.command().to_owned());
            Ok("done".into())
        },
    );
    let allowed = permissions(json!({ "commands": ["log", "find"] }));
    let plugin = builder.clone().permissions(allowed.clone()).start().unwrap();
    assert_eq!(tries(&plugin, "call-host", "log"), "done");
    let error = plugin.call("call-host", "delete").unwrap_err().to_string();
    assert!(error.contains("does not allow this plugin to ask for \"delete\""), "{error}");
    plugin.call("notify-host", "delete").unwrap();
    // The host's own allow list holds too, whichever comes first.
    for builder in [
        builder.clone().allow(["find", "delete"]).permissions(allowed.clone()),
        builder.permissions(allowed).allow(["find", "delete"]),
    ] {
        let plugin = builder.start().unwrap();
        assert!(plugin.call("call-host", "log").is_err());
        assert!(plugin.call("call-host", "delete").is_err());
        assert_eq!(tries(&plugin, "call-host", "find"), "done");
    }
    assert_eq!(*handled.lock().unwrap(), ["log", "find", "find"]);
}

#[test]
fn only_variables_that_were_allowed_get_through() {
    if !kernel_enforces() {
        return;
    }
    let house = House::new();
    // Cargo sets them for tests.
    let [allowed, other] = ["CARGO_PKG_NAME", "CARGO_PKG_VERSION"];
    let names = |builder: PluginBuilder| {
        let plugin = builder.start().unwrap();
        let text = plugin.call("environment", "").unwrap().to_string();
        [allowed, other].map(|name| text.contains(&format!("{name}=")))
    };
    assert_eq!(names(house.builder().env_inherit()), [true, true]);
    let confined = || house.builder().permissions(permissions(json!({ "environment": [allowed] })));
    assert_eq!(names(confined()), [true, false]);
    assert_eq!(names(confined().env_inherit()), [true, false]);
    assert_eq!(
        names(house.builder().env_inherit().permissions(Permissions::default())),
        [false; 2]
    );
}

#[test]
fn a_plugin_that_declares_more_than_it_was_allowed_does_not_start() {
    if !kernel_enforces() {
        return;
    }
    let house = House::new();
    let lock_path = house.path("pipeplug.lock");
    let start = |declared: &str| {
        house.builder().permissions_from(&lock_path).env(DECLARES, declared).start()
    };
    let problem = start("{}").unwrap_err().to_string();
    assert!(problem.contains("nothing is allowed to it: there is no lock file"), "{problem}");
    fs::write(&lock_path, r#"{"version":1,"plugins":{}}"#).unwrap();
    let error = start("{}").unwrap_err();
    assert!(matches!(error.kind(), StartErrorKind::NotPermitted { .. }), "{error:?}");
    assert!(error.to_string().contains("does not say what") && error.is_permanent(), "{error}");
    let allowed = json!({ "read": ["{plugin}/data"], "connect": [443] });
    LockFile::update(&lock_path, |lock| {
        lock.allow(house.path("plugin/burglar"), Some(permissions(allowed)))
    })
    .unwrap();
    for fits in ["{}", r#"{"connect":[443]}"#, r#"{"read":["{plugin}/data/words"]}"#] {
        start(fits).unwrap();
    }
    // A program that declares nothing gets what is allowed.
    house.builder().permissions_from(&lock_path).start().unwrap();
    let error = start(r#"{"connect":[443,22],"write":["{plugin}/data"]}"#).unwrap_err();
    assert!(error.is_permanent());
    let text = error.to_string();
    assert!(
        text.contains(
            "asks for more than it is allowed: read and change data in the plugin's own folder; \
             connect to TCP port 22, on any machine; allow that first, in "
        ),
        "{text}"
    );
    let StartErrorKind::MorePermissions { more, lock_file } = error.kind() else {
        panic!("{error:?}");
    };
    assert_eq!(**more, permissions(json!({ "connect": [22], "write": ["{plugin}/data"] })));
    assert_eq!(lock_file.as_deref(), Some(Path::new(&lock_path)));
    let error = start(r#"{"usb":["1"]}"#).unwrap_err();
    assert!(matches!(error.kind(), StartErrorKind::BadPermissions { .. }), "{error:?}");
    assert!(error.to_string().contains("it needs a newer pipeplug than"), "{error}");
    let error = start("no json").unwrap_err().to_string();
    assert!(error.contains("declares permissions that cannot be understood"), "{error}");
}

#[test]
fn what_does_not_go_with_permissions_is_refused() {
    let house = House::new();
    let start = |sandbox: Sandbox| {
        let builder = house.builder().permissions(Permissions::default()).sandbox(sandbox);
        builder.start().unwrap_err().to_string()
    };
    for sandbox in [Sandbox::basic(), Sandbox::strict().best_effort()] {
        let problem = start(sandbox);
        assert!(problem.contains("enforced by a strict sandbox alone"), "{problem}");
    }
    let elsewhere = pipeplug_host::launcher::Ssh::new("nowhere.invalid");
    let builder = house.builder().permissions(Permissions::default()).launcher(elsewhere);
    let problem = builder.start().unwrap_err().to_string();
    assert!(problem.contains("its sandbox"), "{problem}");
    let missing = Plugin::builder("/nonexistent/plugin").permissions(Permissions::default());
    assert!(missing.start().unwrap_err().to_string().contains("/nonexistent/plugin"));
}

#[test]
fn a_kernel_without_ports_in_landlock_starts_nothing() {
    for abi in ["0", "3"] {
        let outcome = |allowed: &str| {
            SandboxHost::outcome("strict", &["--landlock", abi, "--permissions", allowed])
        };
        for ports in [r#"{"connect":[443]}"#, r#"{"bind":[8080]}"#] {
            let said = outcome(ports);
            assert!(said.contains("TCP ports need Landlock ABI 4 (Linux 6.7"), "ABI {abi}: {said}");
        }
        let said = outcome(r#"{"read":["/etc/hostname"]}"#);
        assert!(said.starts_with("started "), "ABI {abi}: {said}");
    }
}

#[test]
fn the_own_file_need_not_be_executable_by_all() {
    if !kernel_enforces() {
        return;
    }
    let house = House::new();
    let mode = fs::Permissions::from_mode(0o700);
    fs::set_permissions(house.path("plugin/burglar"), mode).unwrap();
    // A path through a link is that of the file: its folder is where the file is.
    symlink(house.path("plugin/burglar"), house.path("elsewhere/link")).unwrap();
    let builder = Plugin::builder(house.path("elsewhere/link"));
    let allowed = permissions(json!({ "read": ["{plugin}/data"] }));
    let plugin = builder.permissions(allowed).start().unwrap();
    assert_eq!(tries(&plugin, "read", house.path("plugin/data/words")), "done");
    assert_eq!(tries(&plugin, "read", house.path("elsewhere/secret")), "ENOENT");
}
