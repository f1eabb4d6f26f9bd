//! The catalog keeps the metadata of plugins, and probes them again when it is out of date.

#![cfg(feature = "discovery")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use pipeplug_host::SandboxSupport;
use pipeplug_host::discovery::{
    Catalog, CatalogEntry, Discovery, EntryState, Freshness, InstallMode, OnConflict, Problem,
    Store,
};
use pipeplug_host::{Grace, PluginBuilder};
use tempfile::TempDir;

/// A home directory with plugins of the host `editor`, which write down their starts.
struct Home {
    root: TempDir,
}

impl Home {
    fn new() -> Self {
        let home = Self { root: tempfile::tempdir().unwrap() };
        fs::create_dir(home.plugins()).unwrap();
        home
    }

    fn plugins(&self) -> PathBuf {
        self.root.path().join("plugins")
    }

    fn cache(&self) -> PathBuf {
        self.root.path().join("cache/editor/pipeplug.json")
    }

    fn env(&self, name: &str) -> Option<OsString> {
        match name {
            "PIPEPLUG_PATH" => Some(self.plugins().into()),
            "XDG_CACHE_HOME" => Some(self.root.path().join("cache").into()),
            "XDG_DATA_HOME" => Some(self.root.path().join("data").into()),
            _ => None,
        }
    }

    fn discovery(&self) -> Discovery {
        Discovery::for_host_in("editor", |name| self.env(name))
    }

    fn store(&self) -> Store {
        Store::for_host_in("editor", |name| self.env(name)).unwrap()
    }

    /// A script that notes its start, written by another process: a descriptor of ours that is open
    /// for writing could be inherited by a child that another test starts just then, and nothing
    /// could execute the file (ETXTBSY).
    fn script(&self, path: &Path, body: &str) {
        let starts = self.root.path().join("starts");
        let text = format!("#!/bin/sh\necho \"$0\" >>'{}'\n{body}\n", starts.display());
        let mut writer = Command::new("/bin/sh")
            .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
            .arg(path)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        writer.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(writer.wait().unwrap().success());
    }

    fn plugin(&self, name: &str, help: &str) -> PathBuf {
        let path = self.plugins().join(format!("editor-{name}"));
        self.script(&path, &answering(help));
        path
    }

    fn broken(&self, name: &str, body: &str) -> PathBuf {
        let path = self.plugins().join(format!("editor-{name}"));
        self.script(&path, body);
        path
    }

    /// How many plugins were started up to now.
    fn starts(&self) -> usize {
        fs::read_to_string(self.root.path().join("starts")).unwrap_or_default().lines().count()
    }

    #[track_caller]
    fn list(&self) -> Vec<CatalogEntry> {
        self.listed(Catalog::list)
    }

    fn listed(&self, list: impl FnOnce(&Catalog) -> Vec<CatalogEntry>) -> Vec<CatalogEntry> {
        let discovery = self.discovery();
        let quick = Grace::each(Duration::from_millis(10));
        list(
            &discovery
                .catalog()
                .starting(move |builder| builder.no_sandbox().handshake_timeout(LONG).grace(quick)),
        )
    }
}

/// Far more than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// Answers the first request, and ends with its input.
fn answering(help: &str) -> String {
    let json = format!("{{\"Help\":\"{help}\"}}");
    let len = json.len();
    // Before the request, no call would wait for the answer.
    format!(
        "head -c 1 <&3 >/dev/null\nprintf '1\\0003\\00011\\000GetMetadata\\000{len}\\000%s' \
         '{json}' >&4\nexec cat <&3 >/dev/null"
    )
}

/// Lets what has just been written grow old enough to be kept. This waits for no other thread: age
/// is the condition.
fn settle() {
    thread::sleep(Duration::from_millis(150));
}

#[track_caller]
fn of<'a>(listed: &'a [CatalogEntry], name: &str) -> &'a CatalogEntry {
    listed
        .iter()
        .find(|listed| listed.entry.name == name)
        .unwrap_or_else(|| panic!("{name}: {listed:?}"))
}

