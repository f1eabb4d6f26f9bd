//! The sums of a host's plugins, in a file.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{self, Path, PathBuf};

use serde_json::{Value, json};

use crate::files::{self, DirectoryLock, FileError, RegularFile, json};
use crate::integrity::Sha256;
use crate::permissions::Permissions;
use crate::process::Launch;

/// Version of a file without permissions.
const VERSION: u64 = 1;
/// Version of a file with permissions, which programs that know only the first one do not read: they
/// would lose the permissions when they write the file.
const VERSION_WITH_PERMISSIONS: u64 = 2;
/// A larger file is none of ours, in bytes.
const FILE_MAX: u64 = 16 << 20;

/// The SHA-256 sums of a host's plugins, which
/// [`PluginBuilder::lock_file`](crate::PluginBuilder::lock_file) demands.
///
/// A JSON file, made to be kept beside the host's own files in version control: a plugin below the
/// file's directory is named relative to it, any other one by its absolute path.
///
/// ```text
/// {
///   "plugins": {
///     "plugins/echo": "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
///   },
///   "version": 1
/// }
/// ```
///
/// Beside the sums it can have the descriptions of the plugins' typed services, as `interfaces`
/// ([`pin_interface`](Self::pin_interface)). A host with the feature `service` refuses a plugin
/// then whose services break callers of the pinned ones, such as a script whose modules have
/// changed.
///
/// It can also have what each plugin is allowed, as `permissions` ([`allow`](Self::allow)), which
/// [`PluginBuilder::permissions_from`](crate::PluginBuilder::permissions_from) enforces. Such a file
/// has the version 2; older programs do not read it.
///
/// [`update`](Self::update) is for programs that change one: of those that do so at the same time
/// each one's change stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockFile {
    /// Path without symbolic links, except perhaps its last part.
    path: PathBuf,
    pins: BTreeMap<String, Sha256>,
    /// Descriptions of the services of plugins.
    interfaces: BTreeMap<String, Value>,
    /// Permissions that plugins are allowed.
    permissions: BTreeMap<String, Permissions>,
}

/// Error of a lock file.
#[derive(Debug)]
pub struct LockFileError {
    path: PathBuf,
    kind: LockFileErrorKind,
}

/// Kind of a [`LockFileError`]. Its text continues a message that begins with the lock file's path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockFileErrorKind {
    /// The lock file does not exist.
    #[error("`pipeplug pin PLUGIN` makes one")]
    Missing,
    /// The lock file cannot be read or written.
    #[error("cannot be {what}: {error}")]
    Io {
        /// The action that failed.
        what: &'static str,
        /// Error of the system.
        error: io::Error,
    },
    /// The content is not what this version writes.
    #[error(
        "cannot be understood: {problem}; restore it from version control, or remove it and pin \
         the plugins again"
    )]
    Malformed {
        /// The problem.
        problem: String,
    },
    /// A plugin cannot be pinned.
    #[error("plugin {plugin:?} cannot be pinned: {problem}")]
    Plugin {
        /// The plugin's path.
        plugin: PathBuf,
        /// The problem.
        problem: String,
    },
}

impl LockFileError {
    fn new(path: &Path, kind: LockFileErrorKind) -> Self {
        Self { path: path.to_owned(), kind }
    }

    /// Path of the lock file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Kind of the error.
    #[must_use]
    pub fn kind(&self) -> &LockFileErrorKind {
        &self.kind
    }
}

impl fmt::Display for LockFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, kind } = self;
        match kind {
            LockFileErrorKind::Missing => write!(f, "there is no lock file {path:?}: {kind}"),
            LockFileErrorKind::Plugin { .. } => kind.fmt(f),
            _ => write!(f, "the lock file {path:?} {kind}"),
        }
    }
}

impl std::error::Error for LockFileError {}

impl LockFile {
    /// Default name of a lock file.
    pub const NAME: &'static str = "pipeplug.lock";

