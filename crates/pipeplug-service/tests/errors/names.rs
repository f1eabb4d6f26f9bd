use pipeplug_service::service;

#[service(version = 1)]
pub trait Cmd {
    fn run(&self, word: String);
}

fn main() {}
