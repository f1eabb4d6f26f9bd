//! The program as its users see it: what is on stdout, on stderr, and what it exits with.

mod common;
mod data;
mod ends;
mod errors;
mod inspect;
mod json;
mod list;
mod run;
mod terminal;
