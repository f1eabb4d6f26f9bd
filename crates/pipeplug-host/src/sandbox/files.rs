//! The Landlock ruleset: files, TCP ports, signals.

use std::os::fd::OwnedFd;
use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreated, RulesetCreatedAttr as _, RulesetError, Scope, make_bitflags,
};

use super::{Files, Ports, Sandbox};
use crate::process::interpreters;
use crate::sys;

/// What is handled as far as the kernel knows it; what must not be missing is asked for ahead of this.
const ABI_MEANT: ABI = ABI::V6;

/// Programs and libraries, which anybody may read and execute.
const PROGRAMS: [&str; 9] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"];

/// What dynamic loaders, C libraries and runtimes look at when they start.
const LOOKED_AT: [&str; 26] = [
    "/etc/alternatives",
    "/etc/group",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/locale.alias",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/timezone",
    "/dev/full",
    "/dev/null",
    "/dev/random",
    "/dev/urandom",
    "/dev/zero",
    "/proc/cpuinfo",
    "/proc/filesystems",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/kernel/random",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
    "/sys/kernel/mm/transparent_hugepage",
];

/// What takes whatever is written to it.
const SINKS: [&str; 3] = ["/dev/full", "/dev/null", "/dev/zero"];

/// The rules as a descriptor that the child confines itself with; `None` where the kernel has none of it.
///
/// Also where no file and no port is out of reach there is a domain of Landlock's: a process in one cannot look into the
/// memory, the environment and the descriptors of those outside (`/proc/PID/mem`), who may be of the same user.
pub(super) fn ruleset(
    sandbox: &Sandbox,
    program: &Path,
    copy: Option<&Path>,
) -> Result<Option<OwnedFd>, String> {
    let Sandbox { files, ports, .. } = sandbox;
    let in_words = |error: RulesetError| format!("Landlock: {error}");
    let rules = create(files.as_ref(), ports.as_ref()).map_err(in_words)?;
    let rules = match files {
        None => add_path(rules, Path::new("/"), AccessFs::Refer.into())?,
        Some(files) => add_files(rules, files, program, copy)?,
    };
    let rules = match ports {
        None => rules,
        Some(ports) => add_ports(rules, ports).map_err(in_words)?,
    };
    // Clear of the guest's numbers: the child needs it when those are in place.
    let fd: Option<OwnedFd> = rules.into();
    fd.map(sys::lift).transpose().map_err(|error| format!("Landlock: {error}"))
}

fn create(files: Option<&Files>, ports: Option<&Ports>) -> Result<RulesetCreated, RulesetError> {
    let mut ruleset = Ruleset::default();
    if files.is_some() {
        ruleset = ruleset.handle_access(AccessFs::from_all(ABI_MEANT))?;
        ruleset = ruleset.scope(Scope::Signal)?;
    } else {
        ruleset = ruleset.handle_access(AccessFs::Refer)?;
    }
    if ports.is_some() {
        ruleset = ruleset.handle_access(AccessNet::from_all(ABI_MEANT))?;
        ruleset = ruleset.scope(Scope::AbstractUnixSocket)?;
    }
    ruleset.create()
}

fn add_files(
    mut rules: RulesetCreated,
    files: &Files,
    program: &Path,
    copy: Option<&Path>,
) -> Result<RulesetCreated, String> {
    let read = AccessFs::from_read(ABI_MEANT);
    let look = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let write = AccessFs::from_all(ABI_MEANT) & !make_bitflags!(AccessFs::{Execute | MakeBlock | MakeChar});
    let sink = make_bitflags!(AccessFs::{ReadFile | WriteFile | Truncate});
    // Not every system has all of these.
    let of_system = PROGRAMS
        .iter()
        .map(|path| (Path::new(path), read))
        .chain(LOOKED_AT.iter().map(|path| (Path::new(path), look)))
        .chain(SINKS.iter().map(|path| (Path::new(path), sink)));
    for (path, access) in of_system.filter(|(path, _)| path.exists()) {
        rules = add_path(rules, path, access)?;
    }
    let needed = interpreters(copy.unwrap_or(program));
    // A copy is in memory, which no rule is needed for.
    let own = copy.is_none().then_some((program, read));
    let needed = needed.iter().map(|path| (path.as_path(), read)).chain(own);
    let asked = files
        .read
        .iter()
        .map(|path| (path.as_path(), read))
        .chain(files.write.iter().map(|path| (path.as_path(), write)));
    for (path, access) in needed.filter(|(path, _)| path.is_file()).chain(asked) {
        rules = add_path(rules, path, access)?;
    }
    Ok(rules)
}

/// What of `access` makes sense for a file, or all of it for a directory.
fn add_path(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, String> {
    let fd = PathFd::new(path).map_err(|error| format!("{path:?} cannot be let in: {error}"))?;
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(ABI_MEANT) };
    rules
        .add_rule(PathBeneath::new(fd, access))
        .map_err(|error| format!("{path:?} cannot be let in: {error}"))
}

fn add_ports(mut rules: RulesetCreated, ports: &Ports) -> Result<RulesetCreated, RulesetError> {
    for port in &ports.connect {
        rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    for port in &ports.bind {
        rules = rules.add_rule(NetPort::new(*port, AccessNet::BindTcp))?;
    }
    Ok(rules)
}
