//! Pipes and socket pairs to a plugin, and its process.

use std::fs::File;
use std::io::{self, pipe, stdin, stdout};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use bench_contract::allow_descriptors;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};

use crate::Mode;

/// Kinds of channels that carry the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// Of the size that the system gives: 64 KiB.
    Pipes,
    /// Of 1 MiB, which is what any user may have.
    LargePipes,
    /// `AF_UNIX`, with the largest send buffer that any user may have.
    Sockets,
}

/// One side's ends.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) reader: File,
    pub(crate) writer: File,
}

/// The other process.
#[derive(Debug)]
pub(crate) struct Plugin {
    child: Child,
    links: Vec<Link>,
}

impl Plugin {
    /// Starts it with that many links, the first over its standard input and output.
    pub(crate) fn start(mode: Mode, links: usize) -> Result<Self> {
        let (ours, theirs) = pair(mode.carrier())?;
        let mut command = Command::new(program(mode)?);
        if mode != Mode::Static {
            command.args(["plugin", mode.name()]);
        }
        command.stdin(Stdio::from(theirs.reader)).stdout(Stdio::from(theirs.writer));
        let mut all = vec![ours];
        let mut inherited = Vec::new();
        if links > 1 {
            allow_descriptors()?;
        }
        for _ in 1..links {
            let (ours, theirs) = pair(mode.carrier())?;
            for end in [&theirs.reader, &theirs.writer] {
                fcntl(end, FcntlArg::F_SETFD(FdFlag::empty()))?;
            }
            command.arg(format!("{},{}", theirs.reader.as_raw_fd(), theirs.writer.as_raw_fd()));
            all.push(ours);
            inherited.push(theirs);
        }
        let child =
            command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
        Ok(Self { child, links: all })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn first(&self) -> Result<&Link> {
        self.links.first().context("a plugin has a link")
    }

    pub(crate) fn links(&self) -> &[Link] {
        &self.links
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.links.clear();
        // It ends at its end of file; nothing is left to do where it cannot be waited for.
        let _ = self.child.wait();
    }
}

/// The plugin's ends of the first link.
pub(crate) fn of_plugin() -> Result<Link> {
    let (reader, writer) =
        (stdin().as_fd().try_clone_to_owned()?, stdout().as_fd().try_clone_to_owned()?);
    Ok(Link { reader: reader.into(), writer: writer.into() })
}

/// The plugin's ends of another link, as the host named it.
pub(crate) fn named(pair: &str) -> Result<Link> {
    let (reader, writer) =
        pair.split_once(',').context("a pair of descriptors is reader,writer")?;
    let path = |number: &str| format!("/proc/self/fd/{number}");
    let opened = |file: io::Result<File>| file.with_context(|| format!("descriptors {pair}"));
    Ok(Link {
        reader: opened(File::open(path(reader)))?,
        writer: opened(File::options().write(true).open(path(writer)))?,
    })
}

/// A link, and its other end.
fn pair(carrier: Carrier) -> Result<(Link, Link)> {
    let link =
        |reader: OwnedFd, writer: OwnedFd| Link { reader: reader.into(), writer: writer.into() };
    if carrier == Carrier::Sockets {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)?;
        for end in [&ours, &theirs] {
            // More than is allowed is cut to what is (socket(7)).
            setsockopt(end, sockopt::SndBuf, &(4 << 20))?;
        }
        return Ok((link(ours.try_clone()?, ours), link(theirs.try_clone()?, theirs)));
    }
    let (to_plugin, from_plugin) = (pipe()?, pipe()?);
    if carrier == Carrier::LargePipes {
        for end in [to_plugin.1.as_fd(), from_plugin.1.as_fd()] {
            fcntl(end, FcntlArg::F_SETPIPE_SZ(1 << 20))
                .context("pipes of 1 MiB are not to be had")?;
        }
    }
    let ours = link(from_plugin.0.into(), to_plugin.1.into());
    Ok((ours, link(to_plugin.0.into(), from_plugin.1.into())))
}

fn program(mode: Mode) -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    Ok(if mode == Mode::Static { this.with_file_name("bench-answer") } else { this })
}
