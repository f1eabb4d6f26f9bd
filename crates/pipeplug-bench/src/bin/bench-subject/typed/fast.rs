//! The interface with postcard, of which only one method is measured.

use pipeplug_service::service;

#[service(version = 1, codec = "postcard")]
pub(crate) trait FastWords {
    /// The sum of two numbers.
    fn add(&self, a: i64, b: i64) -> i64;
}
