//! Lines of the shell: verbs and their arguments.

use std::time::Duration;

use pipeplug_host::{LogLevel, discovery};

use crate::args::calls::CallKind;
use crate::args::units::parse_duration;
use crate::output::text::Escaped;

/// A verb, for the help and for completion.
pub(super) struct Verb {
    pub(super) name: &'static str,
    pub(super) usage: &'static str,
    pub(super) about: &'static str,
}

const fn verb(name: &'static str, usage: &'static str, about: &'static str) -> Verb {
    Verb { name, usage, about }
}

/// All verbs, in the order of the help.
pub(super) const VERBS: [Verb; 17] = [
    verb("call", "call CMD [DATA]", "call CMD and show its reply; Ctrl-C ends the call"),
    verb("notify", "notify CMD [DATA]", "send a one-way, which has no reply"),
    verb("&", "& call …", "call in the background: the result appears above the prompt"),
    verb("time", "time call …", "show how long it took"),
    verb("repeat", "repeat N call …", "do it N times, up to the first error"),
    verb("jobs", "jobs", "list the calls in the background"),
    verb("wait", "wait [N]", "wait for call N of the background, or for all"),
    verb("cancel", "cancel N", "give call N of the background up"),
    verb("answer", "answer [CMD [DATA]]", "answer requests CMD of the plugin, or list the answers"),
    verb("refuse", "refuse CMD", "answer requests CMD no longer"),
    verb("set", "set [NAME VALUE]", "change a setting, or list them: timeout, checked"),
    verb("log", "log LEVEL", "level of the plugin's log: off, error, warn, info, debug, trace"),
    verb("meta", "meta", "show the plugin's metadata"),
    verb("stat", "stat", "show the plugin's process, calls and memory"),
    verb("restart", "restart", "stop the plugin and start it again"),
    verb("help", "help [CMD]", "list verbs and commands, or explain one"),
    verb("quit", "quit", "stop the plugin and end; as Ctrl-D"),
];

/// Settings, and examples of their values.
pub(super) const SETTINGS: [(&str, &[&str]); 2] =
    [("timeout", &["none", "5s"]), ("checked", &["on", "off"])];

/// Levels of the plugin's log.
pub(super) const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A line that has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    Call(CallLine),
    Jobs,
    Wait(Option<u32>),
    Cancel(u32),
    Answers,
    /// Command, and DATA as it is written.
    Answer(String, String),
    Refuse(String),
    Settings,
    Set(Setting),
    Log(LogLevel),
    Meta,
    Stat,
    Restart,
    Help(Option<String>),
    Quit,
}

/// `call` or `notify`, with what is before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CallLine {
    pub(super) kind: CallKind,
    pub(super) command: String,
    /// DATA as it is written.
    pub(super) data: String,
    pub(super) place: Place,
    pub(super) is_timed: bool,
    pub(super) repeat: Option<u64>,
}

/// Place of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Foreground,
    Background,
}

/// A setting with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Setting {
    Timeout(Option<Duration>),
    Checked(bool),
}

/// Parses a line. `None` for an empty line and a comment.
///
/// # Errors
/// The message says what is wrong and what to write.
pub(super) fn parse(line: &str) -> Result<Option<Line>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let mut before = Before::default();
    let rest = before.take(line)?;
    let (verb, rest) = word(rest);
    let kind = match verb {
        "call" => Some(CallKind::Call),
        "notify" => Some(CallKind::Notify),
        _ => None,
    };
    if let Some(kind) = kind {
        let (command, data) = word(rest);
        if command.is_empty() {
            return Err(format!("{verb}: write {verb} CMD [DATA]; `help` lists commands"));
        }
        let Before { place, is_timed, repeat } = before;
        let (command, data) = (command.to_owned(), data.to_owned());
        return Ok(Some(Line::Call(CallLine { kind, command, data, place, is_timed, repeat })));
    }
    if before != Before::default() {
        return Err(match verb {
            "" => "a call is missing: write call CMD [DATA] or notify CMD [DATA] at the end".into(),
            verb if VERBS.iter().any(|other| other.name == verb) => format!(
                "{verb}: only call and notify can be timed, repeated or done in the background"
            ),
            verb => unknown_verb(verb),
        });
    }
    parse_other(verb, rest).map(Some)
}