    /// Reads it.
    ///
    /// # Errors
    /// There is no such file, or it cannot be read or parsed.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LockFileError> {
        let path = path.as_ref();
        Self::read(path).map_err(|kind| LockFileError::new(path, kind))
    }

    fn read(path: &Path) -> Result<Self, LockFileErrorKind> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => LockFileErrorKind::Missing,
            _ => LockFileErrorKind::Io { what: "read", error },
        };
        let malformed = |problem: String| LockFileErrorKind::Malformed { problem };
        let text = match RegularFile::open(path).and_then(|file| file.read(FILE_MAX)) {
            Ok(text) => text,
            Err(FileError::System(error)) => return Err(failed(error)),
            Err(error) => return Err(malformed(error.to_string())),
        };
        let path = located(path).map_err(failed)?;
        parse(path, &text).map_err(malformed)
    }

    fn empty(path: PathBuf) -> Self {
        let (pins, interfaces, permissions) = Default::default();
        Self { path, pins, interfaces, permissions }
    }

    /// Reads it, or takes an empty one where there is none.
    ///
    /// # Errors
    /// The file cannot be read or parsed.
    pub fn open_or_new(path: impl AsRef<Path>) -> Result<Self, LockFileError> {
        let path = path.as_ref();
        match Self::open(path) {
            Err(LockFileError { kind: LockFileErrorKind::Missing, .. }) => {
                let located = located(path).map_err(|error| {
                    let kind = LockFileErrorKind::Io { what: "written there", error };
                    LockFileError::new(path, kind)
                })?;
                Ok(Self::empty(located))
            }
            opened => opened,
        }
    }

    /// Changes the file: reads it, or takes an empty one where there is none, and writes what
    /// `change` makes of it, whole or not at all. Where `change` fails nothing is written.
    ///
    /// Updates of one file wait for each other, in all processes, so that none is lost. They hold a
    /// lock (flock(2)) on the directory that the file is in, which leaves nothing behind. A file
    /// system without such locks (NFS has none for directories) goes without, with a warning in the
    /// log.
    ///
    /// ```no_run
    /// use pipeplug_host::{LockFile, LockFileError};
    ///
    /// LockFile::update(LockFile::NAME, |lock| {
    ///     lock.pin("plugins/spell")?;
    ///     lock.pin("plugins/count")?;
    ///     Ok::<(), LockFileError>(())
    /// })?;
    /// # Ok::<(), LockFileError>(())
    /// ```
    ///
    /// # Errors
    /// As [`open_or_new`](Self::open_or_new) and [`save`](Self::save), and those of `change`.
    ///
    /// # Blocking
    /// While another process updates the file, or has the directory locked for another reason; and
    /// on `change`.
    pub fn update<T, E: From<LockFileError>>(
        path: impl AsRef<Path>,
        change: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let path = path.as_ref();
        let _lock =
            directory_of(path).and_then(|dir| DirectoryLock::take(&dir)).map_err(|error| {
                let kind = LockFileErrorKind::Io { what: "locked for the update", error };
                LockFileError::new(path, kind)
            })?;
        let mut file = Self::open_or_new(path)?;
        let changed = change(&mut file)?;
        file.save()?;
        Ok(changed)
    }

    /// Takes a plugin's sum as it is now; [`save`](Self::save) keeps it.
    ///
    /// # Errors
    /// An error of reading the plugin's file; a file of more bytes than can be checked
    /// ([`Launch::CHECKED_SIZE_MAX`]).
    ///
    /// # Blocking
    /// On reading all of the plugin's file.
    pub fn pin(&mut self, plugin: impl AsRef<Path>) -> Result<Sha256, LockFileError> {
        let plugin = plugin.as_ref();
        let failed = |problem: String| {
            let kind = LockFileErrorKind::Plugin { plugin: plugin.to_owned(), problem };
            LockFileError::new(&self.path, kind)
        };
        let file = RegularFile::open(plugin).map_err(|error| failed(error.to_string()))?;
        let sum = Sha256::of_limited(&file, Launch::CHECKED_SIZE_MAX)
            .map_err(|error| failed(error.to_string()))?;
        let key = self.key_of(plugin)?;
        self.pins.insert(key, sum);
        Ok(sum)
    }

    /// Takes the description of a plugin's typed services, which the plugin gives to the request
    /// `GetServices`, beside its sum; [`save`](Self::save) keeps it. `None` removes it.
    ///
    /// # Errors
    /// An error of the system for the plugin's path, or the path is no UTF-8.
    pub fn pin_interface(
        &mut self,
        plugin: impl AsRef<Path>,
        description: Option<Value>,
    ) -> Result<(), LockFileError> {
        let key = self.key_of(plugin.as_ref())?;
        match description {
            Some(description) => self.interfaces.insert(key, description),
            None => self.interfaces.remove(&key),
        };
        Ok(())
    }

    /// Records what a plugin is allowed; [`save`](Self::save) keeps it. `None` removes it.
    ///
    /// # Errors
    /// An error of the system for the plugin's path, or the path is no UTF-8.
    pub fn allow(
        &mut self,
        plugin: impl AsRef<Path>,
        permissions: Option<Permissions>,
    ) -> Result<(), LockFileError> {
        let key = self.key_of(plugin.as_ref())?;
        match permissions {
            Some(permissions) => self.permissions.insert(key, permissions),
            None => self.permissions.remove(&key),
        };
        Ok(())
    }

    /// The permissions that a plugin is allowed, if they are recorded.
    ///
    /// # Errors
    /// What the system says to the plugin's path.
    pub fn permissions_of(&self, plugin: impl AsRef<Path>) -> io::Result<Option<&Permissions>> {
        Ok(self.key(plugin.as_ref())?.and_then(|key| self.permissions.get(&key)))
    }

    /// The description of a plugin's typed services, if it is pinned.
    ///
    /// # Errors
    /// What the system says to the plugin's path.
    pub fn interface_of(&self, plugin: impl AsRef<Path>) -> io::Result<Option<&Value>> {
        Ok(self.key(plugin.as_ref())?.and_then(|key| self.interfaces.get(&key)))
    }

    /// A plugin's sum, if it is pinned.
    ///
    /// # Errors
    /// What the system says to the plugin's path.
    pub fn sum_of(&self, plugin: impl AsRef<Path>) -> io::Result<Option<Sha256>> {
        Ok(self.key(plugin.as_ref())?.and_then(|key| self.pins.get(&key).copied()))
    }

    /// The name of a plugin in the file, however its path is written; `None` where the path is no
    /// UTF-8.
    ///
    /// # Errors
    /// An error of the system for the plugin's path.
    pub fn name_of(&self, plugin: impl AsRef<Path>) -> io::Result<Option<String>> {
        self.key(plugin.as_ref())
    }

    /// All pins: the plugins as they are named in the file, and their sums.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Sha256)> {
        self.pins.iter().map(|(name, sum)| (name.as_str(), *sum))
    }

    /// Writes the file, whole or not at all, whatever happens meanwhile. What another process has
    /// written since this one was read is lost, unless that is done by [`update`](Self::update).
    ///
    /// # Errors
    /// The file cannot be written. The old file is kept.
    pub fn save(&self) -> Result<(), LockFileError> {
        let failed = |error| {
            LockFileError::new(&self.path, LockFileErrorKind::Io { what: "written", error })
        };
        // A link to it stays one.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let pins: BTreeMap<_, _> =
            self.pins.iter().map(|(name, sum)| (name, sum.to_string())).collect();
        let version = if self.permissions.is_empty() { VERSION } else { VERSION_WITH_PERMISSIONS };
        let mut file = json!({ "version": version, "plugins": pins });
        if !self.interfaces.is_empty() {
            file["interfaces"] = json!(self.interfaces);
        }
        if !self.permissions.is_empty() {
            let permissions = self.permissions.iter().map(|(name, of)| (name, of.to_json()));
            file["permissions"] = json!(permissions.collect::<BTreeMap<_, _>>());
        }
        let text = format!("{file:#}\n");
        files::replace(&path, text.as_bytes()).map_err(failed)
    }

    /// Key of a plugin in the file, for an entry of it.
    fn key_of(&self, plugin: &Path) -> Result<String, LockFileError> {
        let failed = |problem: String| {
            let kind = LockFileErrorKind::Plugin { plugin: plugin.to_owned(), problem };
            LockFileError::new(&self.path, kind)
        };
        let key = self.key(plugin).map_err(|error| failed(error.to_string()))?;
        key.ok_or_else(|| failed("its path is no UTF-8".to_owned()))
    }

    /// Key of a plugin in the file; `None` if its path is not UTF-8.
    fn key(&self, plugin: &Path) -> io::Result<Option<String>> {
        let plugin = located(plugin)?;
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        let named = plugin.strip_prefix(dir).unwrap_or(&plugin);
        Ok(named.to_str().map(str::to_owned))
    }
}

