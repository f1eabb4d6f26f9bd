//! Permissions: what a plugin declares that it needs, and what a host allows it.

#[cfg(feature = "sandbox")]
mod enforce;
#[cfg(not(feature = "sandbox"))]
#[path = "absent.rs"]
mod enforce;
mod in_words;
mod path;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

#[cfg(feature = "sandbox")]
pub(crate) use self::enforce::Allowed;
pub(crate) use self::path::Base;
use self::path::PermittedPath;
use crate::files::{FileError, RegularFile, json};
use crate::plugin::Metadata;

/// Number of permissions that a plugin may ask for. A longer list is not read to its end.
const MOST: usize = 64;
/// Length of a name or path, in bytes.
const LENGTH_MAX: usize = 4096;
/// Size of all of them as JSON, in bytes. More is not read to its end either.
const TEXT_MAX: usize = 8 << 10;
/// Size of a file with permissions, in bytes.
const FILE_MAX: u64 = 64 << 10;

/// What a plugin needs of the machine and of its host: files, TCP ports, commands of the host, and
/// variables of the environment.
///
/// A plugin declares them in its metadata, under [`KEY`](Self::KEY). A host allows them, for example
/// in its [`LockFile`](crate::LockFile), and
/// [`PluginBuilder::permissions`](crate::PluginBuilder::permissions) enforces exactly what is
/// allowed. docs/security.md of the project ("Permissions") describes the format.
///
/// ```
/// use pipeplug_host::Permissions;
///
/// let allowed: Permissions = r#"{"read":["/usr/share/dict"],"connect":[443]}"#.parse()?;
/// let wanted: Permissions = r#"{"read":["/usr/share/dict/words"],"connect":[80,443]}"#.parse()?;
/// let more = wanted.beyond(&allowed);
/// assert_eq!(more.in_words(), ["connect to TCP port 80, on any machine"]);
/// # Ok::<(), pipeplug_host::PermissionsError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions {
    pub(crate) read: BTreeSet<PermittedPath>,
    pub(crate) write: BTreeSet<PermittedPath>,
    pub(crate) execute: BTreeSet<PermittedPath>,
    pub(crate) connect: BTreeSet<u16>,
    pub(crate) bind: BTreeSet<u16>,
    pub(crate) commands: BTreeSet<String>,
    pub(crate) environment: BTreeSet<String>,
}

/// Error of permissions that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PermissionsError {
    /// The text is not a JSON object of lists.
    #[error("they are no JSON object of lists, as {{\"read\":[\"/usr/share/dict\"]}}: {problem}")]
    Malformed {
        /// The problem.
        problem: String,
    },
    /// A kind of permission, or a placeholder, that this version does not know.
    #[error("{what} {name:?} is not known here: it needs a newer pipeplug than {}", env!("CARGO_PKG_VERSION"))]
    Unknown {
        /// What is unknown.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A path, port or name that is not valid.
    #[error("{kind} {value:?}: {problem}")]
    Invalid {
        /// Kind of the permission.
        kind: &'static str,
        /// The value.
        value: String,
        /// The problem.
        problem: &'static str,
    },
    /// A list that is too long to be read by the person who is asked.
    #[error(
        "they are {count} permissions, the limit is {MOST}: name directories in place of files"
    )]
    TooMany {
        /// Number of permissions.
        count: usize,
    },
    /// The file with the permissions cannot be read.
    #[error("the file {path:?} {problem}")]
    File {
        /// Path of the file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
}

impl Permissions {
    /// Key of the metadata that holds the permissions of a plugin, as JSON.
    pub const KEY: &'static str = "pipeplug.permissions";

    /// End of the name of a file with the permissions of the plugin beside it: those of `spell` are
    /// in `spell.permissions.json`.
    pub const FILE_SUFFIX: &'static str = ".permissions.json";

    /// Reads the permissions that a plugin declares in its metadata. `None` if it declares none.
    ///
    /// # Errors
    /// They cannot be understood, or need a newer version.
    pub fn declared(metadata: &Metadata) -> Result<Option<Self>, PermissionsError> {
        metadata.value(Self::KEY).map(str::parse).transpose()
    }

