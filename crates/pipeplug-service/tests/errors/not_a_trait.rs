use pipeplug_service::service;

#[service(version = 1)]
pub struct Spell;

fn main() {}
