//! Parts of a stream, and the batches in which the leader hands them over.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::connection::serve::job::Buffer;
use crate::payload::Payload;

/// Parts up to this size gather in one piece of memory, in bytes.
const GATHERED: usize = 4096;
/// Size from which that memory takes no more parts, in bytes.
const GATHER_MAX: usize = 64 << 10;

/// One part of a stream: bytes.
#[derive(Debug)]
pub struct Part(Buffer);

impl Part {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, without copying large ones.
    #[must_use]
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.0.take()
    }

    /// The bytes as text.
    ///
    /// # Errors
    /// The bytes are no UTF-8.
    pub fn text(&self) -> Result<&str, std::str::Utf8Error> {
        std::str::from_utf8(&self.0)
    }
}

impl std::ops::Deref for Part {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Part {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

impl From<Part> for Payload<'_> {
    fn from(part: Part) -> Self {
        Self(Cow::Owned(part.into_bytes()))
    }
}

impl<'a> From<&'a Part> for Payload<'a> {
    fn from(part: &'a Part) -> Self {
        Self(Cow::Borrowed(part))
    }
}

/// Parts that came together.
#[derive(Debug)]
pub(super) enum Batch {
    /// Small ones, one behind the other, and where each ends.
    Gathered(Vec<u8>, Vec<u32>),
    /// A large one, in the memory that it was read into.
    Large(Vec<u8>),
}

/// Adds a part that lies in the input buffer.
pub(super) fn add(batches: &mut VecDeque<Batch>, part: &[u8]) {
    if part.len() > GATHERED {
        return batches.push_back(Batch::Large(part.to_vec()));
    }
    let gathered = match batches.back_mut() {
        Some(Batch::Gathered(bytes, ends)) if bytes.len() < GATHER_MAX => Some((bytes, ends)),
        _ => None,
    };
    match gathered {
        Some((bytes, ends)) => {
            bytes.extend_from_slice(part);
            ends.push(end(bytes));
        }
        None => {
            let ends = vec![end(part)];
            batches.push_back(Batch::Gathered(part.to_vec(), ends));
        }
    }
}

fn end(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("gathered parts are some 64 KiB at most")
}

/// Parts that the receiver has taken over and not returned yet.
#[derive(Debug, Default)]
pub(super) struct PartQueue {
    /// The first batch, and the position in it.
    first: Option<Gathered>,
    pub(super) rest: VecDeque<Batch>,
}

#[derive(Debug)]
struct Gathered {
    bytes: Arc<Vec<u8>>,
    ends: Vec<u32>,
    next: usize,
}

impl PartQueue {
    pub(super) fn pop(&mut self) -> Option<Part> {
        loop {
            if let Some(gathered) = &mut self.first {
                if let Some(end) = gathered.ends.get(gathered.next) {
                    let start = match gathered.next {
                        0 => 0,
                        next => gathered.ends[next - 1],
                    };
                    gathered.next += 1;
                    return Some(Part(Buffer::InPlace(Arc::clone(&gathered.bytes), start..*end)));
                }
                self.first = None;
            }
            match self.rest.pop_front()? {
                Batch::Large(bytes) => return Some(Part(Buffer::Own(bytes))),
                Batch::Gathered(bytes, ends) => {
                    self.first = Some(Gathered { bytes: Arc::new(bytes), ends, next: 0 });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_leave_as_they_came() {
        let parts: Vec<Vec<u8>> = (0..1000_usize)
            .map(|n| vec![n as u8; n * n % 7001 * usize::from(n % 3 != 0)])
            .collect();
        let mut queue = PartQueue::default();
        for part in &parts {
            add(&mut queue.rest, part);
        }
        assert!(queue.rest.len() < parts.len());
        let left: Vec<_> = std::iter::from_fn(|| queue.pop().map(Part::into_bytes)).collect();
        assert_eq!(left, parts);
    }
}
