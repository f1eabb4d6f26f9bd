//! The plugin.

use std::process::ExitCode;

use crate::shared::{Words, WordsServer};

struct KnownWords;

impl Words for KnownWords {
    fn add(&self, a: i64, b: i64) -> i64 {
        a + b
    }

    fn suggest(&self, word: String, most: u32) -> Vec<String> {
        let known = ["ten", "the", "tree"].into_iter();
        let known = known.filter(|known| known.len() == word.len());
        known.take(most as usize).map(String::from).collect()
    }
}

pub(crate) fn main() -> ExitCode {
    pipeplug_guest::serve(WordsServer::new(KnownWords))
}
