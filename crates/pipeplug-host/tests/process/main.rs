//! Starting real processes, and their life until they are reaped.

#![expect(clippy::unwrap_used, reason = "in the helpers of tests too, a panic is the report")]

mod descriptors;
mod errors;
mod guest;
mod life;
mod odd_hosts;
