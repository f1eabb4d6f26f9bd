//! Inspection of a file that the kernel refused to execute.

use std::env::consts::ARCH;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::files::RegularFile;

/// Number of bytes that tell the kind of a file; the kernel reads as many (BINPRM_BUF_SIZE).
const HEAD_BYTES: usize = 256;
/// The longest path of a dynamic loader that is read (PATH_MAX).
const LOADER_PATH_BYTES: u64 = 4096;
const PT_INTERP: u32 = 3;

/// Kind of a file, from its first bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Executable {
    /// A file with a `#!` line that names an interpreter.
    Script { interpreter: PathBuf },
    /// A file with a readable ELF header.
    Elf(Elf),
    /// Anything else, in words.
    Other(&'static str),
}

/// The parts of an ELF header that tell whether this machine can run it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Elf {
    pub(crate) machine: Machine,
    /// The dynamic loader it asks for.
    pub(crate) interpreter: Option<PathBuf>,
}

/// Machine that a program is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Machine {
    number: u16,
    width: Width,
    order: Order,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    Bits32,
    Bits64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

impl Executable {
    /// Looks at the start of a file.
    pub(crate) fn inspect(path: &Path) -> io::Result<Self> {
        Self::of(&RegularFile::open(path)?.into_file())
    }

    /// Looks at the start of an open file.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let mut head = [0; HEAD_BYTES];
        let len = read_at_most(file, &mut head, 0)?;
        let head = &head[..len];
        Ok(match head {
            [] => Self::Other("it is empty"),
            // The kernel takes no path for whole that fills what it reads: load_script of
            // fs/binfmt_script.c.
            [b'#', b'!', line @ ..] if len == HEAD_BYTES && is_cut(line) => Self::Other(
                "its `#!` line is longer than the kernel reads (BINPRM_BUF_SIZE, 256 bytes), which \
                 takes a shorter path to the interpreter",
            ),
            [b'#', b'!', line @ ..] => match interpreter_of_line(line) {
                Some(interpreter) => Self::Script { interpreter },
                None => Self::Other("its `#!` line names no interpreter"),
            },
            [0x7f, b'E', b'L', b'F', ..] => match Elf::read(file, head) {
                Some(elf) => Self::Elf(elf),
                None => Self::Other("its ELF header is damaged"),
            },
            [0xef, 0xbb, 0xbf, b'#', b'!', ..] => Self::Other(
                "a byte order mark stands before its `#!` line, which hides that from the kernel: \
                 save it as UTF-8 without one",
            ),
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Self::Other(
                "it is UTF-16 text, by its byte order mark: save it as UTF-8 without one",
            ),
            [b'M', b'Z', ..] => Self::Other("it is a Windows program"),
            [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] => Self::Other("it is a macOS program"),
            _ => Self::Other("it has neither a `#!` line nor an ELF header"),
        })
    }

    /// The program that the kernel has to find to run this one.
    pub(crate) fn interpreter(&self) -> Option<&Path> {
        match self {
            Self::Script { interpreter } => Some(interpreter),
            Self::Elf(elf) => elf.interpreter.as_deref(),
            Self::Other(_) => None,
        }
    }
}

/// An entry of the program header table of an ELF file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) kind: u32,
    /// Offset in the file.
    pub(super) offset: u64,
    /// Address in the running program.
    pub(super) address: u64,
    /// Size in the file.
    pub(super) size: u64,
}

/// Reader of an ELF file: elf(5).
#[derive(Debug)]
pub(super) struct ElfReader<'a> {
    file: &'a File,
    head: [u8; HEAD_BYTES],
    head_len: usize,
    width: Width,
    order: Order,
}

impl Elf {
    /// `None` if what the header says cannot be.
    fn read(file: &File, head: &[u8]) -> Option<Self> {
        ElfReader::of(file, head)?.elf()
    }
}

