//! Shared libraries that a program needs, read from its file. Nothing is executed.

use std::collections::{HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use super::executable::{Elf, ElfReader, Segment};
use crate::files::RegularFile;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;

const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;

/// Number of entries of a dynamic section that are read.
const ENTRIES_MAX: u64 = 4096;
/// Number of libraries that are looked for, those of libraries included.
const LIBRARIES_MAX: usize = 1024;
/// Number of nested files that `ld.so.conf` may include.
const CONF_DEPTH: usize = 4;

/// A shared library that the dynamic loader would not find.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingLibrary {
    /// Name of the library.
    pub name: String,
    /// File that needs it: the program, or another library.
    pub needed_by: PathBuf,
}

/// Dynamic section of a file: ld.so(8).
#[derive(Debug, Default)]
struct Dynamic {
    needed: Vec<OsString>,
    run_path: Vec<PathBuf>,
}

/// Finds the libraries of a program that are in none of the directories that the dynamic loader
/// searches: those of the program's own run path, of `library_path`, of `ld.so.conf`, and the usual
/// ones.
pub(super) fn missing(program: &Path, library_path: Option<&OsStr>) -> Vec<MissingLibrary> {
    let named: Vec<_> =
        library_path.map(|path| std::env::split_paths(path).collect()).unwrap_or_default();
    let system = system_directories();
    let mut missing = Vec::new();
    let mut seen = HashSet::new();
    let mut queue = VecDeque::from([(program.to_owned(), Vec::new())]);
    while let Some((file, inherited)) = queue.pop_front() {
        let Some((elf, dynamic)) = Dynamic::read(&file) else { continue };
        // A run path of the program may be that of its libraries too (RPATH). For a missing library
        // more directories are the careful answer.
        let run_path: Vec<_> = dynamic.run_path.iter().chain(&inherited).cloned().collect();
        for name in dynamic.needed {
            if seen.len() >= LIBRARIES_MAX || !seen.insert(name.clone()) {
                continue;
            }
            let found = if name.as_bytes().contains(&b'/') {
                Some(PathBuf::from(&name)).filter(|path| path.exists())
            } else {
                let places = run_path.iter().chain(&named).chain(&system);
                places.map(|dir| dir.join(&name)).find(|path| fits(path, &elf))
            };
            match found {
                Some(path) => queue.push_back((path, run_path.clone())),
                // The loader is there by itself: PT_INTERP names it.
                None if is_loader(&elf, &name) => {}
                None => missing.push(MissingLibrary {
                    name: name.to_string_lossy().into_owned(),
                    needed_by: file.clone(),
                }),
            }
        }
    }
    missing
}

/// The loader passes over a library for another machine.
fn fits(path: &Path, program: &Elf) -> bool {
    let elf =
        RegularFile::open(path).ok().and_then(|file| ElfReader::open(&file.into_file())?.elf());
    elf.is_some_and(|elf| elf.machine == program.machine)
}

fn is_loader(elf: &Elf, name: &OsStr) -> bool {
    elf.interpreter.as_deref().and_then(Path::file_name) == Some(name)
}

impl Dynamic {
    /// `None` if the file is no ELF file, or has no dynamic section.
    fn read(path: &Path) -> Option<(Elf, Self)> {
        let file = RegularFile::open(path).ok()?.into_file();
        let reader = ElfReader::open(&file)?;
        let segments = reader.segments();
        let dynamic = segments.iter().find(|segment| segment.kind == PT_DYNAMIC)?;
        let (mut needed, mut run_path, mut strings) = (Vec::new(), Vec::new(), None);
        for index in 0..ENTRIES_MAX.min(dynamic.size / (2 * reader.word_len())) {
            let at = dynamic.offset.checked_add(index * 2 * reader.word_len())?;
            let (tag, value) = (reader.word(at)?, reader.word(at + reader.word_len())?);
            match tag {
                DT_NULL => break,
                DT_NEEDED => needed.push(value),
                DT_RPATH | DT_RUNPATH => run_path.push(value),
                DT_STRTAB => strings = Some(file_offset(&segments, value)?),
                _ => {}
            }
        }
        let strings = strings?;
        let text = |at: u64| text_at(&reader, strings.checked_add(at)?);
        let origin = path.parent().unwrap_or(Path::new("/"));
        let run_path = run_path.into_iter().filter_map(text).flat_map(|path| {
            std::env::split_paths(&path).map(|dir| of_origin(&dir, origin)).collect::<Vec<_>>()
        });
        let dynamic = Self {
            needed: needed.into_iter().filter_map(text).collect(),
            run_path: run_path.collect(),
        };
        Some((reader.elf()?, dynamic))
    }
}

