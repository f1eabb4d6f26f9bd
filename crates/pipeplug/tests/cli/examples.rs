//! Examples of the documentation: blocks marked `console` are run, and have to print what they say.
//!
//! `TRYCMD=overwrite cargo test -p pipeplug --test cli examples` writes what the program prints now.
//! Parts that differ from run to run have to be made `[..]` again by hand.

use std::path::Path;
use std::time::Duration;

use crate::common::Place;

/// Runs the examples of a page, in the folder of the same name that ends with `.in`.
fn run(page: &str) {
    let place = Place::new();
    let home = place.path().to_str().unwrap().to_owned();
    let program = Path::new(env!("CARGO_BIN_EXE_pipeplug"));
    let mut path = vec![program.parent().unwrap().to_owned()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    trycmd::TestCases::new()
        .insert_var("[HOME]", home.clone())
        .unwrap()
        .register_bin("pipeplug", program.to_owned())
        .env("PATH", std::env::join_paths(path).unwrap().to_str().unwrap())
        .env("HOME", &home)
        .env("XDG_DATA_HOME", format!("{home}/.local/share"))
        .env("XDG_CACHE_HOME", format!("{home}/.cache"))
        .env("XDG_CONFIG_HOME", format!("{home}/.config"))
        .env("XDG_RUNTIME_DIR", &home)
        .env("PIPEPLUG_PATH", "")
        .env("COLUMNS", "80")
        .env("CLICOLOR_FORCE", "0")
        .env("LC_ALL", "C")
        .timeout(Duration::from_secs(60))
        .case(page);
}

#[test]
fn messages() {
    run("../../docs/messages.md");
}

#[test]
fn the_command_line() {
    run("../../docs/command-line.md");
}

/// Messages about what comes from stdin, which an example on a page has no place for.
#[test]
fn messages_about_stdin() {
    run("tests/cmd/*.toml");
}
