//! Colours for terminals.

use std::fmt;
use std::io::IsTerminal;

use clap::ColorChoice;
use clap::builder::styling::{AnsiColor, Style};

/// Choice between plain and coloured text for one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    Plain,
    Colored,
}

/// Role of a text, which determines its style.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Prefix of an error.
    Error,
    /// Prefix of a note.
    Note,
    /// Name of the plugin before a line of it.
    Speaker,
    /// Title or name.
    Title,
    /// Text of less importance.
    Aside,
}

impl Paint {
    /// Chooses for one stream. `auto` colours in a terminal, unless TERM is `dumb`. CLICOLOR_FORCE
    /// (bixense.com/clicolors) colours everywhere, and NO_COLOR (no-color.org) nowhere.
    pub(crate) fn choose(choice: ColorChoice, stream: &impl IsTerminal) -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let colored = match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                let is_forced = set("CLICOLOR_FORCE").is_some_and(|value| value != "0");
                let is_terminal =
                    || stream.is_terminal() && set("TERM").is_none_or(|term| term != "dumb");
                set("NO_COLOR").is_none() && (is_forced || is_terminal())
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

/// Text with its style.
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
