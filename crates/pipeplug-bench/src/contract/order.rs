//! Orders of the driver and answers of the subject, line by line over standard input and output.
//!
//! An order comes first; the subject warms up and says `BEGIN <plugin's pid>`, or `NA <why>` where
//! it has no such thing; on the next line it measures and says `END {json}`; the line after that,
//! or the end of its input, lets it leave.

use std::collections::BTreeMap;
use std::io::{BufRead as _, StdinLock, Write as _, stdin, stdout};
use std::str::FromStr;

use anyhow::{Context as _, Result, anyhow, bail, ensure};

/// Measurement that the driver asks for. Sizes are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// One call at a time.
    Sequential {
        /// Calls that do not count.
        warm_up: u64,
        /// Calls that do.
        calls: u64,
        /// Of a message.
        size: usize,
    },
    /// Threads that each make one call at a time.
    Callers {
        /// How many callers.
        threads: u64,
        /// Calls in all.
        calls: u64,
        /// Of a message.
        size: usize,
    },
    /// The same with asynchronous tasks.
    Tasks {
        /// How many callers.
        tasks: u64,
        /// Calls in all.
        calls: u64,
        /// Of a message.
        size: usize,
    },
    /// One thread that keeps that many calls in flight.
    Flight {
        /// Calls at once.
        window: u64,
        /// Calls in all.
        calls: u64,
        /// Of a message.
        size: usize,
    },
    /// The same over a stream of messages in place of calls.
    Stream {
        /// Messages at once.
        window: u64,
        /// Calls in all.
        calls: u64,
        /// Of a message.
        size: usize,
    },
    /// One-ways, confirmed by an answer at the end.
    OneWay {
        /// How many.
        count: u64,
        /// Of a message.
        size: usize,
    },
    /// Echoes of a large buffer.
    Bulk {
        /// Calls that count; one more warms up.
        calls: u64,
        /// Of the buffer.
        size: usize,
    },
    /// Starts of the plugin, to its first answer.
    Spawn {
        /// How often.
        times: u64,
    },
    /// One call at a time beside idle plugins on the same loop.
    Idle {
        /// How many of them.
        plugins: u64,
        /// Calls in all.
        calls: u64,
        /// Of a message.
        size: usize,
    },
    /// One call at a time beside open ones.
    Open {
        /// How many of them.
        open: u64,
        /// Calls in all.
        calls: u64,
        /// Of a message.
        size: usize,
    },
}

impl FromStr for Order {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Self> {
        let mut words = line.split_whitespace();
        let name = words.next().context("an order is a word and numbers, found an empty line")?;
        let numbers: Vec<u64> = words
            .map(|word| word.parse().with_context(|| format!("{name}: {word} is no number")))
            .collect::<Result<_>>()?;
        let size = |bytes: u64| usize::try_from(bytes).context("the size is out of range");
        Ok(match (name, numbers.as_slice()) {
            ("sequential", &[warm_up, calls, bytes]) => {
                Self::Sequential { warm_up, calls, size: size(bytes)? }
            }
            ("callers", &[threads, calls, bytes]) => {
                Self::Callers { threads, calls, size: size(bytes)? }
            }
            ("tasks", &[tasks, calls, bytes]) => Self::Tasks { tasks, calls, size: size(bytes)? },
            ("flight", &[window, calls, bytes]) => {
                Self::Flight { window, calls, size: size(bytes)? }
            }
            ("stream", &[window, calls, bytes]) => {
                Self::Stream { window, calls, size: size(bytes)? }
            }
            ("oneway", &[count, bytes]) => Self::OneWay { count, size: size(bytes)? },
            ("bulk", &[calls, bytes]) => Self::Bulk { calls, size: size(bytes)? },
            ("spawn", &[times]) => Self::Spawn { times },
            ("idle", &[plugins, calls, bytes]) => Self::Idle { plugins, calls, size: size(bytes)? },
            ("open", &[open, calls, bytes]) => Self::Open { open, calls, size: size(bytes)? },
            _ => bail!("no such order: {line:?}"),
        })
    }
}

/// Result of an order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// How long it took.
    pub seconds: f64,
    /// How many calls it was.
    pub count: u64,
    /// Percentiles in microseconds, and what else the order brings.
    pub more: BTreeMap<&'static str, f64>,
}

impl Figures {
    /// As one flat object.
    fn to_json(&self) -> String {
        let mut json = format!("{{\"seconds\":{},\"count\":{}", self.seconds, self.count);
        self.more.iter().for_each(|(name, value)| json.push_str(&format!(",\"{name}\":{value}")));
        json + "}"
    }
}

/// The other end of standard input and output.
#[derive(Debug)]
pub struct Driver {
    lines: StdinLock<'static>,
}

impl Driver {
    /// Takes standard input; standard output is written to line by line.
    pub fn on_stdio() -> Self {
        Self { lines: stdin().lock() }
    }

    /// The order; `None` where the driver leaves without one.
    ///
    /// # Errors
    /// It is none.
    ///
    /// # Blocking
    /// Until there is a line.
    pub fn order(&mut self) -> Result<Option<Order>> {
        match self.line()? {
            Some(line) if line != "quit" => Ok(Some(line.parse()?)),
            _ => Ok(None),
        }
    }

    /// Says that all is warm, and waits to be let go. A pid of 0: there is no plugin yet.
    ///
    /// # Errors
    /// The driver has left.
    ///
    /// # Blocking
    /// Until there is a line.
    pub fn begin(&mut self, plugin: u32) -> Result<()> {
        say(&format!("BEGIN {plugin}"))?;
        ensure!(self.line()?.is_some(), "the driver ended before the measurement");
        Ok(())
    }

    /// Gives the figures, and waits until the driver has looked at the processes.
    ///
    /// # Errors
    /// The driver cannot be told.
    ///
    /// # Blocking
    /// Until there is a line, or there will be none.
    pub fn end(&mut self, figures: &Figures) -> Result<()> {
        say(&format!("END {}", figures.to_json()))?;
        self.line()?;
        Ok(())
    }

    /// Says that the subject has no such thing.
    ///
    /// # Errors
    /// The driver cannot be told.
    pub fn not_here(&mut self, why: &str) -> Result<()> {
        say(&format!("NA {why}"))
    }

    fn line(&mut self) -> Result<Option<String>> {
        let mut line = String::new();
        let read =
            self.lines.read_line(&mut line).map_err(|error| anyhow!("standard input: {error}"))?;
        Ok((read > 0).then(|| line.trim_end().to_owned()))
    }
}

fn say(line: &str) -> Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_word_and_its_numbers() {
        let order: Order = "sequential 10 200 64".parse().unwrap();
        assert_eq!(order, Order::Sequential { warm_up: 10, calls: 200, size: 64 });
        assert_eq!("spawn 3".parse::<Order>().unwrap(), Order::Spawn { times: 3 });
    }

    #[test]
    fn an_order_that_is_none_says_which_line() {
        for line in ["", "sequential 1 2", "spawn x", "walk 3"] {
            assert!(line.parse::<Order>().is_err(), "{line}");
        }
    }

    #[test]
    fn figures_are_one_flat_object() {
        let figures = Figures { seconds: 0.5, count: 2, more: BTreeMap::from([("p50", 1.5)]) };
        assert_eq!(figures.to_json(), r#"{"seconds":0.5,"count":2,"p50":1.5}"#);
    }
}
