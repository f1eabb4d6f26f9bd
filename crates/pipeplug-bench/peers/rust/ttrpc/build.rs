//! Generates both sides from the protocol: blocking without streams, which it has not, and async
//! with them.

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use ttrpc_codegen::{Codegen, Customize, ProtobufCustomize};

const PROTO: &str = "../../proto";

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed={PROTO}");
    generate("blocking", &["echo"], false)?;
    generate("tasks", &["echo", "streams"], true)
}

fn generate(dir: &str, names: &[&str], async_all: bool) -> Result<()> {
    let dir = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?).join(dir);
    fs::create_dir_all(&dir)?;
    Codegen::new()
        .out_dir(&dir)
        .inputs(names.iter().map(|name| format!("{PROTO}/{name}.proto")))
        .include(PROTO)
        .rust_protobuf()
        .rust_protobuf_customize(ProtobufCustomize::default().gen_mod_rs(false))
        .customize(Customize { async_all, ..Customize::default() })
        .run()
        .with_context(|| format!("cannot generate {}", dir.display()))?;
    // The one that could be generated starts with an attribute that `include!` does not take.
    let modules: String =
        names.iter().map(|name| format!("pub mod {name};\npub mod {name}_ttrpc;\n")).collect();
    fs::write(dir.join("mod.rs"), modules)?;
    Ok(())
}
