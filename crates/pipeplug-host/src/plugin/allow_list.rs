//! Allow list: the commands that a plugin may send to its host.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use pipeplug_net::{Failure, HandlerError, Reply, Request, failure_code};

use crate::plugin::Plugin;

/// Commands that a plugin may send. Checked before the host's handler.
#[derive(Debug)]
pub(crate) struct AllowList {
    allowed: BTreeSet<String>,
    refused: AtomicU64,
}

impl AllowList {
    pub(crate) fn new(allowed: BTreeSet<String>) -> Self {
        Self { allowed, refused: AtomicU64::new(0) }
    }

    pub(crate) fn allows(&self, command: &str) -> bool {
        self.allowed.contains(command)
    }

    /// Answers a request with an error, and drops a one-way. Either is logged at the first, second,
    /// fourth, eighth time.
    pub(crate) fn refuse(&self, plugin: &Plugin, request: &Request) -> Result<Reply, HandlerError> {
        let command = request.command();
        let times = self.refused.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if times.is_power_of_two() {
            let what = if request.is_one_way() {
                "a one-way was dropped"
            } else {
                "a request was refused"
            };
            tracing::warn!(
                plugin = plugin.name(),
                ?command,
                times,
                "{what}, which the plugin may not send"
            );
        }
        if request.is_one_way() {
            return Ok(Reply::empty());
        }
        let message = format!("the host does not allow this plugin to ask for {command:?}");
        Err(Failure::new(failure_code::REFUSED, message).into())
    }
}
