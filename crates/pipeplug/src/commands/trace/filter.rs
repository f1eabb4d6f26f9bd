//! Options that choose calls of a recording.

use std::time::Duration;

use clap::Args;

use super::Trace;
use crate::args::units::parse_duration;
use crate::trace::spans::{Item, Span};

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Calls to show")]
pub(crate) struct FilterArgs {
    /// Only calls and one-ways CMD; repeatable
    #[arg(long = "command", value_name = "CMD")]
    commands: Vec<String>,

    /// Only what was open or began at this time after the begin of the recording, or later
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    since: Option<Duration>,

    /// Only what began at this time after the begin of the recording, or earlier
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    until: Option<Duration>,

    /// Only calls that failed, were given up, or have no response
    #[arg(long)]
    failed: bool,

    /// Only calls that took longer, or were open for longer at the end of the recording
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    slower_than: Option<Duration>,
}

impl FilterArgs {
    /// Removes the items that do not fit. Begins and ends of connections stay, unless a time removes
    /// them.
    pub(crate) fn apply(&self, trace: &mut Trace) {
        let Trace { items, first, .. } = trace;
        let last = items.iter().map(Item::end).max().unwrap_or_default();
        let since = self.since.map(|since| *first + since);
        let until = self.until.map(|until| *first + until);
        let chooses_calls = !self.commands.is_empty() || self.failed || self.slower_than.is_some();
        items.retain(|item| {
            let is_late = until.is_some_and(|until| item.time() > until);
            let is_early = since.is_some_and(|since| match item {
                Item::Span(span) if span.is_open() => false,
                Item::Began { .. } => false,
                _ => item.end() < since,
            });
            !is_late && !is_early && item.span().is_none_or(|span| self.fits(span, last))
        });
        if chooses_calls && items.iter().all(|item| item.span().is_none()) {
            items.clear();
        }
    }

    fn fits(&self, span: &Span, last: Duration) -> bool {
        let took = match span.took() {
            Some(took) => took,
            None if span.is_open() => last.saturating_sub(span.begun),
            None => Duration::ZERO,
        };
        (self.commands.is_empty() || self.commands.contains(&span.command))
            && (!self.failed || span.has_failed() || span.is_open())
            && self.slower_than.is_none_or(|limit| took > limit)
    }
}
