//! The service, which plugin and host share.

use pipeplug_service::{data, service};

/// Greets people.
#[service(version = 1)]
pub trait Greeter {
    /// Greets a person, in one of the plugin's languages.
    fn greet(
        &self,
        /// Name of the person.
        name: String,
        /// Code of the language, such as `en`.
        #[serde(default = "english")]
        language: String,
    ) -> Result<String, GreetError>;

    /// Codes of the languages.
    fn languages(&self) -> Vec<String>;
}

fn english() -> String {
    "en".into()
}

/// Reason that a person is not greeted.
#[data]
#[derive(Debug, thiserror::Error)]
pub enum GreetError {
    /// The plugin does not speak the language.
    #[error("no greeting in the language {language:?} is known")]
    UnknownLanguage {
        /// Code of the language.
        language: String,
    },
}
