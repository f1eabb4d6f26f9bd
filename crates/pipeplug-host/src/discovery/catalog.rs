//! Catalog of plugins: each plugin's answer, asked once for each file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use super::cache::{Facts, Kept, Stamp};
use super::probe::{is_about_the_plugin, probe};
use super::starts::{AT_ONCE, Starts};
use super::{Discovery, Entry, EntryState, InstallRecord, PluginInfo, Problem};
use crate::files::RegularFile;
use crate::integrity::Sha256;
use crate::plugin::{Grace, Plugin, PluginBuilder, StartError};
use crate::process::Stdout;

/// Time for each step of stopping a plugin.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);
/// Time for a plugin to answer, in a listing of many.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The plugins that a [`Discovery`] finds, with what each says of itself.
///
/// Each plugin is started for a moment to find that out, once for each file, and in a
/// [strict](crate::Sandbox::strict) sandbox, since it is not trusted yet. The answer is kept in the
/// user's cache directory (`$XDG_CACHE_HOME/<host>/pipeplug.json`, or below `~/.cache`) until the
/// file's size, times, device or inode are other ones. So a plugin whose answer depends on
/// something else than its file is asked anew only by [`refresh`](Self::refresh). That a plugin
/// failed to answer is kept too, for an hour at most. Where there is no home directory, or the
/// cache cannot be written, plugins are asked each time.
///
/// An answer holds wherever it was given. A failure inside a sandbox may be due to the sandbox, so
/// it is kept for listings with the same one; a failure outside of any is kept for all.
///
/// ```no_run
/// use pipeplug_host::discovery::Discovery;
///
/// let plugins = Discovery::for_host("editor");
/// for listed in plugins.catalog().list() {
///     match listed.answer.map(|answer| answer.info) {
///         Some(Ok(info)) => println!("{}: {}", listed.entry.name, info.metadata.value("Help").unwrap_or_default()),
///         Some(Err(problem)) => eprintln!("{}: {problem}", listed.entry.name),
///         None => {} // shadowed, or no executable
///     }
/// }
/// ```
#[derive(Clone)]
pub struct Catalog {
    discovery: Discovery,
    configure: Arc<dyn Fn(PluginBuilder) -> PluginBuilder + Send + Sync>,
    progress: Arc<dyn Fn(Progress) + Send + Sync>,
}

/// Progress of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Number of plugins that have answered or failed.
    pub done: usize,
    /// Number of plugins that are probed for this listing.
    pub all: usize,
}

/// An entry of a [`Catalog`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CatalogEntry {
    /// Name, path and state.
    pub entry: Entry,
    /// Answer of the plugin. `None` if it cannot be started by its name, or was not to be started.
    pub answer: Option<ProbeResult>,
    /// Record of [`Store::add`](super::Store::add), if the plugin was added by it.
    pub added: Option<InstallRecord>,
    /// The sum of its file, where that is not the one that was added.
    pub changed: Option<Sha256>,
}

/// Result of probing a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProbeResult {
    /// The plugin's answer, or the reason why there is none.
    pub info: Result<PluginInfo, String>,
    /// Age of the result.
    pub freshness: Freshness,
    /// Inside a sandbox: one that did not answer may need more than that grants.
    pub in_sandbox: bool,
}

/// Age of the result of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// From this listing.
    Fresh,
    /// From an earlier listing, with the same file.
    Remembered,
}

/// Which plugins are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Selection {
    Unknown,
    All,
    None,
}

impl Catalog {
    pub(super) fn new(discovery: Discovery) -> Self {
        Self { discovery, configure: Arc::new(|builder| builder), progress: Arc::new(|_| ()) }
    }

    /// Changes how plugins are started to be asked. Default: five seconds to answer, half a second
    /// for each step of stopping, standard output to the log, everything else as
    /// [`Plugin::builder`] has it; and [`Sandbox::strict`](crate::Sandbox::strict), which
    /// [`PluginBuilder::no_sandbox`] and [`PluginBuilder::sandbox`] change. There is no sandbox by
    /// default where the system has none to offer (other systems than Linux), and with launchers
    /// that see to none.
    #[must_use]
    pub fn starting(
        mut self,
        configure: impl Fn(PluginBuilder) -> PluginBuilder + Send + Sync + 'static,
    ) -> Self {
        self.configure = Arc::new(configure);
        self
    }

    /// Calls `progress` before the first plugin is probed and after each, on the threads that
    /// probe.
    #[must_use]
    pub fn on_progress(mut self, progress: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Arc::new(progress);
        self
    }

    /// Lists all there is, and asks those plugins of which nothing is known.
    ///
    /// # Blocking
    /// Until each of these has answered and ended. Eight start at once; one that takes longer than
    /// a second holds no other one up, so that 64 that hang take as long as one: by default 5
    /// seconds for the usual way to talk, and 2 for each of the three others
    /// ([`probe`](Self::probe)). And on reading the files that were added and have changed.
    #[must_use]
    pub fn list(&self) -> Vec<CatalogEntry> {
        self.collect(Selection::Unknown)
    }

