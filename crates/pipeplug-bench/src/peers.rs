//! Peers: libraries that users could take in place of pipeplug. Their names, how they are built,
//! and the versions that were measured.
//!
//! Their sources stand in `peers` beside this crate's; whatever is built goes below the target
//! directory. A peer whose toolchain is absent is left out, with a word.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

/// The peers' sources.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");

/// Where Debian's packages put Go sources.
const GO_SOURCES: &str = "/usr/share/gocode";

/// A peer, in one of its ways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Name in tables.
    pub(crate) name: &'static str,
    /// Description for readers who do not know the peer.
    pub(crate) what: &'static str,
    /// Group that the peer is built with.
    pub(crate) group: Group,
    /// Parts that the peer is made of, with versions.
    pub(crate) version: String,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
}

/// Peers that are built together, named after what builds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    Rust,
    Go,
    Node,
}

/// A peer that is left out, and why, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeftOut {
    pub(crate) name: &'static str,
    pub(crate) why: String,
}

/// All peers, in the order of the tables, whether or not they can be built here.
///
/// # Errors
/// This program does not know where it is.
pub(crate) fn all() -> Result<Vec<Peer>> {
    let out = out_dir()?;
    Ok(TABLE.iter().map(|entry| entry.peer(&out)).collect())
}

/// Builds those peers as far as their toolchains are here, anew only what changed.
///
/// # Blocking
/// Some minutes the first time, about a second when all is up to date.
pub(crate) fn build(peers: Vec<Peer>) -> Result<(Vec<Peer>, Vec<LeftOut>)> {
    let out = out_dir()?;
    let executables: BTreeSet<_> = peers.iter().map(|peer| peer.program.clone()).collect();
    let mut outcomes = BTreeMap::new();
    let (mut ready, mut left_out) = (Vec::new(), Vec::new());
    for peer in peers {
        let outcome = outcomes.entry(peer.group).or_insert_with(|| match peer.group.lacks() {
            Some(why) => Err(why),
            None => peer.group.build(&out, &executables).map_err(|error| format!("{error:#}")),
        });
        match outcome {
            Ok(()) => ready.push(peer),
            Err(why) => left_out.push(LeftOut { name: peer.name, why: why.clone() }),
        }
    }
    Ok((ready, left_out))
}

/// A row of the table.
struct Entry {
    name: &'static str,
    what: &'static str,
    group: Group,
    /// The packages whose versions tell what was measured.
    packages: &'static [&'static str],
    /// The executable of its group.
    executable: &'static str,
    mode: &'static str,
}

const TARPC: Entry = Entry {
    name: "tarpc",
    what: "tarpc over a Unix socket, bincode",
    group: Group::Rust,
    packages: &["tarpc"],
    executable: "peer-tarpc",
    mode: "unix",
};
const TTRPC: Entry = Entry {
    name: "ttrpc-async",
    what: "ttrpc over a Unix socket, async",
    group: Group::Rust,
    packages: &["ttrpc"],
    executable: "peer-ttrpc",
    mode: "async",
};
const TONIC: Entry = Entry {
    name: "tonic",
    what: "tonic: gRPC over a Unix socket",
    group: Group::Rust,
    packages: &["tonic"],
    executable: "peer-tonic",
    mode: "unix",
};
const GO_PLUGIN: Entry = Entry {
    name: "go-plugin-netrpc",
    what: "hashicorp/go-plugin over net/rpc",
    group: Group::Go,
    packages: &["golang-github-hashicorp-go-plugin-dev", "golang-go"],
    executable: "go-plugin",
    mode: "netrpc",
};

const TYPED: Entry = Entry {
    name: "typed-tarpc",
    what: "tarpc with a typed interface, over stdin and stdout, bincode",
    group: Group::Rust,
    packages: &["tarpc"],
    executable: "peer-typed-tarpc",
    mode: "",
};