    /// Reads the permissions in the file beside a plugin, for a plugin that cannot start without
    /// them. For a link, the file beside it comes before the one beside its target. `None` if there is
    /// no such file.
    ///
    /// # Errors
    /// The file cannot be read, or its permissions cannot be understood.
    pub fn beside(plugin: &Path) -> Result<Option<Self>, PermissionsError> {
        if let Some(own) = Self::read_beside(plugin)? {
            return Ok(Some(own));
        }
        match plugin.canonicalize() {
            Ok(file) if file != plugin => Self::read_beside(&file),
            _ => Ok(None),
        }
    }

    fn read_beside(plugin: &Path) -> Result<Option<Self>, PermissionsError> {
        let mut path = OsString::from(plugin);
        path.push(Self::FILE_SUFFIX);
        let path = PathBuf::from(path);
        let failed = |problem: String| PermissionsError::File { path: path.clone(), problem };
        match RegularFile::open(&path).and_then(|file| file.read(FILE_MAX)) {
            Ok(bytes) => {
                Self::from_json(&bytes).map(Some).map_err(|error| failed(format!("has: {error}")))
            }
            Err(FileError::System(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(failed(format!("cannot be read: {error}"))),
        }
    }

    fn from_json(bytes: &[u8]) -> Result<Self, PermissionsError> {
        let value = json::parse(bytes)
            .map_err(|error| PermissionsError::Malformed { problem: error.to_string() })?;
        Self::from_value(&value)
    }

    /// Reads them from JSON, where each key occurs once.
    pub(crate) fn from_value(value: &Value) -> Result<Self, PermissionsError> {
        let malformed = |problem: String| PermissionsError::Malformed { problem };
        let Value::Object(kinds) = value else {
            return Err(malformed(format!("it is {}", kind_of(value))));
        };
        let mut all = Self::default();
        for (kind, values) in kinds {
            let Value::Array(values) = values else {
                return Err(malformed(format!("`{}` is {}", kind.escape_debug(), kind_of(values))));
            };
            match kind.as_str() {
                "read" => all.read = set("read", values, path)?,
                "write" => all.write = set("write", values, path)?,
                "execute" => all.execute = set("execute", values, path)?,
                "connect" => all.connect = set("connect", values, port)?,
                "bind" => all.bind = set("bind", values, port)?,
                "commands" => all.commands = set("commands", values, name)?,
                "environment" => all.environment = set("environment", values, variable)?,
                _ => {
                    let (what, name) = ("the kind of permission", kind.chars().take(100).collect());
                    return Err(PermissionsError::Unknown { what, name });
                }
            }
        }
        let count = all.count();
        if count > MOST {
            return Err(PermissionsError::TooMany { count });
        }
        let length = all.to_json().to_string().len();
        if length > TEXT_MAX {
            let problem = format!("it has {length} bytes, the limit is {TEXT_MAX}");
            return Err(malformed(problem));
        }
        Ok(all)
    }

    /// Gives the JSON object that [`FromStr`](std::str::FromStr) reads.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let paths = |paths: &BTreeSet<PermittedPath>| {
            paths.iter().map(|path| Value::from(path.to_string())).collect::<Vec<_>>()
        };
        let ports = |ports: &BTreeSet<u16>| ports.iter().copied().map(Value::from).collect();
        let names = |names: &BTreeSet<String>| names.iter().cloned().map(Value::from).collect();
        let kinds = [
            ("read", paths(&self.read)),
            ("write", paths(&self.write)),
            ("execute", paths(&self.execute)),
            ("connect", ports(&self.connect)),
            ("bind", ports(&self.bind)),
            ("commands", names(&self.commands)),
            ("environment", names(&self.environment)),
        ];
        let kinds = kinds.into_iter().filter(|(_, values): &(_, Vec<Value>)| !values.is_empty());
        Value::Object(
            kinds.map(|(kind, values)| (kind.to_owned(), values.into())).collect::<Map<_, _>>(),
        )
    }

