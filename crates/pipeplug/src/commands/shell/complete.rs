//! Completion of verbs, commands and arguments.

use std::path::Path;

use super::known::Known;
use super::line::{LEVELS, SETTINGS, VERBS};

/// Verbs that may follow `&`, `time` and `repeat N`.
const AFTER_PREFIX: [&str; 4] = ["call", "notify", "time", "repeat"];

/// Finds what the word before the cursor can become. Returns the start of the word and the words.
pub(super) fn complete(known: &Known, before: &str) -> (usize, Vec<String>) {
    let mut start = before
        .rfind(char::is_whitespace)
        .map_or(0, |at| at + before[at..].chars().next().map_or(0, char::len_utf8));
    if before[..start].trim().is_empty() && before[start..].starts_with('&') {
        start += 1;
    }
    let (head, word) = before.split_at(start);
    let head = head.replace('&', " & ");
    let mut words: Vec<_> = head.split_whitespace().collect();
    let is_repeated = words.contains(&"repeat");
    let has_prefix = drop_prefix(&mut words);
    let candidates = match words.as_slice() {
        [] if has_prefix => {
            with_space(AFTER_PREFIX.into_iter().filter(|verb| *verb != "repeat" || !is_repeated))
        }
        [] => with_space(VERBS.iter().map(|verb| verb.name)),
        ["repeat"] => Vec::new(),
        ["call" | "notify"] => with_space(known.names()),
        ["call" | "notify", command, used @ ..] => {
            let (at, candidates) = arguments(known, command, used, word);
            start += at;
            candidates
        }
        ["help"] => [known.names(), VERBS.iter().map(|verb| verb.name).collect()]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect(),
        ["refuse"] => known.answers.clone(),
        ["answer", _] => {
            let (at, candidates) = files(word);
            start += at;
            candidates
        }
        ["set"] => with_space(SETTINGS.iter().map(|(name, _)| *name)),
        ["set", name] => {
            let setting = SETTINGS.iter().find(|(other, _)| other == name);
            setting
                .map(|(_, values)| values.iter().map(|&value| value.to_owned()).collect())
                .unwrap_or_default()
        }
        ["log"] => LEVELS.map(str::to_owned).to_vec(),
        ["wait" | "cancel"] => known.jobs.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    };
    let word = &before[start..];
    let mut fitting: Vec<_> = candidates.into_iter().filter(|it| it.starts_with(word)).collect();
    fitting.sort();
    fitting.dedup();
    (start, fitting)
}

/// Drops what may be before a call. True if there was anything.
fn drop_prefix(words: &mut Vec<&str>) -> bool {
    let len = words.len();
    loop {
        let count = match words.as_slice() {
            ["&" | "time", ..] => 1,
            ["repeat", _, ..] => 2,
            _ => return words.len() < len,
        };
        words.drain(..count);
    }
}

/// Words that others follow.
fn with_space<'a>(words: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    words.into_iter().map(|word| format!("{word} ")).collect()
}

/// Arguments of a method, or files. Returns also the length of what stays of the word.
fn arguments(known: &Known, command: &str, used: &[&str], word: &str) -> (usize, Vec<String>) {
    if word.starts_with('@') && used.is_empty() {
        return files(word);
    }
    if let Some((name, _)) = word.split_once('=') {
        return (
            name.len() + 1,
            with_space(known.values(command, name).iter().map(String::as_str)),
        );
    }
    let Some((service, method)) = known.method(command) else { return (0, Vec::new()) };
    let is_used = |name: &str| {
        used.iter().any(|word| word.split_once('=').is_some_and(|(used, _)| used == name))
    };
    let arguments = service.arguments(method).into_iter().map(|argument| argument.name);
    (0, arguments.filter(|name| !is_used(name)).map(|name| format!("{name}=")).collect())
}

