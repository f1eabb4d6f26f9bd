use pipeplug_service::{data, service};

#[service(version = 1)]
pub trait Spell {}

#[data(json)]
pub struct Word(String);

fn main() {}
