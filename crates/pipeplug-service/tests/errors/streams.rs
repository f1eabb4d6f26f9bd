use pipeplug_service::{StreamIn, StreamOut, service};

#[service(version = 1)]
pub trait Join {
    fn join(&self, left: StreamIn<String>, right: StreamIn<String>) -> u32;
    #[idempotent]
    fn words(&self) -> StreamOut<String>;
    fn learn(&self, #[must_use] word: String);
}

fn main() {}
