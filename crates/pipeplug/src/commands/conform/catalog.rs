//! All checks of plugins.

use pipeplug_host::discovery::nearest_name;

use super::checks;
use super::guest::Setup;
use super::outcome::Checked;

/// Part of the protocol that a check is about, beside what its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Of every plugin.
    Every,
    /// Left out by `--basic`: points 7 to 9 of the checklist in docs/protocol.md.
    Full,
}

/// A check of a plugin.
#[derive(Debug)]
pub(super) struct Check {
    /// Name: `group/check`.
    pub(super) name: &'static str,
    /// Heading in docs/protocol.md.
    pub(super) section: &'static str,
    /// Action of the check, for people.
    pub(super) sends: &'static str,
    /// Expected result, for people.
    pub(super) expects: &'static str,
    pub(super) scope: Scope,
    pub(super) run: fn(&Setup) -> Checked,
}

/// All checks, in the order in which they run.
pub(super) fn all() -> impl Iterator<Item = &'static Check> {
    const GROUPS: [&[Check]; 10] = [
        checks::start::CHECKS,
        checks::call::CHECKS,
        checks::load::CHECKS,
        checks::format::CHECKS,
        checks::broken::CHECKS,
        checks::end::CHECKS,
        checks::flow::CHECKS,
        checks::features::CHECKS,
        checks::stream::CHECKS,
        checks::services::CHECKS,
    ];
    GROUPS.into_iter().flatten()
}

/// Names of `all` that are wanted: all of them if `wanted` is empty. A wanted word is the name of a
/// check or of a group.
///
/// # Errors
/// A message about a word that is neither.
pub(super) fn select(
    all: impl Iterator<Item = &'static str>,
    wanted: &[String],
) -> Result<Vec<&'static str>, String> {
    let all: Vec<_> = all.collect();
    let is_of = |name: &str, word: &str| {
        name == word || name.split_once('/').is_some_and(|(group, _)| group == word)
    };
    if let Some(word) = wanted.iter().find(|word| !all.iter().any(|name| is_of(name, word))) {
        // The part behind the group is what people remember.
        let groups = all.iter().filter_map(|name| Some(name.split_once('/')?.0));
        let nearest = nearest_name(word, all.iter().copied().chain(groups)).or_else(|| {
            let of_group = |name: &&str| name.rsplit('/').next().unwrap_or(name).to_owned();
            let short: Vec<_> = all.iter().map(of_group).collect();
            let found = nearest_name(word.rsplit('/').next()?, short.iter().map(String::as_str))?;
            all.iter().copied().find(|name| of_group(name) == found)
        });
        let next = match nearest {
            Some(nearest) => format!("did you mean {nearest:?}? --list shows all"),
            None => "--list shows all".to_owned(),
        };
        return Err(format!("no check {word:?}; {next}"));
    }
    Ok(all
        .into_iter()
        .filter(|name| wanted.is_empty() || wanted.iter().any(|word| is_of(name, word)))
        .collect())
}
