//! Privileges that a child gives up before its exec.

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl::set_no_new_privs;

/// More capabilities than any kernel has; asking for one that it does not have is EINVAL.
const CAPABILITIES: libc::c_ulong = 64;
/// `_LINUX_CAPABILITY_VERSION_3` of `<linux/capability.h>`.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// Gives up every capability, and the way to have one again.
pub(super) fn give_up_privileges() -> Result<(), Errno> {
    drop_capabilities()?;
    // Without it, Landlock and seccomp are for root only.
    set_no_new_privs()
}

/// Gives up every capability, those of a root that executes something included:
/// capabilities(7).
fn drop_capabilities() -> Result<(), Errno> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    #[repr(C)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    for capability in 0..CAPABILITIES {
        // SAFETY: the call takes integers and touches no memory.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        match Errno::result(dropped) {
            // EINVAL: the kernel has no more. EPERM: a process without privileges, which gets
            // none of these either, since it executes nothing with new ones.
            Ok(_) | Err(Errno::EINVAL | Errno::EPERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    let header = Header { version: CAPABILITY_VERSION, pid: 0 };
    let none = || Data { effective: 0, permitted: 0, inheritable: 0 };
    let data = [none(), none()];
    // SAFETY: this version of the header goes with two elements of data, and both are only
    // read. The ambient capabilities go with the permitted ones.
    let set = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    Errno::result(set).map(drop)
}
