//! The program as its users see it: stdout, stderr and exit status.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod add;
mod bench;
mod bindings;
mod chunk;
mod common;
mod complete;
mod config;
mod config_file;
mod conform;
mod containers;
mod controlling;
mod data;
mod dev;
mod doctor;
mod ends;
mod errors;
mod examples;
mod inspect;
mod json;
mod launcher;
mod list;
mod logs;
mod many;
mod new;
#[cfg(target_os = "linux")]
mod node;
mod page;
#[cfg(linux_native)]
mod permissions;
mod protocol;
#[cfg(target_os = "linux")]
mod recipes;
mod record;
mod run;
#[cfg(not(pipeplug_portable))]
mod sandbox;
mod services;
mod shell;
mod stream;
mod terminal;
mod top;
mod unread;
