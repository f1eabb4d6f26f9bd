//! A plugin on tokio: each request is a task.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pipeplug_guest::{Failure, Guest, HandlerError, Main, Reply, Request};

/// Requests whose caller has given them up.
static CANCELLED: AtomicU64 = AtomicU64::new(0);

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("web-plugin: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let tasks = runtime.handle().clone();
    Guest::new()
        .metadata("Description", "answers the server of the sample")
        .async_handler(move |future| tasks.spawn(future), answer)
        .register()
        .wait()
}

async fn answer(_main: Main, request: Request) -> Result<Reply, HandlerError> {
    match request.command() {
        "shout" => match request.text()? {
            "" => Err(Failure::new("invalid_text", "there is nothing to shout").into()),
            text => Ok(text.to_uppercase().into()),
        },
        "sleep" => {
            let time = Duration::from_millis(request.text()?.parse()?);
            tokio::select! {
                () = tokio::time::sleep(time) => Ok("slept".into()),
                () = request.cancellation() => {
                    CANCELLED.fetch_add(1, Ordering::Relaxed);
                    Err("cancelled".into())
                }
            }
        }
        "cancelled" => Ok(CANCELLED.load(Ordering::Relaxed).to_string().into()),
        _ => request.unknown(),
    }
}
