//! Plugins that need no compiler: `hello.sh` in POSIX sh, `hello.py` in Python.
//!
//! They speak the protocol by hand, as `docs/protocol.md` has it. There is no Rust here; this crate
//! is what makes the folder one of the workspace's samples.