    /// Tells whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    fn count(&self) -> usize {
        let Self { read, write, execute, connect, bind, commands, environment } = self;
        [read, write, execute].map(BTreeSet::len).iter().sum::<usize>()
            + connect.len()
            + bind.len()
            + commands.len()
            + environment.len()
    }

    /// The part of these permissions that others do not include. A directory includes all below it,
    /// and writing and executing include reading.
    #[must_use]
    pub fn beyond(&self, allowed: &Self) -> Self {
        let outside = |paths: &BTreeSet<PermittedPath>, of: &[&BTreeSet<PermittedPath>]| {
            let is_in = |path| of.iter().any(|set| set.iter().any(|it| it.includes(path)));
            paths.iter().filter(|path| !is_in(path)).cloned().collect()
        };
        Self {
            read: outside(&self.read, &[&allowed.read, &allowed.write, &allowed.execute]),
            write: outside(&self.write, &[&allowed.write]),
            execute: outside(&self.execute, &[&allowed.execute]),
            connect: &self.connect - &allowed.connect,
            bind: &self.bind - &allowed.bind,
            commands: &self.commands - &allowed.commands,
            environment: &self.environment - &allowed.environment,
        }
    }

    /// Tells whether files of the plugin's own folder are among them.
    #[must_use]
    pub fn needs_own_folder(&self) -> bool {
        self.paths().any(|path| path.base() == Base::Plugin)
    }

    fn paths(&self) -> impl Iterator<Item = &PermittedPath> {
        self.read.iter().chain(&self.write).chain(&self.execute)
    }
}

impl std::str::FromStr for Permissions {
    type Err = PermissionsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_json(text.as_bytes())
    }
}