impl<'a> ElfReader<'a> {
    /// `None` if it is no ELF file.
    pub(super) fn open(file: &'a File) -> Option<Self> {
        let mut head = [0; HEAD_BYTES];
        let len = read_at_most(file, &mut head, 0).ok()?;
        head[..len].starts_with(b"\x7fELF").then(|| Self::of(file, &head[..len]))?
    }

    fn of(file: &'a File, start: &[u8]) -> Option<Self> {
        let width = match start.get(4)? {
            1 => Width::Bits32,
            2 => Width::Bits64,
            _ => return None,
        };
        let order = match start.get(5)? {
            1 => Order::Little,
            2 => Order::Big,
            _ => return None,
        };
        let mut head = [0; HEAD_BYTES];
        head.get_mut(..start.len())?.copy_from_slice(start);
        Some(Self { file, head, head_len: start.len(), width, order })
    }

    /// `None` if what the header says cannot be.
    pub(super) fn elf(&self) -> Option<Elf> {
        let number = self.order.u16_at(self.head(), 18)?;
        let machine = Machine { number, width: self.width, order: self.order };
        let segment = self.segments().into_iter().find(|segment| segment.kind == PT_INTERP);
        let interpreter = segment.and_then(|segment| {
            let path = self.text_of(segment.offset, segment.size)?;
            (!path.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(&path)))
        });
        Some(Elf { machine, interpreter })
    }

    /// The program header table, as far as it can be read.
    pub(super) fn segments(&self) -> Vec<Segment> {
        let (table, entry_size, count) = self.table().unwrap_or_default();
        let at = |index| table.checked_add(index * u64::from(entry_size));
        (0..u64::from(count)).map_while(|index| self.segment(at(index)?)).collect()
    }

    fn table(&self) -> Option<(u64, u16, u16)> {
        let (order, head) = (self.order, self.head());
        Some(match self.width {
            Width::Bits32 => (
                u64::from(order.u32_at(head, 28)?),
                order.u16_at(head, 42)?,
                order.u16_at(head, 44)?,
            ),
            Width::Bits64 => {
                (order.u64_at(head, 32)?, order.u16_at(head, 54)?, order.u16_at(head, 56)?)
            }
        })
    }

    fn segment(&self, at: u64) -> Option<Segment> {
        let mut entry = [0; 56];
        let len = read_at_most(self.file, &mut entry, at).ok()?;
        let (order, entry) = (self.order, &entry[..len]);
        let word = |at| order.u32_at(entry, at).map(u64::from);
        let kind = order.u32_at(entry, 0)?;
        Some(match self.width {
            Width::Bits32 => Segment { kind, offset: word(4)?, address: word(8)?, size: word(16)? },
            Width::Bits64 => Segment {
                kind,
                offset: order.u64_at(entry, 8)?,
                address: order.u64_at(entry, 16)?,
                size: order.u64_at(entry, 32)?,
            },
        })
    }

    /// Number of bytes of a word of the machine.
    pub(super) fn word_len(&self) -> u64 {
        match self.width {
            Width::Bits32 => 4,
            Width::Bits64 => 8,
        }
    }

    /// The word at this offset.
    pub(super) fn word(&self, at: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        let len = read_at_most(self.file, &mut bytes, at).ok()?;
        match self.width {
            Width::Bits32 => self.order.u32_at(&bytes[..len], 0).map(u64::from),
            Width::Bits64 => self.order.u64_at(&bytes[..len], 0),
        }
    }

    /// The text at this offset, up to a NUL.
    pub(super) fn text(&self, at: u64) -> Option<Vec<u8>> {
        self.text_of(at, LOADER_PATH_BYTES)
    }

    fn text_of(&self, at: u64, size: u64) -> Option<Vec<u8>> {
        let mut text = vec![0; usize::try_from(size.min(LOADER_PATH_BYTES)).ok()?];
        let len = read_at_most(self.file, &mut text, at).ok()?;
        text.truncate(len);
        Some(text.split(|byte| *byte == 0).next()?.to_vec())
    }

    fn head(&self) -> &[u8] {
        &self.head[..self.head_len]
    }
}

