//! A failure in the form of its own source.

use crate::protocol::failure::{Coded, Failure};

/// Casts the reference.
pub(crate) fn coded(failure: &Failure) -> &Coded {
    // SAFETY: `Coded` is `repr(transparent)` with `Failure` as its only field, so both have the same
    // layout, and the reference keeps its lifetime.
    unsafe { &*std::ptr::from_ref(failure).cast() }
}
