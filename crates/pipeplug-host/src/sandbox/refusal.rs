//! The reasons for which a system makes no namespaces, and what to do about each.

use std::fs;
use std::io;

use nix::errno::Errno;

use crate::sys::{ForkExecError, StartStep};

/// The loss without namespaces.
const LOST: &str = "without them the plugin sees the metadata of files that it cannot open, and \
                    the host's processes, and what leaves its session outlives it";

/// Explains why namespaces could not be made; `None` if the start failed for another reason.
pub(crate) fn refusal(failure: &ForkExecError) -> Option<String> {
    let what = match failure.step {
        StartStep::Namespaces => "namespaces cannot be made",
        StartStep::IdMaps => "a user namespace cannot be given its user",
        StartStep::Init => "the init of a pid namespace cannot be started",
        StartStep::Processes => "the /proc of a pid namespace cannot be mounted",
        StartStep::Root if is_denied(&failure.error) => {
            "nothing can be mounted in a mount namespace"
        }
        _ => return None,
    };
    let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let remedy = remedy(failure.step, &failure.error, read);
    Some(format!("{what} ({}){remedy}; {LOST}", failure.error))
}

fn is_denied(error: &io::Error) -> bool {
    [Errno::EPERM, Errno::EACCES].iter().any(|errno| error.raw_os_error() == Some(*errno as i32))
}

/// The remedy, after a colon, as far as the settings of the kernel tell.
fn remedy(step: StartStep, error: &io::Error, read: impl Fn(&str) -> Option<String>) -> String {
    let is = |path: &str, value: &str| read(path).as_deref() == Some(value);
    if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return ": this system lets only root make user namespaces; `sysctl \
                kernel.unprivileged_userns_clone=1` lets all users"
            .to_owned();
    }
    if is("/proc/sys/user/max_user_namespaces", "0") {
        return ": user namespaces are switched off; `sysctl user.max_user_namespaces=10000` \
                switches them on"
            .to_owned();
    }
    if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        return ": AppArmor's policy on this system (Ubuntu's default) blocks user namespaces of \
                programs that have no profile; give the host's program a profile with the rule \
                `userns,`, or run `sysctl kernel.apparmor_restrict_unprivileged_userns=0`"
            .to_owned();
    }
    match step {
        StartStep::Processes => ": a part of the host's own /proc is covered, as within a \
                                 container; start the host outside of it, or with an uncovered \
                                 /proc (`--security-opt systempaths=unconfined`)"
            .to_owned(),
        StartStep::Namespaces if is_denied(error) => {
            ": a seccomp filter or a security module around the host refuses it, as in a \
             container; start the host outside of it"
                .to_owned()
        }
        StartStep::Namespaces if error.raw_os_error() == Some(Errno::EINVAL as i32) => {
            ": the root directory of this process is not the root of a mount, as in a chroot or an \
             initramfs; mount it (`mount --rbind DIR DIR`) before the chroot"
                .to_owned()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(step: StartStep, errno: Errno, settings: &[(&str, &str)]) -> String {
        let read = |path: &str| {
            settings
                .iter()
                .find(|(known, _)| path.ends_with(known))
                .map(|(_, value)| (*value).to_owned())
        };
        remedy(step, &errno.into(), read)
    }

    #[test]
    fn the_setting_that_refuses_is_named_with_its_remedy() {
        let denied = |settings| told(StartStep::IdMaps, Errno::EPERM, settings);
        assert!(denied(&[("apparmor_restrict_unprivileged_userns", "1")]).contains("`userns,`"));
        assert!(
            denied(&[("max_user_namespaces", "0")]).contains("sysctl user.max_user_namespaces")
        );
        assert!(
            denied(&[("unprivileged_userns_clone", "0")]).contains("unprivileged_userns_clone=1")
        );
        assert_eq!(denied(&[("apparmor_restrict_unprivileged_userns", "0")]), "");
        assert!(told(StartStep::Namespaces, Errno::EPERM, &[]).contains("container"));
        assert!(told(StartStep::Namespaces, Errno::EINVAL, &[]).contains("chroot"));
        assert!(told(StartStep::Processes, Errno::EPERM, &[]).contains("systempaths=unconfined"));
    }

    #[test]
    fn other_failures_are_no_refusal() {
        let failure = |step, errno: Errno| ForkExecError { step, error: errno.into() };
        assert!(refusal(&failure(StartStep::Exec, Errno::EPERM)).is_none());
        assert!(refusal(&failure(StartStep::Root, Errno::ENOENT)).is_none());
        assert!(
            refusal(&failure(StartStep::Namespaces, Errno::ENOSPC)).unwrap().contains("outlives")
        );
    }
}
