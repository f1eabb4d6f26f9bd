use pipeplug_service::service;

#[service(version = 1)]
pub trait Store<T> {
    fn get(&self, key: String) -> T;
}

#[service(version = 1)]
pub trait Spell {
    type Word;
    fn suggest<T>(&self, word: T) -> Vec<T>;
    fn words(&self) -> impl Iterator<Item = String>;
    fn learn(&self, words: impl Iterator<Item = String>);
    fn pair(&self, (a, b): (u8, u8)) -> u8;
}

fn main() {}
