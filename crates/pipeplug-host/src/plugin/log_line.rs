//! A line of a plugin's output as an event: its level, target, message and fields, if it has the
//! shape of a usual logging library.

use std::borrow::Cow;

use pipeplug_net::Escaped;
use serde_json::{Map, Value};

use crate::plugin::LogLevel;

/// Keys of a level, in the order in which they are looked for: tracing-subscriber, slog, pino,
/// structlog, zap; hclog; others.
const LEVEL_KEYS: [&str; 6] = ["level", "@level", "severity", "lvl", "levelname", "log.level"];
/// Keys of a message: tracing-subscriber, zap; slog, pino; hclog; structlog.
const MESSAGE_KEYS: [&str; 4] = ["message", "msg", "@message", "event"];
/// Keys of a target: tracing-subscriber; hclog; structlog, zap; pino, Python.
const TARGET_KEYS: [&str; 4] = ["target", "@module", "logger", "name"];
/// Keys of a time, which the host's own event has as well.
const TIME_KEYS: [&str; 6] = ["timestamp", "@timestamp", "time", "ts", "t", "asctime"];
/// Key under which tracing-subscriber has the fields of an event.
const NESTED: &str = "fields";

/// A line of a plugin's output that says its level, as an event.
///
/// The host's `tracing` has each line as such an event; this is for hosts that show lines by
/// themselves ([`PluginBuilder::on_line`](crate::PluginBuilder::on_line)).
///
/// ```
/// use pipeplug_host::{LogLevel, LogLine};
///
/// let line = r#"{"level":"warn","msg":"slow","logger":"db","ms":7}"#;
/// let event = LogLine::read(line).expect("it says its level");
/// assert_eq!((event.level(), event.target(), event.message()), (LogLevel::Warn, Some("db"), "slow"));
/// assert_eq!(event.fields(), Some(r#"{"ms":7}"#));
/// assert!(LogLine::read("plain text").is_none());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine<'a> {
    level: LogLevel,
    target: Option<String>,
    message: Cow<'a, str>,
    fields: Option<String>,
}

impl<'a> LogLine<'a> {
    /// Reads a line: JSON of a usual logging library (tracing-subscriber, hclog, slog, pino,
    /// structlog), `level=warn msg=…`, or text that begins with a level, as `ERROR …`, `[WARN] …` or
    /// `error: …`. `None` for any other line.
    #[must_use]
    pub fn read(line: &'a str) -> Option<Self> {
        let text = line.trim_start();
        match text.as_bytes().first()? {
            b'{' => Self::of_object(serde_json::from_str(text).ok()?),
            b'[' => {
                let (word, rest) = text[1..].split_once(']')?;
                Some(Self::plain(level_of_word(word.trim())?, rest))
            }
            _ => Self::of_pairs(text).or_else(|| Self::of_first_word(text)),
        }
    }

    /// The level.
    #[must_use]
    pub fn level(&self) -> LogLevel {
        self.level
    }

