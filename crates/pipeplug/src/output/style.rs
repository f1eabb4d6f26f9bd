//! Colours, where somebody sees them.

use std::fmt;
use std::io::IsTerminal;

use clap::ColorChoice;
use clap::builder::styling::{AnsiColor, Style};

/// Whether to colour what goes to one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    Plain,
    Colored,
}

/// What a text is, which says how it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The head of an error.
    Error,
    /// The head of what is no error.
    Note,
    /// Whose line it is.
    Speaker,
    /// A title or a name.
    Title,
    /// What matters less.
    Aside,
}

impl Paint {
    /// `auto` means: in a terminal, unless NO_COLOR is set (no-color.org) or the terminal knows
    /// none.
    pub(crate) fn choose(choice: ColorChoice, stream: &impl IsTerminal) -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let colored = match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                stream.is_terminal()
                    && set("NO_COLOR").is_none()
                    && set("TERM").is_none_or(|term| term != "dumb")
            }
        };
        if colored { Self::Colored } else { Self::Plain }
    }

    pub(crate) fn paint<T: fmt::Display>(self, role: Role, text: T) -> Painted<T> {
        let style = match (self, role) {
            (Self::Plain, _) => Style::new(),
            (Self::Colored, Role::Error) => AnsiColor::Red.on_default().bold(),
            (Self::Colored, Role::Note) => AnsiColor::Yellow.on_default(),
            (Self::Colored, Role::Speaker) => AnsiColor::Cyan.on_default(),
            (Self::Colored, Role::Title) => Style::new().bold(),
            (Self::Colored, Role::Aside) => Style::new().dimmed(),
        };
        Painted { style, text }
    }
}

/// Text in its colour.
pub(crate) struct Painted<T> {
    style: Style,
    text: T,
}

impl<T: fmt::Display> fmt::Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A plain style renders as nothing.
        write!(f, "{}{}{}", self.style.render(), self.text, self.style.render_reset())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_has_no_escapes() {
        assert_eq!(Paint::Plain.paint(Role::Error, "x").to_string(), "x");
        let colored = Paint::Colored.paint(Role::Error, "x").to_string();
        assert!(colored.starts_with('\x1b') && colored.ends_with("\x1b[0m"), "{colored:?}");
    }
}
