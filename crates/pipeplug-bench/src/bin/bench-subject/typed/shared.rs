//! The interface.

use pipeplug_service::service;

#[service(version = 1)]
pub(crate) trait Words {
    /// The sum of two numbers.
    fn add(&self, a: i64, b: i64) -> i64;
    /// Suggestions for a word, best first.
    fn suggest(&self, word: String, most: u32) -> Vec<String>;
}
