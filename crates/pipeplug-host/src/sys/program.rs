//! Programs of a few hundred bytes that run beside plugins, and have to be there when the host is
//! not any more.
//!
//! A thread ends with its process, and a file beside the host need not be there; so this library
//! carries them itself. Each is machine code that asks for nothing but system calls, wrapped into
//! the smallest ELF file that Linux loads: one segment that is read and executed, no heap, no
//! libraries, a few pages in all. The file is sealed memory, made once in a process, and is
//! executed by its descriptor (execveat(2), `AT_EMPTY_PATH`).
//!
//! What both have in common: descriptor 0 is the read end of a pipe whose write end only the host
//! has. They call themselves what their `argv[0]` says (`PR_SET_NAME`), read until the end of file,
//! and take that for the end of the host. They handle no signal: what is to be ignored has to be so
//! before the exec.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use nix::sys::stat::{Mode, fchmod};

use super::memfd;

#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
#[path = "program/aarch64.rs"]
mod machine;
#[cfg(target_arch = "riscv64")]
#[path = "program/riscv64.rs"]
mod machine;
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
#[path = "program/x86_64.rs"]
mod machine;
#[cfg(not(any(
    all(target_arch = "aarch64", target_endian = "little"),
    target_arch = "riscv64",
    all(target_arch = "x86_64", target_pointer_width = "64"),
)))]
mod machine {
    //! No code for other machines, for which there are no programs.

    pub(super) const ELF_NUMBER: u16 = 0;

    pub(super) fn init() -> &'static [u8] {
        &[]
    }

    pub(super) fn watcher() -> &'static [u8] {
        &[]
    }
}

/// The first process of a plugin's pid namespace, as which it keeps all of that alive:
/// pid_namespaces(7).
///
/// At the end of the host it exits with 0, and the kernel kills the namespace's other processes.
/// With a second argument, whatever that is, it waits for the end of process 2 first, which is the
/// plugin. It never waits for a child: SIGCHLD is to be ignored before its exec, so that the kernel
/// reaps orphans at once.
///
/// # Errors
/// `Unsupported` on a machine that it is not written for; `EACCES` where no memory may be executed
/// (`vm.memfd_noexec`); what else memfd_create(2) and write(2) fail with.
pub(crate) fn init() -> io::Result<&'static OwnedFd> {
    static IMAGE: OnceLock<OwnedFd> = OnceLock::new();
    match IMAGE.get() {
        Some(image) => Ok(image),
        None => {
            // A failure is not kept: the next start may have the descriptors or the memory for it.
            let image = image(c"pipeplug-init", machine::init())?;
            Ok(IMAGE.get_or_init(|| image))
        }
    }
}

/// Kills what a table names at the end of the host: see `watcher.rs`.
///
/// Descriptor 1 is a file of pairs of `i32`, at most 4 KiB of them read at once. Of each pair both
/// numbers are sent SIGKILL with kill(2), 0 stands for none; the second one only in the first
/// round. Rounds follow each other until one reaches no process, one millisecond apart, 5,000 at
/// most. A process has one watcher, so the file is not kept.
///
/// # Errors
/// As [`init`].
pub(super) fn watcher() -> io::Result<OwnedFd> {
    image(c"pipeplug-watch", machine::watcher())
}

fn image(name: &CStr, code: &[u8]) -> io::Result<OwnedFd> {
    if code.is_empty() {
        let kind = io::ErrorKind::Unsupported;
        return Err(io::Error::new(kind, "there is no such program for this kind of machine"));
    }
    let elf = elf(code);
    memfd::check_size(elf.len() as u64)?;
    let mut file = File::from(memfd::executable(name)?);
    file.write_all(&elf)?;
    // The kernel denies access to a process whose program its user cannot read (fs/exec.c,
    // would_dump). A plugin of the same user could keep the pipe of its init open, by
    // `/proc/1/fd/0`, and outlive the host.
    fchmod(&file, Mode::S_IXUSR | Mode::S_IXGRP | Mode::S_IXOTH)?;
    memfd::seal(&file)?;
    Ok(file.into())
}

/// Load address of the file: clear of what `vm.mmap_min_addr` keeps free, and on a page whatever
/// its size is.
const LOADED_AT: u64 = 0x40_0000;
/// The largest page of any of the machines, in bytes.
const PAGE_BYTES: u64 = 0x1_0000;

const HEADER_BYTES: u16 = 64;
const SEGMENT_BYTES: u16 = 56;
const SEGMENTS: u16 = 2;

/// The file: elf(5).
///
/// ```text
///     0   file header
///    64   PT_LOAD: all of the file, read and execute
///   120   PT_GNU_STACK: the stack is not executable
///   176   code; its first byte is the entry
/// ```
fn elf(code: &[u8]) -> Vec<u8> {
    let code_at = HEADER_BYTES + SEGMENTS * SEGMENT_BYTES;
    let size = u64::from(code_at) + code.len() as u64;
    let mut file = Vec::with_capacity(usize::from(code_at) + code.len());
    // ELFCLASS64, ELFDATA2LSB, EV_CURRENT, ELFOSABI_SYSV, padding.
    file.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let mut put = |field: &[u8]| file.extend_from_slice(field);
    put(&2_u16.to_le_bytes()); // e_type: ET_EXEC
    put(&machine::ELF_NUMBER.to_le_bytes()); // e_machine
    put(&1_u32.to_le_bytes()); // e_version
    put(&(LOADED_AT + u64::from(code_at)).to_le_bytes()); // e_entry
    put(&u64::from(HEADER_BYTES).to_le_bytes()); // e_phoff
    put(&0_u64.to_le_bytes()); // e_shoff
    put(&0_u32.to_le_bytes()); // e_flags
    for field in [HEADER_BYTES, SEGMENT_BYTES, SEGMENTS, 0, 0, 0] {
        put(&field.to_le_bytes()); // e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx
    }
    // p_type and p_flags; p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
    let load = ([1, 4 | 1], [0, LOADED_AT, LOADED_AT, size, size, PAGE_BYTES]);
    let stack = ([0x6474_e551, 4 | 2], [0, 0, 0, 0, 0, 16]);
    for (words, longs) in [load, stack] {
        words.iter().for_each(|word: &u32| put(&word.to_le_bytes()));
        longs.iter().for_each(|long: &u64| put(&long.to_le_bytes()));
    }
    put(code);
    file
}

