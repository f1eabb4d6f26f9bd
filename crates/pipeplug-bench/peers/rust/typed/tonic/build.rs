//! Generates both sides from the protocol, without protoc.

use anyhow::Result;

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=words.proto");
    let files = protox::compile(["words.proto"], ["."])?;
    tonic_prost_build::compile_fds(files)?;
    Ok(())
}
