//! Cache of the plugins' answers, kept from one listing to the next.
//!
//! The file is a help and no more: where it is missing, broken, of another version or cannot be
//! written, plugins are asked again. It is replaced as a whole, and processes that do so at the
//! same time wait for each other (a lock on its directory), so that what each of them found out
//! stays.

use std::collections::BTreeMap;
use std::fs::{self, Metadata as FileMetadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{PluginInfo, Transport};
use crate::files::{self, DirectoryLock, FileError, RegularFile};
use crate::integrity::Sha256;
use crate::plugin::Metadata;

/// The layout of the file; one of another number is as good as none.
const VERSION: u32 = 3;
/// A larger file is as good as none, in bytes.
const FILE_MAX: u64 = 256 << 20;
/// The most that is kept of one plugin, in bytes: who says more is asked each time.
const KEPT_MAX: usize = 64 << 10;
/// Time that an error is cached. What the plugin missed may be there later, though its file is the
/// same.
const ERROR_KEPT: Duration = Duration::from_secs(60 * 60);
/// A file as young as this may change again without its times telling: the kernel's clock for them
/// goes by ticks, of 10 ms at most.
const SETTLED: Duration = Duration::from_millis(100);

/// Cache file.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    path: PathBuf,
}

/// Cached facts, by the path of the plugin's file.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Kept {
    version: u32,
    plugins: BTreeMap<String, Facts>,
}

/// Facts of a file, valid as long as the file does not change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Facts {
    stamp: Stamp,
    answer: Option<KeptAnswer>,
    sha256: Option<Sha256>,
}

/// Identity and times of a file. Any write changes at least one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// The same; unlike the other one it cannot be set.
    changed: (i64, i64),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct KeptAnswer {
    /// Time of the answer, in seconds since 1970.
    at: u64,
    /// The sandbox that it was asked in, if there was one.
    sandbox: Option<String>,
    info: Result<KeptInfo, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct KeptInfo {
    /// Name of the format.
    format: String,
    /// Set for a plugin that talks over its standard input and output.
    #[serde(default)]
    stdio: bool,
    metadata: BTreeMap<String, String>,
}

impl Cache {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn load(&self) -> Kept {
        let path = &self.path;
        let bytes = match RegularFile::open(path).and_then(|file| file.read(FILE_MAX)) {
            Ok(bytes) => bytes,
            Err(FileError::System(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Kept::default();
            }
            Err(error) => {
                tracing::debug!(?path, %error, "the cache of metadata cannot be read");
                return Kept::default();
            }
        };
        match serde_json::from_slice::<Kept>(&bytes) {
            Ok(kept) if kept.version == VERSION => kept,
            Ok(kept) => {
                tracing::debug!(?path, version = kept.version, "a cache of another version");
                Kept::default()
            }
            Err(error) => {
                tracing::debug!(?path, %error, "the cache of metadata is broken");
                Kept::default()
            }
        }
    }

    /// Adds what is new to what is there by now, less the files that are gone.
    ///
    /// # Blocking
    /// While another process does so.
    pub(super) fn save(&self, news: Vec<(PathBuf, Facts)>) {
        let path = &self.path;
        if let Err(error) = self.update(news) {
            tracing::debug!(?path, %error, "the cache of metadata cannot be written");
        }
    }

    fn update(&self, news: Vec<(PathBuf, Facts)>) -> io::Result<()> {
        let dir = self.path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::IsADirectory))?;
        files::make_dir(dir)?;
        let _lock = DirectoryLock::take(dir)?;
        let mut kept = self.load();
        kept.version = VERSION;
        for (path, facts) in news {
            // A path that is no UTF-8 would need an encoding of its own; its plugin is asked each
            // time.
            if let Ok(path) = path.into_os_string().into_string() {
                kept.plugins.insert(path, facts);
            }
        }
        kept.plugins.retain(|path, _| !is_gone(path));
        files::replace_private(&self.path, &serde_json::to_vec(&kept)?)
    }
}

