//! DATA on the command line: a literal, the content of a file, or stdin.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::exit::{CommandError, ExitReason};
use crate::output::text::Escaped;

/// Source of the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    Literal(Vec<u8>),
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
            Data::File(path) => fs::read(path).map_err(|error| {
                let path = path.display().to_string();
                let path = Escaped(&path);
                CommandError::message(
                    ExitReason::Usage,
                    format!(
                        "cannot read the data file {path}: {error}; for the text `@{path}` \
                             itself write @@{path}"
                    ),
                )
            }),
            Data::Stdin => {
                if std::mem::replace(&mut self.stdin, Stdin::Read) == Stdin::Read {
                    return Err(CommandError::message(
                        ExitReason::Usage,
                        "`@-` is used twice, but stdin can be read only once: put the data in a \
                         file and write @FILE",
                    ));
                }
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
