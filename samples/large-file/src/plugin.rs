//! The plugin: sends each part back, and replies with the hash of all of them.

use std::process::ExitCode;

use large_file::{hex, peak_memory};
use pipeplug_guest::{HandlerError, Main, Reply, Request, register};
use sha2::{Digest as _, Sha256};

fn main() -> ExitCode {
    register((), answer).wait()
}

fn answer(_host: &Main, request: &mut Request) -> Result<Reply, HandlerError> {
    match request.command() {
        "copy" => {
            let mut reply = request.reply_parts()?;
            let mut hash = Sha256::new();
            for part in request.parts() {
                let part = part?;
                hash.update(&part);
                reply.send(part)?;
            }
            Ok(format!("{} {}", hex(hash), peak_memory()).into())
        }
        _ => request.unknown(),
    }
}
