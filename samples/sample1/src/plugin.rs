//! The plugin: asks the host for the Docker host when it starts, then answers and calls back.

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use pipeplug_guest::{HandlerError, Main, Reply, Request, register};

fn main() -> ExitCode {
    let docker_host = Arc::new(OnceLock::new());
    let kept = Arc::clone(&docker_host);
    // Runs before the first request comes in, so `request` finds the answer.
    let start = move |main: &Main| {
        let answer = main.call("GetDockerHost", "")?;
        eprintln!("sample1-plugin: the docker host is {answer}");
        kept.set(answer)?;
        Ok(())
    };
    let request = move |main: &Main, request: &mut Request| match request.command() {
        "Echo" => Ok(request.take_buffer().into()),
        "Start" => repeat(main, request),
        "DockerHost" => Ok(docker_host.get().ok_or("not asked yet")?.as_str().into()),
        _ => request.unknown(),
    };
    register(start, request).wait()
}

/// Calls the host as often as it asks for, all at once, and sends it a one-way after the last
/// reply.
///
/// A handler may block on calls of its own: other requests are handled meanwhile.
fn repeat(main: &Main, request: &Request) -> Result<Reply, HandlerError> {
    let count: usize = request.text()?.parse()?;
    let mut pending = Vec::new();
    for number in 0..count {
        let text = format!("repeat {number}.");
        pending.push((main.request("Repeat", text.as_str()).begin()?, text));
    }
    for (call, text) in pending {
        let reply = call.wait()?;
        if reply != text.repeat(2).as_bytes() {
            return Err(format!("Repeat of {text:?} brought \"{}\"", reply.escape_ascii()).into());
        }
    }
    main.notify("Done", count.to_string())?;
    Ok(Reply::empty())
}
