//! Checks of the system: what it offers to pipeplug, and what each lack means.

use std::env;
use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{AccessFlags, access, geteuid};
use pipeplug_host::SandboxSupport;
use pipeplug_host::process::{DESCRIPTORS_NEEDED, has_pidfd};

use super::finding::Finding;

/// Size of a pipe that any user may have, unless the system lowers it: pipe(7).
#[cfg(any(target_os = "linux", target_os = "android"))]
const PIPE_SIZE: i32 = 1 << 20;
/// Fewer descriptors than this are soon used up by several plugins.
const FEW_DESCRIPTORS: u64 = 256;
/// Fewer processes and threads than this are soon used up by several plugins.
const FEW_PROCESSES: u64 = 256;

/// Checks the system.
///
/// # Blocking
/// Until a child has tried to make namespaces: some milliseconds.
pub(super) fn check() -> Vec<Finding> {
    let sandbox = SandboxSupport::of_system();
    vec![
        pipes(),
        pidfd(has_pidfd()),
        namespaces(sandbox.namespaces),
        landlock(sandbox.landlock_abi),
        seccomp(sandbox.seccomp),
        cgroups(Path::new("/sys/fs/cgroup")),
        descriptors(),
        processes(),
        docker(),
        podman(),
        client("ssh", "--ssh", "openssh-client"),
        kubectl(),
    ]
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn pipes() -> Finding {
    use nix::fcntl::{FcntlArg, fcntl};

    let pipe = match io::pipe() {
        Ok((_reader, writer)) => writer,
        Err(error) => return no_pipe(&error),
    };
    let size = fcntl(&pipe, FcntlArg::F_GETPIPE_SZ).unwrap_or(0);
    let grown = fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE)).unwrap_or(size);
    let limit = read("/proc/sys/fs/pipe-max-size").unwrap_or_else(|| "unknown".to_owned());
    of_pipe(size, grown, &limit)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn pipes() -> Finding {
    match io::pipe() {
        Ok(_) => Finding::ok("pipes", "this system has no adjustable size"),
        Err(error) => no_pipe(&error),
    }
}

fn no_pipe(error: &io::Error) -> Finding {
    Finding::failed(
        "pipes",
        format!("none can be made: {error}"),
        "raise the limit of open files with `ulimit -n`",
    )
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn of_pipe(size: i32, grown: i32, limit: &str) -> Finding {
    let detail = format!("{size} bytes, {grown} when grown (fs.pipe-max-size {limit})");
    if grown >= PIPE_SIZE {
        return Finding::ok("pipes", detail);
    }
    Finding::limited(
        "pipes",
        detail,
        format!(
            "large data takes more wakeups, and a plugin of the Go package loses buffers above \
             {grown} bytes: `sysctl fs.pipe-max-size={PIPE_SIZE}`, or a higher \
             fs.pipe-user-pages-soft"
        ),
    )
}

fn pidfd(has: bool) -> Finding {
    if has {
        return Finding::ok("pidfd", "there is");
    }
    Finding::missing(
        "pidfd",
        "not available",
        "a thread waits for each plugin instead; Linux 5.3 has it, unless a seccomp filter, as of \
         an old container runtime, hides it",
    )
}

fn namespaces(has: bool) -> Finding {
    const CHECK: &str = "namespaces";
    if has {
        return Finding::ok(CHECK, "user, pid, mount, network and IPC namespaces can be made");
    }
    let missing: Vec<_> = ["user", "pid", "mnt", "net", "ipc"]
        .into_iter()
        .filter(|name| !Path::new("/proc/self/ns").join(name).exists())
        .collect();
    let is = |path: &str, value: &str| read(path).as_deref() == Some(value);
    let reason = if !missing.is_empty() {
        format!("the kernel has no {} namespaces", missing.join(", "))
    } else if is("/proc/sys/user/max_user_namespaces", "0") {
        "forbidden: raise user.max_user_namespaces with `sysctl`".to_owned()
    } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "forbidden: `sysctl kernel.unprivileged_userns_clone=1` allows them".to_owned()
    } else if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "forbidden by AppArmor: `sysctl kernel.apparmor_restrict_unprivileged_userns=0` allows them"
            .to_owned()
    } else {
        "forbidden, as in a container: `pipeplug -vv doctor` shows the step that failed".to_owned()
    };
    Finding::missing(
        CHECK,
        reason,
        "a strict sandbox is refused, unless --sandbox-best-effort does without",
    )
}

