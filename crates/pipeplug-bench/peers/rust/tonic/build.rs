//! Generates both sides from the protocol, without protoc.

use anyhow::Result;

const PROTO: &str = "../../proto";

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed={PROTO}");
    let files = protox::compile(["echo.proto", "streams.proto"], [PROTO])?;
    // Payloads that are cheap to clone.
    tonic_prost_build::configure().bytes(".").compile_fds(files)?;
    Ok(())
}
