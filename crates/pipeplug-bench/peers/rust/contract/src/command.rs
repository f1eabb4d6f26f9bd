//! The one line that tells a host what to measure.

use std::io;
use std::str::{FromStr, SplitWhitespace};

use anyhow::{Context as _, Result, bail};

/// Measurement that the driver asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Sequential { warmup: usize, calls: usize, size: usize },
    Callers { threads: usize, calls: usize, size: usize },
    Tasks { tasks: usize, calls: usize, size: usize },
    Flight { window: usize, calls: usize, size: usize },
    Stream { window: usize, chunks: usize, size: usize },
    OneWay { count: usize, size: usize },
    Bulk { calls: usize, size: usize },
    Spawn { times: usize },
}

impl Command {
    /// Reads it from stdin.
    ///
    /// # Blocking
    /// Until the driver has written it.
    pub(crate) fn read() -> Result<Self> {
        let mut line = String::new();
        io::stdin().read_line(&mut line).context("cannot read the command")?;
        line.parse().with_context(|| format!("bad command `{}`", line.trim_end()))
    }

    /// The bytes of each call; what is started makes calls of 64.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::Sequential { size, .. }
            | Self::Callers { size, .. }
            | Self::Tasks { size, .. }
            | Self::Flight { size, .. }
            | Self::Stream { size, .. }
            | Self::OneWay { size, .. }
            | Self::Bulk { size, .. } => size,
            Self::Spawn { .. } => 64,
        }
    }
}

impl FromStr for Command {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Self> {
        let mut words = line.split_whitespace();
        let name = words.next().context("it is empty")?;
        let words = &mut words;
        Ok(match name {
            "sequential" => Self::Sequential {
                warmup: number(words)?,
                calls: some(words)?,
                size: number(words)?,
            },
            "callers" => {
                Self::Callers { threads: some(words)?, calls: some(words)?, size: number(words)? }
            }
            "tasks" => {
                Self::Tasks { tasks: some(words)?, calls: some(words)?, size: number(words)? }
            }
            "flight" => {
                Self::Flight { window: some(words)?, calls: some(words)?, size: number(words)? }
            }
            "stream" => {
                Self::Stream { window: some(words)?, chunks: some(words)?, size: number(words)? }
            }
            "oneway" => Self::OneWay { count: some(words)?, size: number(words)? },
            "bulk" => Self::Bulk { calls: some(words)?, size: number(words)? },
            "spawn" => Self::Spawn { times: some(words)? },
            _ => bail!("nothing is called `{name}`"),
        })
    }
}

fn number(words: &mut SplitWhitespace<'_>) -> Result<usize> {
    let word = words.next().context("a number is missing")?;
    word.parse().with_context(|| format!("`{word}` is no number"))
}

fn some(words: &mut SplitWhitespace<'_>) -> Result<usize> {
    match number(words)? {
        0 => bail!("a number is 0 that has to be more"),
        number => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_read() {
        let read = |line: &str| line.parse::<Command>().ok();
        assert_eq!(
            read("sequential 0 2 64\n"),
            Some(Command::Sequential { warmup: 0, calls: 2, size: 64 })
        );
        assert_eq!(read("callers 1 2 0"), Some(Command::Callers { threads: 1, calls: 2, size: 0 }));
        assert_eq!(read("tasks 1 2 3"), Some(Command::Tasks { tasks: 1, calls: 2, size: 3 }));
        assert_eq!(read("flight 1 2 3"), Some(Command::Flight { window: 1, calls: 2, size: 3 }));
        assert_eq!(read("stream 1 2 3"), Some(Command::Stream { window: 1, chunks: 2, size: 3 }));
        assert_eq!(read("oneway 1 2"), Some(Command::OneWay { count: 1, size: 2 }));
        assert_eq!(read("bulk 1 2"), Some(Command::Bulk { calls: 1, size: 2 }));
        assert_eq!(read("spawn 1"), Some(Command::Spawn { times: 1 }));
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for line in ["", "bulk", "bulk 1", "bulk x 1", "bulk 0 1", "callers 0 1 1", "bench 1"] {
            assert!(line.parse::<Command>().is_err(), "{line}");
        }
    }
}