    /// Lists all there is, and asks all plugins, whatever is known of them.
    ///
    /// # Blocking
    /// As [`list`](Self::list), with every plugin, and every file that was added.
    #[must_use]
    pub fn refresh(&self) -> Vec<CatalogEntry> {
        self.collect(Selection::All)
    }

    /// Lists all there is, with what is known, and starts no plugin.
    ///
    /// # Blocking
    /// On reading the files that were added and have changed.
    #[must_use]
    pub fn known(&self) -> Vec<CatalogEntry> {
        self.collect(Selection::None)
    }

    /// Probes the plugin at `path`, without the cache. It is asked over descriptors 3 and 4, and if
    /// it does not answer there, over its standard input and output; in both formats.
    /// [`PluginInfo`] tells which of them it answered.
    ///
    /// # Errors
    /// As [`PluginBuilder::start`].
    ///
    /// # Blocking
    /// Until it has answered and ended.
    pub fn probe(&self, path: impl Into<PathBuf>) -> Result<PluginInfo, StartError> {
        probe(&self.builder(path))
    }

    /// Cached answer of the plugin at `path`, if its file has not changed since.
    #[must_use]
    pub fn remembered(&self, path: impl AsRef<Path>) -> Option<PluginInfo> {
        let path = path.as_ref();
        let kept = self.discovery.cache.as_ref()?.load();
        let (info, _) = kept.facts(path, &Stamp::of(path).ok()?)?.info(None, SystemTime::now())?;
        info.ok()
    }

    /// Takes note of what files have said of themselves, as of their copies before these had their
    /// path: listings do not ask them again.
    ///
    /// # Blocking
    /// Until the files are 100 milliseconds old: a younger one may change without its times
    /// telling.
    pub fn remember(&self, info: impl IntoIterator<Item = (PathBuf, PluginInfo)>) {
        let Some(cache) = &self.discovery.cache else { return };
        let facts = |(path, info): (PathBuf, PluginInfo)| {
            let sandbox = self.sandbox_of(&path);
            let mut facts = Facts::new(Stamp::of(&path).ok()?);
            facts.keep_info(&Ok(info), sandbox.as_deref(), SystemTime::now());
            Some((path, facts))
        };
        let news: Vec<_> = info.into_iter().filter_map(facts).collect();
        let now = SystemTime::now();
        let wait = news.iter().map(|(_, facts)| facts.until_settled(now)).max().unwrap_or_default();
        thread::sleep(wait);
        let now = now + wait;
        let news: Vec<_> = news.into_iter().filter(|(path, facts)| facts.hold(path, now)).collect();
        if !news.is_empty() {
            cache.save(news);
        }
    }

    /// The sandbox that a plugin is asked in, and the names of variables that it gets beside the
    /// usual ones, as text: others are another text.
    fn sandbox_of(&self, path: &Path) -> Option<String> {
        let launch = self.builder(path).launch;
        let mut sandbox = format!("{:?}", launch.sandbox?);
        for name in launch.env.names() {
            sandbox.push_str(&format!(" {name:?}"));
        }
        Some(sandbox)
    }

    fn collect(&self, selection: Selection) -> Vec<CatalogEntry> {
        let cache = self.discovery.cache.as_ref();
        let kept = cache.map(|cache| cache.load()).unwrap_or_default();
        let mut rows = self.rows(&kept, selection);
        self.probe_all(&mut rows, selection);
        let news: Vec<_> = rows.iter_mut().filter_map(Row::take_news).collect();
        if let Some(cache) = cache.filter(|_| !news.is_empty() || kept.has_gone()) {
            cache.save(news);
        }
        rows.into_iter().map(|row| row.listed).collect()
    }

    /// All that is found out without a start.
    fn rows(&self, kept: &Kept, selection: Selection) -> Vec<Row> {
        let mut entries = self.discovery.list();
        let (store, mut records) = (self.discovery.store.as_ref(), BTreeMap::new());
        if let Some(store) = store {
            match store.added() {
                Ok(found) => records = found,
                Err(error) => {
                    let problem = Problem::Records { reason: error.to_string() };
                    entries.insert(0, Entry::unusable("", &store.records_path(), problem));
                }
            }
        }
        let begun = SystemTime::now();
        entries
            .into_iter()
            .map(|entry| {
                let sandbox = self.sandbox_of(&entry.path);
                let is_of_store = store.is_some_and(|store| {
                    store.path_of(&entry.name).as_deref() == Some(&*entry.path)
                });
                let added = if is_of_store { records.remove(&entry.name) } else { None };
                Row::new(entry, added, kept, begun, selection, sandbox)
            })
            .collect()
    }