impl Kept {
    /// Facts of the file, if it has not changed.
    pub(super) fn facts(&self, path: &Path, stamp: &Stamp) -> Option<&Facts> {
        self.plugins.get(path.to_str()?).filter(|facts| facts.stamp == *stamp)
    }

    /// Tells whether a cached file no longer exists.
    pub(super) fn has_gone(&self) -> bool {
        self.plugins.keys().any(|path| is_gone(path))
    }
}

impl Facts {
    pub(super) fn new(stamp: Stamp) -> Self {
        Self { stamp, answer: None, sha256: None }
    }

    /// The plugin's answer, and `true` if it was given in a sandbox; `None` if it has to be asked
    /// again, inside `sandbox`.
    ///
    /// An answer is the same in each sandbox. A failure in one says nothing of another one, or of
    /// none.
    pub(super) fn info(
        &self,
        sandbox: Option<&str>,
        now: SystemTime,
    ) -> Option<(Result<PluginInfo, String>, bool)> {
        let answer = self.answer.as_ref()?;
        let info = match &answer.info {
            Ok(info) => {
                let metadata = Metadata::from_map(info.metadata.clone());
                let transport = if info.stdio { Transport::Stdio } else { Transport::Descriptors };
                Ok(PluginInfo { format: info.format.parse().ok()?, transport, metadata })
            }
            Err(_) if answer.sandbox.is_some() && answer.sandbox.as_deref() != sandbox => {
                return None;
            }
            Err(problem) => {
                let at = UNIX_EPOCH.checked_add(Duration::from_secs(answer.at))?;
                // One from the future was kept under another clock.
                let is_fresh = now.duration_since(at).is_ok_and(|age| age < ERROR_KEPT);
                is_fresh.then(|| Err(problem.clone()))?
            }
        };
        Some((info, answer.sandbox.is_some()))
    }

    /// Keeps what the plugin said inside `sandbox`, unless it is too much.
    pub(super) fn keep_info(
        &mut self,
        info: &Result<PluginInfo, String>,
        sandbox: Option<&str>,
        now: SystemTime,
    ) {
        let sandbox = sandbox.map(str::to_owned);
        let bytes: usize = match info {
            Ok(info) => info.metadata.iter().map(|(key, value)| key.len() + value.len()).sum(),
            Err(problem) => problem.len(),
        };
        let at = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let info = match info {
            Ok(info) => Ok(KeptInfo {
                format: info.format.to_string(),
                stdio: info.transport == Transport::Stdio,
                metadata: info.metadata.to_map(),
            }),
            Err(problem) => Err(problem.clone()),
        };
        self.answer = (bytes <= KEPT_MAX).then_some(KeptAnswer { at, sandbox, info });
    }

    /// Compares the file with the one that they are of.
    pub(super) fn is_of(&self, file: &FileMetadata) -> bool {
        self.stamp == Stamp::from(file)
    }

    pub(super) fn sha256(&self) -> Option<Sha256> {
        self.sha256
    }

    pub(super) fn keep_sha256(&mut self, sum: Sha256) {
        self.sha256 = Some(sum);
    }

    /// Tells that the file has not changed since `begun`, and that a change would show in its
    /// times.
    pub(super) fn hold(&self, path: &Path, begun: SystemTime) -> bool {
        self.age_at(begun).is_some_and(|age| age >= SETTLED)
            && Stamp::of(path).is_ok_and(|now| now == self.stamp)
    }

    /// The time until a change of the file would show in its times, no more than 100 ms.
    pub(super) fn until_settled(&self, now: SystemTime) -> Duration {
        self.age_at(now).map_or(Duration::ZERO, |age| SETTLED.saturating_sub(age))
    }

    /// The age of the file; `None` for one from the future.
    fn age_at(&self, now: SystemTime) -> Option<Duration> {
        let (seconds, nanos) = self.stamp.changed;
        let since = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?);
        now.duration_since(UNIX_EPOCH.checked_add(since)?).ok()
    }
}

impl Stamp {
    /// Stamp of the file at `path`; symbolic links are followed.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|file| Self::from(&file))
    }
}

