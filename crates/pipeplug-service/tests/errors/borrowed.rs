use pipeplug_service::{Request, service};

#[service(version = 1)]
pub trait Spell {
    fn suggest(&self, word: &str) -> Vec<String>;
    fn count(&self, words: &[String]) -> u32;
    fn first(&self) -> &str;
    fn user(&self, name: String, request: &Request) -> String;
}

fn main() {}