    /// Probes several plugins at once, since most of the time is spent waiting.
    fn probe_all(&self, rows: &mut [Row], selection: Selection) {
        let to_ask: Vec<_> = rows
            .iter_mut()
            .filter(|row| selection != Selection::None && row.is_unknown())
            .collect();
        let all = to_ask.len();
        if all > 0 {
            (self.progress)(Progress { done: 0, all });
        }
        let threads = AT_ONCE.min(all);
        let (starts, done) = (Starts::default(), AtomicUsize::new(0));
        let work = Mutex::new(to_ask.into_iter());
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    // The lock is held to take one, and not while it is asked.
                    while let Some(row) = work.lock().ok().and_then(|mut work| work.next()) {
                        let turn = starts.begin();
                        row.take_result(self.probe(&row.listed.entry.path));
                        drop(turn);
                        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                        (self.progress)(Progress { done, all });
                    }
                });
            }
        });
    }

    fn builder(&self, path: impl Into<PathBuf>) -> PluginBuilder {
        let quiet = Plugin::builder(path).stdout(Stdout::Log).grace(Grace::each(STOP_TIMEOUT));
        let quiet = quiet.handshake_timeout(ANSWER_TIMEOUT);
        (self.configure)(quiet.untrusted()).without_default_sandbox_elsewhere()
    }
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("discovery", &self.discovery).finish_non_exhaustive()
    }
}

/// An entry while it is being found out.
struct Row {
    listed: CatalogEntry,
    /// Facts of the file; `None` if it cannot be examined.
    facts: Option<Facts>,
    /// The sandbox that it is asked in, as text.
    sandbox: Option<String>,
    /// Time when the file was examined.
    begun: SystemTime,
    /// True if the facts differ from the cached ones.
    has_news: bool,
}

impl Row {
    fn new(
        entry: Entry,
        added: Option<InstallRecord>,
        kept: &Kept,
        begun: SystemTime,
        selection: Selection,
        sandbox: Option<String>,
    ) -> Self {
        let facts = Stamp::of(&entry.path).ok().map(|stamp| {
            let known = if selection == Selection::All {
                None
            } else {
                kept.facts(&entry.path, &stamp).cloned()
            };
            known.unwrap_or_else(|| Facts::new(stamp))
        });
        let info = match entry.state {
            EntryState::Usable => {
                facts.as_ref().and_then(|facts| facts.info(sandbox.as_deref(), begun))
            }
            EntryState::Shadowed { .. } | EntryState::Unusable(_) => None,
        };
        let answer = info.map(|(info, in_sandbox)| ProbeResult {
            info,
            freshness: Freshness::Remembered,
            in_sandbox,
        });
        let listed = CatalogEntry { entry, answer, added, changed: None };
        let mut row = Self { listed, facts, sandbox, begun, has_news: false };
        row.compare_sums();
        row
    }

    /// Tells whether the plugin has to be probed.
    fn is_unknown(&self) -> bool {
        self.listed.entry.state == EntryState::Usable && self.listed.answer.is_none()
    }

    fn take_result(&mut self, info: Result<PluginInfo, StartError>) {
        let is_kept = info.as_ref().map_or_else(is_about_the_plugin, |_| true);
        let info = info.map_err(|error| error.to_string());
        if let Some(facts) = self.facts.as_mut().filter(|_| is_kept) {
            facts.keep_info(&info, self.sandbox.as_deref(), SystemTime::now());
            self.has_news = true;
        }
        self.listed.answer = Some(ProbeResult {
            info,
            freshness: Freshness::Fresh,
            in_sandbox: self.sandbox.is_some(),
        });
    }

    /// Looks whether the file is the one that was added.
    fn compare_sums(&mut self) {
        if matches!(self.listed.entry.state, EntryState::Unusable(_)) {
            return;
        }
        let (Some(added), Some(facts)) = (&self.listed.added, &mut self.facts) else { return };
        let sum = match facts.sha256() {
            Some(known) => known,
            None => {
                // What cannot be read has its problem told when it is started.
                let Ok(file) = RegularFile::open(&self.listed.entry.path) else { return };
                let is_same = facts.is_of(file.metadata());
                let Ok(sum) = Sha256::of(&mut file.into_file()) else { return };
                if is_same {
                    facts.keep_sha256(sum);
                    self.has_news = true;
                }
                sum
            }
        };
        self.listed.changed = (sum != added.sha256).then_some(sum);
    }

    /// Takes the facts that the cache has to store.
    fn take_news(&mut self) -> Option<(PathBuf, Facts)> {
        let path = self.listed.entry.path.clone();
        let facts = self.facts.take().filter(|_| self.has_news)?;
        facts.hold(&path, self.begun).then_some((path, facts))
    }
}