impl Machine {
    /// Tells whether this is the machine of the host.
    pub(crate) fn is_ours(self) -> bool {
        self.name() == Some(ARCH) && self.order == Order::OURS
    }

    /// The host's machine in words.
    pub(crate) fn ours_in_words() -> String {
        format!("{ARCH}, {} bits, {}", usize::BITS, Order::OURS.in_words())
    }

    /// The machine in words.
    pub(crate) fn in_words(self) -> String {
        let bits = match self.width {
            Width::Bits32 => 32,
            Width::Bits64 => 64,
        };
        let order = self.order.in_words();
        match self.name() {
            Some(name) => format!("{name}, {bits} bits, {order}"),
            None => format!("machine number {}, {bits} bits, {order}", self.number),
        }
    }

    /// The name as Rust's target triples have it, for the numbers of elf.h that Linux runs on.
    fn name(self) -> Option<&'static str> {
        Some(match (self.number, self.width) {
            (2, _) => "sparc",
            (3, _) => "x86",
            (4, _) => "m68k",
            (8, Width::Bits32) => "mips",
            (8, Width::Bits64) => "mips64",
            (20, _) => "powerpc",
            (21, _) => "powerpc64",
            (22, _) => "s390x",
            (40, _) => "arm",
            (42, _) => "sh",
            (43, _) => "sparc64",
            (50, _) => "ia64",
            (62, _) => "x86_64",
            (83, _) => "avr",
            (164, _) => "hexagon",
            (183, _) => "aarch64",
            (243, Width::Bits32) => "riscv32",
            (243, Width::Bits64) => "riscv64",
            (247, _) => "bpf",
            (258, Width::Bits32) => "loongarch32",
            (258, Width::Bits64) => "loongarch64",
            _ => return None,
        })
    }
}

impl Order {
    const OURS: Self = if cfg!(target_endian = "big") { Self::Big } else { Self::Little };

    fn in_words(self) -> &'static str {
        match self {
            Self::Little => "little-endian",
            Self::Big => "big-endian",
        }
    }

    fn u16_at(self, bytes: &[u8], at: usize) -> Option<u16> {
        let raw = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Self::Little => u16::from_le_bytes(raw),
            Self::Big => u16::from_be_bytes(raw),
        })
    }

    fn u32_at(self, bytes: &[u8], at: usize) -> Option<u32> {
        let raw = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Self::Little => u32::from_le_bytes(raw),
            Self::Big => u32::from_be_bytes(raw),
        })
    }

    fn u64_at(self, bytes: &[u8], at: usize) -> Option<u64> {
        let raw = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Self::Little => u64::from_le_bytes(raw),
            Self::Big => u64::from_be_bytes(raw),
        })
    }
}

/// Tells that the path in what follows `#!` has no end.
fn is_cut(line: &[u8]) -> bool {
    let start = line.iter().position(|byte| !b" \t".contains(byte)).unwrap_or(line.len());
    !line[start..].iter().any(|byte| b" \t\n\0".contains(byte))
}

/// The interpreter in what follows `#!`: execve(2), "Interpreter scripts".
fn interpreter_of_line(line: &[u8]) -> Option<PathBuf> {
    let line = line.split(|byte| *byte == b'\n').next()?;
    let start = line.iter().position(|byte| !b" \t".contains(byte))?;
    let path = line[start..].split(|byte| b" \t\0".contains(byte)).next()?;
    if path.is_empty() { None } else { Some(PathBuf::from(OsStr::from_bytes(path))) }
}

