//! Programs that some tests need and that may be missing.

use std::env;
use std::path::PathBuf;

/// The program, looked for in `PATH` and where servers are; where it is missing a line on standard
/// error says that the test is skipped, and how to get it.
///
/// # Panics
/// If it is missing and `CI=true`: a test that silently does not run is no test.
#[must_use]
pub fn tool(program: &str, package: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = dirs.map(|dir| dir.join(program)).find(|path| path.is_file());
    if found.is_none() {
        missing(&format!("{program} is missing (Debian: apt-get install {package})"));
    }
    found
}

/// Tells that a test is skipped, since something is missing.
///
/// # Panics
/// With `CI=true`.
pub fn missing(what: &str) {
    let in_ci = matches!(env::var("CI").as_deref(), Ok("true" | "1"));
    assert!(!in_ci, "{what}; with CI=true nothing may be left out");
    eprintln!("skipped: {what}");
}