/// Files for `@FILE`. Returns also the length of what stays of the word: the directory.
fn files(word: &str) -> (usize, Vec<String>) {
    let Some(path) = word.strip_prefix('@') else { return (0, Vec::new()) };
    let (dir, name) = path.rfind('/').map_or(("", path), |at| path.split_at(at + 1));
    let shown = if dir.is_empty() { Path::new(".") } else { Path::new(dir) };
    // A directory that cannot be read has nothing to offer.
    let entries = std::fs::read_dir(shown).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| {
        let file = entry.file_name().into_string().ok()?;
        let is_hidden = file.starts_with('.') && !name.starts_with('.');
        let is_dir = entry.path().is_dir();
        // A control character would steer the terminal.
        let is_text = file.chars().all(crate::output::text::Escaped::is_harmless);
        (!is_hidden && is_text).then(|| if is_dir { format!("{file}/") } else { file })
    });
    (1 + dir.len(), names.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let mut known = Known::default();
        known.describe(
            serde_json::from_value(serde_json::json!({ "services": [{
                "name": "spell", "version": 1, "oldest": 1,
                "methods": [
                    { "name": "suggest", "command": "spell.suggest", "arguments": {
                        "type": "object", "required": ["word"],
                        "properties": {
                            "word": { "type": "string" },
                            "most": { "type": "integer" },
                            "strict": { "type": "boolean" },
                            "mood": { "$ref": "#/$defs/Mood" },
                        },
                    } },
                    { "name": "stop", "command": "spell.stop" },
                ],
                "$defs": { "Mood": { "oneOf": [{ "const": "good" }, { "enum": ["bad"] }] } },
            }] }))
            .unwrap(),
        );
        known.learn("echo");
        known.jobs = vec![1, 12];
        known.answers = vec!["greet".into()];
        known
    }

    /// What the line can become.
    fn completed(line: &str) -> Vec<String> {
        let (start, words) = complete(&known(), line);
        words.into_iter().map(|word| format!("{}{word}", &line[..start])).collect()
    }

    #[test]
    fn words_complete_by_their_place() {
        for (line, expected) in [
            ("cal", &["call "][..]),
            ("  re", &["  refuse ", "  repeat ", "  restart "]),
            ("& no", &["& notify "]),
            ("&ca", &["&call "]),
            ("time repeat 3 ca", &["time repeat 3 call "]),
            ("repeat 3 jo", &[]),
            ("repeat 3 re", &[]),
            ("time re", &["time repeat "]),
            ("repeat ", &[]),
            ("call e", &["call echo "]),
            ("call s", &["call spell.stop ", "call spell.suggest ", "call stop ", "call suggest "]),
            ("& call spell.su", &["& call spell.suggest "]),
            ("call suggest w", &["call suggest word="]),
            (
                "call suggest word=teh m",
                &["call suggest word=teh mood=", "call suggest word=teh most="],
            ),
            ("call suggest word=teh w", &[]),
            ("call suggest strict=", &["call suggest strict=false ", "call suggest strict=true "]),
            ("call suggest mood=g", &["call suggest mood=good "]),
            ("call suggest most=", &[]),
            ("call echo w", &[]),
            ("set t", &["set timeout "]),
            ("set checked o", &["set checked off", "set checked on"]),
            ("log de", &["log debug"]),
            ("cancel 1", &["cancel 1", "cancel 12"]),
            ("refuse ", &["refuse greet"]),
            ("help sug", &["help suggest"]),
            ("help rest", &["help restart"]),
            ("jobs ", &[]),
            ("call ü ü", &[]),
        ] {
            assert_eq!(completed(line), expected, "{line:?}");
        }
    }

    #[test]
    fn files_complete_after_the_at_sign() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("page.html"), "").unwrap();
        std::fs::write(dir.path().join("p\x1b[2J"), "").unwrap();
        std::fs::write(dir.path().join(".hidden"), "").unwrap();
        std::fs::create_dir(dir.path().join("parts")).unwrap();
        let dir = dir.path().to_str().unwrap();
        for verb in ["call open", "answer ask"] {
            let line = format!("{verb} @{dir}/p");
            assert_eq!(completed(&line), [format!("{line}age.html"), format!("{line}arts/")]);
        }
        assert_eq!(completed(&format!("call open @{dir}/missing/p")), [""; 0]);
    }
}
