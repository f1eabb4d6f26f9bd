//! Common parts of the subjects in this package: the lines between driver and subject, and how
//! times are taken. As little as possible, since this code counts as the subjects' own.

#![forbid(unsafe_code)]

mod descriptors;
mod histogram;
mod latency;
mod order;

pub use descriptors::allow_descriptors;
pub use latency::{Latency, on_threads, one_at_a_time};
pub use order::{Driver, Figures, Order};