fn set<T: Ord>(
    kind: &'static str,
    values: &[Value],
    parse: fn(&'static str, &Value) -> Result<T, PermissionsError>,
) -> Result<BTreeSet<T>, PermissionsError> {
    values.iter().map(|value| parse(kind, value)).collect()
}

fn port(kind: &'static str, value: &Value) -> Result<u16, PermissionsError> {
    let port = value.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    port.ok_or_else(|| invalid(kind, &value.to_string(), "a TCP port is a number from 1 to 65535"))
}

fn name(kind: &'static str, value: &Value) -> Result<String, PermissionsError> {
    let Value::String(text) = value else {
        return Err(invalid(kind, &value.to_string(), "it is no text"));
    };
    let problem = match text {
        _ if text.is_empty() => "it is empty",
        _ if text.len() > LENGTH_MAX => "it is longer than 4096 bytes",
        // Also a NUL. What is shown to people has to be what is meant.
        _ if text.chars().any(char::is_control) => "it has a control character",
        _ => return Ok(text.clone()),
    };
    Err(invalid(kind, text, problem))
}

fn variable(kind: &'static str, value: &Value) -> Result<String, PermissionsError> {
    let text = name(kind, value)?;
    if text.contains('=') {
        return Err(invalid(kind, &text, "the name of a variable has no `=`"));
    }
    Ok(text)
}

fn path(kind: &'static str, value: &Value) -> Result<PermittedPath, PermissionsError> {
    PermittedPath::parse(kind, &name(kind, value)?)
}

fn invalid(kind: &'static str, value: &str, problem: &'static str) -> PermissionsError {
    let value = value.chars().take(100).collect();
    PermissionsError::Invalid { kind, value, problem }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Permissions {
        text.parse().unwrap()
    }

    #[test]
    fn json_is_read_as_it_is_written() {
        let text = r#"{"bind":[8080],"commands":["log"],"connect":[80,443],"environment":["EDITOR"],"execute":["/opt/x"],"read":["/usr/share/dict","{plugin}/words"],"write":["{home}/.cache/spell","{temp}/x","{cwd}"]}"#;
        let all = parsed(text);
        assert_eq!(all.to_json().to_string(), text);
        assert_eq!(parsed(&all.to_json().to_string()), all);
        assert!(all.needs_own_folder());
        assert!(parsed("{}").is_empty() && parsed(r#"{"read":[]}"#).is_empty());
        let same = parsed(r#"{"read":["/a//b/./c/","/a/b/c"]}"#);
        assert_eq!(same, parsed(r#"{"read":["/a/b/c"]}"#));
    }

    #[test]
    fn anything_unclear_is_refused() {
        for (text, part) in [
            ("", "no JSON object of lists"),
            ("[]", "it is a list"),
            (r#"{"read":"/x"}"#, "`read` is text"),
            (r#"{"read":[],"read":["/"]}"#, "\"read\" occurs twice"),
            (
                r#"{"devices":[]}"#,
                "kind of permission \"devices\" is not known here: it needs a newer",
            ),
            (
                r#"{"read":["{data}/x"]}"#,
                "placeholder \"{data}\" is not known here: it needs a newer",
            ),
            (r#"{"read":["words"]}"#, "is absolute, or begins with {plugin}"),
            (r#"{"read":["~/words"]}"#, "is absolute, or begins with {plugin}"),
            (r#"{"read":["{home}words"]}"#, "`/` follows a placeholder"),
            (r#"{"read":["{home}/../other"]}"#, "it has `..`"),
            (r#"{"read":["/usr/.."]}"#, "it has `..`"),
            (r#"{"read":["/a\u0000b"]}"#, "control character"),
            (r#"{"read":["/a\u001b[2J"]}"#, "control character"),
            (r#"{"read":[""]}"#, "it is empty"),
            (r#"{"read":[7]}"#, "it is no text"),
            (r#"{"connect":[0]}"#, "from 1 to 65535"),
            (r#"{"connect":[65536]}"#, "from 1 to 65535"),
            (r#"{"connect":["443"]}"#, "from 1 to 65535"),
            (r#"{"environment":["A=b"]}"#, "has no `=`"),
            (r#"{"commands":[""]}"#, "it is empty"),
        ] {
            let error = text.parse::<Permissions>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let ports: Vec<_> = (1..=65).collect();
        let error = Permissions::from_value(&serde_json::json!({ "bind": ports })).unwrap_err();
        assert!(error.to_string().contains("65 permissions, the limit is 64"), "{error}");
    }

    #[test]
    fn more_is_what_others_do_not_include() {
        let allowed = parsed(
            r#"{"read":["{home}/a","/srv"],"write":["{home}/w"],"execute":["/opt/x"],"connect":[443],
                "commands":["log"],"environment":["A"]}"#,
        );
        let more = |text: &str| parsed(text).beyond(&allowed).to_json().to_string();
        assert_eq!(parsed("{}").beyond(&allowed), Permissions::default());
        for included in [
            r#"{"read":["{home}/a/b","/srv","/srv/x","{home}/w/x","/opt/x/y"]}"#,
            r#"{"write":["{home}/w","{home}/w/x"],"execute":["/opt/x/bin"]}"#,
            r#"{"connect":[443],"commands":["log"],"environment":["A"]}"#,
        ] {
            assert_eq!(more(included), "{}", "{included}");
        }
        for beyond in [
            r#"{"read":["/srv2","{plugin}/a","{home}","{home}/ab"]}"#,
            r#"{"write":["/srv","{home}/a"]}"#,
            r#"{"execute":["/srv","{home}/w"]}"#,
            r#"{"bind":[443],"commands":["logs"],"connect":[80],"environment":["a"]}"#,
        ] {
            assert_eq!(more(beyond), beyond);
        }
        let all = parsed(r#"{"read":["/"]}"#);
        assert!(parsed(r#"{"read":["{home}/x"]}"#).beyond(&all).is_empty());
    }

    #[test]
    fn a_file_beside_the_plugin_has_them() {
        let dir = tempfile::tempdir().unwrap();
        let plugin = dir.path().join("spell");
        assert!(Permissions::beside(&plugin).unwrap().is_none());
        let file = dir.path().join("spell.permissions.json");
        std::fs::write(&file, r#"{"connect":[443]}"#).unwrap();
        let found = Permissions::beside(&plugin).unwrap().unwrap();
        assert_eq!(found, parsed(r#"{"connect":[443]}"#));
        // Beside a link, or else beside its target.
        std::fs::write(&plugin, "").unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("spell", &link).unwrap();
        assert_eq!(Permissions::beside(&link).unwrap().unwrap(), found);
        std::fs::write(dir.path().join("link.permissions.json"), "{}").unwrap();
        assert_eq!(Permissions::beside(&link).unwrap().unwrap(), parsed("{}"));
        std::fs::write(&file, r#"{"usb":[]}"#).unwrap();
        let error = Permissions::beside(&plugin).unwrap_err().to_string();
        assert!(
            error.contains("spell.permissions.json\" has: ") && error.contains("newer"),
            "{error}"
        );
        std::fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = Permissions::beside(&plugin).unwrap_err().to_string();
        assert!(error.contains("it is a FIFO"), "{error}");
    }

    #[test]
    fn the_system_itself_and_long_lists_are_refused() {
        for path in ["/proc", "/proc/1/root", "/sys", "//./dev/shm"] {
            let text = serde_json::json!({ "read": [path] }).to_string();
            let error = text.parse::<Permissions>().unwrap_err().to_string();
            assert!(error.contains("which are the system itself"), "{path}: {error}");
        }
        let paths: Vec<_> = (0..4).map(|i| format!("/{i}{}", "x".repeat(3000))).collect();
        let text = serde_json::json!({ "read": paths }).to_string();
        let error = text.parse::<Permissions>().unwrap_err().to_string();
        assert!(error.contains("the limit is 8192"), "{error}");
    }
}