fn text_at(reader: &ElfReader<'_>, at: u64) -> Option<OsString> {
    Some(OsString::from_vec(reader.text(at)?)).filter(|text| !text.is_empty())
}

/// Offset in the file of an address of the running program.
fn file_offset(segments: &[Segment], address: u64) -> Option<u64> {
    let holds = |segment: &&Segment| {
        segment.kind == PT_LOAD
            && address.checked_sub(segment.address).is_some_and(|into| into < segment.size)
    };
    let segment = segments.iter().find(holds)?;
    segment.offset.checked_add(address - segment.address)
}

/// Replaces `$ORIGIN`, the directory of the file: ld.so(8).
fn of_origin(dir: &Path, origin: &Path) -> PathBuf {
    let text = dir.to_string_lossy();
    let origin = origin.to_string_lossy();
    PathBuf::from(text.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin))
}

/// Directories of the C libraries: those of `ld.so.conf` and of musl's path file, and the usual
/// ones of the distributions.
fn system_directories() -> Vec<PathBuf> {
    let mut all = Vec::new();
    read_conf(Path::new("/etc/ld.so.conf"), 0, &mut all);
    let arch = std::env::consts::ARCH;
    if let Ok(text) = fs::read_to_string(format!("/etc/ld-musl-{arch}.path")) {
        all.extend(text.split([':', '\n']).filter(|dir| !dir.is_empty()).map(PathBuf::from));
    }
    for dir in
        ["/lib", "/usr/lib", "/usr/local/lib", "/lib64", "/usr/lib64", "/lib32", "/usr/lib32"]
    {
        let dir = Path::new(dir);
        all.push(dir.to_owned());
        // Debian has a directory for each machine: /usr/lib/x86_64-linux-gnu.
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let of_machines =
            entries.filter(|entry| entry.file_name().to_string_lossy().contains("-linux-"));
        all.extend(of_machines.map(|entry| entry.path()));
    }
    all
}

fn read_conf(path: &Path, depth: usize, all: &mut Vec<PathBuf>) {
    let Ok(text) = fs::read_to_string(path) else { return };
    for line in text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
        match line.strip_prefix("include") {
            Some(pattern) if depth < CONF_DEPTH => {
                // Everywhere it is `include DIR/*.conf`.
                let pattern = Path::new(pattern.trim());
                let Some(dir) = pattern.parent() else { continue };
                for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                    if entry.path().extension() == pattern.extension() {
                        read_conf(&entry.path(), depth + 1, all);
                    }
                }
            }
            None if line.starts_with('/') => all.push(line.into()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_program_has_all_its_libraries() {
        let own = std::env::current_exe().unwrap();
        assert_eq!(missing(&own, std::env::var_os("LD_LIBRARY_PATH").as_deref()), []);
        if cfg!(all(target_os = "linux", target_env = "gnu")) {
            let (_, dynamic) = Dynamic::read(&own).unwrap();
            assert!(dynamic.needed.iter().any(|name| name == "libc.so.6"), "{dynamic:?}");
        }
    }

    #[test]
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn a_library_that_no_directory_has_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        let mut bytes = fs::read(std::env::current_exe().unwrap()).unwrap();
        // The name in the table of strings is the first of these in the file.
        let at = bytes.windows(10).position(|bytes| bytes == b"libc.so.6\0").unwrap();
        bytes[at..at + 9].copy_from_slice(b"libq.so.6");
        fs::write(&path, &bytes).unwrap();
        let found = missing(&path, None);
        assert_eq!(found, [MissingLibrary { name: "libq.so.6".into(), needed_by: path.clone() }]);
        // A directory that is searched, with a library for this machine.
        fs::copy(std::env::current_exe().unwrap(), dir.path().join("libq.so.6")).unwrap();
        assert_eq!(missing(&path, Some(dir.path().as_os_str())), []);
        fs::write(dir.path().join("libq.so.6"), "no ELF file").unwrap();
        assert_eq!(missing(&path, Some(dir.path().as_os_str())).len(), 1);
    }

    #[test]
    fn damaged_files_are_no_panic() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        for len in (0..2000).step_by(37) {
            fs::write(file.path(), &own[..len]).unwrap();
            missing(file.path(), None);
        }
        for at in 0..200 {
            let mut bytes = own[..own.len().min(1 << 16)].to_vec();
            bytes[at + 4] ^= 0xff;
            fs::write(file.path(), &bytes).unwrap();
            missing(file.path(), None);
        }
    }

    #[test]
    fn the_origin_is_the_directory_of_the_file() {
        assert_eq!(of_origin(Path::new("$ORIGIN/../lib"), Path::new("/p")), Path::new("/p/../lib"));
        assert_eq!(of_origin(Path::new("${ORIGIN}"), Path::new("/p")), Path::new("/p"));
    }
}
