use pipeplug_service::service;

#[service(version = 1)]
pub trait Files {
    fn read(&self, path: String) -> std::io::Result<String>;
    #[one_way]
    fn write(&self, path: String) -> bool;
    #[one_way]
    #[idempotent]
    fn touch(&self, path: String);
    fn new(&self) -> u32;
}

fn main() {}
