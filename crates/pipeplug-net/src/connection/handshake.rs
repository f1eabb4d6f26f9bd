//! Negotiation of features, for the crates that exchange metadata: pipeplug-host and
//! pipeplug-guest.

use std::sync::atomic::Ordering;

use super::{Connection, cancellation, stream};
use crate::protocol::{context, failure, flow, progress};

/// Version of the protocol that this crate speaks.
const PROTOCOL: &str = "1";
const KEY_PROTOCOL: &str = "pipeplug.protocol";
const KEY_FEATURES: &str = "pipeplug.features";
const KEY_WINDOW: &str = "pipeplug.window";
const KEY_STREAM_WINDOW: &str = "pipeplug.stream_window";

/// Keys and values that a side of `connection` sends in the exchange of metadata (docs/protocol.md,
/// "Metadata").
#[must_use]
pub fn offer(connection: &Connection) -> [(&'static str, String); 4] {
    [
        (KEY_PROTOCOL, PROTOCOL.to_owned()),
        (
            KEY_FEATURES,
            [
                flow::FEATURE,
                context::FEATURE,
                cancellation::FEATURE,
                stream::FEATURE,
                failure::FEATURE,
                progress::FEATURE,
            ]
            .join(" "),
        ),
        (KEY_WINDOW, connection.shared().options.window.to_string()),
        (KEY_STREAM_WINDOW, connection.shared().options.stream_window.to_string()),
    ]
}

/// Adds a feature that is not the connection's own to an offer.
pub fn name_feature(offer: &mut [(&'static str, String)], feature: &str) {
    for (_, words) in offer.iter_mut().filter(|(key, _)| *key == KEY_FEATURES) {
        words.push(' ');
        words.push_str(feature);
    }
}

/// Tells whether the other side has named a feature in its metadata, looked up by key.
pub fn names_feature<'a>(offered: impl Fn(&str) -> Option<&'a str>, feature: &str) -> bool {
    offered(KEY_FEATURES).unwrap_or_default().split(' ').any(|name| name == feature)
}

/// Takes the metadata of the other side, looked up by key. Features that both sides name are used
/// from now on.
pub fn accept<'a>(connection: &Connection, offered: impl Fn(&str) -> Option<&'a str>) {
    accept_before_answer(connection, &offered);
    accept_with_answer(connection, offered);
}

/// Takes the metadata of a host that does not know this side's yet. Everything that the host has
/// named is used from now on but `flow`: the host gives credit only once it knows that it is
/// counted, so that a sender would wait for it in vain. [`accept_with_answer`] follows.
pub fn accept_before_answer<'a>(
    connection: &Connection,
    offered: impl Fn(&str) -> Option<&'a str>,
) {
    let shared = connection.shared();
    let features = offered(KEY_FEATURES).unwrap_or_default();
    let has = |feature| features.split(' ').any(|name| name == feature);
    if has(context::FEATURE) {
        shared.writer.tell_contexts();
    } else {
        shared.peer.ignores_contexts.store(true, Ordering::Relaxed);
    }
    if has(cancellation::FEATURE) {
        shared.peer.takes_cancels.store(true, Ordering::Relaxed);
    }
    if has(stream::FEATURE) && has(context::FEATURE) && has(cancellation::FEATURE) {
        let window = flow::stream_window(offered(KEY_STREAM_WINDOW));
        shared.peer.lacks_stream_window.store(true, Ordering::Relaxed);
        shared.stream_window_negotiated(window);
        shared.peer.takes_streams.store(true, Ordering::Release);
    }
    if has(failure::FEATURE) {
        shared.peer.takes_failures.store(true, Ordering::Relaxed);
    }
    if has(progress::FEATURE) && has(context::FEATURE) {
        shared.peer.reports_progress.store(true, Ordering::Relaxed);
    }
}

/// Takes the rest of the metadata of a host: the answer to it is about to be sent.
pub fn accept_with_answer<'a>(connection: &Connection, offered: impl Fn(&str) -> Option<&'a str>) {
    let shared = connection.shared();
    shared.peer.lacks_stream_window.store(false, Ordering::Relaxed);
    if names_feature(&offered, flow::FEATURE) {
        shared.count_received();
        shared.writer.negotiated(flow::window(offered(KEY_WINDOW)));
    }
}