/// The metadata in the cache, and the time of the probe.
#[track_caller]
fn answer(listed: &[CatalogEntry], name: &str) -> (Result<String, String>, Freshness) {
    let answer = of(listed, name).answer.clone().unwrap();
    let help = answer.info.map(|info| info.metadata.value("Help").unwrap_or_default().to_owned());
    (help, answer.freshness)
}

#[test]
fn a_second_listing_starts_nothing() {
    let home = Home::new();
    home.plugin("a", "first");
    home.plugin("b", "second");
    home.broken("c", "exit 3");
    settle();
    assert_eq!(home.listed(Catalog::known)[0].answer, None);
    assert_eq!(home.starts(), 0);

    let first = home.list();
    assert_eq!(answer(&first, "a"), (Ok("first".into()), Freshness::Fresh));
    let (problem, asked) = answer(&first, "c");
    assert_eq!(asked, Freshness::Fresh);
    assert!(problem.as_ref().unwrap_err().contains("exit status 3"), "{problem:?}");
    // What did not answer was asked in each of the four ways.
    assert_eq!(home.starts(), 2 + 4);

    for second in [home.list(), home.listed(Catalog::known)] {
        assert_eq!(answer(&second, "a"), (Ok("first".into()), Freshness::Remembered));
        assert_eq!(answer(&second, "b"), (Ok("second".into()), Freshness::Remembered));
        assert_eq!(
            answer(&second, "c"),
            (problem.clone(), Freshness::Remembered),
            "with the error that it had"
        );
    }
    assert_eq!(home.starts(), 6);

    let third = home.listed(Catalog::refresh);
    assert_eq!(answer(&third, "a"), (Ok("first".into()), Freshness::Fresh));
    assert_eq!(home.starts(), 12);
}

#[test]
fn a_file_that_changed_is_asked_again() {
    let home = Home::new();
    let path = home.plugin("a", "one");
    let untouched = home.plugin("b", "other");
    settle();
    assert_eq!(home.list().len(), 2);

    // In place, of the same size, and with its time of modification set back.
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    home.plugin("a", "two");
    File::options().append(true).open(&path).unwrap().set_modified(modified).unwrap();
    settle();
    assert_eq!(answer(&home.list(), "a"), (Ok("two".into()), Freshness::Fresh));
    assert_eq!(answer(&home.list(), "a"), (Ok("two".into()), Freshness::Remembered));

    // Another file in its place.
    let newer = home.root.path().join("newer");
    home.script(&newer, &answering("three"));
    fs::rename(&newer, &path).unwrap();
    settle();
    let listed = home.list();
    assert_eq!(answer(&listed, "a"), (Ok("three".into()), Freshness::Fresh));
    assert_eq!(answer(&listed, "b").1, Freshness::Remembered, "{untouched:?}");
}

#[test]
fn the_file_that_a_link_leads_to_counts() {
    let home = Home::new();
    let target = home.root.path().join("target");
    home.script(&target, &answering("one"));
    symlink(&target, home.plugins().join("editor-a")).unwrap();
    settle();
    assert_eq!(answer(&home.list(), "a"), (Ok("one".into()), Freshness::Fresh));
    assert_eq!(answer(&home.list(), "a").1, Freshness::Remembered);
    home.script(&target, &answering("two"));
    assert_eq!(answer(&home.list(), "a"), (Ok("two".into()), Freshness::Fresh));
}

#[test]
fn an_error_that_another_start_may_not_have_is_not_kept() {
    let home = Home::new();
    home.broken("killed", "kill -KILL $$");
    let interpreter = home.root.path().join("interpreter");
    let path = home.plugins().join("editor-script");
    fs::write(&path, format!("#!{}\n{}\n", interpreter.display(), answering("here"))).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    settle();
    for _ in 0..2 {
        let listed = home.list();
        let (problem, asked) = answer(&listed, "killed");
        assert!(problem.unwrap_err().contains("SIGKILL"));
        assert_eq!(asked, Freshness::Fresh);
        assert!(answer(&listed, "script").0.unwrap_err().contains("needs the interpreter"));
    }
    symlink("/bin/sh", &interpreter).unwrap();
    assert_eq!(answer(&home.list(), "script"), (Ok("here".into()), Freshness::Fresh));
}

