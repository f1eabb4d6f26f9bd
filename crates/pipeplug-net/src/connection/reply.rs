//! Replies.

use crate::connection::call_error::CallError;

/// Reply to a request: bytes. Returned by a handler, and received by a caller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply(pub(crate) Vec<u8>);

macro_rules! reply_from {
    ($($bytes:ty),*) => {$(
        impl From<$bytes> for Reply {
            fn from(bytes: $bytes) -> Self {
                Self(bytes.into())
            }
        }
    )*};
}

reply_from!(Vec<u8>, String, &str, &[u8], Box<[u8]>, std::borrow::Cow<'_, [u8]>);

impl From<()> for Reply {
    fn from((): ()) -> Self {
        Self::empty()
    }
}

impl Reply {
    /// A reply without bytes. A handler that has taken the [`Responder`](crate::Responder) returns it too.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Vec::new())
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The bytes as text.
    ///
    /// # Errors
    /// The bytes are no UTF-8.
    pub fn text(&self) -> Result<&str, std::str::Utf8Error> {
        std::str::from_utf8(&self.0)
    }

    /// The bytes as text.
    ///
    /// # Errors
    /// The bytes are no UTF-8.
    pub fn into_text(self) -> Result<String, std::string::FromUtf8Error> {
        String::from_utf8(self.0)
    }

    /// The bytes as the text that `call` promises.
    pub(crate) fn into_text_of(self, command: &str) -> Result<String, CallError> {
        self.into_text().map_err(|error| CallError::NotText {
            command: command.to_owned(),
            source: error.utf8_error(),
        })
    }
}

impl AsRef<[u8]> for Reply {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

macro_rules! reply_eq {
    ($($bytes:ty),*) => {$(
        impl PartialEq<$bytes> for Reply {
            fn eq(&self, other: &$bytes) -> bool {
                let other: &[u8] = other.as_ref();
                self.0 == other
            }
        }
    )*};
}

reply_eq!([u8], &[u8], Vec<u8>, str, &str, String);

impl<const N: usize> PartialEq<[u8; N]> for Reply {
    fn eq(&self, other: &[u8; N]) -> bool {
        self.0 == other
    }
}

impl<const N: usize> PartialEq<&[u8; N]> for Reply {
    fn eq(&self, other: &&[u8; N]) -> bool {
        self.0 == *other
    }
}

impl std::ops::Deref for Reply {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
