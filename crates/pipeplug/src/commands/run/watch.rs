//! `--watch`: starts the plugin again when its file changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pipeplug_host::Plugin;

use crate::args::start::StartArgs;
use crate::args::target::Target;
use crate::exit::{CommandError, ExitReason};
use crate::session::shutdown::Shutdown;
use crate::watch::Version;

/// Time between two looks at the file.
const INTERVAL: Duration = Duration::from_millis(100);
/// Looks in which a file must not change before it is started: it may still be written.
const STABLE: u32 = 3;

/// File of the plugin.
#[derive(Debug, Clone)]
pub(super) struct WatchedFile {
    path: PathBuf,
    /// The version that was started last.
    started: Option<Version>,
}

/// Watch over a plugin that runs.
pub(super) struct Watch {
    has_changed: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl WatchedFile {
    /// # Errors
    /// If the plugin has no file on this machine.
    pub(super) fn of(target: &Target, start: &StartArgs) -> Result<Self, CommandError> {
        match target.file().filter(|_| !start.is_elsewhere()) {
            Some(path) => Ok(Self { path: path.to_owned(), started: None }),
            None => Err(CommandError::message(
                ExitReason::Usage,
                "--watch needs a plugin whose file is on this machine; name it with a slash, as in \
                 ./plugin",
            )),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Notes the version that is started now.
    pub(super) fn note_start(&mut self) {
        self.started = Version::of(&self.path);
    }

    /// Waits until there is another version, which does not change any more. Returns false if
    /// `is_over` says so first.
    pub(super) fn wait_for_change(&self, is_over: impl Fn() -> bool) -> bool {
        let (mut seen, mut stable) = (self.started, 0);
        while !is_over() {
            thread::sleep(INTERVAL);
            let now = Version::of(&self.path);
            stable = if now == seen { stable + 1 } else { 0 };
            seen = now;
            // Between the removal of the old file and the creation of the new one there is none.
            if now.is_some() && now != self.started && stable >= STABLE {
                return true;
            }
        }
        false
    }

    /// Stops the plugin when the file changes.
    pub(super) fn watch(&self, plugin: &Plugin) -> Result<Watch, CommandError> {
        let (has_changed, is_over) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let watch = {
            let (file, plugin) = (self.clone(), plugin.clone());
            let (has_changed, is_over) = (Arc::clone(&has_changed), Arc::clone(&is_over));
            move || {
                let is_over = || AtomicBool::load(&is_over, Ordering::Acquire);
                if file.wait_for_change(is_over) {
                    has_changed.store(true, Ordering::Release);
                    if let Err(error) = plugin.stop() {
                        tracing::error!(%error, "the plugin whose file has changed did not stop");
                    }
                }
            }
        };
        match thread::Builder::new().name("watch".into()).spawn(watch) {
            Ok(thread) => Ok(Watch { has_changed, is_over, thread: Some(thread) }),
            Err(error) => {
                let message = format!("cannot start a thread: {error}");
                Err(CommandError::message(ExitReason::Failed, message))
            }
        }
    }
}

impl Watch {
    /// Ends the watch. True if the file has changed, so that the plugin was stopped.
    ///
    /// # Blocking
    /// Until the plugin has stopped, if the file has changed.
    pub(super) fn end(mut self) -> bool {
        self.is_over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // It does not panic, and then nothing has changed.
            let _ = thread.join();
        }
        self.has_changed.load(Ordering::Acquire)
    }
}

/// Waits for a change of the file after the plugin has ended. False if a shutdown begins first.
pub(super) fn wait(file: &WatchedFile, shutdown: &Shutdown) -> bool {
    file.wait_for_change(|| shutdown.is_begun())
}
