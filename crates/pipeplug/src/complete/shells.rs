//! Scripts for shells, and the candidates as each shell takes them.

use std::ffi::{OsStr, OsString};
use std::io::{Error, Write};
use std::path::Path;

use clap::Command;
use clap_complete::engine;
use clap_complete::env::{self, EnvCompleter};

/// Files of the scripts, by the names that the shells look for.
pub(crate) const SCRIPTS: [(&str, &dyn EnvCompleter); 3] =
    [("pipeplug.bash", &Bash), ("_pipeplug", &Zsh), ("pipeplug.fish", &Fish)];

pub(crate) use clap_complete::env::Fish;

/// Completion in bash. That of clap takes `@echo`, `--sandbox=strict` and `a:b` for several words, as
/// bash splits them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bash;

/// Joins what bash has split within a word, and completes the part behind the last split.
const BASH: &str = r#"# Completion of pipeplug for bash 4 or later.
_pipeplug() {
    local line=${COMP_LINE:0:COMP_POINT} words=() word i
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if ((i > 0)) && [[ -n $line && $line != [[:space:]]* ]]; then
            word=${word:0:${#line}}
            words[${#words[@]} - 1]+=$word
        else
            line=${line#"${line%%[![:space:]]*}"}
            word=${word:0:${#line}}
            words+=("$word")
        fi
        line=${line#"$word"}
    done
    # Bash replaces only what follows its last split.
    local typed=${words[${#words[@]} - 1]}
    typed=${typed%"$2"}
    local IFS=$'\n'
    COMPREPLY=($(VAR=bash _PIPEPLUG_TYPED=$typed "COMPLETER" -- "${words[@]}" 2>/dev/null))
    if ((${#COMPREPLY[@]} == 1)) && [[ ${COMPREPLY[0]} == *[/=] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -F _pipeplug BIN
"#;

impl EnvCompleter for Bash {
    fn name(&self) -> &'static str {
        "bash"
    }

    fn is(&self, name: &str) -> bool {
        name == self.name()
    }

    fn write_registration(
        &self,
        var: &str,
        _name: &str,
        bin: &str,
        completer: &str,
        buf: &mut dyn Write,
    ) -> Result<(), Error> {
        let completer = shlex::try_quote(completer).unwrap_or(completer.into());
        let script = BASH.replace("VAR", var).replace("BIN", bin);
        buf.write_all(script.replace("\"COMPLETER\"", &completer).as_bytes())
    }

    fn write_complete(
        &self,
        command: &mut Command,
        words: Vec<OsString>,
        current_dir: Option<&Path>,
        buf: &mut dyn Write,
    ) -> Result<(), Error> {
        let typed = std::env::var("_PIPEPLUG_TYPED").unwrap_or_default();
        // Bash leaves quotes in the words, and an open one before the part that it replaces.
        let is_open = words.last().is_some_and(|word| open_quote(word).is_some());
        let words: Vec<_> = words.into_iter().map(unquoted).collect();
        let index = words.len().saturating_sub(1);
        for candidate in engine::complete(command, words, index, current_dir)? {
            let candidate = candidate.get_value().to_string_lossy();
            let candidate = candidate.strip_prefix(typed.as_str()).unwrap_or(&candidate);
            match is_open {
                true => writeln!(buf, "{candidate}")?,
                false => writeln!(buf, "{}", quoted(candidate))?,
            }
        }
        Ok(())
    }
}

/// Quote at the beginning of a word that does not end there.
fn open_quote(word: &OsStr) -> Option<char> {
    let word = word.to_str()?;
    let quote = word.chars().next().filter(|c| "'\"".contains(*c))?;
    shlex::split(word).is_none().then_some(quote)
}

/// Word without the quotes of a shell.
fn unquoted(word: OsString) -> OsString {
    let Some(text) = word.to_str() else { return word };
    let closed = match open_quote(&word) {
        Some(quote) => format!("{text}{quote}"),
        None => text.to_owned(),
    };
    match shlex::split(&closed).as_deref() {
        Some([part]) => part.into(),
        _ => word,
    }
}

/// Word with a backslash before each character that bash does not take as it is.
fn quoted(word: &str) -> String {
    let mut quoted = String::new();
    for c in word.chars() {
        if c.is_ascii() && !c.is_ascii_alphanumeric() && !"_.:-/@+,%=~^".contains(c) {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted
}

/// Completion in zsh.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Zsh;

impl EnvCompleter for Zsh {
    fn name(&self) -> &'static str {
        "zsh"
    }

    fn is(&self, name: &str) -> bool {
        name == self.name()
    }

    fn write_registration(
        &self,
        var: &str,
        name: &str,
        bin: &str,
        completer: &str,
        buf: &mut dyn Write,
    ) -> Result<(), Error> {
        let mut script = Vec::new();
        env::Zsh.write_registration(var, name, bin, completer, &mut script)?;
        // zsh reads a file of its function path at the first use, which has to complete already.
        let script = String::from_utf8_lossy(&script);
        let function = format!("_clap_dynamic_completer_{}", name.replace('-', "_"));
        let register = format!("compdef {function} {bin}");
        let both = format!(
            "if [[ $funcstack[1] == _{bin} ]]; then\n    {function} \"$@\"\nelse\n    {register}\nfi"
        );
        buf.write_all(script.replace(&register, &both).as_bytes())
    }

    fn write_complete(
        &self,
        command: &mut Command,
        words: Vec<OsString>,
        current_dir: Option<&Path>,
        buf: &mut dyn Write,
    ) -> Result<(), Error> {
        let words = words.into_iter().map(unquoted).collect();
        env::Zsh.write_complete(command, words, current_dir, buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_removed_and_special_characters_escaped() {
        assert_eq!(unquoted("a\\ b".into()), "a b");
        assert_eq!(unquoted("'a b'".into()), "a b");
        assert_eq!(unquoted("'a b".into()), "a b");
        assert_eq!(unquoted("".into()), "");
        assert_eq!(quoted("./my plugin$(x)"), "./my\\ plugin\\$\\(x\\)");
        assert_eq!(quoted("@echo"), "@echo");
    }
}
