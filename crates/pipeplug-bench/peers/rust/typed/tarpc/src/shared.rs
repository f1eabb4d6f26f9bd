//! The interface.

#[tarpc::service]
pub trait Words {
    /// The sum of two numbers.
    async fn add(a: i64, b: i64) -> i64;
    /// Suggestions for a word, best first.
    async fn suggest(word: String, most: u32) -> Vec<String>;
}
