//! Permissions in words, for people.

use std::collections::BTreeSet;
use std::fmt::Display;

use pipeplug_net::Escaped;

use super::Permissions;
use super::path::{Base, PermittedPath};

impl Permissions {
    /// The permissions for people, a line for each kind: `read and change .cache/spell in your home
    /// folder`. [`Escaped`] for terminals.
    #[must_use]
    pub fn in_words(&self) -> Vec<String> {
        let Self { read, write, execute, connect, bind, commands, environment } = self;
        let mut lines = Vec::new();
        let mut of_paths = |verb: &str, paths: &BTreeSet<PermittedPath>| {
            lines.extend(paths.iter().map(|path| format!("{verb} {}", path.in_words())));
        };
        of_paths("read", read);
        of_paths("read and change", write);
        of_paths("read and run", execute);
        if let Some(ports) = listed("TCP port", connect) {
            lines.push(format!("connect to {ports}, on any machine"));
        }
        if let Some(ports) = listed("TCP port", bind) {
            lines.push(format!("listen on {ports}"));
        }
        if let Some(commands) = listed("command", commands) {
            lines.push(format!("send its host the {commands}"));
        }
        if let Some(variables) = listed("variable", environment) {
            lines.push(format!("see the environment {variables}"));
        }
        lines.into_iter().map(|line| Escaped(&line).to_string()).collect()
    }
}

impl PermittedPath {
    fn in_words(&self) -> String {
        let folder = match self.base() {
            Base::Root if self.below().is_empty() => return "all files of this machine".to_owned(),
            Base::Root => return shown(&self.to_string()),
            Base::Plugin => "the plugin's own folder",
            Base::Home => "your home folder",
            Base::Temp => "the shared folder of temporary files",
            Base::Cwd => "the folder that it is started in",
        };
        match self.below() {
            "" => format!("all of {folder}"),
            below => format!("{} in {folder}", shown(below)),
        }
    }
}

/// Quotes a name that could be taken for words of the sentence.
fn shown(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./@+:~".contains(c);
    if name.chars().all(is_plain) { name.to_owned() } else { format!("{name:?}") }
}

/// `TCP port 80`, or `TCP ports 80 and 443`.
fn listed(noun: &str, all: &BTreeSet<impl Display>) -> Option<String> {
    let all: Vec<_> = all.iter().map(|one| shown(&one.to_string())).collect();
    match all.as_slice() {
        [] => None,
        [one] => Some(format!("{noun} {one}")),
        [most @ .., last] => Some(format!("{noun}s {} and {last}", most.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_words() {
        let all: Permissions =
            r#"{"read":["/usr/share/dict","/","{plugin}/words","{home}","/x, and nothing else"],
            "write":["{home}/.cache/spell","{temp}","{cwd}"],"execute":["/opt/x"],"connect":[443],
            "bind":[1,2,3],"commands":["log","find"],"environment":["EDITOR","a\u202eb","a\u3164b"]}"#
                .parse()
                .unwrap();
        assert_eq!(
            all.in_words(),
            [
                "read all files of this machine",
                "read /usr/share/dict",
                "read \"/x, and nothing else\"",
                "read words in the plugin's own folder",
                "read all of your home folder",
                "read and change .cache/spell in your home folder",
                "read and change all of the shared folder of temporary files",
                "read and change all of the folder that it is started in",
                "read and run /opt/x",
                "connect to TCP port 443, on any machine",
                "listen on TCP ports 1, 2 and 3",
                "send its host the commands find and log",
                "see the environment variables EDITOR, \"a\\u{202e}b\" and \"a\u{3164}b\"",
            ]
        );
        assert!(Permissions::default().in_words().is_empty());
    }
}
