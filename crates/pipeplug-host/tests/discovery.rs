//! Which files the discovery finds, and what it says of the others.

#![cfg(feature = "discovery")]
#![expect(clippy::unwrap_used, reason = "in the helpers of tests too, a panic is the report")]

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use pipeplug_host::discovery::{
    Discover, Discovery, Entry, EntryState, FindError, FindErrorKind, Found, Problem,
};

fn plugin(dir: &Path, file: &str) -> PathBuf {
    file_of_mode(dir, file, 0o755)
}

fn file_of_mode(dir: &Path, file: &str, mode: u32) -> PathBuf {
    fs::create_dir_all(dir).unwrap();
    let path = dir.join(file);
    fs::write(&path, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn in_env(host: &str, env: &[(&str, &str)]) -> Discovery {
    let env: HashMap<_, _> =
        env.iter().map(|(name, value)| (*name, OsString::from(value))).collect();
    Discovery::for_host_in(host, |name| env.get(name).cloned())
}

fn paths(paths: &[&str]) -> Vec<PathBuf> {
    paths.iter().map(PathBuf::from).collect()
}

fn state<'a>(entries: &'a [Entry], path: &Path) -> &'a EntryState {
    &entries
        .iter()
        .find(|entry| entry.path == path)
        .unwrap_or_else(|| panic!("{path:?}: {entries:?}"))
        .state
}

#[test]
fn the_usual_places_come_in_their_order() {
    let env = [("PIPEPLUG_PATH", "/b:/a"), ("XDG_DATA_HOME", "/data"), ("HOME", "/users/u")];
    assert_eq!(
        in_env("editor", &env).dirs(),
        paths(&[
            "/b",
            "/a",
            "/data/editor/plugins",
            "/usr/local/lib/editor/plugins",
            "/usr/lib/editor/plugins"
        ])
    );
    assert_eq!(
        in_env("pipeplug", &[("HOME", "/users/u")]).dirs(),
        paths(&[
            "/users/u/.local/share/pipeplug/plugins",
            "/usr/local/lib/pipeplug/plugins",
            "/usr/lib/pipeplug/plugins"
        ])
    );
}

#[test]
fn relative_directories_of_the_environment_are_not_searched() {
    let env = [("PIPEPLUG_PATH", "/a::plugins:/a"), ("XDG_DATA_HOME", "data"), ("HOME", "")];
    let discovery = in_env("editor", &env);
    assert_eq!(
        discovery.dirs(),
        paths(&["/a", "/usr/local/lib/editor/plugins", "/usr/lib/editor/plugins"])
    );
    let problems: Vec<_> =
        discovery.list().into_iter().map(|entry| (entry.path, entry.state)).collect();
    assert_eq!(
        problems,
        [
            (PathBuf::new(), EntryState::Unusable(Problem::EmptyPlace)),
            ("plugins".into(), EntryState::Unusable(Problem::RelativePlace))
        ]
    );
    let said = discovery.find("x").unwrap_err().to_string();
    assert!(said.contains("skipped \"\": an empty entry of PIPEPLUG_PATH"), "{said}");
    assert!(said.contains("\"plugins\": a relative entry of PIPEPLUG_PATH"), "{said}");
}

#[test]
fn a_variable_set_to_nothing_is_not_set() {
    assert!(in_env("editor", &[("PIPEPLUG_PATH", "")]).list().is_empty());
}

#[test]
fn a_host_chooses_its_own_directories() {
    let discovery =
        Discovery::for_host("editor").with_dirs(["/b"]).append("/c").append("/b").prepend("/a");
    assert_eq!(discovery.dirs(), paths(&["/a", "/b", "/c"]));
    assert_eq!(discovery.prepend("/c").dirs(), paths(&["/c", "/a", "/b"]));
}

