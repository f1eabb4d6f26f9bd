//! Plugins that need no compiler: `hello.sh` in POSIX sh, `hello.py` in Python.
//!
//! They implement the protocol of `docs/protocol.md` by hand. `greet.sh`, a plugin, and `host.sh`, a
//! host, leave it to `pipeplug chunk`. This crate contains no Rust code; it
//! makes the folder one of the samples of the workspace.
