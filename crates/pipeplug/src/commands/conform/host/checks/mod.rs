//! Checks of hosts, by group.

mod calls;
mod features;
mod start;

use super::HostCheck;
use super::scripted::{Scripted, is_stop};
use crate::commands::conform::outcome::Checked;
use crate::commands::conform::peer::{Answers, Input};

/// Cmd that no host has.
const UNKNOWN: &str = "conform-unheard-of";
/// Cmd that the protocol does not have.
const RESERVED: &str = "cmd.conform-unheard-of";
const BROKEN: &str = "the host closes the connection, and sends no response";
/// Window of a side that names none.
const DEFAULT_WINDOW: u64 = 4 << 20;

/// All checks, in the order in which they run.
pub(super) const GROUPS: [&[HostCheck]; 3] = [start::CHECKS, calls::CHECKS, features::CHECKS];

/// Answers calls of the host, until it has enough, or makes none for a while.
fn watch(plugin: &mut Scripted) -> Checked {
    plugin.answers = Answers::Echo;
    loop {
        let before = plugin.seen.len();
        plugin.settle()?;
        let is_over = plugin.state != Input::Open || plugin.seen.iter().any(is_stop);
        if is_over || plugin.seen.len() == before {
            return Ok(());
        }
    }
}