/// Reads until the buffer is full or the file ends.
fn read_at_most(file: &File, buf: &mut [u8], at: u64) -> io::Result<usize> {
    let mut len = 0;
    while len < buf.len() {
        match file.read_at(&mut buf[len..], at.saturating_add(len as u64)) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{Executable, interpreter_of_line};

    #[test]
    fn reads_the_interpreter_as_the_kernel_does() {
        let read = |line: &str| interpreter_of_line(line.as_bytes());
        assert_eq!(read("/bin/sh\necho"), Some("/bin/sh".into()));
        assert_eq!(read(" \t/usr/bin/env  python3"), Some("/usr/bin/env".into()));
        assert_eq!(
            read("/bin/sh\r\n"),
            Some("/bin/sh\r".into()),
            "the kernel takes the CR for a part of it"
        );
        assert_eq!(read(" \n/bin/sh"), None);
        assert_eq!(read(""), None);
    }

    #[test]
    fn knows_its_own_test_program() {
        let own = std::env::current_exe().unwrap();
        let Executable::Elf(elf) = Executable::inspect(&own).unwrap() else {
            panic!("an ELF file")
        };
        assert!(elf.machine.is_ours(), "{}", elf.machine.in_words());
        if let Some(loader) = elf.interpreter {
            assert!(loader.is_absolute() && loader.exists(), "{}", loader.display());
        }
    }

    #[test]
    fn a_header_cut_anywhere_is_no_panic() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        for len in 0..=super::HEAD_BYTES {
            fs::write(file.path(), &own[..len]).unwrap();
            let found = Executable::inspect(file.path()).unwrap();
            assert_eq!(matches!(found, Executable::Elf(_)), len >= 20, "{len} bytes: {found:?}");
        }
    }

    #[test]
    fn names_what_is_no_program() {
        let dir = tempfile::tempdir().unwrap();
        let say = |bytes: &[u8]| {
            let path = dir.path().join("file");
            fs::write(&path, bytes).unwrap();
            Executable::inspect(Path::new(&path)).unwrap()
        };
        assert_eq!(say(b""), Executable::Other("it is empty"));
        assert_eq!(say(b"MZ\x90"), Executable::Other("it is a Windows program"));
        assert_eq!(say(b"\xcf\xfa\xed\xfe"), Executable::Other("it is a macOS program"));
        assert_eq!(say(b"echo"), Executable::Other("it has neither a `#!` line nor an ELF header"));
        let other = |bytes: &[u8]| match say(bytes) {
            Executable::Other(found) => found,
            found => panic!("{found:?}"),
        };
        assert!(other(b"\xef\xbb\xbf#!/bin/sh\n").contains("byte order mark"));
        assert!(other(b"\xff\xfe#\0!\0").contains("UTF-16"));
        let line = |len: usize| [b"#!/".as_slice(), &vec![b'x'; len - 3], b"\n"].concat();
        assert!(other(&line(256)).contains("256 bytes"));
        assert!(
            matches!(say(&line(255)), Executable::Script { .. }),
            "the end of the line is within"
        );
        assert!(matches!(
            say(&[b"#!/bin/sh ", &line(300)[..]].concat()),
            Executable::Script { .. }
        ));
        assert_eq!(say(b"#!\n"), Executable::Other("its `#!` line names no interpreter"));
    }

    #[test]
    fn names_machines() {
        let dir = tempfile::tempdir().unwrap();
        let words = |class: u8, data: u8, machine: [u8; 2]| {
            let mut head = vec![0x7f, b'E', b'L', b'F', class, data];
            head.resize(18, 0);
            head.extend(machine);
            let path = dir.path().join("file");
            fs::write(&path, head).unwrap();
            match Executable::inspect(&path).unwrap() {
                Executable::Elf(elf) => elf.machine.in_words(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(words(2, 1, [183, 0]), "aarch64, 64 bits, little-endian");
        assert_eq!(words(2, 2, [0, 22]), "s390x, 64 bits, big-endian");
        assert_eq!(words(1, 1, [243, 0]), "riscv32, 32 bits, little-endian");
        assert_eq!(words(1, 1, [0x34, 0x12]), "machine number 4660, 32 bits, little-endian");
    }
}
