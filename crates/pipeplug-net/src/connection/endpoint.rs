//! Descriptors for a connection.

use std::io;
use std::os::fd::OwnedFd;

use crate::recording::RecordingError;
use crate::sys::{Half, Stream};

/// A descriptor for a connection, and whether another process uses its open file description too.
#[derive(Debug)]
pub struct Endpoint {
    fd: OwnedFd,
    sharing: Sharing,
}

#[derive(Debug)]
enum Sharing {
    Exclusive,
    Shared,
}

/// Reason that two descriptors did not become a connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A descriptor cannot be used.
    #[error("the {half} descriptor of {name} cannot be used: {error}")]
    Descriptor {
        /// Name of the connection.
        name: String,
        /// "reading" or "writing".
        half: &'static str,
        /// Error of the system.
        error: io::Error,
    },
    /// The connection was to be recorded.
    #[error(transparent)]
    Recording(#[from] RecordingError),
}

impl Endpoint {
    /// Takes a descriptor that only this process uses, such as an end of a pipe made for this
    /// connection. Sets `O_NONBLOCK` on it.
    pub fn exclusive(fd: impl Into<OwnedFd>) -> Self {
        Self { fd: fd.into(), sharing: Sharing::Exclusive }
    }

    /// Takes a descriptor that was inherited and may be shared, such as standard input. None of its
    /// flags is changed. Terminals, regular files and `/dev/null` are taken too.
    pub fn shared(fd: impl Into<OwnedFd>) -> Self {
        Self { fd: fd.into(), sharing: Sharing::Shared }
    }

    pub(super) fn into_stream(self, name: &str, half: Half) -> Result<Stream, ConnectError> {
        match self.sharing {
            Sharing::Exclusive => Stream::exclusive(self.fd, half),
            Sharing::Shared => Stream::shared(self.fd, half),
        }
        .map_err(|error| ConnectError::Descriptor {
            name: name.to_owned(),
            half: half.name(),
            error,
        })
    }
}
