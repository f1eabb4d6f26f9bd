//! Steps of a recording that are replayed.

use pipeplug_host::command;
use pipeplug_host::recording::Travel;

use crate::commands::trace::Trace;
use crate::trace::spans::{Item, Outcome, Span};

/// Calls and one-ways of both sides of one connection, in the order of their begin.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// Of the side that is played, without those of the protocol.
    pub(super) own: Vec<Span>,
    /// Of the other side.
    pub(super) others: Vec<Span>,
    /// Answer of the plugin to the first request.
    pub(super) metadata: Option<Vec<u8>>,
    pub(super) left_out: LeftOut,
}

/// Numbers of calls and one-ways that cannot be replayed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub(super) streams: usize,
    pub(super) redacted: usize,
    pub(super) without_data: usize,
}

impl Script {
    /// The script of the other side.
    pub(super) fn reversed(self) -> Self {
        Self { own: self.others, others: self.own, ..self }
    }

    /// Takes the calls of a connection out of a trace, to play the host: of the first one with calls, unless
    /// `connection` names another.
    pub(super) fn of(trace: Trace, connection: Option<u32>) -> Result<Self, String> {
        if trace.is_cut {
            return Err("its oldest records were dropped, so that its begin is not there to \
                        replay: record again with a larger --record-limit"
                .to_owned());
        }
        let spans: Vec<_> = trace
            .items
            .into_iter()
            .filter_map(|item| match item {
                Item::Span(span) => Some(*span),
                _ => None,
            })
            .collect();
        let is_of_user =
            |span: &Span| !command::is_of_protocol(&span.command) && span.command != GET_SERVICES;
        let first = spans.iter().find(|span| is_of_user(span)).map(|span| span.connection);
        let connection = connection.or(first).unwrap_or(1);
        let mut script = Self::default();
        let mut wanting = 0;
        for span in spans.into_iter().filter(|span| span.connection == connection) {
            if span.command == command::GET_METADATA && span.travel == Travel::Sent {
                script.metadata = span.reply.and_then(|reply| reply.data);
                continue;
            }
            if !is_of_user(&span) {
                continue;
            }
            wanting += 1;
            if span.parts.count + span.reply_parts.count > 0 {
                script.left_out.streams += 1;
            } else if span.request.is_redacted {
                script.left_out.redacted += 1;
            } else if !span.request.is_whole() {
                script.left_out.without_data += 1;
            } else if span.travel == Travel::Sent {
                script.own.push(span);
            } else {
                script.others.push(span);
            }
        }
        if wanting == 0 {
            return Err(format!("connection {connection} has no calls to replay"));
        }
        if script.own.is_empty() && script.others.is_empty() && script.left_out.without_data > 0 {
            return Err("it has headers only, and no data to replay: record with data \
                        (--record, or Recording::with_data)"
                .to_owned());
        }
        Ok(script)
    }
}

/// The request for descriptions of services, which the host's library makes.
const GET_SERVICES: &str = "GetServices";

/// True if the other side is expected to have answered.
pub(super) fn was_answered(span: &Span) -> bool {
    matches!(span.outcome, Outcome::Reply | Outcome::Error { .. } | Outcome::Closed(_))
}