fn landlock(abi: u32) -> Finding {
    let detail = format!("ABI {abi}");
    match abi {
        0 => Finding::missing(
            "Landlock",
            "not available",
            "a strict sandbox needs it for files: Linux 6.2, with `landlock` in \
             /sys/kernel/security/lsm; --sandbox-best-effort does without",
        ),
        1..=2 => Finding::limited(
            "Landlock",
            detail,
            "a strict sandbox needs ABI 3 (Linux 6.2) to confine files; --sandbox-best-effort does \
             without",
        ),
        3 => Finding::limited(
            "Landlock",
            detail,
            "TCP ports can be granted one by one since ABI 4 (Linux 6.7)",
        ),
        4..=5 => Finding::limited(
            "Landlock",
            detail,
            "signals to other processes are confined since ABI 6 (Linux 6.12); namespaces do that \
             as well",
        ),
        _ => Finding::ok("Landlock", detail),
    }
}

fn seccomp(has: bool) -> Finding {
    if has {
        return Finding::ok("seccomp", "there is");
    }
    Finding::missing(
        "seccomp",
        "not available",
        "a sandbox cannot filter system calls and is refused, unless --sandbox-best-effort does \
         without",
    )
}

fn cgroups(root: &Path) -> Finding {
    if let Some(controllers) = read(root.join("cgroup.controllers")) {
        return Finding::ok("cgroups", format!("version 2: {controllers}"));
    }
    if root.join("memory").exists() || root.join("pids").exists() {
        return Finding::limited(
            "cgroups",
            "version 1",
            "containers of Podman without root have no limits of memory and processes: boot with \
             systemd.unified_cgroup_hierarchy=1",
        );
    }
    Finding::missing(
        "cgroups",
        format!("none below {}", root.display()),
        "containers need them; plugins without a container do not",
    )
}

fn descriptors() -> Finding {
    let (soft, hard) = limits(Resource::RLIMIT_NOFILE);
    let open = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
    of_descriptors(soft, hard, open)
}

fn of_descriptors(soft: u64, hard: u64, open: u64) -> Finding {
    let detail = format!("{} (at most {}), {open} in use", number(soft), number(hard));
    let next = format!(
        "the start of a plugin needs {DESCRIPTORS_NEEDED}: raise the limit with `ulimit -n`, or \
         LimitNOFILE= of the service"
    );
    if soft.saturating_sub(open) < DESCRIPTORS_NEEDED {
        Finding::failed("open files", detail, next)
    } else if soft < FEW_DESCRIPTORS {
        Finding::limited("open files", detail, next)
    } else {
        Finding::ok("open files", detail)
    }
}

#[cfg(not(target_vendor = "apple"))]
fn processes() -> Finding {
    let (soft, hard) = limits(Resource::RLIMIT_NPROC);
    let cgroup = read("/proc/self/cgroup").and_then(|text| pids_max(&text));
    of_processes(soft, hard, cgroup)
}

#[cfg(target_vendor = "apple")]
fn processes() -> Finding {
    of_processes(u64::MAX, u64::MAX, None)
}

fn of_processes(soft: u64, hard: u64, cgroup: Option<u64>) -> Finding {
    let mut detail = format!("{} (at most {})", number(soft), number(hard));
    if let Some(cgroup) = cgroup {
        detail.push_str(&format!(", {cgroup} in this cgroup"));
    }
    if soft.min(cgroup.unwrap_or(u64::MAX)) >= FEW_PROCESSES {
        return Finding::ok("processes", detail);
    }
    Finding::limited(
        "processes",
        detail,
        "they count the threads of all plugins: raise the limit of the user (`ulimit -u`), of the \
         container (--pids-limit) or of the service (TasksMax=)",
    )
}

/// Limit of processes of the cgroup that the text of /proc/self/cgroup names.
#[cfg(not(target_vendor = "apple"))]
fn pids_max(text: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let root = match controllers {
            "" => "/sys/fs/cgroup",
            _ if controllers.split(',').any(|name| name == "pids") => "/sys/fs/cgroup/pids",
            _ => return None,
        };
        // In a container the path may be that of the host.
        let places = [format!("{root}{path}/pids.max"), format!("{root}/pids.max")];
        places.into_iter().find_map(|place| read(place)?.parse().ok())
    })
}

fn docker() -> Finding {
    let found = client("docker", "--docker", "docker.io");
    if found.next.is_some() {
        return found;
    }
    let host = env::var("DOCKER_HOST").ok();
    let socket = match host.as_deref() {
        None => "/var/run/docker.sock",
        Some(host) => match host.strip_prefix("unix://") {
            Some(path) => path,
            None => return Finding::ok("docker", format!("the daemon is that of {host}")),
        },
    };
    match UnixStream::connect(socket) {
        Ok(_) => found,
        Err(error) => Finding::limited(
            "docker",
            format!("{}, and no daemon at {socket}: {error}", found.detail),
            match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "--docker needs it: let this user join the group `docker`, or use --podman"
                }
                _ => "--docker needs it: start it (`systemctl start docker`), or set DOCKER_HOST",
            },
        ),
    }
}

