//! Plugins that need no compiler: `hello.sh` in POSIX sh, `hello.py` in Python.
//!
//! They implement the protocol of `docs/protocol.md` by hand. This crate contains no Rust code; it
//! makes the folder one of the samples of the workspace.