    /// The part of the plugin that the line is of: a module, or the name of a logger.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        self.target.as_deref()
    }

    /// The message, without its level. Control characters of one that was quoted are escaped.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The other fields as a JSON object, without the time.
    #[must_use]
    pub fn fields(&self) -> Option<&str> {
        self.fields.as_deref()
    }

    /// `ERROR …`, `WARN: …`, `error: …`. A word that is not in capitals needs the colon: it may begin
    /// a sentence.
    fn of_first_word(text: &'a str) -> Option<Self> {
        let end = text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        let is_capital = word.bytes().all(|byte| byte.is_ascii_uppercase());
        let is_divided = match rest.as_bytes() {
            [] | [b' ' | b'\t', ..] => is_capital,
            [b':'] | [b':', b' ' | b'\t', ..] => true,
            [b':', ..] => is_capital,
            _ => false,
        };
        if !is_divided {
            return None;
        }
        Some(Self::plain(level_of_word(word)?, rest))
    }

    fn plain(level: LogLevel, rest: &'a str) -> Self {
        let message = rest.strip_prefix(':').unwrap_or(rest).trim_start();
        Self { level, target: None, message: message.into(), fields: None }
    }

    /// `level=info msg="…" key=value`, as logfmt, logrus and slog write it, with the time first or
    /// without.
    fn of_pairs(text: &'a str) -> Option<Self> {
        let (first, rest) = text.split_once('=')?;
        if LEVEL_KEYS.contains(&first) {
            let level = level_of_word(rest.split(' ').next().unwrap_or_default().trim_matches('"'));
            // What follows may be text of any kind, and the level is known all the same.
            let plain = || {
                let message = rest.split_once(' ').map_or("", |(_, message)| message);
                level.map(|level| Self::plain(level, message))
            };
            return pairs(text).and_then(Self::of_object).or_else(plain);
        }
        if !TIME_KEYS.contains(&first) {
            return None;
        }
        Self::of_object(pairs(text)?)
    }

    fn of_object(mut object: Map<String, Value>) -> Option<Self> {
        let level = LEVEL_KEYS.iter().find(|key| object.contains_key(**key))?;
        let level = level_of_value(&object.remove(*level)?)?;
        if let Some(Value::Object(nested)) = object.remove(NESTED).or_keep(&mut object) {
            for (key, value) in nested {
                // What the event and its frame both have is kept twice.
                let key = if object.contains_key(&key) { format!("{NESTED}.{key}") } else { key };
                object.insert(key, value);
            }
        }
        let message = take_text(&mut object, &MESSAGE_KEYS).unwrap_or_default();
        let target = take_text(&mut object, &TARGET_KEYS);
        object.retain(|key, _| !TIME_KEYS.contains(&key.as_str()));
        let fields = (!object.is_empty()).then(|| Value::Object(object).to_string());
        Some(Self { level, target, message: message.into(), fields })
    }
}

/// Puts a value back that is of another kind than was looked for.
trait OrKeep {
    fn or_keep(self, object: &mut Map<String, Value>) -> Self;
}

impl OrKeep for Option<Value> {
    fn or_keep(self, object: &mut Map<String, Value>) -> Self {
        match self {
            Some(Value::Object(_)) | None => self,
            Some(other) => {
                object.insert(NESTED.to_owned(), other);
                None
            }
        }
    }
}

/// Takes the first of these keys that has a text. A line feed in it would begin another line of the
/// host's log, so it is escaped.
fn take_text(object: &mut Map<String, Value>, keys: &[&str]) -> Option<String> {
    let key = keys.iter().find(|key| object.get(**key).is_some_and(Value::is_string))?;
    match object.remove(*key)? {
        Value::String(text) => Some(Escaped(&text).to_string()),
        _ => None,
    }
}

fn level_of_value(value: &Value) -> Option<LogLevel> {
    match value {
        Value::String(word) => level_of_word(word),
        // pino and bunyan: 10 is trace, 60 fatal. Those of syslog, from 0 to 7, count downwards.
        Value::Number(number) => match number.as_u64()? {
            10..20 => Some(LogLevel::Trace),
            20..30 => Some(LogLevel::Debug),
            30..40 => Some(LogLevel::Info),
            40..50 => Some(LogLevel::Warn),
            50..=100 => Some(LogLevel::Error),
            _ => None,
        },
        _ => None,
    }
}

/// Levels by their usual names, in any case. slog writes those in between as `INFO+2`.
fn level_of_word(word: &str) -> Option<LogLevel> {
    const NAMES: [(LogLevel, &[&str]); 5] = [
        (LogLevel::Error, &["error", "err", "fatal", "critical", "crit", "panic", "dpanic"]),
        (LogLevel::Warn, &["warn", "warning"]),
        (LogLevel::Info, &["info", "notice"]),
        (LogLevel::Debug, &["debug"]),
        (LogLevel::Trace, &["trace"]),
    ];
    let word = match word.split_once(['+', '-']) {
        Some((word, offset)) if offset.bytes().all(|byte| byte.is_ascii_digit()) => word,
        _ => word,
    };
    let is_named = |names: &[&str]| names.iter().any(|name| word.eq_ignore_ascii_case(name));
    NAMES.iter().find(|(_, names)| is_named(names)).map(|(level, _)| *level)
}

