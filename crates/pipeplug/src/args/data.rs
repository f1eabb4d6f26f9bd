//! DATA on the command line: a literal, the content of a file, or stdin.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::exit::{CommandError, ExitReason};
use crate::output::text::Escaped;

/// Source of the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    Literal(Vec<u8>),
    /// Arguments `NAME=VALUE` of a typed service.
    Named(Vec<Vec<u8>>),
    File(PathBuf),
    Stdin,
}

impl Data {
    /// Parses `@FILE`, `@-`, `@@TEXT` for the literal `@TEXT`, or any other literal.
    pub(crate) fn parse(arg: &OsStr) -> Result<Self, String> {
        let bytes = arg.as_bytes();
        match bytes {
            b"@" => {
                Err("`@` names no file: write @FILE, @- for stdin, or @@ for the text `@`".into())
            }
            b"@-" => Ok(Self::Stdin),
            [b'@', b'@', ..] => Ok(Self::Literal(bytes[1..].to_vec())),
            [b'@', file @ ..] => Ok(Self::File(OsString::from_vec(file.to_vec()).into())),
            _ => Ok(Self::Literal(bytes.to_vec())),
        }
    }
}

/// Data of a stream: the request's own, and where its parts come from.
#[derive(Debug)]
pub(crate) struct StreamData {
    pub(crate) request: Vec<u8>,
    pub(crate) parts: PartSource,
}

/// Source of the parts of a stream.
#[derive(Debug)]
pub(crate) enum PartSource {
    File(PathBuf, File),
    Stdin,
}

impl PartSource {
    /// Reads the next part: what is there, up to `max` bytes. Empty at the end.
    ///
    /// # Errors
    /// The message names the source.
    ///
    /// # Blocking
    /// Until there is something to read.
    pub(crate) fn read(&mut self, max: usize) -> Result<Vec<u8>, String> {
        let mut part = vec![0; max];
        let read = loop {
            let read = match self {
                Self::File(_, file) => file.read(&mut part),
                // Without the buffer of `io::stdin`, which would copy each part once more.
                Self::Stdin => nix::unistd::read(io::stdin(), &mut part).map_err(Into::into),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_for_stdin(),
                read => break read,
            }
        };
        let len = read.map_err(|error| match self {
            Self::File(path, _) => {
                format!("cannot read the data file {}: {error}", Escaped(&path.to_string_lossy()))
            }
            Self::Stdin => format!("cannot read stdin: {error}"),
        })?;
        part.truncate(len);
        Ok(part)
    }
}

/// Waits until stdin, which another process may have set to non-blocking mode, has something.
fn wait_for_stdin() {
    let stdin = io::stdin();
    // An error shows in the next read.
    let _ = poll(&mut [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
}

/// Reads all data before a plugin is started, so that a wrong file name starts none.
#[derive(Debug, Default)]
pub(crate) struct Loader {
    stdin: Stdin,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Stdin {
    #[default]
    Unread,
    Read,
}

impl Loader {
    /// Opens the data of a stream.
    ///
    /// # Errors
    /// As for [`load`](Loader::load).
    pub(crate) fn open(&mut self, data: &Data) -> Result<StreamData, CommandError> {
        let (request, parts) = match data {
            Data::Literal(bytes) => (bytes.clone(), PartSource::Stdin),
            Data::Named(words) => (words.join(&b' '), PartSource::Stdin),
            Data::Stdin => (Vec::new(), PartSource::Stdin),
            Data::File(path) => {
                let file = open(path).map_err(|error| unreadable(path, &error))?;
                (Vec::new(), PartSource::File(path.clone(), file))
            }
        };
        if matches!(parts, PartSource::Stdin) {
            self.use_stdin()?;
        }
        Ok(StreamData { request, parts })
    }

    /// Notes that stdin is read.
    ///
    /// # Errors
    /// If it is used twice.
    pub(crate) fn use_stdin(&mut self) -> Result<(), CommandError> {
        match std::mem::replace(&mut self.stdin, Stdin::Read) {
            Stdin::Unread => Ok(()),
            Stdin::Read => Err(CommandError::message(
                ExitReason::Usage,
                "stdin is used twice (by `@-`, --stream or --data-each), but can be read only once: put the \
                 data in a file and write @FILE",
            )),
        }
    }

    /// Reads the bytes of `data`.
    ///
    /// # Errors
    /// If a file cannot be read, or stdin is used twice.
    ///
    /// # Blocking
    /// Until the end of stdin, for `@-`.
    pub(crate) fn load(&mut self, data: &Data) -> Result<Vec<u8>, CommandError> {
        match data {
            Data::Literal(bytes) => Ok(bytes.clone()),
            Data::Named(words) => Ok(words.join(&b' ')),
            Data::File(path) => fs::read(path).map_err(|error| unreadable(path, &error)),
            Data::Stdin => {
                self.use_stdin()?;
                let mut bytes = Vec::new();
                io::stdin().lock().read_to_end(&mut bytes).map_err(|error| {
                    CommandError::message(
                        ExitReason::Usage,
                        format!(
                            "cannot read stdin for `@-`: \
                                                            {error}"
                        ),
                    )
                })?;
                Ok(bytes)
            }
        }
    }
}

/// Opens a file, unless its first read is sure to fail.
fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(nix::errno::Errno::EISDIR.into());
    }
    Ok(file)
}

fn unreadable(path: &Path, error: &io::Error) -> CommandError {
    let path = path.display().to_string();
    let path = Escaped(&path);
    CommandError::message(
        ExitReason::Usage,
        format!(
            "cannot read the data file {path}: {error}; for the text `@{path}` itself write \
             @@{path}"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_characters_say_where_from() {
        let parse = |text: &str| Data::parse(text.as_ref()).unwrap();
        let literal = |text: &str| Data::Literal(text.into());
        assert_eq!(parse(""), literal(""));
        assert_eq!(parse("a@b"), literal("a@b"));
        assert_eq!(parse("@@a"), literal("@a"));
        assert_eq!(parse("@@"), literal("@"));
        assert_eq!(parse("@@@"), literal("@@"));
        assert_eq!(parse("@-"), Data::Stdin);
        assert_eq!(parse("@a b"), Data::File("a b".into()));
        assert!(Data::parse("@".as_ref()).unwrap_err().contains("names no file"));
    }

    #[test]
    fn bytes_that_are_no_text_are_data() {
        assert_eq!(Data::parse(OsStr::from_bytes(&[0xff])), Ok(Data::Literal(vec![0xff])));
    }
}
