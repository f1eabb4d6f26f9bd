use pipeplug_service::service;

#[service(versoin = 1)]
pub trait Spell {
    fn suggest(&self, word: String) -> Vec<String>;
}

#[service(version = 1, name = "Spell Check")]
pub trait Named {
    fn suggest(&self, word: String) -> Vec<String>;
}

#[service(version = 1, codec = "xml")]
pub trait Encoded {
    fn suggest(&self, word: String) -> Vec<String>;
}

#[service(version = 1, oldest = 2)]
pub trait Old {
    fn suggest(&self, word: String) -> Vec<String>;
}

fn main() {}
