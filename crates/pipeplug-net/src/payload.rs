//! Bytes that are sent with a request or one-way.

use std::borrow::Cow;

/// Bytes of a request or one-way: a string or bytes, borrowed or owned.
///
/// Up to 4 KiB are copied once, behind their header, so that borrowed bytes cost no allocation.
/// More bytes are written from where they are if they are owned, and copied first if they are
/// borrowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payload<'a>(pub(crate) Cow<'a, [u8]>);

impl Payload<'_> {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

macro_rules! borrowed {
    ($($bytes:ty => $take:ident),* $(,)?) => {$(
        impl<'a> From<&'a $bytes> for Payload<'a> {
            fn from(bytes: &'a $bytes) -> Self {
                Self(Cow::Borrowed(bytes.$take()))
            }
        }
    )*};
}

borrowed!([u8] => as_ref, Vec<u8> => as_slice, str => as_bytes, String => as_bytes);

macro_rules! owned {
    ($($bytes:ty),*) => {$(
        impl From<$bytes> for Payload<'_> {
            fn from(bytes: $bytes) -> Self {
                Self(Cow::Owned(bytes.into()))
            }
        }
    )*};
}

owned!(Vec<u8>, String, Box<[u8]>);

impl<'a, const N: usize> From<&'a [u8; N]> for Payload<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self(Cow::Borrowed(bytes))
    }
}

impl<const N: usize> From<[u8; N]> for Payload<'_> {
    fn from(bytes: [u8; N]) -> Self {
        Self(Cow::Owned(bytes.into()))
    }
}

impl<'a> From<Cow<'a, [u8]>> for Payload<'a> {
    fn from(bytes: Cow<'a, [u8]>) -> Self {
        Self(bytes)
    }
}

impl<'a> From<Cow<'a, str>> for Payload<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        match text {
            Cow::Borrowed(text) => text.into(),
            Cow::Owned(text) => text.into(),
        }
    }
}
