//! The program as its users see it: what is on stdout, on stderr, and what it exits with.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod add;
mod common;
mod containers;
mod controlling;
mod data;
mod elsewhere;
mod ends;
mod errors;
mod inspect;
mod json;
mod list;
#[cfg(target_os = "linux")]
mod node;
#[cfg(target_os = "linux")]
mod recipes;
mod run;
mod terminal;
mod unread;
#[cfg(not(pipeplug_portable))]
mod walls;
mod ways;