fn parse_other(verb: &str, rest: &str) -> Result<Line, String> {
    let (first, second) = word(rest);
    let is_alone = |line: Line| match rest {
        "" => Ok(line),
        _ => Err(format!("{verb}: it takes no arguments, and there is \"{}\"", Escaped(rest))),
    };
    let one = |what: &str| match (first, second) {
        ("", _) => Err(format!("{verb}: write {verb} {what}")),
        (_, "") => Ok(first.to_owned()),
        (_, more) => Err(format!("{verb}: write {verb} {what}; \"{}\" is too much", Escaped(more))),
    };
    let number = || {
        let number = one("N, the number that `jobs` shows")?;
        number.trim_matches(['[', ']']).parse().map_err(|_| {
            format!("{verb}: \"{}\" is not a number; `jobs` shows them", Escaped(&number))
        })
    };
    match verb {
        "jobs" => is_alone(Line::Jobs),
        "wait" if first.is_empty() => Ok(Line::Wait(None)),
        "wait" => Ok(Line::Wait(Some(number()?))),
        "cancel" => Ok(Line::Cancel(number()?)),
        "answer" if first.is_empty() => Ok(Line::Answers),
        "answer" => Ok(Line::Answer(first.to_owned(), second.to_owned())),
        "refuse" => Ok(Line::Refuse(one("CMD")?)),
        "set" if first.is_empty() => Ok(Line::Settings),
        "set" => setting(first, second).map(Line::Set),
        "log" => {
            let level = one(&format!("LEVEL: {}", LEVELS.join(", ")))?;
            level.parse().map(Line::Log).map_err(|_| {
                let level = Escaped(&level);
                format!("log: there is no level \"{level}\"; there are {}", LEVELS.join(", "))
            })
        }
        "meta" => is_alone(Line::Meta),
        "stat" => is_alone(Line::Stat),
        "restart" => is_alone(Line::Restart),
        "help" if first.is_empty() => Ok(Line::Help(None)),
        "help" => Ok(Line::Help(Some(one("CMD")?))),
        "quit" | "exit" => is_alone(Line::Quit),
        verb => Err(unknown_verb(verb)),
    }
}

fn unknown_verb(verb: &str) -> String {
    let hint = match discovery::nearest_name(verb, VERBS.iter().map(|verb| verb.name)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "`help` lists the verbs, and `call CMD` calls the plugin".to_owned(),
    };
    format!("there is no verb \"{}\"; {hint}", Escaped(verb))
}

fn setting(name: &str, value: &str) -> Result<Setting, String> {
    match (name, value) {
        ("timeout" | "checked", "") => {
            let (_, examples) =
                SETTINGS.iter().find(|(other, _)| *other == name).unwrap_or(&SETTINGS[0]);
            Err(format!("set {name}: a value is missing, as in set {name} {}", examples[1]))
        }
        ("timeout", "none" | "off") => Ok(Setting::Timeout(None)),
        ("timeout", value) => {
            parse_duration(value).map(|time| Setting::Timeout(Some(time))).map_err(|error| {
                format!("set timeout: {}", error.replace("leave the option out", "write none"))
            })
        }
        ("checked", "on") => Ok(Setting::Checked(true)),
        ("checked", "off") => Ok(Setting::Checked(false)),
        ("checked", value) => {
            Err(format!("set checked: \"{}\" is neither on nor off", Escaped(value)))
        }
        (name, _) => {
            let names = SETTINGS.map(|(name, _)| name);
            let hint = match discovery::nearest_name(name, names.iter().copied()) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => format!("there are {}", names.join(" and ")),
            };
            Err(format!("set: there is no setting \"{}\"; {hint}", Escaped(name)))
        }
    }
}

/// Words before `call`.
#[derive(Debug, PartialEq, Eq)]
struct Before {
    place: Place,
    is_timed: bool,
    repeat: Option<u64>,
}

impl Default for Before {
    fn default() -> Self {
        Self { place: Place::Foreground, is_timed: false, repeat: None }
    }
}

