//! The two services of the typed form of this sample: each side calls the other's.

use pipeplug_service::service;

/// Service of the plugin.
#[service(version = 1)]
pub trait Work {
    /// Gives the text back.
    fn echo(&self, text: String) -> String;
    /// Calls the host back this often, all at once.
    fn start(&self, calls: usize) -> Result<(), String>;
    /// The Docker host that the host has named at the start.
    fn docker_host(&self) -> String;
}

/// Service of the host.
#[service(version = 1)]
pub trait Desk {
    /// The Docker host.
    fn docker_host(&self) -> String;
    /// The text, twice.
    fn repeat(&self, text: String) -> String;
    /// Takes note of the number of replies that the plugin had.
    #[one_way]
    fn done(&self, replies: usize);
}
