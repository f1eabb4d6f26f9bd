//! The subcommand `count`: counts the words of standard input.

use std::io::{self, Read as _};
use std::process::ExitCode;

use pipeplug_guest::{Guest, HandlerError, Main, Reply, Request};

fn main() -> ExitCode {
    Guest::new()
        .metadata("Description", "counts the words of standard input")
        .handler(answer)
        .register()
        .wait()
}

fn answer(main: &Main, request: &mut Request) -> Result<Reply, HandlerError> {
    match request.command() {
        "run" => run(&main.args().iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>()),
        _ => request.unknown(),
    }
}

/// Returns the exit code.
fn run(args: &[impl AsRef<str>]) -> Result<Reply, HandlerError> {
    let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
    let least = match args[..] {
        [] => 0,
        ["--at-least", number] => number.parse()?,
        ["--crash"] => std::process::abort(),
        _ => return Err("usage: tool count [--at-least NUMBER]".into()),
    };
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    let words = text.split_whitespace().count();
    println!("{words}");
    if words < least {
        eprintln!("tool count: {words} words are fewer than {least}");
        return Ok("7".into());
    }
    Ok("0".into())
}
