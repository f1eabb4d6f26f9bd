//! The Landlock ruleset: files, TCP ports, signals.

use std::os::fd::{AsFd as _, OwnedFd};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, NetPort, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError, Scope, make_bitflags,
};

use super::Ports;
use super::grants::{Access, Grant};
use crate::sys::{self, Kind, PathRights};

/// The version that is handled as far as the kernel knows it; the caller checks for what must not
/// be missing.
const ABI_MEANT: ABI = ABI::V6;

/// The rules that the child confines itself with; `None` where the kernel has none of them.
///
/// Also where no file and no port is out of reach there is a domain of Landlock's: a process in one
/// cannot look into the memory, the environment and the descriptors of those outside
/// (`/proc/PID/mem`), who may be of the same user.
pub(super) fn ruleset(
    grants: Option<&[Grant]>,
    ports: Option<&Ports>,
) -> Result<Option<sys::Ruleset>, String> {
    let in_words = |error: RulesetError| format!("Landlock: {error}");
    let mut rules = create(grants.is_some(), ports).map_err(in_words)?;
    match grants {
        None => {
            let root = PathFd::new("/").map_err(|error| format!("Landlock: {error}"))?;
            rules = rules.add_rule(PathBeneath::new(root, AccessFs::Refer)).map_err(in_words)?;
        }
        Some(grants) => {
            for grant in grants {
                let rule = PathBeneath::new(grant.file.as_fd(), grant.rights());
                rules = rules.add_rule(rule).map_err(in_words)?;
            }
        }
    }
    if let Some(ports) = ports {
        rules = add_ports(rules, ports).map_err(in_words)?;
    }
    // Clear of the guest's numbers: the child needs it when those are in place.
    let fd: Option<OwnedFd> = rules.into();
    let fd = fd.map(sys::lift).transpose().map_err(|error| format!("Landlock: {error}"))?;
    Ok(fd.map(sys::Ruleset::new))
}

fn create(confines_files: bool, ports: Option<&Ports>) -> Result<RulesetCreated, RulesetError> {
    let mut ruleset = Ruleset::default();
    if confines_files {
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

fn add_ports(mut rules: RulesetCreated, ports: &Ports) -> Result<RulesetCreated, RulesetError> {
    for port in &ports.connect {
        rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    for port in &ports.bind {
        rules = rules.add_rule(NetPort::new(*port, AccessNet::BindTcp))?;
    }
    Ok(rules)
}

impl Grant {
    fn rights(&self) -> BitFlags<AccessFs> {
        let rights = self.access.rights();
        match self.kind {
            Kind::Directory => rights,
            Kind::File => rights & AccessFs::from_file(ABI_MEANT),
        }
    }
}

impl Access {
    fn rights(self) -> BitFlags<AccessFs> {
        match self {
            Self::Execute => AccessFs::from_read(ABI_MEANT),
            Self::Read => make_bitflags!(AccessFs::{ReadFile | ReadDir}),
            Self::Device => make_bitflags!(AccessFs::{ReadFile | WriteFile | Truncate}),
            Self::Write => {
                AccessFs::from_all(ABI_MEANT)
                    & !make_bitflags!(AccessFs::{Execute | MakeBlock | MakeChar})
            }
        }
    }

    /// The same rights to all below a directory that only the child sees, as far as the kernel
    /// knows them.
    pub(super) fn rights_of_child(self) -> PathRights {
        let abi = ABI::from(i32::try_from(sys::landlock_abi()).unwrap_or(i32::MAX)).min(ABI_MEANT);
        PathRights((self.rights() & AccessFs::from_all(abi)).bits())
    }
}

/// The rights to list the directories of a root file system.
pub(super) fn rights_to_list() -> PathRights {
    PathRights(BitFlags::<AccessFs>::from(AccessFs::ReadDir).bits())
}
