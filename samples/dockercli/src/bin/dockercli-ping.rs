//! `dockercli ping`: asks its host for the address and the version of the Docker daemon.

use std::process::ExitCode;

use pipeplug_guest::{Guest, HandlerError, Main, Reply, Request};
use serde::Deserialize;

/// Fields of the daemon's version that this command shows.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    api_version: String,
    #[serde(rename = "OSType")]
    os_type: String,
}

fn main() -> ExitCode {
    Guest::new()
        .metadata("Cmd", "ping")
        .metadata("Description", "Asks the daemon for its version")
        .metadata("Help", "dockercli ping")
        .handler(answer)
        .register()
        .wait()
}

fn answer(main: &Main, request: &mut Request) -> Result<Reply, HandlerError> {
    match request.command() {
        "Run" => Ok(ping(main, &serde_json::from_slice::<Vec<String>>(request.buffer())?)?
            .to_string()
            .into()),
        _ => request.unknown(),
    }
}

/// Returns the exit code.
fn ping(main: &Main, args: &[String]) -> Result<u8, HandlerError> {
    if !args.is_empty() {
        main.notify("PrintError", "usage: dockercli ping\n")?;
        return Ok(2);
    }
    let docker_host = main.call("GetDockerHost", "")?;
    let version: Version = serde_json::from_str(&main.call("CallDaemon", "GET /version")?)?;
    // One one-way: the host may handle two on two threads, in either order.
    main.notify(
        "Print",
        format!("{docker_host} answers: API {} on {}\n", version.api_version, version.os_type),
    )?;
    Ok(0)
}
