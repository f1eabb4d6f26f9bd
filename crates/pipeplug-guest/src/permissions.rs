//! Declaration of what a plugin needs of the machine and of its host.

use serde_json::{Map, Value};

/// Permissions that a plugin asks for ([`Guest::permissions`](crate::Guest::permissions)).
///
/// A path is absolute, or begins with `{plugin}` (folder of the plugin's file), `{home}`, `{temp}` or
/// `{cwd}` (working folder). It includes all below it, and has no `..`. A host that enforces
/// permissions refuses a plugin whose declaration it cannot read, and says why.
///
/// ```
/// use pipeplug_guest::Permissions;
///
/// let permissions = Permissions::new()
///     .read("{plugin}/words")
///     .write("{home}/.cache/spell")
///     .connect(443)
///     .command("log")
///     .env("EDITOR");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "permissions have to be given to a Guest"]
pub struct Permissions(Map<String, Value>);

impl Permissions {
    /// Key of the metadata.
    pub(crate) const KEY: &'static str = "pipeplug.permissions";

    /// No permissions: the plugin needs nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks to read a file, or all files below a directory.
    pub fn read(self, path: impl Into<String>) -> Self {
        self.with("read", path.into())
    }

    /// Asks to read and change a file, or to make, read, change and remove all below a directory. The
    /// file or directory has to exist when the plugin starts.
    pub fn write(self, path: impl Into<String>) -> Self {
        self.with("write", path.into())
    }

    /// Asks to read and execute a file, or all below a directory, also as a library.
    pub fn execute(self, path: impl Into<String>) -> Self {
        self.with("execute", path.into())
    }

    /// Asks to connect to a TCP port, at any address.
    pub fn connect(self, port: u16) -> Self {
        self.with("connect", port)
    }

    /// Asks to listen on a TCP port.
    pub fn bind(self, port: u16) -> Self {
        self.with("bind", port)
    }

    /// Asks to send the host a command, as a request or a one-way.
    pub fn command(self, command: impl Into<String>) -> Self {
        self.with("commands", command.into())
    }

    /// Asks for a variable of the host's environment, if it is set.
    pub fn env(self, name: impl Into<String>) -> Self {
        self.with("environment", name.into())
    }

    fn with(mut self, kind: &str, value: impl Into<Value>) -> Self {
        if let Value::Array(values) = self.0.entry(kind).or_insert_with(|| Value::Array(Vec::new()))
        {
            values.push(value.into());
        }
        self
    }

    /// Text of the metadata.
    pub(crate) fn into_json(self) -> String {
        Value::Object(self.0).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declaration_is_an_object_of_lists() {
        let permissions = Permissions::new()
            .read("/b")
            .read("{plugin}/a")
            .write("{cwd}")
            .execute("/x")
            .connect(443)
            .bind(80)
            .command("log")
            .env("EDITOR");
        assert_eq!(
            permissions.into_json(),
            r#"{"bind":[80],"commands":["log"],"connect":[443],"environment":["EDITOR"],"execute":["/x"],"read":["/b","{plugin}/a"],"write":["{cwd}"]}"#
        );
        assert_eq!(Permissions::new().into_json(), "{}");
    }
}
