//! A light scanner for Rust: enough to tell code from comments and literals, and one word from
//! another.

/// The source with every comment, string and character literal blanked out, line for line.
///
/// Quotes stay, so that `""` is still an expression; newlines stay, so that line numbers do.
pub(super) fn code_of(source: &str) -> String {
    let mut scanner = Scanner {
        chars: source.chars().collect(),
        at: 0,
        code: String::with_capacity(source.len()),
    };
    scanner.run();
    scanner.code
}

/// The code of [`code_of`] with the modules that only tests see blanked out.
pub(super) fn without_test_modules(code: &str) -> String {
    let mut rest = code.to_owned();
    for (start, end) in test_modules(code).into_iter().rev() {
        let blank: String = rest[start..end].chars().filter(|c| *c == '\n').collect();
        rest.replace_range(start..end, &blank);
    }
    rest
}

/// How many lines the code has besides the modules that only tests see.
pub(super) fn lines_without_tests(code: &str) -> usize {
    let in_tests: usize =
        test_modules(code).into_iter().map(|(start, end)| code[start..end].lines().count()).sum();
    code.lines().count().saturating_sub(in_tests)
}

/// The names of modules in files of their own that only tests see: `#[cfg(test)] mod tests;`.
pub(super) fn test_files(code: &str) -> Vec<String> {
    test_items(code)
        .filter_map(|(_, item)| {
            let words = words(item);
            let at = words.iter().position(|word| word.text == "mod")?;
            let name = words.get(at + 1)?;
            item[name.start + name.text.len()..]
                .trim_start()
                .starts_with(';')
                .then(|| name.text.to_owned())
        })
        .collect()
}

/// An identifier, a keyword, a number, or one other character that is no white space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word<'a> {
    pub(super) text: &'a str,
    /// Its offset in bytes.
    pub(super) start: usize,
}

pub(super) fn words(code: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut chars = code.char_indices().peekable();
    while let Some((start, c)) = chars.next() {
        let mut end = start + c.len_utf8();
        if is_word(c) {
            while let Some((at, c)) = chars.next_if(|(_, c)| is_word(*c)) {
                end = at + c.len_utf8();
            }
        } else if c.is_whitespace() {
            continue;
        }
        words.push(Word { text: &code[start..end], start });
    }
    words
}

/// The number of the line, counted from 1, in which that byte stands.
pub(super) fn line_at(code: &str, offset: usize) -> usize {
    code[..offset].matches('\n').count() + 1
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// What follows each `#[cfg(test)]`, with the offset of that attribute.
fn test_items(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut found = Vec::new();
    for (at, attribute) in code.match_indices("#[cfg(") {
        let Some(length) = code[at..].find(']') else { continue };
        let condition = &code[at + attribute.len()..at + length];
        let first = condition.trim_start_matches("all(").trim_start();
        if words(first).first().is_some_and(|word| word.text == "test") {
            found.push((at, &code[at + length + 1..]));
        }
    }
    found.into_iter()
}

/// The ranges of inline modules that only tests see, attribute and braces included, in order.
fn test_modules(code: &str) -> Vec<(usize, usize)> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for (start, item) in test_items(code) {
        if ranges.last().is_some_and(|(_, end)| start < *end) {
            continue;
        }
        let Some(open) = item.find(['{', ';']).filter(|at| item[*at..].starts_with('{')) else {
            continue;
        };
        if !words(&item[..open]).iter().any(|word| word.text == "mod") {
            continue;
        }
        let mut depth = 0_usize;
        for (at, c) in item[open..].char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                ranges.push((start, code.len() - item.len() + open + at + 1));
                break;
            }
        }
    }
    ranges
}

struct Scanner {
    chars: Vec<char>,
    at: usize,
    code: String,
}

