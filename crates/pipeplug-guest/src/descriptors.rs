//! Which descriptors to talk over, and the guard around standard input and output.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::SFlag;
use pipeplug_net::Endpoint;

use crate::register_error::RegisterError;
use crate::sys;

const STDIN: i32 = 0;
const STDOUT: i32 = 1;
const STDERR: i32 = 2;

/// Plan from the command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) reader: i32,
    pub(crate) writer: i32,
    /// True if both were given by number.
    pub(crate) told: bool,
    /// The plugin's own arguments.
    pub(crate) args: Vec<OsString>,
}

impl Plan {
    /// Reads the descriptors' numbers, if the first two arguments are such; the program's name is
    /// not among them.
    pub(crate) fn from_args(args: impl IntoIterator<Item = OsString>) -> Self {
        let mut args: Vec<_> = args.into_iter().collect();
        let numbers =
            (args.first().and_then(|arg| number(arg)), args.get(1).and_then(|arg| number(arg)));
        if let (Some(reader), Some(writer)) = numbers {
            args.drain(..2);
            Self { reader, writer, told: true, args }
        } else {
            Self { reader: STDIN, writer: STDOUT, told: false, args }
        }
    }

    /// Returns true if no host can be at the other end: a person started this in a terminal, or
    /// stdin is a device such as `/dev/null`, as that of a service is.
    pub(crate) fn is_by_hand(&self) -> bool {
        !self.told
            && (io::stdin().is_terminal()
                || io::stdout().is_terminal()
                || sys::file_kind(STDIN).is_ok_and(|kind| kind == SFlag::S_IFCHR))
    }

    /// Makes both descriptors ours.
    ///
    /// A standard one is copied away, and what user code takes for standard input and output is
    /// replaced: by nothing and by standard error.
    pub(crate) fn take(&self) -> Result<(Endpoint, Endpoint), RegisterError> {
        if self.told && self.reader == self.writer {
            return Err(RegisterError::SameDescriptor { number: self.reader });
        }
        let halves = [(self.reader, Half::In), (self.writer, Half::Out)];
        halves.iter().try_for_each(|(number, half)| check_direction(*number, *half))?;
        // By hand, chunks may come from a file and go to one. A number may be any file's, which
        // would be written over.
        if self.told {
            halves.iter().try_for_each(|(number, half)| check_kind(*number, *half))?;
        }
        Ok((take(self.reader, Half::In)?, take(self.writer, Half::Out)?))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    In,
    Out,
}

fn number(arg: &OsStr) -> Option<i32> {
    let text = arg.to_str()?;
    // parse takes a sign, which no descriptor has.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn check_direction(number: i32, half: Half) -> Result<(), RegisterError> {
    let mode = sys::access_mode(number).map_err(|error| half.fault(number, error))?;
    let wrong = if half == Half::In { OFlag::O_WRONLY } else { OFlag::O_RDONLY };
    if mode == wrong || number == STDERR {
        return Err(RegisterError::WrongDirection { number, half: half.name(), verb: half.verb() });
    }
    Ok(())
}

fn check_kind(number: i32, half: Half) -> Result<(), RegisterError> {
    let kind = sys::file_kind(number).map_err(|error| half.fault(number, error))?;
    match without_host(kind) {
        Some(found) => Err(RegisterError::NotAPipe { number, half: half.name(), found }),
        None => Ok(()),
    }
}

fn take(number: i32, half: Half) -> Result<Endpoint, RegisterError> {
    let fault = |error: io::Error| half.fault(number, error);
    match number {
        STDIN | STDOUT => {
            let fd = sys::copy_up(number).map_err(fault)?;
            replace(number).map_err(fault)?;
            Ok(Endpoint::shared(fd))
        }
        _ => Ok(Endpoint::exclusive(sys::adopt(number).map_err(fault)?)),
    }
}

/// The words for a file that no host is at the other end of; `None` for a pipe or a socket.
fn without_host(kind: SFlag) -> Option<&'static str> {
    match kind {
        SFlag::S_IFIFO | SFlag::S_IFSOCK => None,
        SFlag::S_IFREG => Some("a regular file"),
        SFlag::S_IFDIR => Some("a directory"),
        SFlag::S_IFCHR => Some("a terminal or another device"),
        SFlag::S_IFBLK => Some("a block device"),
        // A descriptor of the kernel's, as of epoll(7), has no kind.
        _ => Some("a file of another kind"),
    }
}

/// Puts something harmless in a standard descriptor's place.
fn replace(number: i32) -> io::Result<()> {
    if number == STDIN {
        nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    } else {
        // Where standard error is closed, what is printed goes nowhere.
        let stderr: OwnedFd = match sys::copy_up(STDERR) {
            Ok(stderr) => stderr,
            Err(_) => File::options().write(true).open("/dev/null")?.into(),
        };
        nix::unistd::dup2_stdout(stderr)?;
    }
    Ok(())
}

impl Half {
    fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }

    fn fault(self, number: i32, error: io::Error) -> RegisterError {
        if error.raw_os_error() == Some(Errno::EBADF as i32) {
            return RegisterError::NotOpen { number, half: self.name() };
        }
        RegisterError::Descriptor { number, half: self.name(), error }
    }

    fn verb(self) -> &'static str {
        match self {
            Self::In => "read from",
            Self::Out => "written to",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(args: &[&str]) -> Plan {
        Plan::from_args(args.iter().map(OsString::from))
    }

    #[test]
    fn two_numbers_are_descriptors_and_the_rest_is_the_plugins() {
        let args = vec![OsString::from("--own")];
        assert_eq!(plan(&["3", "4", "--own"]), Plan { reader: 3, writer: 4, told: true, args });
    }

    #[test]
    fn anything_else_means_stdin_and_stdout() {
        for args in [
            &[][..],
            &["3"],
            &["3", "x"],
            &["x", "4"],
            &["-3", "4"],
            &["+3", "4"],
            &["", "4"],
            &["3", "99999999999"],
        ] {
            let plan = plan(args);
            assert_eq!((plan.reader, plan.writer, plan.told), (0, 1, false), "{args:?}");
            assert_eq!(plan.args.len(), args.len());
        }
    }
}