#[test]
fn a_cache_that_cannot_be_used_is_none() {
    let home = Home::new();
    home.plugin("a", "text");
    settle();
    home.list();
    let good = fs::read_to_string(home.cache()).unwrap();
    assert_eq!(answer(&home.list(), "a").1, Freshness::Remembered, "{good}");
    let half = &good[..good.len() / 2];
    for bad in ["", "{}", "[]", "\0", half, &good.replace("\"version\":3", "\"version\":4")] {
        assert_ne!(bad, good);
        fs::write(home.cache(), bad).unwrap();
        assert_eq!(answer(&home.list(), "a"), (Ok("text".into()), Freshness::Fresh), "{bad}");
        assert_eq!(answer(&home.list(), "a").1, Freshness::Remembered, "it was replaced: {bad}");
    }
    fs::remove_file(home.cache()).unwrap();
    fs::create_dir(home.cache()).unwrap();
    fs::write(home.cache().join("file"), "").unwrap();
    assert_eq!(answer(&home.list(), "a"), (Ok("text".into()), Freshness::Fresh));
    assert_eq!(
        answer(&home.list(), "a").1,
        Freshness::Fresh,
        "and where it cannot be replaced it is done without"
    );
    let left = fs::read_dir(home.cache().parent().unwrap()).unwrap().count();
    assert_eq!(left, 1, "nothing unfinished stays");
}

/// Tells whether a strict sandbox works here. In CI it has to.
fn has_sandbox() -> bool {
    let support = SandboxSupport::of_system();
    let has = support.landlock_abi >= 3 && support.seccomp && cfg!(not(pipeplug_portable));
    assert!(
        has || cfg!(pipeplug_portable) || std::env::var_os("CI").is_none(),
        "ABI 3 of Landlock is needed, there is: {support}"
    );
    has
}

#[test]
fn plugins_are_asked_in_a_strict_sandbox_unless_it_is_taken_off() {
    if !has_sandbox() {
        eprintln!("skipped: there is no strict sandbox");
        return;
    }
    let home = Home::new();
    // One writes a file and answers anyway, the other one needs the file.
    home.plugin("a", "text");
    let needed = home.root.path().join("needed");
    std::fs::write(&needed, "it").unwrap();
    home.broken("b", &format!("[ -s \"{}\" ] || exit 9\n{}", needed.display(), answering("more")));
    settle();
    let list = |configure: fn(PluginBuilder) -> PluginBuilder| {
        home.discovery()
            .catalog()
            .starting(move |builder| configure(builder.handshake_timeout(LONG)))
            .list()
    };
    let default: fn(PluginBuilder) -> PluginBuilder = |builder| builder;
    let listed = list(default);
    assert_eq!(answer(&listed, "a"), (Ok("text".into()), Freshness::Fresh));
    assert_eq!(home.starts(), 0, "nothing was written");
    let (problem, asked) = answer(&listed, "b");
    assert!(problem.unwrap_err().contains("exit status 9"), "{listed:?}");
    assert_eq!(asked, Freshness::Fresh);
    assert!(of(&listed, "b").answer.as_ref().unwrap().in_sandbox);
    // Where the same sandbox is meant again, the failure is remembered; elsewhere it is not.
    assert_eq!(answer(&list(default), "b").1, Freshness::Remembered);
    let listed = list(PluginBuilder::no_sandbox);
    assert_eq!(answer(&listed, "a").1, Freshness::Remembered, "an answer holds for all");
    assert_eq!(answer(&listed, "b"), (Ok("more".into()), Freshness::Fresh));
    assert!(!of(&listed, "b").answer.as_ref().unwrap().in_sandbox);
    assert_eq!(answer(&list(default), "b"), (Ok("more".into()), Freshness::Remembered));
}

