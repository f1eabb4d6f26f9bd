//! The smallest plugin: `echo` says back what it is told, `upper` says it louder, `log` goes to standard error.

use std::process::ExitCode;

use pipeplug_guest::{Guest, HandlerError, Incoming, Main, Reply};

fn main() -> ExitCode {
    Guest::new().metadata("Description", "says back what it is told").request(request).register().wait()
}

fn request(_main: &Main, incoming: &mut Incoming) -> Result<Reply, HandlerError> {
    match incoming.command() {
        "echo" => Ok(incoming.take_buffer().into()),
        "upper" => Ok(incoming.text()?.to_uppercase().into()),
        "log" => {
            eprintln!("{}", incoming.text()?);
            Ok(Reply::empty())
        }
        _ => incoming.unknown(),
    }
}
