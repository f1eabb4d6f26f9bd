//! The plugin: greets in a few languages.

use std::process::ExitCode;

use greeter::{GreetError, Greeter, GreeterServer};

const GREETINGS: [(&str, &str); 3] = [("de", "guten Tag"), ("en", "hello"), ("fr", "bonjour")];

struct Greetings;

impl Greeter for Greetings {
    fn greet(&self, name: String, language: String) -> Result<String, GreetError> {
        match GREETINGS.iter().find(|(code, _)| *code == language) {
            Some((_, greeting)) => Ok(format!("{greeting}, {name}")),
            None => Err(GreetError::UnknownLanguage { language }),
        }
    }

    fn languages(&self) -> Vec<String> {
        GREETINGS.iter().map(|(code, _)| (*code).into()).collect()
    }
}

fn main() -> ExitCode {
    pipeplug_guest::serve(GreeterServer::new(Greetings))
}
