//! Names and texts of a description in the form of a language.

use std::collections::BTreeMap;

/// Words of a name: parts between signs, and before capitals.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let chars: Vec<char> = name.chars().collect();
    for (index, &c) in chars.iter().enumerate() {
        if !c.is_ascii_alphanumeric() {
            words.push(String::new());
            continue;
        }
        let before = index.checked_sub(1).and_then(|at| chars.get(at));
        let after = chars.get(index + 1);
        let begins = c.is_ascii_uppercase()
            && (before.is_some_and(|it| it.is_ascii_lowercase() || it.is_ascii_digit())
                || before.is_some_and(char::is_ascii_uppercase)
                    && after.is_some_and(char::is_ascii_lowercase));
        if begins {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.push(c.to_ascii_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    if words.is_empty() {
        words.push("unnamed".into());
    }
    words
}

fn capitalized(word: &str) -> String {
    let (first, rest) = word.split_at(word.len().min(1));
    first.to_ascii_uppercase() + rest
}

/// `a_name`.
pub(super) fn snake(name: &str) -> String {
    not_a_digit(words(name).join("_"), "n")
}

/// `A_NAME`.
pub(super) fn upper(name: &str) -> String {
    not_a_digit(words(name).join("_").to_ascii_uppercase(), "N")
}

/// `AName`.
pub(super) fn pascal(name: &str) -> String {
    not_a_digit(words(name).iter().map(|word| capitalized(word)).collect(), "N")
}

/// `aName`.
pub(super) fn camel(name: &str) -> String {
    let words = words(name);
    let rest = words.iter().skip(1).map(|word| capitalized(word));
    let name = words.first().cloned().into_iter().chain(rest).collect();
    not_a_digit(name, "n")
}

fn not_a_digit(name: String, prefix: &str) -> String {
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("{prefix}{name}") } else { name }
}

/// Names of one scope, each with the number that was tried last behind it.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope(BTreeMap<String, u32>);

impl Scope {
    /// A scope in which some names are taken.
    pub(super) fn without(taken: &[&str]) -> Self {
        Self(taken.iter().map(|&name| (name.to_owned(), 1)).collect())
    }

    /// Takes the name, or the first free one that begins with it.
    pub(super) fn take(&mut self, name: &str) -> String {
        let with_sign = format!("{name}_");
        if self.0.contains_key(name) && !self.0.contains_key(&with_sign) {
            self.0.insert(with_sign.clone(), 1);
            return with_sign;
        }
        self.take_numbered(name)
    }

    /// Takes the name, or the first free one with a number behind it.
    pub(super) fn take_numbered(&mut self, name: &str) -> String {
        let Some(&last) = self.0.get(name) else {
            self.0.insert(name.to_owned(), 1);
            return name.to_owned();
        };
        let mut numbered = (last + 1..).map(|number| (number, format!("{name}{number}")));
        let free = numbered.find(|(_, name)| !self.0.contains_key(name));
        // The numbers do not end.
        let (number, free) = free.unwrap_or_default();
        self.0.insert(name.to_owned(), number);
        self.0.insert(free.clone(), 1);
        free
    }
}

/// Lines of docs that may stand in a comment of any language: characters that end a line, steer a
/// terminal or turn the direction of text become spaces.
pub(super) fn lines(docs: &str) -> Vec<String> {
    let harmless = |c: char| match c {
        '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => ' ',
        '\u{200b}'..='\u{200f}' | '\u{feff}' => ' ',
        c if c.is_control() => ' ',
        c => c,
    };
    let text = docs.replace("\r\n", "\n");
    let lines = text.trim().split('\n');
    let lines: Vec<String> = lines
        .map(|line| line.chars().map(harmless).collect::<String>().trim_end().to_owned())
        .collect();
    if lines.iter().all(String::is_empty) { Vec::new() } else { lines }
}

/// Lines of docs, of which long ones are broken at a space.
pub(super) fn wrapped(docs: &str, width: usize) -> Vec<String> {
    let mut all = Vec::new();
    for line in lines(docs) {
        if line.chars().count() <= width {
            all.push(line);
            continue;
        }
        let mut piece = String::new();
        for word in line.split(' ') {
            if !piece.is_empty() && piece.chars().count() + word.chars().count() >= width {
                all.push(std::mem::take(&mut piece));
            }
            if !piece.is_empty() {
                piece.push(' ');
            }
            piece.push_str(word);
        }
        all.push(piece);
    }
    all
}

/// A string in double quotes, in ASCII, as Go and Python have it: each character is one escape.
pub(super) fn quoted_wide(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            ' '..='~' => quoted.push(c),
            c => quoted.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    quoted.push('"');
    quoted
}

/// A string in double quotes, in ASCII, as JavaScript and JSON have it: in UTF-16.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            ' '..='~' => quoted.push(c),
            c => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    quoted.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    quoted.push('"');
    quoted
}

/// JSON in ASCII, on one line.
pub(super) fn ascii(value: &serde_json::Value) -> String {
    let mut ascii = String::new();
    for c in value.to_string().chars() {
        if matches!(c, ' '..='~') {
            ascii.push(c);
        } else {
            // Such characters are in strings only.
            ascii.push_str(quoted(&c.to_string()).trim_matches('"'));
        }
    }
    ascii
}

/// Splits a text into pieces of at most so many characters.
pub(super) fn pieces(text: &str, size: usize) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    chars.chunks(size).map(|piece| piece.iter().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_take_the_form_of_a_language() {
        for (name, in_snake, in_camel, in_pascal) in [
            ("greet_all", "greet_all", "greetAll", "GreetAll"),
            ("HTTPServer", "http_server", "httpServer", "HttpServer"),
            ("a-b c", "a_b_c", "aBC", "ABC"),
            ("2nd", "n2nd", "n2nd", "N2nd"),
            ("*/", "unnamed", "unnamed", "Unnamed"),
        ] {
            assert_eq!((snake(name), camel(name)), (in_snake.into(), in_camel.into()));
            assert_eq!(pascal(name), in_pascal);
        }
        assert_eq!(upper("unknownLanguage"), "UNKNOWN_LANGUAGE");
    }

    #[test]
    fn names_of_a_scope_differ() {
        let mut scope = Scope::without(&["class"]);
        let taken = ["class", "class", "a", "a", "a"].map(|name| scope.take(name));
        assert_eq!(taken, ["class_", "class2", "a", "a_", "a2"]);
    }

    #[test]
    fn docs_stay_on_their_lines() {
        assert_eq!(lines("a\r\nb\u{2028}c\rd\u{202e}\n"), ["a", "b c d"]);
        assert!(lines(" \n\n").is_empty());
        assert_eq!(quoted("\"\\\n\u{2028}😀"), r#""\"\\\n\u2028\ud83d\ude00""#);
        assert_eq!(quoted_wide("\"\\\n😀"), r#""\"\\\U0000000a\U0001f600""#);
    }
}