/// The directory that the file itself is in, where the path leads to it through a link.
fn directory_of(path: &Path) -> io::Result<PathBuf> {
    let file = match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => located(path)?,
        file => file?,
    };
    Ok(file.parent().unwrap_or(Path::new("/")).to_owned())
}

/// The absolute path of a file, with no link in it but perhaps the last part: the file is what its
/// name says, wherever that points to at the time.
fn located(file: &Path) -> io::Result<PathBuf> {
    let file = path::absolute(file)?;
    match (file.parent(), file.file_name()) {
        (Some(dir), Some(name)) => Ok(fs::canonicalize(dir)?.join(name)),
        _ => fs::canonicalize(&file),
    }
}

fn parse(path: PathBuf, text: &[u8]) -> Result<LockFile, String> {
    let file = json::parse(text).map_err(|error| format!("it is no JSON ({error})"))?;
    match file.get("version").and_then(Value::as_u64) {
        Some(VERSION | VERSION_WITH_PERMISSIONS) => {}
        Some(other) => {
            return Err(format!(
                "its version is {other}, this program knows up to {VERSION_WITH_PERMISSIONS}"
            ));
        }
        None => return Err("it has no `version`".to_owned()),
    }
    let Some(Value::Object(plugins)) = file.get("plugins") else {
        return Err("it has no object `plugins`".to_owned());
    };
    let interfaces = match file.get("interfaces") {
        None => BTreeMap::new(),
        Some(Value::Object(interfaces)) => {
            interfaces.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
        }
        Some(_) => return Err("its `interfaces` are no object".to_owned()),
    };
    let permissions = match file.get("permissions") {
        None => Ok(BTreeMap::new()),
        Some(Value::Object(permissions)) => permissions
            .iter()
            .map(|(name, of)| match Permissions::from_value(of) {
                Ok(of) => Ok((name.clone(), of)),
                Err(error) => Err(format!("the permissions of {name:?}: {error}")),
            })
            .collect(),
        Some(_) => Err("its `permissions` are no object".to_owned()),
    };
    let pins: Result<_, _> = plugins
        .iter()
        .map(|(name, sum)| match sum.as_str().map(str::parse) {
            Some(Ok(sum)) => Ok((name.clone(), sum)),
            Some(Err(error)) => Err(format!("{name:?}: {error}")),
            None => Err(format!("{name:?}: its sum is not a string")),
        })
        .collect();
    Ok(LockFile { path, pins: pins?, interfaces, permissions: permissions? })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn pins_are_found_again_however_the_plugin_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) =
            (dir.path().join("host/plugins/echo"), dir.path().join("elsewhere"));
        fs::create_dir_all(inside.parent().unwrap()).unwrap();
        fs::write(&inside, "inside").unwrap();
        fs::write(&outside, "outside").unwrap();
        symlink(dir.path().join("host"), dir.path().join("link")).unwrap();
        let path = dir.path().join("host/pipeplug.lock");
        let mut lock = LockFile::open_or_new(&path).unwrap();
        let sum = lock.pin(&inside).unwrap();
        lock.pin(&outside).unwrap();
        lock.save().unwrap();

        let read = LockFile::open(dir.path().join("link/pipeplug.lock")).unwrap();
        let names: Vec<_> = read.iter().map(|(name, _)| name.to_owned()).collect();
        let outside = outside.canonicalize().unwrap();
        let mut expected = [outside.to_str().unwrap(), "plugins/echo"];
        expected.sort_unstable();
        assert_eq!(names, expected);
        for way in ["link/plugins/echo", "host/plugins/../plugins/./echo"] {
            assert_eq!(read.sum_of(dir.path().join(way)).unwrap(), Some(sum), "{way}");
        }
        assert_eq!(read.sum_of(&path).unwrap(), None);
        let left: Vec<_> = fs::read_dir(dir.path().join("host")).unwrap().collect();
        assert_eq!(left.len(), 2, "nothing is left of the writing: {left:?}");
    }

    #[test]
    fn interfaces_are_kept_beside_the_sums() {
        let dir = tempfile::tempdir().unwrap();
        let (plugin, path) = (dir.path().join("spell"), dir.path().join("pipeplug.lock"));
        fs::write(&plugin, "").unwrap();
        let description = json!({ "services": [{ "name": "spell" }] });
        let update = |change: &dyn Fn(&mut LockFile) -> Result<(), LockFileError>| {
            LockFile::update(&path, change).unwrap();
        };
        update(&|lock| {
            lock.pin(&plugin)?;
            lock.pin_interface(&plugin, Some(description.clone()))
        });
        update(&|lock| lock.pin(&plugin).map(drop));
        let lock = LockFile::open(&path).unwrap();
        assert_eq!(lock.interface_of(&plugin).unwrap(), Some(&description));
        assert_eq!(lock.interface_of(&path).unwrap(), None);
        update(&|lock| lock.pin_interface(&plugin, None));
        assert!(!fs::read_to_string(&path).unwrap().contains("interfaces"));
    }

    #[test]
    fn permissions_are_kept_and_make_a_file_of_a_newer_version() {
        let dir = tempfile::tempdir().unwrap();
        let (plugin, path) = (dir.path().join("spell"), dir.path().join("pipeplug.lock"));
        fs::write(&plugin, "").unwrap();
        let version = || json::parse(&fs::read(&path).unwrap()).unwrap()["version"].clone();
        fs::write(&path, r#"{"version":1,"plugins":{}}"#).unwrap();
        LockFile::update(&path, |lock| lock.pin(&plugin).map(drop)).unwrap();
        assert_eq!(version(), 1);
        assert_eq!(LockFile::open(&path).unwrap().permissions_of(&plugin).unwrap(), None);
        let allowed: Permissions = r#"{"connect":[443]}"#.parse().unwrap();
        LockFile::update(&path, |lock| lock.allow(&plugin, Some(allowed.clone()))).unwrap();
        LockFile::update(&path, |lock| lock.pin(&plugin).map(drop)).unwrap();
        assert_eq!(version(), 2);
        let lock = LockFile::open(&path).unwrap();
        assert_eq!(lock.permissions_of(&plugin).unwrap(), Some(&allowed));
        assert!(lock.sum_of(&plugin).unwrap().is_some());
        LockFile::update(&path, |lock| lock.allow(&plugin, None)).unwrap();
        assert_eq!(version(), 1);
    }

    #[test]
    fn updates_of_one_file_wait_for_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("real/pipeplug.lock");
        fs::create_dir(dir.path().join("real")).unwrap();
        let link = dir.path().join("link.lock");
        symlink(&path, &link).unwrap();
        let plugin = |i| dir.path().join(format!("plugin{i}"));
        fs::write(plugin(100), "").unwrap();
        LockFile::update(&path, |lock| lock.pin(plugin(100)).map(drop)).unwrap();
        std::thread::scope(|scope| {
            for i in 0..10 {
                fs::write(plugin(i), "").unwrap();
                let (path, plugin) = (if i % 2 == 0 { &path } else { &link }, plugin(i));
                scope.spawn(move || {
                    LockFile::update(path, |lock| lock.pin(plugin).map(drop)).unwrap()
                });
            }
        });
        assert_eq!(LockFile::open(&path).unwrap().iter().count(), 11);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let left = fs::read_dir(dir.path().join("real")).unwrap().count();
        assert_eq!(left, 1, "nothing is left of the lock");

        let before = fs::read(&path).unwrap();
        let failed = LockFile::update(&path, |lock| {
            lock.pins.clear();
            lock.pin(dir.path().join("missing")).map(drop)
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn what_cannot_be_read_to_its_end_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (lock, fifo, sparse) =
            (dir.path().join("lock"), dir.path().join("fifo"), dir.path().join("sparse"));
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::File::create(&sparse).unwrap().set_len(6 << 30).unwrap();
        let mut file = LockFile::open_or_new(&lock).unwrap();
        let cases = [
            (LockFile::open(&fifo), "it is a FIFO, not a regular file"),
            (LockFile::open("/dev/zero"), "it is a device, not a regular file"),
            (LockFile::open(&sparse), "it has 6442450944 bytes, the limit is 16777216"),
            (LockFile::update(&fifo, |lock| Ok(lock.clone())), "it is a FIFO, not a regular file"),
            (file.pin(&fifo).map(|_| file.clone()), "it is a FIFO, not a regular file"),
            (
                file.pin(&sparse).map(|_| file.clone()),
                "it has 6442450944 bytes, the limit is 1073741824",
            ),
        ];
        for (opened, part) in cases {
            let error = opened.unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn what_is_no_lock_file_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipeplug.lock");
        let problem = || LockFile::open(&path).unwrap_err().to_string();
        assert!(problem().contains("there is no lock file"), "{}", problem());
        for (text, part) in [
            ("", "no JSON"),
            ("{}", "no `version`"),
            (r#"{"version":3,"plugins":{}}"#, "version is 3"),
            (r#"{"version":1}"#, "no object `plugins`"),
            (r#"{"version":1,"plugins":{},"interfaces":1}"#, "`interfaces` are no object"),
            (r#"{"version":2,"plugins":{},"permissions":1}"#, "`permissions` are no object"),
            (
                r#"{"version":2,"plugins":{},"permissions":{"a":{"usb":[]}}}"#,
                "permissions of \"a\": the kind of permission \"usb\" is not known here",
            ),
            (r#"{"version":1,"plugins":{"a":"12"}}"#, "64 hexadecimal digits"),
            (r#"{"version":1,"plugins":{"a":7}}"#, "not a string"),
            (r#"{"version":1,"plugins":{"a":"12","a":"12"}}"#, "the key \"a\" occurs twice"),
            (r#"{"version":1,"version":1,"plugins":{}}"#, "the key \"version\" occurs twice"),
        ] {
            fs::write(&path, text).unwrap();
            assert!(problem().contains(part), "{}", problem());
            assert!(LockFile::open_or_new(&path).is_err(), "{text} is not overwritten");
        }
    }
}
