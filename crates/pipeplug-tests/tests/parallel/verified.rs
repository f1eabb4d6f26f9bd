//! Plugins whose sum is checked: what is executed is what was summed.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use pipeplug_host::launcher::CommandPrefix;
use pipeplug_host::process::SpawnErrorKind;
use pipeplug_host::{
    Event, LockFile, Plugin, PluginBuilder, Sandbox, Sha256, StartError, StartErrorKind, Supervisor,
};
use pipeplug_tests::{LONG, Script, eventually};
use tempfile::TempDir;

use crate::{BURGLAR, MISBEHAVE};

fn sum_of(path: impl AsRef<Path>) -> Sha256 {
    Sha256::of_file(path).unwrap()
}

/// A copy of the plugin in a directory of its own, and its sum.
fn copied(plugin: &str) -> (TempDir, PathBuf, Sha256) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plugin");
    fs::copy(plugin, &path).unwrap();
    let sum = sum_of(&path);
    (dir, path, sum)
}

fn spawn_error(builder: &PluginBuilder) -> StartError {
    let error = builder.start().unwrap_err();
    assert!(matches!(error.kind(), StartErrorKind::Spawn(_)), "{error:?}");
    error
}

#[test]
fn a_program_runs_as_before() {
    let (_dir, path, sum) = copied(BURGLAR);
    let plugin = Plugin::builder(&path).arg("own").sha256(sum).start().unwrap();
    assert_eq!(plugin.call("args", "").unwrap(), format!("done: {} 3 4 own", path.display()));
    let descriptors = plugin.call("descriptors", "").unwrap();
    assert_eq!(descriptors.lines().count(), 5, "{descriptors}");
    assert_eq!(plugin.name(), "plugin");
    let stdio = Plugin::builder(&path).stdio().sha256(sum).start().unwrap();
    assert_eq!(stdio.call("descriptors", "").unwrap().lines().count(), 3);
}

#[test]
fn a_script_with_an_interpreter_line_runs() {
    let script = Script::answering(
        "echo \"$1 $2 $3\" >&2; readlink /proc/$$/fd/5 >&2; exec cat <&3 >/dev/null",
    );
    for sandbox in [None, Some(Sandbox::strict())] {
        let builder = Plugin::builder(script.path()).arg("own").sha256(sum_of(script.path()));
        let plugin = match sandbox {
            None => builder.start().unwrap(),
            Some(sandbox) => builder.sandbox(sandbox).start().unwrap(),
        };
        eventually("it says what it has", || plugin.stderr_tail().len() == 2);
        let lines = plugin.stderr_tail();
        assert_eq!(lines[0], "3 4 own");
        assert!(lines[1].starts_with("/memfd:plugin"), "{lines:?}");
        plugin.kill().unwrap();
    }
    // Descriptor 3 is the next one here.
    let script = Script::new("readlink /proc/$$/fd/3 >&2; exit 7");
    let error =
        Plugin::builder(script.path()).stdio().sha256(sum_of(script.path())).start().unwrap_err();
    assert!(error.to_string().contains("/memfd:plugin"), "{error}");
}

#[test]
fn another_sum_starts_nothing_and_names_both() {
    let (_dir, path, found) = copied(MISBEHAVE);
    let expected = "5".repeat(64).parse::<Sha256>().unwrap();
    let error = spawn_error(&Plugin::builder(&path).sha256(expected));
    assert!(error.is_permanent());
    let text = error.to_string();
    assert!(text.contains(&found.to_string()) && text.contains(&expected.to_string()), "{text}");
}

