//! Command line that is completed, and the plugin that it names.

use std::ffi::{OsStr, OsString};

use clap::ArgMatches;
use clap::parser::ValueSource;
use clap_complete::engine::CompletionCandidate;
use pipeplug_host::LockFile;
use pipeplug_service::Description;

use super::remembered;
use crate::args::launcher;
use crate::args::target::{HOST, Target, Wanted};
use crate::cli;

/// Variable with the number of the word that is completed.
const INDEX: &str = "_CLAP_COMPLETE_INDEX";

/// Command line up to the cursor.
#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    /// Words before the current one, with the name of the program.
    before: Vec<OsString>,
    /// Word that is completed, as far as it was typed.
    pub(super) current: OsString,
}

impl Line {
    /// Reads the words that a shell passes.
    pub(super) fn of(words: &[OsString]) -> Self {
        let index = std::env::var(INDEX).ok().and_then(|index| index.parse().ok());
        let index: usize = index.unwrap_or(words.len().saturating_sub(1));
        let before = words.get(..index).unwrap_or(words).to_vec();
        Self { before, current: words.get(index).cloned().unwrap_or_default() }
    }

    /// Host whose plugins are found by name.
    pub(super) fn host(&self) -> String {
        let (_, matches) = self.parsed().unwrap_or_default();
        host(&matches)
    }

    /// Name of the subcommand.
    pub(super) fn subcommand(&self) -> Option<String> {
        self.parsed().map(|(name, _)| name)
    }

    /// Commands of the plugin that begin with `current`.
    pub(super) fn commands(&self, current: &OsStr) -> Vec<CompletionCandidate> {
        let Some(current) = current.to_str() else { return Vec::new() };
        let mut commands = self.known_commands().unwrap_or_default();
        commands.retain(|command| command.starts_with(current) && is_plain(command));
        commands.into_iter().map(CompletionCandidate::new).collect()
    }

    fn known_commands(&self) -> Option<Vec<String>> {
        let (_, matches) = self.parsed()?;
        let plugin = matches.try_get_one::<OsString>("plugin").ok().flatten()?;
        let is_elsewhere = launcher::WITH_PLUGIN.iter().any(|id| {
            matches.try_contains_id(id).is_ok_and(|has| has)
                && matches.value_source(id) == Some(ValueSource::CommandLine)
        });
        if is_elsewhere {
            return None;
        }
        let target = Target::find(Wanted::Here(plugin, &host(&matches))).ok()?;
        if let Some(built_in) = target.built_in() {
            return Some(built_in.commands.iter().map(|&command| command.to_owned()).collect());
        }
        let path = target.file()?;
        if let Some(commands) = remembered::commands_of(path) {
            return Some(commands);
        }
        let lock = LockFile::open(LockFile::NAME).ok()?;
        let pinned = lock.interface_of(path).ok()??;
        let described: Description = serde_json::from_value(pinned.clone()).ok()?;
        Some(remembered::names(&described))
    }

    /// Subcommand and its arguments before the current word.
    fn parsed(&self) -> Option<(String, ArgMatches)> {
        // An option without its value ends the parse.
        let before = match self.before.as_slice() {
            [before @ .., last] if last.as_encoded_bytes().starts_with(b"-") => before,
            before => before,
        };
        let (_, matches) = cli::matches(before)?;
        matches.subcommand().map(|(name, matches)| (name.to_owned(), matches.clone()))
    }
}

fn host(matches: &ArgMatches) -> String {
    let host = matches.try_get_one::<String>("host").ok().flatten();
    host.map_or_else(|| HOST.to_owned(), String::clone)
}

/// True if a shell takes the word as it is. A plugin could name a command so that the shell runs
/// something.
pub(super) fn is_plain(word: &str) -> bool {
    !word.is_empty()
        && word.chars().all(|c| c.is_alphanumeric() || "_.:-/@+,%".contains(c))
        && !word.starts_with('-')
}
