//! Adding plugins to the user's own, and removing them.

#![cfg(feature = "discovery")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::thread;

use pipeplug_host::Sha256;
use pipeplug_host::discovery::{
    AddError, Discovery, Found, InstallMode, OnConflict, Problem, RemoveError, Store, StoreError,
    executables,
};
use tempfile::TempDir;

struct Home {
    root: TempDir,
}

impl Home {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn env(&self, name: &str) -> Option<OsString> {
        (name == "HOME").then(|| self.root.path().into())
    }

    fn store(&self) -> Store {
        Store::for_host_in("editor", |name| self.env(name)).unwrap()
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.root.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        path
    }
}

fn names_in(dir: &Path) -> Vec<String> {
    let files = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_copy_is_found_by_its_name_and_goes_again() {
    let home = Home::new();
    let store = home.store();
    let source = home.file("checker", "#!/bin/sh\n");
    let (path, added) = store.add(&source, "spell", InstallMode::Copy, OnConflict::Keep).unwrap();
    assert_eq!(path, home.root.path().join(".local/share/editor/plugins/editor-spell"));
    assert_eq!((&added.from, added.mode), (&source, InstallMode::Copy));
    assert_eq!(added.sha256, Sha256::of_file(&source).unwrap());
    assert_eq!(fs::read(&path).unwrap(), fs::read(&source).unwrap());
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o755, "no other user may write it");
    let discovery = Discovery::for_host_in("editor", |name| home.env(name));
    assert_eq!(discovery.find("spell"), Ok(Found::at(&path)));
    assert_eq!(store.added().unwrap(), [("spell".to_owned(), added.clone())].into());

    fs::remove_file(&source).unwrap();
    assert_eq!(store.remove("spell", OnConflict::Keep).unwrap(), (path, added));
    assert!(discovery.find("spell").is_err());
    assert!(store.added().unwrap().is_empty());
    assert_eq!(names_in(&store.dir()), [""; 0]);
}

#[test]
fn a_link_follows_its_file() {
    let home = Home::new();
    let store = home.store();
    let source = home.file("checker", "one");
    let (path, added) = store.add(&source, "spell", InstallMode::Link, OnConflict::Keep).unwrap();
    assert_eq!(fs::read_link(&path).unwrap(), source);
    fs::write(&source, "two").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "two");
    assert_eq!(store.added().unwrap()["spell"], added, "the sum is that of the one that was added");
    store.remove("spell", OnConflict::Keep).unwrap();
    assert_eq!(fs::read_to_string(&source).unwrap(), "two");
}

#[test]
fn what_is_there_is_replaced_only_where_that_is_wanted() {
    let home = Home::new();
    let store = home.store();
    let (one, two) = (home.file("one", "1"), home.file("two", "2"));
    let (path, first) = store.add(&one, "x", InstallMode::Copy, OnConflict::Keep).unwrap();
    let error = store.add(&two, "x", InstallMode::Copy, OnConflict::Keep).unwrap_err();
    assert!(matches!(&error, AddError::AlreadyThere { added: Some(added), .. } if *added == first));
    let said = format!("there is a plugin \"x\" already, added from {one:?}: --force replaces it");
    assert_eq!(error.to_string(), said);
    assert_eq!(fs::read_to_string(&path).unwrap(), "1");

    store.add(&two, "x", InstallMode::Link, OnConflict::Overwrite).unwrap();
    assert_eq!(fs::read_link(&path).unwrap(), two);
    store.add(&one, "x", InstallMode::Copy, OnConflict::Overwrite).unwrap();
    assert!(
        fs::symlink_metadata(&path).unwrap().is_file(),
        "the link is replaced, not what it leads to"
    );
    assert_eq!(fs::read_to_string(&two).unwrap(), "2");

    let by_hand = store.path_of("y").unwrap();
    fs::write(&by_hand, "mine").unwrap();
    let error = store.add(&two, "y", InstallMode::Copy, OnConflict::Keep).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("there is a plugin \"y\" already, {by_hand:?}: --force replaces it")
    );
    assert_eq!(names_in(&store.dir()), ["editor-x", "editor-y"], "nothing unfinished stays");
}