#[cfg(test)]
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64", target_arch = "x86_64"))]
mod tests {
    use std::fs;
    use std::io::{BufRead as _, BufReader, PipeWriter, Read as _, Write as _};
    use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
    use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use super::super::exit_notice::poll_readable;
    use super::{init, watcher};

    /// A name as its `argv[0]`, and no other arguments.
    fn start_alone(image: &OwnedFd, stdout: impl Into<Stdio>) -> (Child, PipeWriter) {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = Command::new(format!("/proc/self/fd/{}", image.as_raw_fd()));
        (command.arg0("a-name").stdin(reader).stdout(stdout).spawn().unwrap(), writer)
    }

    fn number(child: &Child) -> i32 {
        child.id().try_into().unwrap()
    }

    #[test]
    fn init_ends_with_its_pipe_and_not_before() {
        let (mut child, mut pipe) = start_alone(init().unwrap(), Stdio::null());
        let name = format!("/proc/{}/comm", child.id());
        let begun = Instant::now();
        while fs::read_to_string(&name).unwrap() != "a-name\n" {
            assert!(begun.elapsed() < Duration::from_secs(60));
            std::thread::yield_now();
        }
        pipe.write_all(b"a byte is no end").unwrap();
        assert!(child.try_wait().unwrap().is_none());
        drop(pipe);
        assert!(child.wait().unwrap().success());
    }

    /// Process 2 of a pid namespace with `init` as process 1, which both end with `pipe`: what
    /// process 2 said, and the time that took. `None` where no such namespace is to be had.
    fn as_process_1(argument: &str) -> Option<(String, Duration)> {
        // Process 2 outlives its pipe a little; the shell itself becomes process 1.
        let script = format!(
            "trap '' CHLD; (exec 1>&-; echo begun >&2; read -r x; sleep 0.2; echo ended >&2) <&0 & \
             exec 2>&-; exec /proc/self/fd/1 {argument}"
        );
        let (reader, pipe) = std::io::pipe().unwrap();
        let mut child = Command::new("unshare")
            .args(["--map-root-user", "--user", "--pid", "--fork", "sh", "-c", &script])
            .stdin(reader)
            .stdout(init().unwrap().try_clone().unwrap())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        stderr.read_line(&mut said).unwrap();
        if said != "begun\n" {
            child.wait().unwrap();
            return None;
        }
        let begun = Instant::now();
        drop(pipe);
        stderr.read_to_string(&mut said).unwrap();
        assert!(child.wait().unwrap().success());
        Some((said, begun.elapsed()))
    }

    #[test]
    fn init_takes_its_namespace_along_at_once_or_once_process_2_has_ended() {
        if let Some((said, _)) = as_process_1("") {
            assert_eq!(said, "begun\n");
        }
        if let Some((said, took)) = as_process_1("wait") {
            assert_eq!(said, "begun\nended\n");
            assert!(took < Duration::from_secs(60), "{took:?}");
        }
    }

    #[test]
    fn watcher_kills_groups_and_processes_at_the_end() {
        let sleeper = || Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
        let mut children = [sleeper(), sleeper(), sleeper()];
        let [of_group, alone, other] = children.each_ref().map(number);
        let table = super::memfd::zeros(c"table", 64 * 1024).unwrap();
        // The last pair is behind the first block that is read, and between them are none.
        let pairs = [(0, -of_group, 0), (8000, 0, alone), (4, 0, 0)];
        for (at, first, second) in pairs {
            let bytes = [first.to_ne_bytes(), second.to_ne_bytes()].concat();
            nix::sys::uio::pwrite(&table, &bytes, at * 8).unwrap();
        }
        let (mut child, pipe) = start_alone(&watcher().unwrap(), table);
        assert!(child.try_wait().unwrap().is_none());
        drop(pipe);
        for killed in &mut children[..2] {
            assert_eq!(killed.wait().unwrap().signal(), Some(9));
        }
        assert!(child.wait().unwrap().success());
        assert!(children[2].try_wait().unwrap().is_none(), "{other} is in no pair");
        children[2].kill().unwrap();
        children[2].wait().unwrap();
    }

    #[test]
    fn neither_file_can_be_changed() {
        for image in [init().unwrap(), &watcher().unwrap()] {
            assert_eq!(nix::unistd::write(image, b"x"), Err(nix::errno::Errno::EPERM));
            assert_eq!(nix::unistd::ftruncate(image, 0), Err(nix::errno::Errno::EPERM));
        }
    }

    #[test]
    fn watcher_ends_at_once_where_there_is_nothing_to_kill() {
        let table = super::memfd::zeros(c"table", 4096).unwrap();
        let (mut child, pipe) = start_alone(&watcher().unwrap(), table);
        drop(pipe);
        let ended =
            super::super::ExitNotice::watch(nix::unistd::Pid::from_raw(number(&child))).unwrap();
        assert!(
            poll_readable(ended.as_fd(), Duration::from_secs(4)).unwrap(),
            "5,000 rounds take longer"
        );
        assert!(child.wait().unwrap().success());
    }
}
