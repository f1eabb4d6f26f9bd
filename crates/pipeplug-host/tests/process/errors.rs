//! Error messages for guests that cannot be started.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use pipeplug_host::process::{Launch, SpawnError, SpawnErrorKind, spawn};
use tempfile::TempDir;

use crate::guest::{Script, write_file};

fn fails(program: impl Into<PathBuf>) -> SpawnError {
    spawn(&Launch::new(program)).expect_err("there is nothing to start")
}

/// A file of that content in a directory of its own.
fn file(content: &[u8], mode: u32) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("guest");
    write_file(&path, content, mode);
    (dir, path)
}

/// The message is one line that names the path and ends without a full stop.
fn message(error: &SpawnError, path: &Path) -> String {
    let said = error.to_string();
    assert!(!said.contains('\n') && !said.ends_with('.'), "{said}");
    assert!(said.contains(path.to_str().unwrap()), "{said}");
    said
}

/// An ELF header for `machine`, or for this one, which names a dynamic loader.
fn elf(machine: Option<u16>, loader: &str) -> Vec<u8> {
    let own = fs::read(std::env::current_exe().unwrap()).unwrap();
    let mut elf = own[..64].to_vec();
    if let Some(machine) = machine {
        elf[18..20].copy_from_slice(&machine.to_ne_bytes());
    }
    elf[32..40].copy_from_slice(&64u64.to_ne_bytes()); // e_phoff
    elf[56..58].copy_from_slice(&1u16.to_ne_bytes()); // e_phnum
    let len = loader.len() as u64 + 1;
    let numbers = [120u64, 0, 0, len, len, 1]; // p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
    elf.extend(3u32.to_ne_bytes()); // PT_INTERP
    elf.extend(4u32.to_ne_bytes()); // readable
    elf.extend(numbers.iter().flat_map(|number| number.to_ne_bytes()));
    elf.extend(loader.as_bytes());
    elf.push(0);
    elf
}

#[test]
fn no_such_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("guest");
    let error = fails(&path);
    assert!(matches!(error.kind(), SpawnErrorKind::NotFound { link_target: None }), "{error:?}");
    assert_eq!(error.path(), path);
    assert!(message(&error, &path).contains("`PATH` is not searched"));

    symlink("nowhere", &path).unwrap();
    let error = fails(&path);
    assert!(
        matches!(error.kind(), SpawnErrorKind::NotFound { link_target: Some(_), .. }),
        "{error:?}"
    );
    assert!(message(&error, &path).contains("a symbolic link to \"nowhere\""));

    let (_dir, file) = file(b"", 0o755);
    assert!(matches!(fails(file.join("below")).kind(), SpawnErrorKind::NotADirectory { .. }));
    assert!(matches!(fails("").kind(), SpawnErrorKind::NotFound { .. }));
}

#[test]
fn a_name_without_a_slash_is_not_looked_up_in_path() {
    let error = fails("sh");
    let here = std::env::current_dir().unwrap().join("sh");
    assert!(matches!(error.kind(), SpawnErrorKind::NotFound { .. }), "{error:?}");
    assert_eq!(error.path(), here);
}

#[test]
fn not_executable() {
    let (_dir, path) = file(b"#!/bin/sh\n", 0o644);
    let error = fails(&path);
    assert!(matches!(error.kind(), SpawnErrorKind::NotExecutable { mode: 0o644, .. }), "{error:?}");
    assert!(message(&error, &path).contains("(mode 0644): run `chmod +x`"));
}

#[test]
fn a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let error = fails(dir.path());
    assert!(matches!(error.kind(), SpawnErrorKind::IsDirectory), "{error:?}");
    message(&error, dir.path());
}

#[test]
fn another_machine() {
    let (_dir, path) = file(&elf(Some(83), "/lib/ld.so"), 0o755);
    let error = fails(&path);
    let SpawnErrorKind::WrongArchitecture { found, expected, .. } = error.kind() else {
        panic!("{error:?}")
    };
    assert!(found.starts_with("avr, "), "{found}");
    assert!(expected.starts_with(std::env::consts::ARCH), "{expected}");
    assert!(message(&error, &path).contains(found));
}

#[test]
fn no_program_at_all() {
    let mut damaged = elf(None, "/lib/ld.so");
    damaged[54..56].copy_from_slice(&1u16.to_ne_bytes()); // e_phentsize
    let long = [b"#!/".as_slice(), &[b'x'; 300], b"\n"].concat();
    let cases: [(&[u8], &str); 5] = [
        (&long, "its `#!` line is longer than the kernel reads"),
        (b"\xef\xbb\xbf#!/bin/sh\n", "a byte order mark stands before its `#!` line"),
        (b"", "it is empty"),
        (b"echo hello\n", "neither a `#!` line"),
        (&damaged, "its ELF header is damaged"),
    ];
    for (content, said) in cases {
        let (_dir, path) = file(content, 0o755);
        let error = fails(&path);
        assert!(matches!(error.kind(), SpawnErrorKind::NotAProgram { .. }), "{error:?}");
        assert!(message(&error, &path).contains(said), "{error}");
    }
    let error = fails("/dev/null");
    assert!(matches!(error.kind(), SpawnErrorKind::NotAFile { kind: "a device", .. }), "{error}");
    assert!(error.is_permanent());
}