#[test]
fn what_can_be_no_plugin_is_not_added() {
    let home = Home::new();
    let store = home.store();
    let plain = home.file("plain", "");
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    let add = |path: &Path, name: &str| {
        store.add(path, name, InstallMode::Copy, OnConflict::Overwrite).unwrap_err()
    };
    let not_executable = Problem::NotExecutable { mode: 0o644 };
    assert!(
        matches!(add(&plain, "x"), AddError::Unusable { problem, .. } if problem == not_executable)
    );
    assert!(matches!(
        add(home.root.path(), "x"),
        AddError::Unusable { problem: Problem::IsDirectory, .. }
    ));
    assert!(matches!(add(&home.root.path().join("gone"), "x"), AddError::NotFound { .. }));
    let good = home.file("good", "");
    for name in ["", "a/b", "../x", "a\0b"] {
        assert!(matches!(add(&good, name), AddError::BadName { .. }), "{name:?}");
    }
    assert!(!store.dir().exists());

    let (path, _) = store.add(&good, "x", InstallMode::Copy, OnConflict::Keep).unwrap();
    symlink(&path, home.root.path().join("round")).unwrap();
    for source in [path.clone(), home.root.path().join("round")] {
        for way in [InstallMode::Copy, InstallMode::Link] {
            let error = store.add(&source, "x", way, OnConflict::Overwrite).unwrap_err();
            assert!(matches!(error, AddError::Itself { .. }), "{error}");
        }
    }
    assert!(fs::metadata(&path).unwrap().is_file());
}

#[test]
fn only_what_was_added_is_removed() {
    let home = Home::new();
    let store = home.store();
    let source = home.file("source", "1");
    let error = store.remove("x", OnConflict::Overwrite).unwrap_err();
    assert_eq!(error.to_string(), "no plugin \"x\" of editor was added");
    assert!(!home.root.path().join(".local").exists(), "to look makes no directory");

    let (path, _) = store.add(&source, "spell", InstallMode::Copy, OnConflict::Keep).unwrap();
    let said = "no plugin \"spel\" of editor was added, did you mean \"spell\"?";
    assert_eq!(store.remove("spel", OnConflict::Keep).unwrap_err().to_string(), said);
    assert!(store.remove("../spell", OnConflict::Overwrite).is_err());

    let by_hand = store.path_of("hand").unwrap();
    fs::write(&by_hand, "").unwrap();
    let error = store.remove("hand", OnConflict::Overwrite).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "plugin \"hand\" was not installed by `add`: remove {by_hand:?} in the way it was \
                 installed"
        )
    );
    assert!(by_hand.exists());

    fs::write(&path, "mine").unwrap();
    assert!(matches!(store.remove("spell", OnConflict::Keep), Err(RemoveError::Changed { .. })));
    fs::remove_file(&path).unwrap();
    symlink(&source, &path).unwrap();
    assert!(
        matches!(store.remove("spell", OnConflict::Keep), Err(RemoveError::Changed { .. })),
        "a link now"
    );
    assert!(path.exists());
    store.remove("spell", OnConflict::Overwrite).unwrap();
    assert!(!path.exists() && source.exists());
}

#[test]
fn what_was_removed_by_hand_is_forgotten() {
    let home = Home::new();
    let store = home.store();
    let source = home.file("source", "1");
    let paths = ["a", "b"]
        .map(|name| store.add(&source, name, InstallMode::Copy, OnConflict::Keep).unwrap().0);
    for path in paths {
        fs::remove_file(path).unwrap();
    }
    assert!(store.added().unwrap().is_empty());
    store.remove("a", OnConflict::Keep).unwrap();
    store.add(&source, "c", InstallMode::Copy, OnConflict::Keep).unwrap();
    let records =
        fs::read_to_string(home.root.path().join(".local/share/editor/added.json")).unwrap();
    assert!(!records.contains("\"b\"") && records.contains("\"c\""), "{records}");
}