/// A runtime with one worker thread is what a tuner would find: on two CPUs most figures are the
/// better for it.
const TABLE: [Entry; 16] = [
    TARPC,
    Entry {
        name: "tarpc-one-worker",
        what: "tarpc over a Unix socket, one thread for tasks",
        mode: "unix,1",
        ..TARPC
    },
    Entry {
        name: "tarpc-pipes",
        what: "tarpc over stdin and stdout, bincode",
        mode: "pipes",
        ..TARPC
    },
    Entry { name: "ttrpc-sync", what: "ttrpc over a Unix socket, blocking", mode: "sync", ..TTRPC },
    TTRPC,
    Entry {
        name: "ttrpc-async-one-worker",
        what: "ttrpc over a Unix socket, async, one thread for tasks",
        mode: "async,1",
        ..TTRPC
    },
    TONIC,
    Entry {
        name: "tonic-one-worker",
        what: "tonic: gRPC over a Unix socket, one thread for tasks",
        mode: "unix,1",
        ..TONIC
    },
    Entry {
        name: "lsp-server",
        what: "lsp-server: JSON-RPC over stdin and stdout",
        group: Group::Rust,
        packages: &["lsp-server"],
        executable: "peer-lsp-server",
        mode: "stdio",
    },
    GO_PLUGIN,
    Entry {
        name: "go-plugin-grpc",
        what: "hashicorp/go-plugin over gRPC",
        packages: &["golang-github-hashicorp-go-plugin-dev", "golang-google-grpc-dev", "golang-go"],
        mode: "grpc",
        ..GO_PLUGIN
    },
    Entry {
        name: "vscode-jsonrpc",
        what: "vscode-jsonrpc: JSON-RPC over stdin and stdout, Node.js",
        group: Group::Node,
        packages: &["vscode-jsonrpc"],
        executable: "main.js",
        mode: "stdio",
    },
    TYPED,
    Entry {
        name: "typed-tonic",
        what: "tonic with a typed interface: gRPC over a Unix socket",
        packages: &["tonic"],
        executable: "peer-typed-tonic",
        ..TYPED
    },
    Entry {
        name: "typed-rmcp",
        what: "rmcp: MCP tools over stdin and stdout",
        packages: &["rmcp"],
        executable: "peer-typed-rmcp",
        ..TYPED
    },
    Entry {
        name: "typed-nu-plugin",
        what: "nu-plugin, called by nu-plugin-engine over a Unix socket, MessagePack",
        packages: &["nu-plugin"],
        executable: "peer-typed-nu-plugin",
        ..TYPED
    },
];

impl Entry {
    fn peer(&self, out: &Path) -> Peer {
        let executable = self.group.executable(out, self.executable);
        let host = ["host", self.mode].map(str::to_owned);
        let (program, args) = match self.group {
            Group::Rust | Group::Go => (executable, host.to_vec()),
            Group::Node => {
                let script = executable.display().to_string();
                (
                    find("node").unwrap_or_else(|| "node".into()),
                    [vec![script], host.to_vec()].concat(),
                )
            }
        };
        let versions = self.packages.iter().filter_map(|package| {
            let version = self.group.version(package)?;
            let package = package.trim_start_matches("golang-").trim_end_matches("-dev");
            Some(format!("{package} {version}"))
        });
        let version = versions.collect::<Vec<_>>().join(", ");
        Peer { name: self.name, what: self.what, group: self.group, version, program, args }
    }
}

impl Group {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::Go => "Go",
            Self::Node => "Node.js",
        }
    }

    fn executable(self, out: &Path, name: &str) -> PathBuf {
        match self {
            Self::Rust => out.join("rust/release").join(name),
            Self::Go => out.join("go").join(name),
            Self::Node => out.join("node").join(name),
        }
    }

    /// Returns what is missing to build the group, and how to get it.
    fn lacks(self) -> Option<String> {
        let (programs, folders, hint): (&[&str], &[&str], &str) = match self {
            // It built this program.
            Self::Rust => (&[], &[], ""),
            Self::Go => (
                &["go", "protoc", "protoc-gen-go"],
                &["github.com/hashicorp/go-plugin", "google.golang.org/grpc"],
                "apt-get install golang-go golang-github-hashicorp-go-plugin-dev \
                 golang-google-grpc-dev protobuf-compiler golang-goprotobuf-dev",
            ),
            Self::Node => (&["node", "npm"], &[], "apt-get install nodejs npm"),
        };
        let program = programs.iter().find(|program| find(program).is_none());
        let folder =
            folders.iter().find(|folder| !Path::new(GO_SOURCES).join("src").join(folder).is_dir());
        let missing = program.or(folder)?;
        Some(format!("{missing} is not installed: {hint}"))
    }

    /// Builds the group: in Rust, only the packages of these executables.
    fn build(self, out: &Path, executables: &BTreeSet<PathBuf>) -> Result<()> {
        let sources = Path::new(SOURCES);
        match self {
            Self::Rust => {
                let release = out.join("rust/release");
                let ours = executables.iter().filter_map(|path| path.strip_prefix(&release).ok());
                build_rust(&sources.join("rust"), &out.join("rust"), ours)
            }
            Self::Go => build_go(sources, &out.join("go")),
            Self::Node => build_node(&sources.join("node"), &out.join("node")),
        }
        .with_context(|| format!("cannot build the peers in {}", self.name()))
    }

    /// The version of a package: locked beside the sources, or installed.
    fn version(self, package: &str) -> Option<String> {
        match self {
            Self::Rust => {
                let lock = fs::read_to_string(Path::new(SOURCES).join("rust/Cargo.lock")).ok()?;
                after(&lock, &format!("name = \"{package}\"\nversion = \""))
            }
            Self::Node => {
                let lock =
                    fs::read_to_string(Path::new(SOURCES).join("node/package-lock.json")).ok()?;
                let (_, entry) = lock.split_once(&format!("\"node_modules/{package}\": {{"))?;
                after(entry, "\"version\": \"")
            }
            Self::Go => {
                let query = ["--show", "--showformat", "${Version}", package];
                let output =
                    Command::new("dpkg-query").args(query).stderr(Stdio::null()).output().ok()?;
                let version = String::from_utf8(output.stdout).ok()?;
                (output.status.success() && !version.is_empty()).then_some(version)
            }
        }
    }
}