fn podman() -> Finding {
    let found = client("podman", "--podman", "podman");
    if found.next.is_some() || geteuid().is_root() || find("newuidmap").is_some() {
        return found;
    }
    Finding::limited(
        "podman",
        format!("{}, without `newuidmap`", found.detail),
        "images with more than one user need it: install the package uidmap",
    )
}

fn kubectl() -> Finding {
    let found = client("kubectl", "--kubectl", "kubernetes-client");
    let named = env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty());
    let usual = env::home_dir().is_some_and(|home| home.join(".kube/config").is_file());
    let in_cluster = env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    if found.next.is_some() || named || usual || in_cluster {
        return found;
    }
    Finding::limited(
        "kubectl",
        format!("{}, without a configuration", found.detail),
        "--kubectl needs a cluster: set KUBECONFIG, or write ~/.kube/config",
    )
}

/// Looks for a client.
fn client(program: &str, option: &str, package: &str) -> Finding {
    match find(program) {
        Some(path) => Finding::ok(program, path.display()),
        None => Finding::missing(
            program,
            "not in PATH",
            format!("{option} needs it (Debian: apt-get install {package})"),
        ),
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let mut files = env::split_paths(&path).map(|dir| dir.join(program));
    files.find(|file| file.is_file() && access(file, AccessFlags::X_OK).is_ok())
}

/// Soft and hard limit; `u64::MAX` for none.
#[cfg_attr(
    not(target_os = "freebsd"),
    expect(clippy::unnecessary_cast, reason = "a limit is a signed number on FreeBSD")
)]
fn limits(resource: Resource) -> (u64, u64) {
    let of = |limit| if limit == nix::libc::RLIM_INFINITY { u64::MAX } else { limit as u64 };
    getrlimit(resource).map_or((u64::MAX, u64::MAX), |(soft, hard)| (of(soft), of(hard)))
}

fn number(limit: u64) -> String {
    if limit == u64::MAX { "unlimited".to_owned() } else { limit.to_string() }
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    #[test]
    fn each_lack_has_its_meaning_and_a_next_step() {
        let lacks = [
            (pidfd(false), State::Missing, "a thread waits for each"),
            (namespaces(false), State::Missing, "--sandbox-best-effort"),
            (landlock(0), State::Missing, "/sys/kernel/security/lsm"),
            (landlock(2), State::Limited, "ABI 3"),
            (landlock(3), State::Limited, "ABI 4"),
            (landlock(5), State::Limited, "ABI 6"),
            (seccomp(false), State::Missing, "--sandbox-best-effort"),
            (cgroups(Path::new("/nonexistent")), State::Missing, "containers need them"),
            (of_descriptors(15, 15, 4), State::Failed, "ulimit -n"),
            (of_descriptors(100, 100, 4), State::Limited, "ulimit -n"),
            (of_processes(u64::MAX, u64::MAX, Some(100)), State::Limited, "--pids-limit"),
            (of_processes(100, 100, None), State::Limited, "ulimit -u"),
            (client("no-such-program", "--ssh", "x"), State::Missing, "apt-get install x"),
        ];
        for (finding, state, next) in lacks {
            assert_eq!(finding.state, state, "{finding:?}");
            assert!(finding.next.as_ref().is_some_and(|it| it.contains(next)), "{finding:?}");
        }
        for finding in [
            pidfd(true),
            namespaces(true),
            landlock(6),
            seccomp(true),
            of_descriptors(1024, 4096, 10),
            of_processes(u64::MAX, u64::MAX, None),
            client("sh", "--ssh", "x"),
        ] {
            assert_eq!((finding.state, &finding.next), (State::Ok, &None), "{finding:?}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_size_of_pipes_is_compared_with_what_any_user_may_have() {
        assert_eq!(of_pipe(65_536, PIPE_SIZE, "1048576").state, State::Ok);
        let small = of_pipe(4096, 4096, "4096");
        assert_eq!(small.state, State::Limited);
        assert!(small.next.unwrap().contains("fs.pipe-max-size"));
    }

    #[test]
    #[cfg(not(target_vendor = "apple"))]
    fn the_cgroup_is_that_of_the_process() {
        assert_eq!(pids_max("0::/no/such/cgroup/anywhere\n"), None);
        assert_eq!(pids_max("7:memory:/x\nnonsense\n"), None);
    }
}