#[test]
fn earlier_places_win_and_shadow() {
    let root = tempfile::tempdir().unwrap();
    let (first, second) = (root.path().join("1"), root.path().join("2"));
    let wins = plugin(&first, "editor-spell");
    let loses = plugin(&second, "editor-spell");
    let alone = plugin(&second, "editor-align");
    plugin(&second, "other-spell");
    plugin(&second, "editor");
    let discovery = Discovery::for_host("editor").with_dirs([&first, &second]);

    assert_eq!(discovery.find("spell").unwrap(), Found::at(&wins));
    let expected = [
        Entry { name: "align".into(), path: alone, state: EntryState::Usable },
        Entry { name: "spell".into(), path: wins.clone(), state: EntryState::Usable },
        Entry { name: "spell".into(), path: loses, state: EntryState::Shadowed { by: wins } },
    ];
    assert_eq!(discovery.list(), expected);
}

#[test]
fn what_cannot_be_used_shadows_nothing() {
    let root = tempfile::tempdir().unwrap();
    let dirs: Vec<_> = (0..4).map(|n| root.path().join(n.to_string())).collect();
    let no_mode = file_of_mode(&dirs[0], "editor-x", 0o644);
    fs::create_dir_all(dirs[1].join("editor-x")).unwrap();
    let usable = plugin(&dirs[2], "editor-x");
    let shadowed = plugin(&dirs[3], "editor-x");
    let discovery = Discovery::for_host("editor").with_dirs(&dirs);

    let found = discovery.find("x").unwrap();
    assert_eq!(found.path, usable);
    let not_executable = Problem::NotExecutable { mode: 0o644 };
    assert_eq!(
        found.passed_over,
        [
            (no_mode.clone(), not_executable.clone()),
            (dirs[1].join("editor-x"), Problem::IsDirectory)
        ]
    );
    let list = discovery.list();
    assert_eq!(state(&list, &no_mode), &EntryState::Unusable(not_executable));
    assert_eq!(state(&list, &usable), &EntryState::Usable);
    assert_eq!(state(&list, &shadowed), &EntryState::Shadowed { by: usable });
}

#[test]
fn each_problem_of_a_file_is_named() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path();
    let in_dir = |file: &str| dir.join(file);
    file_of_mode(dir, "editor-mode", 0o640);
    fs::create_dir(in_dir("editor-dir")).unwrap();
    symlink("gone", in_dir("editor-link")).unwrap();
    symlink("editor-loop", in_dir("editor-loop")).unwrap();
    let _socket = UnixListener::bind(in_dir("editor-socket")).unwrap();
    plugin(dir, "editor-");
    let odd = dir.join(OsStr::from_bytes(b"editor-\xff"));
    fs::write(&odd, "").unwrap();
    let good = plugin(dir, "editor-good");
    symlink(&good, in_dir("editor-alias")).unwrap();

    let discovery = Discovery::for_host("editor").with_dirs([dir]);
    let list = discovery.list();
    assert_eq!(list.len(), 9, "{list:?}");
    let unusable = |file: &Path| match state(&list, file) {
        EntryState::Unusable(problem) => problem.clone(),
        other => panic!("{file:?}: {other:?}"),
    };
    assert_eq!(unusable(&in_dir("editor-mode")), Problem::NotExecutable { mode: 0o640 });
    assert_eq!(unusable(&in_dir("editor-dir")), Problem::IsDirectory);
    assert_eq!(
        unusable(&in_dir("editor-link")),
        Problem::DanglingSymlink { target: "gone".into() }
    );
    assert!(matches!(unusable(&in_dir("editor-loop")), Problem::Inaccessible { .. }));
    assert_eq!(unusable(&in_dir("editor-socket")), Problem::NotAFile { kind: "a socket" });
    assert_eq!(unusable(&in_dir("editor-")), Problem::NoName);
    assert_eq!(unusable(&odd), Problem::NameNotUtf8);
    assert_eq!(state(&list, &good), &EntryState::Usable);
    assert_eq!(state(&list, &in_dir("editor-alias")), &EntryState::Usable);
    let names: Vec<_> = list.iter().map(|entry| entry.name.as_str()).collect();
    assert!(names.is_sorted(), "{names:?}");

    let error = discovery.find("mode").unwrap_err();
    assert!(
        matches!(error.kind(), FindErrorKind::Unusable { problems } if problems.len() == 1),
        "{error:?}"
    );
    assert_eq!(error.name(), "mode");
    let said = error.to_string();
    assert!(
        said.contains("editor-mode\": not executable (mode 0640), run `chmod +x` on it"),
        "{said}"
    );
}

