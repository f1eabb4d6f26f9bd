//! The program as its users see it: stdout, stderr and exit status.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod add;
mod common;
mod config;
mod conform;
mod containers;
mod controlling;
mod data;
mod ends;
mod errors;
mod inspect;
mod json;
mod launcher;
mod list;
mod logs;
#[cfg(target_os = "linux")]
mod node;
mod protocol;
#[cfg(target_os = "linux")]
mod recipes;
mod run;
#[cfg(not(pipeplug_portable))]
mod sandbox;
mod services;
mod stream;
mod terminal;
mod unread;
