//! The smallest plugin: `echo` says back what it is told, `upper` says it louder, `log` goes to
//! standard error.

use std::process::ExitCode;

use pipeplug_guest::{Guest, HandlerError, Main, Reply, Request};

fn main() -> ExitCode {
    Guest::new()
        .metadata("Description", "says back what it is told")
        .handler(answer)
        .register()
        .wait()
}

fn answer(_main: &Main, request: &mut Request) -> Result<Reply, HandlerError> {
    match request.command() {
        "echo" => Ok(request.take_buffer().into()),
        "upper" => Ok(request.text()?.to_uppercase().into()),
        "log" => {
            eprintln!("{}", request.text()?);
            Ok(Reply::empty())
        }
        _ => request.unknown(),
    }
}