#[test]
fn only_a_directory_that_is_there_can_be_a_problem() {
    let root = tempfile::tempdir().unwrap();
    let missing = root.path().join("missing");
    // The test may run as root, whom no mode keeps out.
    let unreadable = root.path().join("loop");
    symlink("loop", &unreadable).unwrap();
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    let good = plugin(&root.path().join("good"), "editor-x");

    let places = [missing.as_path(), &unreadable, &file, good.parent().unwrap()];
    let discovery = Discovery::for_host("editor").with_dirs(places);
    let list = discovery.list();
    assert_eq!(list.len(), 3, "{list:?}");
    let kind = fs::read_dir(&unreadable).unwrap_err().kind();
    assert_eq!(
        state(&list, &unreadable),
        &EntryState::Unusable(Problem::UnreadableDirectory { kind })
    );
    assert_eq!(state(&list, &file), &EntryState::Unusable(Problem::NotADirectory));
    assert_eq!(discovery.find("x").unwrap().path, good);

    let error = discovery.find("unlike").unwrap_err();
    let FindErrorKind::NotFound { searched, skipped, similar } = error.kind() else {
        panic!("{error}")
    };
    assert_eq!(searched, &places);
    assert!(skipped.iter().any(|(path, _)| *path == unreadable), "{skipped:?}");
    assert!(
        skipped.iter().any(|(path, problem)| *path == file && *problem == Problem::NotADirectory)
    );
    assert_eq!(similar, &None);
}

#[test]
fn a_name_that_is_not_there_brings_the_nearest_and_the_places() {
    let root = tempfile::tempdir().unwrap();
    plugin(root.path(), "editor-spell");
    file_of_mode(root.path(), "editor-spelt", 0o600);
    let discovery = Discovery::for_host("editor").with_dirs([root.path()]);
    let error = discovery.find("spel").unwrap_err();
    let expected =
        format!("no plugin \"spel\", did you mean \"spell\"?; searched {}", root.path().display());
    assert_eq!(error.to_string(), expected);

    let nowhere = Discovery::for_host("editor").with_dirs([] as [&str; 0]).find("x").unwrap_err();
    assert!(nowhere.to_string().contains("searched nowhere"), "{nowhere}");
}

#[test]
fn a_name_cannot_lead_out_of_the_places() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("editor-")).unwrap();
    plugin(root.path(), "editor-x");
    let discovery = Discovery::for_host("editor").with_dirs([root.path()]);
    for name in ["", "/../editor-x", "a/b", "a\0b"] {
        assert_eq!(discovery.find(name), Err(FindError::new(name, FindErrorKind::BadName)));
    }
}

#[test]
fn a_host_brings_its_own_way() {
    struct Registry;
    impl Discover for Registry {
        fn find(&self, name: &str) -> Result<Found, FindError> {
            match name {
                "one" => Ok(Found::at("/opt/one")),
                _ => {
                    let reason = io::ErrorKind::TimedOut.to_string();
                    Err(FindError::new(name, FindErrorKind::Other { reason }))
                }
            }
        }

        fn list(&self) -> Vec<Entry> {
            vec![Entry { name: "one".into(), path: "/opt/one".into(), state: EntryState::Usable }]
        }
    }
    let root = tempfile::tempdir().unwrap();
    let own = plugin(root.path(), "editor-one");
    let ways: [Box<dyn Discover>; 2] =
        [Box::new(Registry), Box::new(Discovery::for_host("editor").with_dirs([root.path()]))];
    let found: Vec<_> = ways.iter().map(|way| way.find("one").unwrap().path).collect();
    assert_eq!(found, [PathBuf::from("/opt/one"), own]);
    assert_eq!(
        ways[0].find("two").unwrap_err().to_string(),
        "plugin \"two\" cannot be looked up: timed out"
    );
    assert!(ways.iter().all(|way| way.list().len() == 1));
}