#[test]
fn files_that_are_gone_do_not_add_up() {
    let home = Home::new();
    let gone = home.plugin("a", "text");
    home.plugin("b", "text");
    settle();
    home.list();
    let holds =
        |path: &Path| fs::read_to_string(home.cache()).unwrap().contains(path.to_str().unwrap());
    assert!(holds(&gone));
    fs::remove_file(&gone).unwrap();
    assert_eq!(answer(&home.list(), "b").1, Freshness::Remembered);
    assert!(!holds(&gone));
    assert_eq!(answer(&home.list(), "b").1, Freshness::Remembered);
}

#[test]
fn many_may_list_at_once() {
    let home = Home::new();
    for i in 0..10 {
        home.plugin(&format!("p{i}"), &format!("help {i}"));
    }
    settle();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..3 {
                    let listed = home.list();
                    for i in 0..10 {
                        assert_eq!(answer(&listed, &format!("p{i}")).0, Ok(format!("help {i}")));
                    }
                }
            });
        }
    });
    let starts = home.starts();
    assert!(
        home.list()
            .iter()
            .all(|listed| listed.answer.as_ref().unwrap().freshness == Freshness::Remembered)
    );
    assert_eq!(home.starts(), starts);
}

#[test]
fn without_a_home_everything_is_asked_each_time() {
    let home = Home::new();
    home.plugin("a", "text");
    settle();
    let discovery = Discovery::for_host_in("editor", |name| match name {
        "PIPEPLUG_PATH" => home.env(name),
        "HOME" => Some(home.root.path().join("nobody").into()),
        _ => None,
    });
    for starts in 1..=2 {
        assert_eq!(
            answer(&discovery.catalog().starting(PluginBuilder::no_sandbox).list(), "a"),
            (Ok("text".into()), Freshness::Fresh)
        );
        assert_eq!(home.starts(), starts);
    }
    assert!(!home.root.path().join("nobody").exists(), "and no home is made");
}

#[test]
fn a_listing_says_what_was_added_and_whether_it_is_the_same() {
    let home = Home::new();
    let (copied, linked) = (home.root.path().join("copied"), home.root.path().join("linked"));
    for source in [&copied, &linked] {
        home.script(source, &answering("text"));
    }
    let (_, copy) = home.store().add(&copied, "copy", InstallMode::Copy, OnConflict::Keep).unwrap();
    let (_, link) = home.store().add(&linked, "link", InstallMode::Link, OnConflict::Keep).unwrap();
    // One of the same name in an earlier place is another matter.
    home.plugin("copy", "other");
    settle();
    for list in [Catalog::list, Catalog::list, Catalog::refresh] {
        let listed = home.listed(list);
        let [first, second] = [&listed[0], &listed[1]];
        assert_eq!((first.entry.name.as_str(), &first.added, first.changed), ("copy", &None, None));
        assert!(matches!(second.entry.state, EntryState::Shadowed { .. }));
        assert_eq!((&second.added, second.changed), (&Some(copy.clone()), None));
        assert_eq!(
            (&of(&listed, "link").added, of(&listed, "link").changed),
            (&Some(link.clone()), None)
        );
    }
    home.script(&linked, &answering("new!"));
    home.script(&home.store().path_of("copy").unwrap(), &answering("new!"));
    for _ in 0..2 {
        let listed = home.list();
        let sum = pipeplug_host::Sha256::of_file(&linked).unwrap();
        assert_eq!(of(&listed, "link").changed, Some(sum));
        assert_eq!(listed[1].changed, Some(sum));
        settle();
    }
}

#[test]
fn records_that_make_no_sense_are_told() {
    let home = Home::new();
    home.plugin("a", "text");
    fs::create_dir_all(home.root.path().join("data/editor")).unwrap();
    let records = home.root.path().join("data/editor/added.json");
    fs::write(&records, "{").unwrap();
    let listed = home.list();
    assert_eq!(listed[0].entry.path, records);
    let EntryState::Unusable(Problem::Records { reason }) = &listed[0].entry.state else {
        panic!("{listed:?}")
    };
    assert!(reason.contains("remove the file"), "{reason}");
    assert_eq!(answer(&listed, "a").0, Ok("text".into()));
}
