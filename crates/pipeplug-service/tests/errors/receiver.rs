use pipeplug_service::service;

#[service(version = 1)]
pub trait Spell {
    fn learn(&mut self, word: String);
    fn take(self) -> Vec<String>;
    fn version() -> u32;
    async fn suggest(&self, word: String) -> Vec<String>;
}

fn main() {}
