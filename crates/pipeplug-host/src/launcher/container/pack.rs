//! Images of one executable.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use super::Engine;
use crate::files::RegularFile;
use crate::process::{Executable, Machine};

/// The executable's path in the image.
const PATH: &str = "/plugin";

/// Error of packing an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The file cannot be read.
    #[error("plugin {path:?} cannot be read: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        error: io::Error,
    },
    /// The file is not a program that can run alone.
    #[error(
        "plugin {path:?} cannot run alone: {found}; an image of one file has no interpreter for \
         it, so write a Dockerfile"
    )]
    NoExecutable {
        /// The file.
        path: PathBuf,
        /// Kind of the file.
        found: String,
    },
    /// The program needs libraries, and the image has none.
    #[error(
        "plugin {path:?} is dynamically linked (it needs {loader:?}), and the image has nothing \
         but this file: link it statically, in Rust with `RUSTFLAGS=\"-C \
         target-feature=+crt-static\" cargo build --release --target {target}`, or write a \
         Dockerfile",
        target = target()
    )]
    Dynamic {
        /// The file.
        path: PathBuf,
        /// The dynamic loader that it asks for.
        loader: PathBuf,
    },
    /// The program is built for another machine.
    #[error(
        "plugin {path:?} is built for another machine ({found}), this one is {expected}: build it \
         for this one"
    )]
    WrongArchitecture {
        /// The file.
        path: PathBuf,
        /// Machine of the ELF header, in words.
        found: String,
        /// Machine of this host, in words.
        expected: String,
    },
    /// The engine's client is not installed.
    #[error(
        "there is no program {program:?}: install {engine}, or add the program's directory to \
         `PATH`"
    )]
    NoEngine {
        /// The engine.
        engine: Engine,
        /// Client of the engine.
        program: &'static str,
    },
    /// The engine did not take it.
    #[error("{engine} made no image {image:?}: {said} ({status})")]
    Refused {
        /// The engine.
        engine: Engine,
        /// The image's name.
        image: String,
        /// Standard error of the client.
        said: String,
        /// Exit status of the client.
        status: ExitStatus,
    },
    /// The engine's client could not be run or written to.
    #[error("{program} cannot be run: {error}")]
    System {
        /// The client.
        program: &'static str,
        /// Error of the system.
        error: io::Error,
    },
}

/// Makes an image that holds nothing but a statically linked executable, which is its entry point;
/// gives the image's id.
///
/// # Errors
/// The file is not such an executable for this machine, or the engine failed. Each error says what
/// to do.
///
/// # Blocking
/// Until the engine has it all.
#[expect(clippy::disallowed_methods, reason = "the client of an engine is no plugin")]
pub fn pack(engine: Engine, executable: &Path, image: &str) -> Result<String, PackError> {
    let unreadable = |error| PackError::Unreadable { path: executable.to_owned(), error };
    let file = RegularFile::open(executable).map_err(|error| unreadable(error.into()))?;
    let len = file.metadata().len();
    let mut file = file.into_file();
    check(executable, &file)?;
    let program = engine.program();
    let client = engine.path().ok_or(PackError::NoEngine { engine, program })?;
    let system = |error| PackError::System { program, error };
    let mut child = Command::new(client)
        .args(["import", "--change", &format!("ENTRYPOINT [\"{PATH}\"]"), "-", image])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(system)?;
    let (Some(stdin), Some(mut stderr)) = (child.stdin.take(), child.stderr.take()) else {
        unreachable!("both are piped")
    };
    // On a thread of its own, since the client may write more than a pipe holds before it has read
    // everything.
    let writing = thread::spawn(move || archive(stdin, &mut file, len));
    let reading = thread::spawn(move || {
        let mut said = String::new();
        // What cannot be read is not shown.
        let _ = stderr.read_to_string(&mut said);
        said
    });
    let output = child.wait_with_output().map_err(system)?;
    let said = reading.join().unwrap_or_default();
    let written =
        writing.join().unwrap_or_else(|_| Err(io::Error::other("writing the archive panicked")));
    if !output.status.success() {
        let said = said.trim().to_owned();
        return Err(PackError::Refused {
            engine,
            image: image.to_owned(),
            said,
            status: output.status,
        });
    }
    written.map_err(unreadable)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Checks that the program can run in an empty image.
fn check(path: &Path, file: &File) -> Result<(), PackError> {
    let owned = path.to_owned();
    match Executable::of(file)
        .map_err(|error| PackError::Unreadable { path: owned.clone(), error })?
    {
        Executable::Elf(elf) if !elf.machine.is_ours() => Err(PackError::WrongArchitecture {
            path: owned,
            found: elf.machine.in_words(),
            expected: Machine::ours_in_words(),
        }),
        Executable::Elf(elf) => match elf.interpreter {
            Some(loader) => Err(PackError::Dynamic { path: owned, loader }),
            None => Ok(()),
        },
        Executable::Script { interpreter } => {
            let found = format!("it is a script for {interpreter:?}");
            Err(PackError::NoExecutable { path: owned, found })
        }
        Executable::Other(found) => {
            Err(PackError::NoExecutable { path: owned, found: found.to_owned() })
        }
    }
}

/// A tar archive of the executable alone.
fn archive(to: impl io::Write, file: &mut File, len: u64) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(len);
    header.set_mode(0o755);
    let mut archive = tar::Builder::new(to);
    archive.append_data(&mut header, PATH.trim_start_matches('/'), file.take(len))?;
    // Its end goes with the pipe.
    archive.into_inner().map(drop)
}

/// This machine as a target of Rust; where none is named, the flags go to build scripts and macros
/// too.
fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}