impl Before {
    /// Takes these words. Returns the rest of the line.
    fn take<'a>(&mut self, line: &'a str) -> Result<&'a str, String> {
        let mut line = line;
        loop {
            if let Some(rest) = line.strip_prefix('&') {
                self.place = Place::Background;
                line = rest.trim_start();
                continue;
            }
            line = match word(line) {
                ("time", rest) => {
                    self.is_timed = true;
                    rest
                }
                ("repeat", rest) => {
                    if self.repeat.is_some() {
                        return Err(
                            "repeat: it is there twice; write one with the product of both \
                                    numbers, as in repeat 6 call …"
                                .to_owned(),
                        );
                    }
                    let (count, rest) = word(rest);
                    let count = count.parse().ok().filter(|count| *count > 0);
                    self.repeat = Some(count.ok_or_else(|| {
                        "repeat: write repeat N call CMD [DATA], with a number from 1 up".to_owned()
                    })?);
                    rest
                }
                _ => return Ok(line),
            };
        }
    }
}

/// Splits the first word off.
pub(super) fn word(line: &str) -> (&str, &str) {
    let line = line.trim_start();
    let end = line.find(char::is_whitespace).unwrap_or(line.len());
    let (word, rest) = line.split_at(end);
    (word, rest.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(line: &str) -> CallLine {
        match parse(line) {
            Ok(Some(Line::Call(call))) => call,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn what_stands_before_a_call_may_be_in_any_order() {
        let plain = call("  call echo  a  b ");
        assert_eq!((plain.command.as_str(), plain.data.as_str()), ("echo", "a  b"));
        assert_eq!((plain.place, plain.is_timed, plain.repeat), (Place::Foreground, false, None));
        for line in
            ["& time repeat 3 notify x", "repeat 3 & time notify x", "time &repeat 3 notify x"]
        {
            let call = call(line);
            assert_eq!((call.kind, call.place), (CallKind::Notify, Place::Background), "{line}");
            assert_eq!((call.is_timed, call.repeat), (true, Some(3)), "{line}");
        }
    }

    #[test]
    fn empty_lines_and_comments_say_nothing() {
        for line in ["", "  ", "# call echo", "  #"] {
            assert_eq!(parse(line), Ok(None));
        }
    }

    #[test]
    fn each_verb_is_known() {
        for line in [
            "jobs",
            "wait",
            "wait 2",
            "cancel [2]",
            "answer",
            "answer a",
            "answer a b",
            "refuse a",
            "set",
            "set timeout 5s",
            "set timeout none",
            "set checked off",
            "log debug",
            "meta",
            "stat",
            "restart",
            "help",
            "help call",
            "quit",
            "exit",
        ] {
            assert!(matches!(parse(line), Ok(Some(_))), "{line}");
        }
        let all = "call notify & time repeat jobs wait cancel answer refuse set log meta stat restart help quit";
        assert_eq!(VERBS.map(|verb| verb.name).join(" "), all);
    }

    #[test]
    fn an_error_says_what_to_write() {
        for (line, told) in [
            ("cal echo", "did you mean `call`?"),
            ("frobnicate", "`help` lists the verbs"),
            ("call", "write call CMD [DATA]"),
            ("& stat", "only call and notify"),
            ("time", "a call is missing"),
            ("& time clal x", "did you mean `call`?"),
            ("repeat x call y", "repeat N call"),
            ("repeat 0 call y", "a number from 1 up"),
            ("repeat 2 & repeat 3 call y", "write one with the product"),
            ("cancel", "write cancel N"),
            ("cancel x", "\"x\" is not a number"),
            ("set tiemout 5s", "did you mean \"timeout\"?"),
            ("set x 5s", "there are timeout and checked"),
            ("set timeout", "as in set timeout 5s"),
            ("set timeout 5x", "set timeout: unknown unit"),
            ("set timeout 0", "write none"),
            ("set checked maybe", "neither on nor off"),
            ("log loud", "there are off, error"),
            ("meta x", "it takes no arguments"),
            ("refuse", "write refuse CMD"),
            ("refuse a b", "\"b\" is too much"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(told), "{line}: {error}");
        }
    }
}