impl Scanner {
    fn run(&mut self) {
        while let Some(c) = self.peek(0) {
            match c {
                '/' if self.peek(1) == Some('/') => self.line_comment(),
                '/' if self.peek(1) == Some('*') => self.block_comment(),
                '"' => self.string(),
                '\'' if self.is_char_literal() => self.char_literal(),
                'r' | 'b' | 'c' if !self.follows_word() => self.prefixed(),
                _ => self.keep(),
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn keep(&mut self) {
        if let Some(c) = self.peek(0) {
            self.code.push(c);
            self.at += 1;
        }
    }

    fn blank(&mut self) {
        if let Some(c) = self.peek(0) {
            self.code.push(if c == '\n' { '\n' } else { ' ' });
            self.at += 1;
        }
    }

    fn follows_word(&self) -> bool {
        self.at
            .checked_sub(1)
            .and_then(|before| self.chars.get(before))
            .is_some_and(|c| is_word(*c))
    }

    fn line_comment(&mut self) {
        while self.peek(0).is_some_and(|c| c != '\n') {
            self.blank();
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        while let Some(c) = self.peek(0) {
            match (c, self.peek(1)) {
                ('/', Some('*')) => depth += 1,
                ('*', Some('/')) => depth -= 1,
                _ => {
                    self.blank();
                    continue;
                }
            }
            self.blank();
            self.blank();
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self) {
        self.keep();
        while let Some(c) = self.peek(0) {
            match c {
                '"' => return self.keep(),
                '\\' => {
                    self.blank();
                    self.blank();
                }
                _ => self.blank(),
            }
        }
    }

    /// `r"…"`, `br#"…"#`, `c"…"`, `b'…'`, or a word that merely begins like one.
    fn prefixed(&mut self) {
        let mut ahead = 1;
        let raw = match (self.peek(0), self.peek(1)) {
            (Some('b' | 'c'), Some('r')) => {
                ahead = 2;
                true
            }
            (first, _) => first == Some('r'),
        };
        let mut hashes = 0;
        while raw && self.peek(ahead + hashes) == Some('#') {
            hashes += 1;
        }
        match self.peek(ahead + hashes) {
            Some('"') if raw => self.raw_string(ahead + hashes, hashes),
            // Ahead of a plain string or a byte the prefix is one letter, which may stay.
            _ => self.keep(),
        }
    }

    fn raw_string(&mut self, quote: usize, hashes: usize) {
        for _ in 0..=quote {
            self.keep();
        }
        while let Some(c) = self.peek(0) {
            if c == '"' && (1..=hashes).all(|ahead| self.peek(ahead) == Some('#')) {
                for _ in 0..=hashes {
                    self.keep();
                }
                return;
            }
            self.blank();
        }
    }

    /// Tells `'a'` and `'\n'` from the lifetime `'a`.
    fn is_char_literal(&self) -> bool {
        self.peek(1) == Some('\\') || self.peek(2) == Some('\'')
    }

    fn char_literal(&mut self) {
        self.keep();
        if self.peek(0) == Some('\\') {
            self.blank();
            self.blank();
            while self.peek(0).is_some_and(|c| c != '\'') {
                self.blank();
            }
        } else {
            self.blank();
        }
        self.keep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn stripped(source: &str, expected: &str) {
        assert_eq!(code_of(source), expected, "{source}");
    }

    #[test]
    fn comments_are_blanked_out() {
        stripped("a // b\nc", "a     \nc");
        stripped("a /* b /* c */ d */ e", "a                   e");
        stripped("/// doc\nfn", "       \nfn");
        stripped("a / b", "a / b");
    }

    #[test]
    fn strings_are_blanked_out() {
        stripped(r#"f("a // b", "c\"d") // e"#, r#"f("      ", "    ")     "#);
        stripped(r###"r#"a " b"# c"###, r###"r#"     "# c"###);
        stripped(r#"br"a\" c"a" b"x""#, r#"br"  " c" " b" ""#);
        stripped("\"a\nb\" c", "\" \n \" c");
    }

    #[test]
    fn characters_are_blanked_out_and_lifetimes_stay() {
        stripped(r"'a' '\'' '\u{1F600}' b'\\'", r"' ' '  ' '         ' b'  '");
        stripped("'\"' x", "' ' x");
        stripped("fn f<'a>(x: &'a str, y: &'static u8)", "fn f<'a>(x: &'a str, y: &'static u8)");
        stripped("r#type br b r", "r#type br b r");
    }

    #[test]
    fn what_never_ends_is_no_panic() {
        for source in ["\"a", "/* a", "'\\", "r#\"a", "'", "b'", "\"\\"] {
            code_of(source);
        }
    }

    #[test]
    fn words_keep_their_place() {
        let found: Vec<(&str, usize)> =
            words("a::b_1 {").into_iter().map(|word| (word.text, word.start)).collect();
        assert_eq!(found, [("a", 0), (":", 1), (":", 2), ("b_1", 3), ("{", 7)]);
    }

    const WITH_TESTS: &str =
        "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() { c() }\n}\nfn d() {}\n";

    #[test]
    fn test_modules_are_blanked_out_line_for_line() {
        assert_eq!(without_test_modules(WITH_TESTS), "fn a() {}\n\n\n\n\nfn d() {}\n");
        assert_eq!(lines_without_tests(WITH_TESTS), 2);
        let with_feature = WITH_TESTS.replace("(test)", "(all(test, unix))");
        assert_eq!(lines_without_tests(&with_feature), 2);
    }

    #[test]
    fn other_items_for_tests_and_other_modules_stay() {
        for source in [
            "#[cfg(unix)]\nmod sys {\n}\n",
            "#[cfg(not(test))]\nmod sys {\n}\n",
            "#[cfg(test)]\nfn a() {}\n",
        ] {
            assert_eq!(without_test_modules(source), source);
        }
    }

    #[test]
    fn test_modules_in_other_files_have_names() {
        assert_eq!(
            test_files("#[cfg(test)]\nmod tests;\nmod b;\n#[cfg(test)]\npub mod c ;"),
            ["tests", "c"]
        );
        assert!(test_files(WITH_TESTS).is_empty());
    }
}
