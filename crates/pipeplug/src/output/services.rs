//! Services of a plugin as people read them.

use std::fmt::Write as _;

use pipeplug_service::{Argument, Description, Interface, Method};

use crate::output::style::{Paint, Role};
use crate::output::text::{self, Escaped};

/// Formats the services, each with its methods and the types that they use.
pub(crate) fn list(description: &Description, paint: Paint, columns: Option<usize>) -> String {
    let mut list = List { text: String::new(), paint, columns };
    for service in &description.services {
        list.service(service);
    }
    list.text
}

struct List {
    text: String,
    paint: Paint,
    columns: Option<usize>,
}

impl List {
    fn service(&mut self, service: &Interface) {
        let Interface { name, version, oldest, docs, .. } = service;
        let name = self.paint.paint(Role::Title, Escaped(name));
        let others = match version.checked_sub(*oldest) {
            None | Some(0) => String::new(),
            Some(1) => format!("Serves callers of version {oldest} too."),
            Some(_) => format!("Serves callers of the versions {oldest} to {} too.", version - 1),
        };
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "\nservice {name}, version {version}");
        self.docs(2, &others);
        self.docs(2, docs);
        for method in &service.methods {
            self.text.push('\n');
            self.method(service, method);
        }
        let mut definitions = service.definitions().peekable();
        if definitions.peek().is_some() {
            self.text.push_str("\n  types\n");
        }
        for Argument { name, text, docs, .. } in definitions {
            self.line(4, name, &format!(" = {text}"));
            self.docs(8, docs);
        }
    }

    fn method(&mut self, service: &Interface, method: &Method) {
        let signature = service.signature(method);
        let rest = signature.strip_prefix(&method.command).unwrap_or_default();
        self.line(2, &method.command, rest);
        self.docs(6, &method.docs);
        let arguments: Vec<_> = service
            .arguments(method)
            .into_iter()
            .filter_map(|Argument { name, docs, .. }| Some((name, docs.lines().next()?)))
            .collect();
        let width = |name: &str| text::width(&Escaped(name).to_string());
        let widest = arguments.iter().map(|(name, _)| width(name)).max().unwrap_or(0);
        for (name, docs) in arguments {
            let gap = widest.saturating_sub(width(name)) + 2;
            self.line(8, name, &format!("{:gap$}{docs}", ""));
        }
    }

    /// Adds the first line of docs.
    fn docs(&mut self, indent: usize, docs: &str) {
        if let Some(first) = docs.lines().find(|line| !line.trim().is_empty()) {
            self.line(indent, "", first.trim());
        }
    }

    /// Adds a title and a text, which goes on in lines that are indented more.
    fn line(&mut self, indent: usize, title: &str, text: &str) {
        let title = Escaped(title).to_string();
        let text = Escaped(text).to_string();
        let more = if title.is_empty() { indent } else { indent + 4 };
        let lines = match self.columns {
            // Lines after the first begin further right, so that the first may be longer.
            Some(columns) => {
                let head = indent + text::width(&title);
                wrap(
                    &text,
                    columns.saturating_sub(head).max(20),
                    columns.saturating_sub(more).max(20),
                )
            }
            None => vec![text],
        };
        for (index, line) in lines.iter().enumerate() {
            let _ = if index == 0 {
                let title = self.paint.paint(Role::Title, &title);
                writeln!(self.text, "{:indent$}{title}{line}", "")
            } else {
                writeln!(self.text, "{:more$}{line}", "")
            };
        }
    }
}

/// Breaks text as [`text::wrap`] does, into a first line of one width and others of another.
fn wrap(text: &str, first: usize, others: usize) -> Vec<String> {
    let Some(line) = text::wrap(text, first).into_iter().next() else { return Vec::new() };
    // A line ends at a single space.
    match text.get(line.len() + 1..) {
        Some(rest) => {
            let rest = text::wrap(rest, others);
            std::iter::once(line).chain(rest).collect()
        }
        None => vec![line],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description() -> Description {
        let long = "a word with its meaning ".repeat(6);
        serde_json::from_value(serde_json::json!({ "services": [{
            "name": "spell", "version": 3, "oldest": 1, "docs": "Spelling.\n\nMore.",
            "methods": [
                {
                    "name": "suggest", "command": "spell.suggest", "docs": long,
                    "arguments": {
                        "type": "object", "required": ["word"],
                        "properties": {
                            "word": { "type": "string", "description": "The word.\nAs written." },
                            "most": { "type": "integer", "default": 3 },
                            "a_long_name_of_an_argument": { "type": ["string", "null"] },
                        },
                    },
                    "result": { "type": "array", "items": { "$ref": "#/$defs/Word" } },
                },
                { "name": "learn\u{1b}[2J", "command": "spell.learn\u{1b}[2J", "one_way": true },
            ],
            "$defs": { "Word": { "type": "string", "description": "A word." } },
        }]}))
        .unwrap()
    }

    #[test]
    fn lines_fit_the_terminal_and_steer_nothing() {
        let text = list(&description(), Paint::Plain, Some(60));
        assert!(text.lines().all(|line| text::width(line) <= 60), "{text}");
        let expected = "
service spell, version 3
  Serves callers of the versions 1 to 2 too.
  Spelling.

  spell.suggest(word: string, a_long_name_of_an_argument?:
      string, most: integer = 3) -> [Word]
      a word with its meaning a word with its meaning a word
      with its meaning a word with its meaning a word with
      its meaning a word with its meaning
        word  The word.

  spell.learn\\u{1b}[2J(), one-way

  types
    Word = string
        A word.
";
        assert_eq!(text, expected);
    }

    #[test]
    fn lines_are_whole_elsewhere() {
        let text = list(&description(), Paint::Plain, None);
        let signature = "\n  spell.suggest(word: string, a_long_name_of_an_argument?: string, most: integer = 3) \
                         -> [Word]\n";
        assert!(text.contains(signature), "{text}");
    }

    #[test]
    fn the_first_line_may_be_shorter() {
        assert_eq!(wrap("one two three four", 8, 12), ["one two", "three four"]);
        assert_eq!(wrap("one", 8, 12), ["one"]);
        assert_eq!(wrap("", 8, 12), [""]);
    }
}