#[test]
fn a_file_that_is_swapped_between_check_and_start_does_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plugin");
    let marker = dir.path().join("got in");
    let good = Script::answering("exec cat <&3 >/dev/null");
    let bad = format!(
        "#!/bin/sh\n: >'{}'\n{}",
        marker.display(),
        fs::read_to_string(good.path()).unwrap()
    );
    let write = |content: &[u8], to: &Path| {
        fs::write(to, content).unwrap();
        fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let (good_file, bad_file) = (dir.path().join("good"), dir.path().join("bad"));
    write(&fs::read(good.path()).unwrap(), &good_file);
    write(bad.as_bytes(), &bad_file);
    fs::copy(&good_file, &path).unwrap();
    let sum = sum_of(&path);

    let stop = AtomicBool::new(false);
    let (started, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let next = dir.path().join("next");
            let mut files = [&bad_file, &good_file].into_iter().cycle();
            while !stop.load(Ordering::Relaxed) {
                fs::hard_link(files.next().unwrap(), &next).unwrap();
                fs::rename(&next, &path).unwrap();
            }
        });
        for _ in 0..100 {
            match Plugin::builder(&path).sha256(sum).start() {
                Ok(plugin) => {
                    started.fetch_add(1, Ordering::Relaxed);
                    plugin.kill().unwrap();
                }
                Err(error) => match error.kind() {
                    StartErrorKind::Spawn(SpawnErrorKind::SumMismatch { .. }) => {
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                    // The moment in which the link is its own other name.
                    StartErrorKind::Spawn(_) if !error.is_permanent() => {}
                    _ => panic!("{error}"),
                },
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(!marker.exists(), "the other file ran");
    assert!(started.into_inner() > 0 && refused.into_inner() > 0, "both files were met");
}

/// Writing to the file that was checked, rather than swapping it: the copy is what runs.
#[test]
fn a_plugin_cannot_be_changed_behind_its_back() {
    let script = Script::answering("echo before >&2; read line <&3; echo after >&2");
    let plugin = Plugin::builder(script.path()).sha256(sum_of(script.path())).start().unwrap();
    eventually("it runs", || plugin.stderr_tail() == ["before"]);
    let own = format!("/proc/{}/fd/5", plugin.pid());
    let error = fs::OpenOptions::new()
        .write(true)
        .open(own)
        .and_then(|mut file| std::io::Write::write(&mut file, b"x"));
    assert_eq!(
        error.unwrap_err().raw_os_error(),
        Some(nix::errno::Errno::EPERM as i32),
        "it is sealed"
    );
    plugin.kill().unwrap();
}

/// The memory is open to other processes of the user while it is written: what they write there is
/// in the sum.
#[test]
fn a_copy_that_is_changed_while_it_is_made_does_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plugin");
    let marker = dir.path().join("got in");
    // As long as the other one, to be written over it.
    let evil = format!("#!/bin/sh\n: >'{}'; exit 1\n", marker.display());
    let good = format!("#!/bin/sh\n{:<1$}\n", "exit 1", evil.len() - "#!/bin/sh\n\n".len());
    assert_eq!(good.len(), evil.len());
    // Long enough for the other thread to find it while it is copied.
    let content = good + &"# padding\n".repeat(4 << 20);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let sum = sum_of(&path);

    let stop = AtomicBool::new(false);
    let written = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for link in
                    fs::read_dir("/proc/self/fd").unwrap().flatten().map(|entry| entry.path())
                {
                    if fs::read_link(&link).ok().as_deref()
                        != Some(Path::new("/memfd:plugin (deleted)"))
                    {
                        continue;
                    }
                    let Ok(copy) = fs::OpenOptions::new().write(true).open(&link) else { continue };
                    // Behind what is written at the start, so that it is not written over.
                    if copy.metadata().unwrap().len() > 1 << 20
                        && copy.write_all_at(evil.as_bytes(), 0).is_ok()
                    {
                        written.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        for _ in 0..100 {
            let before = written.load(Ordering::Relaxed);
            let error = Plugin::builder(&path).sha256(sum).start().unwrap_err();
            let is_refused =
                matches!(error.kind(), StartErrorKind::Spawn(SpawnErrorKind::SumMismatch { .. }));
            if marker.exists() || (is_refused && written.load(Ordering::Relaxed) > before) {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(!marker.exists(), "the other program ran");
    assert!(written.into_inner() > 0, "it was written over in time");
}

#[test]
fn a_file_that_is_too_large_is_not_copied() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plugin");
    let file = fs::File::create(&path).unwrap();
    file.set_len(6 << 30).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o755)).unwrap();
    drop(file);
    let text =
        spawn_error(&Plugin::builder(&path).sha256("5".repeat(64).parse().unwrap())).to_string();
    assert!(text.contains("it has 6442450944 bytes, the limit is 1073741824"), "{text}");
}

#[test]
fn the_lock_file_is_demanded_and_names_both_sums() {
    let (dir, path, sum) = copied(MISBEHAVE);
    let lock_path = dir.path().join(LockFile::NAME);
    let builder = Plugin::builder(&path).lock_file(&lock_path);
    let missing = spawn_error(&builder);
    assert!(
        missing.is_permanent() && missing.to_string().contains("there is no lock file"),
        "{missing}"
    );

    let mut lock = LockFile::open_or_new(&lock_path).unwrap();
    lock.save().unwrap();
    let unpinned = spawn_error(&builder);
    assert!(
        matches!(unpinned.kind(), StartErrorKind::Spawn(SpawnErrorKind::NotPinned { .. })),
        "{unpinned}"
    );

    assert_eq!(lock.pin(&path).unwrap(), sum);
    lock.save().unwrap();
    assert_eq!(builder.start().unwrap().call("echo", "hello").unwrap(), "hello");

    let mut changed = fs::read(&path).unwrap();
    changed.push(b'\n');
    fs::write(&path, changed).unwrap();
    let error = spawn_error(&builder).to_string();
    let found = sum_of(&path).to_string();
    assert!(
        error.contains(&found)
            && error.contains(&sum.to_string())
            && error.contains("pipeplug.lock"),
        "{error}"
    );
    // Both demands have to be met.
    let error = spawn_error(&builder.clone().sha256(sum_of(&path)));
    assert!(
        matches!(
            error.kind(),
            StartErrorKind::Spawn(SpawnErrorKind::SumMismatch { lock_file: Some(_), .. })
        ),
        "{error}"
    );
}

#[test]
fn a_supervisor_gives_up_on_what_is_not_as_pinned() {
    let (_dir, path, sum) = copied(MISBEHAVE);
    let failures = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&failures);
    let (given_up, gives_up) = channel();
    let supervisor = Supervisor::builder(Plugin::builder(&path).sha256(sum))
        .on_event(move |_, event: &Event| match event {
            Event::StartFailed { .. } => drop(seen.fetch_add(1, Ordering::SeqCst)),
            Event::GaveUp { .. } => given_up.send(()).unwrap(),
            _ => {}
        })
        .build()
        .unwrap();
    assert_eq!(supervisor.call("echo", "hello").unwrap(), "hello");
    let next = path.with_extension("next");
    fs::write(&next, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&next, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&next, &path).unwrap();
    supervisor.plugin().unwrap().kill().unwrap();
    gives_up.recv_timeout(LONG).unwrap();
    assert_eq!(failures.load(Ordering::SeqCst), 1, "it was not tried again");
    let error = supervisor.call("echo", "hello").unwrap_err().to_string();
    assert!(error.contains(&sum.to_string()), "{error}");
}

#[test]
fn launchers_that_cannot_check_are_refused() {
    let builder = Plugin::builder(MISBEHAVE).launcher(CommandPrefix::new(["nice"]));
    for builder in [
        builder.clone().sha256(sum_of(MISBEHAVE)),
        builder.clone().lock_file("x"),
        builder.sandbox(Sandbox::basic()),
    ] {
        let error = spawn_error(&builder);
        assert!(
            matches!(error.kind(), StartErrorKind::Spawn(SpawnErrorKind::NotEnforced { .. }))
                && error.is_permanent(),
            "{error}"
        );
        assert!(error.to_string().contains("via `nice`"), "{error}");
    }
}

#[test]
fn what_cannot_be_executed_is_told_as_ever() {
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain");
    fs::write(&plain, "").unwrap();
    let sum = sum_of(&plain);
    let check = |path: &Path, part: &str| {
        let text = spawn_error(&Plugin::builder(path).sha256(sum)).to_string();
        assert!(text.contains(part), "{text}");
    };
    check(&plain, "is not executable");
    check(dir.path(), "is a directory");
    check(Path::new("/dev/null"), "is a device");
    check(&dir.path().join("missing"), "no such file");
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    check(&fifo, "is a FIFO");
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o755)).unwrap();
    check(&plain, "is not a program: it is empty");
}