#[test]
fn records_that_make_no_sense_stop_every_change() {
    let home = Home::new();
    let store = home.store();
    let source = home.file("source", "1");
    store.add(&source, "a", InstallMode::Copy, OnConflict::Keep).unwrap();
    let records = home.root.path().join(".local/share/editor/added.json");
    let good = fs::read_to_string(&records).unwrap();
    for bad in ["", "{", "{}", &good.replace("\"version\": 1", "\"version\": 2")] {
        assert_ne!(bad, good);
        fs::write(&records, bad).unwrap();
        let bad_records = |error: &StoreError| matches!(error, StoreError::BadRecords { path, .. } if *path == records);
        let added = store.add(&source, "b", InstallMode::Copy, OnConflict::Overwrite).unwrap_err();
        assert!(matches!(&added, AddError::Store(error) if bad_records(error)), "{added}");
        let removed = store.remove("a", OnConflict::Overwrite).unwrap_err();
        assert!(matches!(&removed, RemoveError::Store(error) if bad_records(error)), "{removed}");
        assert_eq!(names_in(&store.dir()), ["editor-a"]);
        assert_eq!(fs::read_to_string(&records).unwrap(), bad);
    }
}

#[test]
fn many_may_add_and_remove_at_once() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 10;
    let home = Home::new();
    let sources: Vec<_> = (0..THREADS)
        .map(|i| home.file(&format!("source-{i}"), &format!("{i}").repeat(i + 1)))
        .collect();
    thread::scope(|scope| {
        for (i, source) in sources.iter().enumerate() {
            let store = home.store();
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    store.add(source, "same", InstallMode::Copy, OnConflict::Overwrite).unwrap();
                    store
                        .add(
                            source,
                            &format!("own-{i}-{round}"),
                            InstallMode::Copy,
                            OnConflict::Keep,
                        )
                        .unwrap();
                    if round % 2 == 0 {
                        store.remove(&format!("own-{i}-{round}"), OnConflict::Keep).unwrap();
                    }
                }
            });
        }
    });
    let store = home.store();
    let added = store.added().unwrap();
    assert_eq!(added.len(), 1 + THREADS * ROUNDS / 2, "no record is lost");
    for (name, added) in added {
        let sum = Sha256::of_file(store.path_of(&name).unwrap()).unwrap();
        assert_eq!(sum, added.sha256, "{name}: the record is that of the file");
    }
}

#[test]
fn hosts_and_homes_that_there_cannot_be_are_told() {
    let home = Home::new();
    for host in ["", ".", "..", ".hidden", "a/b", "a\0"] {
        let error = Store::for_host_in(host, |name| home.env(name)).unwrap_err();
        assert!(matches!(error, StoreError::BadHost { .. }), "{host:?}");
    }
    let gone = home.root.path().join("gone");
    let without_home = |name: &str| (name == "HOME").then(|| OsString::from(&gone));
    assert!(matches!(Store::for_host_in("editor", without_home), Err(StoreError::NoHome)));
    assert!(matches!(Store::for_host_in("editor", |_| None), Err(StoreError::NoHome)));
    let data = |name: &str| (name == "XDG_DATA_HOME").then(|| OsString::from(&gone));
    assert_eq!(Store::for_host_in("editor", data).unwrap().dir(), gone.join("editor/plugins"));
}

#[test]
fn the_executables_of_a_directory_are_its_files() {
    let home = Home::new();
    let (b, a) = (home.file("b", ""), home.file("a", ""));
    let plain = home.file("plain", "");
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    fs::create_dir(home.root.path().join("dir")).unwrap();
    assert_eq!(executables(home.root.path()).unwrap(), [a, b]);
    assert!(executables(&plain).is_err());
}
