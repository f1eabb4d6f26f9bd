//! JSON with the positions of its values.

use std::ops::Range;

use serde_json::Value;

/// A value, and its place in the text.
#[derive(Debug)]
pub(super) struct Node<'a> {
    /// Its bytes.
    pub(super) at: Range<usize>,
    /// Its text.
    pub(super) text: &'a str,
    pub(super) kind: Kind<'a>,
}

/// Value of a [`Node`].
#[derive(Debug)]
pub(super) enum Kind<'a> {
    Object(Vec<(Key, Node<'a>)>),
    Array(Vec<Node<'a>>),
    /// A string, number, boolean or null.
    Scalar(Value),
}

/// Name of a property, and its place in the text, with the quotes.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) at: Range<usize>,
}

/// Reason that a text is no JSON, and the byte where that shows.
#[derive(Debug)]
pub(super) struct NoJson {
    pub(super) at: usize,
    pub(super) problem: String,
}

impl Node<'_> {
    /// Reads a text.
    pub(super) fn parse(text: &str) -> Result<Node<'_>, NoJson> {
        // Serde knows the syntax and limits the depth; the reader below relies on both.
        if let Err(error) = serde_json::from_str::<Value>(text) {
            let before = text.split_inclusive('\n').take(error.line().saturating_sub(1));
            let at = before.map(str::len).sum::<usize>() + error.column().saturating_sub(1);
            let message = error.to_string();
            let problem = message.split(" at line ").next().unwrap_or_default().to_owned();
            return Err(NoJson { at: at.min(text.len()), problem });
        }
        Ok(Reader { text, at: 0 }.value())
    }
}

/// Reader of a text that is JSON.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or_default()
    }

    /// Skips white space, and the mark if it follows.
    fn skip(&mut self, mark: u8) {
        while self.peek().is_ascii_whitespace() {
            self.at += 1;
        }
        if mark != 0 && self.peek() == mark {
            self.at += 1;
            self.skip(0);
        }
    }

    fn value(&mut self) -> Node<'a> {
        self.skip(0);
        let start = self.at;
        let kind = match self.peek() {
            b'{' => {
                self.skip(b'{');
                let mut entries = Vec::new();
                while !matches!(self.peek(), b'}' | 0) {
                    let at = self.string();
                    let name = serde_json::from_str(&self.text[at.clone()]).unwrap_or_default();
                    self.skip(b':');
                    entries.push((Key { name, at }, self.value()));
                    self.skip(b',');
                }
                self.at += 1;
                Kind::Object(entries)
            }
            b'[' => {
                self.skip(b'[');
                let mut items = Vec::new();
                while !matches!(self.peek(), b']' | 0) {
                    items.push(self.value());
                    self.skip(b',');
                }
                self.at += 1;
                Kind::Array(items)
            }
            b'"' => {
                let at = self.string();
                Kind::Scalar(serde_json::from_str(&self.text[at]).unwrap_or_default())
            }
            _ => {
                while !matches!(self.peek(), 0 | b',' | b']' | b'}')
                    && !self.peek().is_ascii_whitespace()
                {
                    self.at += 1;
                }
                let text = &self.text[start..self.at];
                Kind::Scalar(serde_json::from_str(text).unwrap_or_default())
            }
        };
        let at = start..self.at.min(self.text.len());
        Node { text: &self.text[at.clone()], at, kind }
    }

    /// Skips a string, and returns its place.
    fn string(&mut self) -> Range<usize> {
        let start = self.at;
        self.at += 1;
        while !matches!(self.peek(), b'"' | 0) {
            self.at += if self.peek() == b'\\' { 2 } else { 1 };
        }
        self.at += 1;
        start..self.at.min(self.text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(node: &Node<'_>) -> Value {
        match &node.kind {
            Kind::Object(entries) => Value::Object(
                entries.iter().map(|(key, node)| (key.name.clone(), value(node))).collect(),
            ),
            Kind::Array(items) => items.iter().map(value).collect(),
            Kind::Scalar(value) => value.clone(),
        }
    }

    #[test]
    fn values_are_as_serde_reads_them() {
        for text in [
            r#" { "a" : [ 1 , -2.5e3 , "x\"]}\\" ] , "b\u0041" : { } , "c":null,"d":[],"e":true } "#,
            "3",
            "\n\"é\\n\"\t",
            "[[[]],{\"\":{\"\":\"\"}}]",
        ] {
            let node = Node::parse(text).unwrap();
            assert_eq!(value(&node), serde_json::from_str::<Value>(text).unwrap(), "{text}");
            assert_eq!(node.text, text.trim());
            assert_eq!(&text[node.at.clone()], node.text);
        }
    }

    #[test]
    fn a_syntax_error_has_its_place() {
        let error = Node::parse("{\n \"a\": 1,\n \"b\": x}").unwrap_err();
        assert_eq!(error.at, 17, "{}", error.problem);
        assert_eq!(Node::parse("{").unwrap_err().problem, "EOF while parsing an object");
        assert!(Node::parse(&"[".repeat(100_000)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[\\[\\]{}:,\"\\\\a1 é.-]{0,24}") {
            match (Node::parse(&text), serde_json::from_str::<Value>(&text)) {
                (Ok(node), Ok(expected)) => proptest::prop_assert_eq!(value(&node), expected),
                (Err(error), Err(_)) => proptest::prop_assert!(error.at <= text.len()),
                _ => proptest::prop_assert!(false, "only one of the two reads it"),
            }
        }
    }
}
