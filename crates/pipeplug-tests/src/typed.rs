//! Services of the tests.

use pipeplug_service::{Request, service};

/// Service of the plugin.
#[service(version = 2)]
pub trait Work {
    /// Process id.
    fn pid(&self) -> u32;
    /// Asks the host.
    fn ask(&self, question: String) -> Result<String, String>;
    /// Crashes if there is no file of this name, which it makes.
    #[idempotent]
    fn crash_once(&self, marker: String) -> Result<u32, String>;
    /// Tells whether the call has a deadline.
    fn deadline(&self, request: &Request) -> bool;
}

/// An earlier version of it.
#[service(version = 1, name = "work")]
pub trait OldWork {
    /// Process id.
    fn pid(&self) -> u32;
}

/// Service of the host.
#[service(version = 1)]
pub trait Host {
    /// Answers a question.
    fn answer(&self, question: String) -> String;
}
