//! Starting real processes, and their life until they are reaped.

mod descriptors;
mod errors;
mod guest;
mod life;
mod odd_hosts;