#[test]
fn no_interpreter() {
    let missing = |content: &[u8]| {
        let (_dir, path) = file(content, 0o755);
        let error = fails(&path);
        let said = message(&error, &path);
        let SpawnErrorKind::MissingInterpreter { interpreter, .. } = error.kind() else {
            panic!("{error:?}")
        };
        (interpreter.clone(), said)
    };
    assert_eq!(missing(b"#! /nowhere/python3 -u\n").0, Path::new("/nowhere/python3"));
    let (interpreter, said) = missing(b"#!/bin/sh\r\necho\r\n");
    assert_eq!(interpreter, Path::new("/bin/sh\r"));
    assert!(said.contains("CR LF"), "{said}");
    assert_eq!(missing(&elf(None, "/nowhere/ld.so")).0, Path::new("/nowhere/ld.so"));

    // A script whose interpreter is there, but lacks its own.
    let (_dir, inner) = file(b"#!/nowhere/inner\n", 0o755);
    assert_eq!(
        missing(format!("#!{}\n", inner.display()).as_bytes()).0,
        Path::new("/nowhere/inner")
    );
}

#[test]
fn an_interpreter_that_may_not_be_executed() {
    let (_dir, interpreter) = file(b"#!/bin/sh\n", 0o644);
    let (_dir, path) = file(format!("#!{}\n", interpreter.display()).as_bytes(), 0o755);
    let error = fails(&path);
    assert!(matches!(error.kind(), SpawnErrorKind::AccessDenied { .. }), "{error:?}");
    assert!(message(&error, &path).contains("its interpreter"));
}

#[test]
fn open_for_writing() {
    let script = Script::new("");
    let path = script.path();
    let writer = fs::File::options().append(true).open(&path).unwrap();
    let begun = Instant::now();
    let error = fails(&path);
    assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
    assert!(matches!(error.kind(), SpawnErrorKind::Busy), "{error:?}");
    message(&error, &path);
    drop(writer);
    spawn(&script.launch()).unwrap();
}

#[test]
fn open_for_writing_for_a_moment() {
    let script = Script::new("");
    for held in [1, 50, 100] {
        let writer = fs::File::options().append(true).open(script.path()).unwrap();
        let holder = thread::spawn(move || {
            thread::sleep(Duration::from_millis(held));
            drop(writer);
        });
        let spawned = spawn(&script.launch());
        holder.join().unwrap();
        assert!(spawned.is_ok(), "held for {held} ms: {spawned:?}");
    }
}

#[test]
fn no_working_directory() {
    let script = Script::new("");
    let mut launch = script.launch();
    launch.cwd = Some("/nowhere/at/all".into());
    let error = spawn(&launch).unwrap_err();
    assert!(matches!(error.kind(), SpawnErrorKind::BadWorkingDirectory { .. }), "{error:?}");
    assert!(message(&error, &script.path()).contains("\"/nowhere/at/all\": No such file"));

    launch.cwd = Some(script.path());
    let error = spawn(&launch).unwrap_err();
    assert!(message(&error, &script.path()).contains("Not a directory"), "{error}");
}

#[test]
fn arguments_that_no_process_can_have() {
    let script = Script::new("");
    let said = |change: fn(&mut Launch)| {
        let mut launch = script.launch();
        change(&mut launch);
        let error = spawn(&launch).unwrap_err();
        assert!(matches!(error.kind(), SpawnErrorKind::BadArgument { .. }), "{error:?}");
        message(&error, &script.path())
    };
    let nul = said(|launch| launch.args = vec!["ok".into(), "a\0b".into()]);
    assert!(nul.contains("its argument 4 (\"a\\0b\"): it holds a NUL byte"), "{nul}");
    assert!(said(|launch| launch.arg0 = Some("\0".into())).contains("its argument 0"));
    assert!(said(|launch| launch.cwd = Some("\0".into())).contains("its working directory"));
    assert!(
        said(|launch| {
            launch.env.set("A", "\0");
        })
        .contains("variable \"A\"")
    );
    assert!(
        said(|launch| {
            launch.env.set("A=B", "");
        })
        .contains("variable \"A=B\"")
    );
    assert!(
        said(|launch| {
            launch.env.set("", "");
        })
        .contains("variable \"\"")
    );
}

#[test]
fn too_many_arguments() {
    let script = Script::new("");
    let mut launch = script.launch();
    launch.args = vec!["x".repeat(64 * 1024 * 1024).into()];
    let error = spawn(&launch).unwrap_err();
    assert!(matches!(error.kind(), SpawnErrorKind::Os { .. }), "{error:?}");
    assert!(message(&error, &script.path()).contains("Argument list too long"));
}

#[test]
fn a_failed_start_leaves_no_child() {
    let (_dir, path) = file(b"", 0o755);
    for _ in 0..3 {
        fails(&path);
    }
    // A child that fails its exec keeps the name of this thread, which no other test has:
    // proc_pid_stat(5).
    let own = fs::read_to_string("/proc/thread-self/comm").unwrap();
    let is_child = |stat: &String| {
        let Some((name, rest)) = stat.rsplit_once(") ") else { return false };
        let parent = rest.split(' ').nth(1).unwrap();
        name.ends_with(&format!("({}", own.trim_end())) && parent == std::process::id().to_string()
    };
    let stats = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path().join("stat"));
    let children: Vec<_> =
        stats.filter_map(|stat| fs::read_to_string(stat).ok()).filter(is_child).collect();
    assert!(children.is_empty(), "{children:?}");
}

#[test]
fn threads_that_fail_at_once_are_each_told_why_they_did() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    assert!(matches!(fails(&missing).kind(), SpawnErrorKind::NotFound { .. }));
                }
            });
            scope.spawn(|| {
                for _ in 0..50 {
                    assert!(matches!(fails(dir.path()).kind(), SpawnErrorKind::IsDirectory));
                }
            });
            scope.spawn(|| {
                let mut launch = Launch::new("/bin/sh");
                launch.cwd = Some(missing.clone());
                for _ in 0..50 {
                    let error = spawn(&launch).unwrap_err();
                    assert!(matches!(error.kind(), SpawnErrorKind::BadWorkingDirectory { .. }));
                }
            });
        }
    });
}
