//! Plugins in languages of all sorts, in a strict sandbox: each does what programs of its kind do,
//! with its threads, children, files and timers, and needs no more than the grants that stand here.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pipeplug_host::SandboxSupport;
use pipeplug_host::{Plugin, PluginBuilder, Sandbox};
use pipeplug_tests::{LONG, missing, tool};
use tempfile::TempDir;

/// A Java machine reserves far more than it uses: heap, classes and compiled code.
const JAVA_MEMORY: u64 = 16 << 30;

/// A file of `plugins/`.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins").join(name)
}

/// A directory for what is compiled.
struct Room {
    dir: TempDir,
}

impl Room {
    /// `None` where the kernel has no strict sandbox.
    fn new() -> Option<Self> {
        has_strict_sandbox().then(|| Self { dir: tempfile::tempdir().unwrap() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a compiler, with what it caches here too.
    fn compile<I: AsRef<OsStr>>(&self, compiler: &Path, arguments: impl IntoIterator<Item = I>) {
        let status = Command::new(compiler)
            .args(arguments)
            .env("GOCACHE", self.path("go-cache"))
            .env("GO111MODULE", "off")
            .status()
            .unwrap();
        assert!(status.success(), "{}: {status}", compiler.display());
    }
}

fn has_strict_sandbox() -> bool {
    let support = SandboxSupport::of_system();
    let has = support.seccomp && support.namespaces;
    if !has {
        missing(&format!("a strict sandbox; there is: {support}"));
    }
    has
}

/// Has the plugin do all that it can.
#[track_caller]
fn works(plugin: PluginBuilder, sandbox: Sandbox, parts: &str) {
    let plugin = plugin.stdio().handshake_timeout(LONG).sandbox(sandbox).start().unwrap();
    let said = plugin.call("work", "");
    assert_eq!(said.as_deref().ok(), Some(parts), "{said:?}, {:?}", plugin.stderr_tail());
    assert!(plugin.stop().unwrap().status.success());
}

#[test]
fn c_with_glibc() {
    c("gcc", "gcc");
}

#[test]
fn c_with_musl() {
    c("musl-gcc", "musl-tools");
}

#[track_caller]
fn c(compiler: &str, package: &str) {
    let (Some(compiler), Some(room)) = (tool(compiler, package), Room::new()) else { return };
    for (name, linking) in [("dynamic", "-pthread"), ("static", "-static")] {
        let program = room.path(name);
        let (source, linking) = (fixture("at_work.c"), OsStr::new(linking));
        room.compile(&compiler, [source.as_os_str(), "-o".as_ref(), program.as_os_str(), linking]);
        works(
            Plugin::builder(program),
            Sandbox::strict(),
            "threads programs files sockets waiting",
        );
    }
}

#[test]
fn go() {
    let (Some(compiler), Some(room)) = (tool("go", "golang-go"), Room::new()) else { return };
    let program = room.path("at-work");
    let source = fixture("at_work.go");
    room.compile(
        &compiler,
        ["build".as_ref(), "-o".as_ref(), program.as_os_str(), source.as_os_str()],
    );
    works(Plugin::builder(program), Sandbox::strict(), "threads programs files waiting tls");
}

#[test]
fn python() {
    if !has_strict_sandbox() {
        return;
    }
    if !Path::new("/usr/bin/python3").is_file() {
        missing("/usr/bin/python3 is missing (Debian: apt-get install python3)");
        return;
    }
    let parts = "threads programs files processes locks tls waiting";
    works(Plugin::builder(fixture("at_work.py")), Sandbox::strict(), parts);
}

#[test]
fn node() {
    let Some(node) = tool("node", "nodejs").filter(|_| has_strict_sandbox()) else { return };
    let sandbox = Sandbox::strict().read(node.canonicalize().unwrap());
    works(
        Plugin::builder(fixture("at_work.js")),
        sandbox,
        "threads programs files computing waiting",
    );
}

#[test]
fn java() {
    let (Some(compiler), Some(room)) = (tool("javac", "default-jdk-headless"), Room::new()) else {
        return;
    };
    let classes = room.path("classes");
    let source = fixture("AtWork.java");
    room.compile(&compiler, ["-d".as_ref(), classes.as_os_str(), source.as_os_str()]);
    let java = compiler.canonicalize().unwrap().with_file_name("java");
    let home = java.ancestors().nth(2).unwrap();
    let mut sandbox = Sandbox::strict().read(&classes).read(home).memory(JAVA_MEMORY);
    // On Debian its settings are links there.
    for entry in fs::read_dir("/etc").unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with("java-") {
            sandbox = sandbox.read(entry.path());
        }
    }
    let plugin = Plugin::builder(&java).arg("-cp").arg(&classes).arg("AtWork");
    works(plugin, sandbox, "threads programs files waiting computing");
}

#[test]
fn shell() {
    if !has_strict_sandbox() {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/scripts/hello.sh");
    let plugin = Plugin::builder(script).stdio().sandbox(Sandbox::strict()).start().unwrap();
    assert_eq!(plugin.call("hello", "world").unwrap(), "hello, world");
    assert!(plugin.stop().unwrap().status.success());
}