/// Each executable has the name of its package.
fn build_rust<'a>(
    sources: &Path,
    out: &Path,
    executables: impl Iterator<Item = &'a Path> + Clone,
) -> Result<()> {
    if let Some(first) = executables.clone().find(|name| !out.join("release").join(name).exists()) {
        announce(&out.join("release").join(first), Group::Rust);
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--locked", "--quiet", "--target-dir"]).arg(out);
    for package in executables {
        command.arg("--package").arg(package);
    }
    // From its folder, so that it is not this workspace's configuration and toolchain that is read.
    run(command.current_dir(sources))
}

/// Debian's packages are no modules: they are built as in Go's old days, from GOPATH.
fn build_go(sources: &Path, out: &Path) -> Result<()> {
    announce(&out.join("go-plugin"), Group::Go);
    let path = out.join("gopath");
    let generated = path.join("src/echopb");
    fs::create_dir_all(&generated)
        .with_context(|| format!("cannot create {}", generated.display()))?;
    let mut plugin = OsString::from("--go_out=plugins=grpc:");
    plugin.push(&generated);
    let protos = ["echo.proto", "streams.proto"];
    run(Command::new("protoc").arg(plugin).args(protos).current_dir(sources.join("proto")))?;
    let go_path = env::join_paths([&path, Path::new(GO_SOURCES)]).context("a path with a colon")?;
    let mut command = Command::new("go");
    command.args(["build", "-o"]).arg(out.join("go-plugin")).arg(".");
    command.env("GOPATH", go_path).env("GOCACHE", out.join("cache"));
    command.envs([("GO111MODULE", "off"), ("GOFLAGS", ""), ("GOTOOLCHAIN", "local")]);
    run(command.current_dir(sources.join("go")))
}

fn build_node(sources: &Path, out: &Path) -> Result<()> {
    const LOCK: &str = "package-lock.json";
    announce(&out.join("main.js"), Group::Node);
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    // Written when what it locks is installed.
    let installed = out.join("installed.json");
    for name in ["main.js", "contract.js", "package.json", LOCK] {
        let (from, to) = (sources.join(name), out.join(name));
        fs::copy(&from, &to)
            .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    }
    let lock = fs::read(sources.join(LOCK)).with_context(|| format!("cannot read {LOCK}"))?;
    if fs::read(&installed).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    run(Command::new("npm").args(["ci", "--silent", "--no-audit", "--no-fund"]).current_dir(out))?;
    fs::write(&installed, lock).with_context(|| format!("cannot write {}", installed.display()))
}

/// Says so when it is going to take long.
fn announce(built: &Path, group: Group) {
    if !built.exists() {
        eprintln!("building the peers in {}, some for the first time", group.name());
    }
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().display().to_string();
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {program}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stderr, output.stdout].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
    bail!("{program} ended with {}: {line}", output.status)
}

/// A folder of the target directory, which is two levels above this executable.
fn out_dir() -> Result<PathBuf> {
    let executable = env::current_exe().context("where is this program?")?;
    let target = executable.ancestors().nth(2);
    let target =
        target.with_context(|| format!("{} is in no target directory", executable.display()))?;
    ensure!(target.is_dir(), "{} is no folder", target.display());
    Ok(target.join("peers"))
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// Text between `start` and the next quotation mark.
fn after(text: &str, start: &str) -> Option<String> {
    let (_, rest) = text.split_once(start)?;
    Some(rest.split_once('"')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_stands_there_once() {
        let names: BTreeSet<_> = TABLE.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), TABLE.len());
    }

    #[test]
    fn locked_peers_have_a_version() {
        for peer in all().unwrap().iter().filter(|peer| peer.group != Group::Go) {
            let (name, version) = peer.version.split_once(' ').unwrap();
            assert!(peer.name.trim_start_matches("typed-").starts_with(name), "{peer:?}");
            assert!(version.starts_with(|first: char| first.is_ascii_digit()), "{peer:?}");
        }
    }

    #[test]
    fn every_executable_is_one_of_the_workspace() {
        for entry in TABLE.iter().filter(|entry| entry.group == Group::Rust) {
            let folder = entry.executable.trim_start_matches("peer-").replace("typed-", "typed/");
            let manifest = Path::new(SOURCES).join("rust").join(folder).join("Cargo.toml");
            let manifest = fs::read_to_string(manifest).unwrap();
            assert!(
                manifest.contains(&format!("name = \"{}\"", entry.executable)),
                "{}",
                entry.name
            );
        }
    }

    #[test]
    fn the_lock_of_node_names_no_address() {
        let lock = fs::read_to_string(Path::new(SOURCES).join("node/package-lock.json")).unwrap();
        assert!(!lock.contains("\"resolved\"") && !lock.contains("://"));
    }
}