impl From<&FileMetadata> for Stamp {
    fn from(file: &FileMetadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// Tells whether a file no longer exists. A file that cannot be examined counts as existing.
fn is_gone(path: &str) -> bool {
    let gone = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
    fs::symlink_metadata(path).is_err_and(|error| gone.contains(&error.kind()))
}

#[cfg(test)]
mod tests {
    use pipeplug_net::wire::Format;

    use super::*;

    fn info(value: &str) -> Result<PluginInfo, String> {
        let metadata = Metadata::from_map([("Help".to_owned(), value.to_owned())].into());
        Ok(PluginInfo { metadata, format: Format::Classic, transport: Transport::Stdio })
    }

    fn facts_of(path: &Path) -> Facts {
        Facts::new(Stamp::of(path).unwrap())
    }

    #[test]
    fn an_answer_is_kept_as_it_was_and_an_error_for_an_hour() {
        let now = SystemTime::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut facts = facts_of(Path::new("/"));
        assert_eq!(facts.info(None, now), None);
        facts.keep_info(&info("text"), None, now);
        assert_eq!(facts.info(None, after(1_000_000)), Some((info("text"), false)));
        facts.keep_info(&Err("broken".into()), None, now);
        assert_eq!(facts.info(None, after(3590)), Some((Err("broken".into()), false)));
        assert_eq!(facts.info(None, after(3610)), None);
        assert_eq!(facts.info(None, now - Duration::from_secs(60)), None, "the clock was set back");
    }

    #[test]
    fn an_error_in_a_sandbox_holds_for_the_same_sandbox_only() {
        let now = SystemTime::now();
        let mut facts = facts_of(Path::new("/"));
        facts.keep_info(&Err("broken".into()), Some("strict"), now);
        assert_eq!(facts.info(Some("strict"), now), Some((Err("broken".into()), true)));
        assert_eq!(facts.info(Some("basic"), now), None);
        assert_eq!(facts.info(None, now), None);
        facts.keep_info(&Err("broken".into()), None, now);
        assert_eq!(facts.info(Some("strict"), now), Some((Err("broken".into()), false)));
        facts.keep_info(&info("text"), Some("strict"), now);
        for sandbox in [None, Some("basic"), Some("strict")] {
            assert_eq!(facts.info(sandbox, now), Some((info("text"), true)));
        }
    }

    #[test]
    fn what_is_too_much_is_not_kept() {
        let now = SystemTime::now();
        let mut facts = facts_of(Path::new("/"));
        facts.keep_info(&info(&"x".repeat(KEPT_MAX - "Help".len())), None, now);
        assert!(facts.info(None, now).is_some());
        facts.keep_info(&info(&"x".repeat(KEPT_MAX)), None, now);
        assert_eq!(facts.info(None, now), None);
        facts.keep_info(&Err("x".repeat(KEPT_MAX + 1)), None, now);
        assert_eq!(facts.info(None, now), None);
    }

    #[test]
    fn a_file_that_is_young_or_changes_meanwhile_has_nothing_kept() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (path, facts) = (file.path(), facts_of(file.path()));
        let (seconds, nanos) = facts.stamp.changed;
        let changed =
            UNIX_EPOCH + Duration::new(seconds.try_into().unwrap(), nanos.try_into().unwrap());
        assert!(facts.hold(path, changed + SETTLED));
        assert!(!facts.hold(path, changed + SETTLED / 2));
        assert!(!facts.hold(path, changed - SETTLED));
        fs::write(path, "more").unwrap();
        assert!(!facts.hold(path, changed + SETTLED));
        drop(file);
        assert!(!facts.hold(Path::new("/nonexistent/file"), changed + SETTLED));
    }

    #[test]
    fn a_time_that_no_clock_shows_is_no_panic() {
        let mut facts = facts_of(Path::new("/"));
        facts.answer = Some(KeptAnswer { at: u64::MAX, sandbox: None, info: Err("broken".into()) });
        assert_eq!(facts.info(None, SystemTime::now()), None);
    }
}
