//! The smallest plugin: says back what it reads, by hand. `cargo xtask bench` links it statically,
//! so that its start is the least that a process costs.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Read as _, Write as _, stdin, stdout};
use std::os::fd::AsFd as _;

fn main() -> std::io::Result<()> {
    // Not the standard handles: their buffers are of no use here.
    let mut reader = File::from(stdin().as_fd().try_clone_to_owned()?);
    let mut writer = File::from(stdout().as_fd().try_clone_to_owned()?);
    let mut buffer = [0; 4096];
    loop {
        let read = reader.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        writer.write_all(&buffer[..read])?;
    }
}
