//! What the subjects of the benchmark that stand in this package have in common: what the driver
//! says and is told, and how times are taken. As little as possible, since it counts as the
//! subjects' own.

#![forbid(unsafe_code)]

mod descriptors;
mod histogram;
mod latency;
mod order;

pub use descriptors::allow_descriptors;
pub use latency::{Latency, on_threads, one_at_a_time};
pub use order::{Driver, Figures, Order};