/// Reads `key=value` pairs, of which a value may be quoted; `None` if the text has anything else.
fn pairs(text: &str) -> Option<Map<String, Value>> {
    let mut object = Map::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        if key.is_empty() || key.contains([' ', '"']) {
            return None;
        }
        let value = if after.starts_with('"') {
            let mut values = serde_json::Deserializer::from_str(after).into_iter::<String>();
            let value = values.next()?.ok()?;
            rest = &after[values.byte_offset()..];
            if !rest.is_empty() && !rest.starts_with(' ') {
                return None;
            }
            value
        } else {
            let end = after.find(' ').unwrap_or(after.len());
            rest = &after[end..];
            after[..end].to_owned()
        };
        rest = rest.trim_start();
        object.insert(key.to_owned(), value.into());
    }
    Some(object)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(line: &str) -> Option<(LogLevel, Option<String>, String, Option<String>)> {
        LogLine::read(line).map(|it| (it.level, it.target, it.message.into_owned(), it.fields))
    }

    fn event(
        level: LogLevel,
        target: &str,
        message: &str,
        fields: &str,
    ) -> Option<(LogLevel, Option<String>, String, Option<String>)> {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Some((level, some(target), message.to_owned(), some(fields)))
    }

    #[test]
    fn the_json_of_usual_libraries_keeps_level_target_and_fields() {
        for (line, expected) in [
            // tracing-subscriber, as it is and flattened
            (
                r#"{"timestamp":"2026-01-01T00:00:00Z","level":"WARN","fields":{"message":"slow","ms":7},"target":"db::pool"}"#,
                event(LogLevel::Warn, "db::pool", "slow", r#"{"ms":7}"#),
            ),
            (
                r#"{"timestamp":"x","level":"DEBUG","message":"m","a":1,"target":"t","span":{"name":"s"}}"#,
                event(LogLevel::Debug, "t", "m", r#"{"a":1,"span":{"name":"s"}}"#),
            ),
            // hclog
            (
                r#"{"@level":"error","@message":"no","@module":"provider","@timestamp":"x","path":"/a"}"#,
                event(LogLevel::Error, "provider", "no", r#"{"path":"/a"}"#),
            ),
            // slog
            (
                r#"{"time":"x","level":"INFO","msg":"hello","count":3}"#,
                event(LogLevel::Info, "", "hello", r#"{"count":3}"#),
            ),
            (r#"{"level":"DEBUG-4","msg":"m"}"#, event(LogLevel::Debug, "", "m", "")),
            // pino
            (
                r#"{"level":50,"time":1531171074631,"pid":657,"name":"app","msg":"no"}"#,
                event(LogLevel::Error, "app", "no", r#"{"pid":657}"#),
            ),
            (r#"{"level":10,"msg":"m"}"#, event(LogLevel::Trace, "", "m", "")),
            // structlog
            (
                r#"{"event":"hello","level":"warning","logger":"a.b","timestamp":"x","n":null}"#,
                event(LogLevel::Warn, "a.b", "hello", r#"{"n":null}"#),
            ),
        ] {
            assert_eq!(read(line), expected, "{line}");
        }
    }

    #[test]
    fn level_words_and_pairs_keep_what_they_say() {
        for (line, expected) in [
            ("ERROR it broke", event(LogLevel::Error, "", "it broke", "")),
            (" INFO indented", event(LogLevel::Info, "", "indented", "")),
            ("WARNING:root:odd", event(LogLevel::Warn, "", "root:odd", "")),
            ("[WARN] odd", event(LogLevel::Warn, "", "odd", "")),
            ("[debug ]: x", event(LogLevel::Debug, "", "x", "")),
            ("Error: no such file", event(LogLevel::Error, "", "no such file", "")),
            ("panic: nil", event(LogLevel::Error, "", "nil", "")),
            ("TRACE", event(LogLevel::Trace, "", "", "")),
            (
                "level=info msg=\"a \\\"b\\\"\" n=1",
                event(LogLevel::Info, "", "a \"b\"", r#"{"n":"1"}"#),
            ),
            ("time=x level=WARN msg=m", event(LogLevel::Warn, "", "m", "")),
            ("level=error what it is", event(LogLevel::Error, "", "what it is", "")),
        ] {
            assert_eq!(read(line), expected, "{line}");
        }
    }

    #[test]
    fn everything_else_is_no_event_of_the_plugins() {
        for line in [
            "",
            " ",
            "hello",
            "Error handling is hard",
            "info about it",
            "ERRORS: 3",
            "[1, 2]",
            "[",
            "{",
            "{}",
            "[error",
            "{\"level\":{}}",
            "{\"level\":\"loud\",\"msg\":\"x\"}",
            "{\"level\":3}",
            "{\"msg\":\"x\"}",
            "a=1 level=info",
            "time=x",
            "level=loud x",
            "ERROR-PRONE",
            "=",
            "INFO=1",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
    }

    #[test]
    fn nothing_is_lost_of_what_is_twice_and_no_text_begins_another_line() {
        let line = r#"{"level":"INFO","message":"outer","a":1,"fields":{"message":"inner\n\u001b[2J","a":2}}"#;
        let (_, _, message, fields) = read(line).unwrap();
        assert_eq!(message, "outer");
        assert_eq!(
            fields.as_deref(),
            Some(r#"{"a":1,"fields.a":2,"fields.message":"inner\n\u001b[2J"}"#)
        );
        let (_, _, message, _) = read(r#"{"level":"INFO","msg":"a\nb\u001b"}"#).unwrap();
        assert_eq!(message, "a\\nb\\u{1b}");
        let (_, _, message, fields) = read(r#"{"level":"INFO","msg":7,"fields":[1]}"#).unwrap();
        assert_eq!((message.as_str(), fields.as_deref()), ("", Some(r#"{"fields":[1],"msg":7}"#)));
    }

    proptest! {
        #[test]
        fn no_line_panics_or_grows(line in ".*", shape in 0..7usize) {
            let line = match shape {
                0 => line,
                1 => format!("{{\"level\":\"info\",\"msg\":{}}}", Value::from(line)),
                2 => format!("{{\"level\":\"info\",{line}}}"),
                3 => format!("level=info {line}"),
                4 => format!("level=info msg=\"{line}\""),
                5 => format!("[{line}] x"),
                _ => format!("ERROR{line}"),
            };
            if let Some(read) = LogLine::read(&line) {
                let size = read.message.len() + read.fields.map_or(0, |it| it.len());
                // An escaped character has ten at most.
                prop_assert!(size <= 10 * line.len() + 16);
                prop_assert!(!read.message.contains('\n') || line.contains('\n'));
            }
        }

        #[test]
        fn no_cut_of_a_line_panics(cut in 0..120usize, byte in any::<u8>()) {
            let line = br#"{"timestamp":"2026","level":"WARN","fields":{"message":"s","ms":[7,{}]},"target":"d"} level=info msg="a" "#;
            let mut line = line[..cut.min(line.len())].to_vec();
            line.push(byte);
            let _ = LogLine::read(&String::from_utf8_lossy(&line));
        }
    }

    #[test]
    fn deep_nesting_is_no_event() {
        let deep = format!("{{\"level\":\"info\",\"a\":{}", "[".repeat(16 << 10));
        assert_eq!(read(&deep), None);
    }
}
