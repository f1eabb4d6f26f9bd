use pipeplug_service::service;

#[service]
pub trait Spell {
    fn suggest(&self, word: String) -> Vec<String>;
}

fn main() {}
