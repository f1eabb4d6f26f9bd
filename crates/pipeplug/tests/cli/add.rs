//! `pipeplug add` and `pipeplug rm`.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::common::{LONG, MIRROR, Place, Ran, Run, has_strict_sandbox, is_gone, pipeplug, settle};

/// A place for plugins that are to be added, beside a home directory that has none.
struct Home {
    sources: Place,
    home: Place,
}

impl Home {
    fn new() -> Self {
        Self { sources: Place::new(), home: Place::new() }
    }

    fn run<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Ran {
        self.command(args).run()
    }

    fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Run {
        let mut run = pipeplug(args);
        run.command.env("HOME", self.home.path()).current_dir(self.sources.path());
        run
    }

    fn plugins(&self, host: &str) -> PathBuf {
        self.home.path().join(".local/share").join(host).join("plugins")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.plugins("pipeplug").join(format!("pipeplug-{name}"))
    }

    fn list(&self) -> Vec<Value> {
        self.run(["list", "--json"]).exits(0).json()
    }
}

/// Where this user can make such a mount, in namespaces.
#[test]
fn a_place_where_nothing_can_be_executed_is_refused() {
    const NO_MOUNT: i32 = 77;
    let home = Home::new();
    home.sources.standard("mirror", MIRROR);
    let script = format!("mount -t tmpfs -o noexec none \"$HOME\" || exit {NO_MOUNT}; exec \"$@\"");
    let mut run = home.command(["add", "mirror"]);
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--user", "--mount", "sh", "-c", &script, "sh"]);
    command.arg(run.command.get_program()).args(run.command.get_args());
    command.env("HOME", home.home.path()).current_dir(home.sources.path());
    run.command = command;
    let ran = run.run();
    if ran.code == Some(NO_MOUNT) || ran.stderr.contains("unshare: ") {
        return;
    }
    ran.exits(1).says("mounted noexec, so nothing in it can be started: XDG_DATA_HOME names");
}

#[test]
fn what_was_added_is_found_and_run_by_its_name_until_it_is_removed() {
    let home = Home::new();
    let source = home.sources.standard("mirror", MIRROR);
    let ran = home.run(["add", "mirror"]).exits(0).says_only("");
    let sum = Command::new("sha256sum").arg(&source).output().unwrap();
    let sum = std::str::from_utf8(&sum.stdout).unwrap().split(' ').next().unwrap();
    ran.prints(&format!(
        "added mirror: a mirror\n  file    ~/.local/share/pipeplug/plugins/pipeplug-mirror (a copy \
         of {})\n  sha256  {sum}\n  run     pipeplug run mirror --call CMD\n",
        source.display()
    ));
    fs::remove_file(&source).unwrap();
    home.run(["run", "mirror", "--call", "x", "y"]).exits(0).prints("<x y>");
    let listed = home.list();
    assert_eq!(
        listed[0]["added"],
        json!({ "from": source.to_str().unwrap(), "mode": "copy", "sha256": sum })
    );
    assert!(listed[0].get("changed_to").is_none());
    home.run(["rm", "mirror"])
        .exits(0)
        .prints(&format!("removed mirror, a copy of {}\n", source.display()));
    home.run(["run", "mirror"]).exits(3);
    assert!(home.list().is_empty());
}

#[test]
fn a_directory_has_each_of_its_plugins_added() {
    let home = Home::new();
    let dir = home.sources.path().to_str().unwrap();
    home.run(["add", dir]).exits(3).says("there is no executable file in");
    home.sources.standard("one", MIRROR);
    home.sources.classic("pipeplug-two", MIRROR);
    home.sources.executable("no-plugin", "#!/bin/sh\nexit 3\n");
    home.sources.file("README", b"text");
    let ran =
        home.run(["add", dir]).exits(4).says("no-plugin\" ended before it answered: exit status 3");
    assert!(ran.stderr.ends_with(
        "it was not added (probed over descriptors 3 and 4 and over stdin and stdout, in both \
         formats); --no-metadata adds it without probing\n"
    ));
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    assert!(
        ran.text().contains("run     pipeplug run two --format classic --call CMD\n"),
        "{}",
        ran.text()
    );
    home.run(["run", "two", "--format", "classic", "--call", "x"]).exits(0).prints("<x >");
    let names: Vec<_> =
        home.list().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["one", "two"]);
    home.run(["add", dir, "--name", "x"])
        .exits(2)
        .says("--name x needs exactly one file, but there are 3");
}

#[test]
fn what_has_the_name_is_replaced_only_by_force() {
    let home = Home::new();
    home.sources.standard("mirror", MIRROR);
    home.run(["add", "mirror"]).exits(0);
    home.run(["add", "mirror"])
        .exits(1)
        .prints("")
        .says("there is a plugin \"mirror\" already, added from")
        .says("--force");
    home.sources.standard("other", &MIRROR.replace("a mirror", "another one"));
    home.run(["add", "other", "--name", "mirror", "--force"]).exits(0);
    assert_eq!(home.list()[0]["description"], "another one");
}

#[test]
fn what_is_no_plugin_is_added_only_unasked() {
    let home = Home::new();
    home.sources.executable("odd", "#!/bin/sh\nexit 3\n");
    home.sources.file("plain", b"#!/bin/sh\n");
    home.run(["add", "odd"]).exits(4).prints("");
    let ran = home.run(["add", "plain"]).exits(4).says("run `chmod +x` on it");
    assert!(!ran.stderr.contains("--no-metadata"), "which would not help: {}", ran.stderr);
    home.run(["add", "--no-metadata", "plain"]).exits(4).says("run `chmod +x` on it");
    home.run(["add", "gone"]).exits(3).says("no such file");
    home.run(["add", "--no-metadata", "gone"]).exits(3).says("no file at \"gone\"");
    assert!(!home.home.path().join(".local").exists(), "nothing has been made up to here");
    home.run(["add", "--no-metadata", "odd"]).exits(0).says_only("");
    assert_eq!(home.list()[0]["state"], "unusable");
    home.run(["add", "--no-metadata", "odd", "--name", "@odd"])
        .exits(2)
        .says("since @ marks built-in plugins");
    home.run(["add", "--no-metadata", "odd", "--name", "a/b"])
        .exits(2)
        .says("no plugin can be named");
    home.run(["add"]).exits(2).says("<PATH|DIR>");
    let mut run = home.command(["add", "odd", "--no-metadata"]);
    run.command.env("HOME", home.home.path().join("gone"));
    run.run().exits(1).says("set HOME to a directory that exists");
}

#[test]
fn an_interrupt_ends_what_was_asked_and_adds_nothing() {
    let home = Home::new();
    let fifo = home.sources.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    home.sources
        .executable("slow", &format!("#!/bin/sh\necho $$ >'{}'\nexec sleep 600\n", fifo.display()));
    home.sources.standard("zz", MIRROR);
    let run = home.command(["add", "slow", "zz", "--sandbox", "none"]).watch();
    let pid = fs::read_to_string(&fifo).unwrap().trim().parse().unwrap();
    run.signal(Signal::SIGINT);
    assert_eq!(run.code(), Some(130));
    assert!(is_gone(pid));
    assert!(home.list().is_empty());
}

#[test]
fn another_host_has_its_own() {
    let home = Home::new();
    home.sources.standard("editor-mirror", MIRROR);
    let ran = home.run(["add", "editor-mirror", "--host", "editor"]).exits(0);
    assert!(ran.text().contains("plugins/editor-mirror ("), "{}", ran.text());
    let how = "name    editor finds it as mirror\n  run     pipeplug run mirror --host editor \
               --call CMD\n";
    assert!(ran.text().ends_with(how), "{}", ran.text());
    home.run(["run", "mirror", "--host", "editor", "--call", "CMD"]).exits(0).prints("<CMD >");
    assert!(home.list().is_empty());
    let ran = home.run(["list", "--host", "editor"]).exits(0);
    assert!(ran.text().contains("  mirror    a mirror (a copy of "), "{}", ran.text());
    home.run(["rm", "mirror"]).exits(3);
    home.run(["rm", "mirror", "--host", "editor"]).exits(0);
    home.run(["add", "editor-mirror", "--host", "../editor"]).exits(2).says("no host can be named");
}

#[test]
fn a_file_that_has_changed_since_is_shown() {
    let home = Home::new();
    let source = home.sources.standard("linked", MIRROR);
    home.sources.standard("copied", MIRROR);
    home.run(["add", "linked", "--link"]).exits(0);
    home.run(["add", "copied"]).exits(0);
    settle();
    for options in [&["list"][..], &["list"], &["list", "--refresh"]] {
        let ran = home.run(options.iter().copied()).exits(0);
        assert!(!ran.text().contains("CHANGED"), "{}", ran.text());
        assert!(
            ran.text().contains(&format!("a mirror (a link to {})\n", source.display())),
            "{}",
            ran.text()
        );
    }
    for file in [&source, &home.file("copied")] {
        // By another process, for the reason that `Place::executable` has.
        let appended =
            Command::new("/bin/sh").args(["-c", "echo >>\"$0\""]).arg(file).status().unwrap();
        assert!(appended.success());
    }
    for _ in 0..2 {
        let ran = home.run(["list"]).exits(0);
        // A link is there to follow each build of its file.
        assert_eq!(
            ran.text().matches(", CHANGED since: its sum was ").count(),
            1,
            "{}",
            ran.text()
        );
        settle();
    }
    let rows = home.list();
    let changed = |row: usize| rows[row]["changed_to"].as_str().unwrap().to_owned();
    assert_ne!(changed(0), rows[0]["added"]["sha256"].as_str().unwrap());
    assert_eq!(changed(0), changed(1));
    home.run(["rm", "copied"])
        .exits(1)
        .says("has changed since it was added")
        .says("--force removes it");
    home.run(["rm", "copied", "linked", "--force"]).exits(0);
    assert!(source.exists());
}

#[test]
fn only_what_was_added_is_removed() {
    let home = Home::new();
    home.sources.standard("mirror", MIRROR);
    home.run(["add", "mirror"]).exits(0);
    let others = Place::new();
    let other = others.standard("pipeplug-other", MIRROR);
    let mut run = home.command(["rm", "miror", "other", "zzz", "mirror"]);
    run.command.env("PIPEPLUG_PATH", others.path());
    let ran = run.run().exits(3);
    let expected = format!(
        "pipeplug: no plugin \"miror\" of pipeplug was added, did you mean \"mirror\"?\n\
         pipeplug: plugin \"other\" was not installed by `add`: remove {other:?} in the way it was \
         installed\n\
         pipeplug: no plugin \"zzz\" of pipeplug was added; `pipeplug list` lists the installed \
         plugins\n"
    );
    assert_eq!(ran.stderr, expected);
    assert!(
        ran.text().starts_with("removed mirror, "),
        "the others do not keep it: {}",
        ran.text()
    );
    assert!(other.exists());
}

#[test]
fn one_that_is_hidden_by_another_is_told() {
    let home = Home::new();
    home.sources.standard("pipeplug-mirror", MIRROR);
    let mut run = home.command(["add", "pipeplug-mirror"]);
    run.command.env("PIPEPLUG_PATH", home.sources.path());
    let ran = run.run().exits(0);
    assert!(ran.text().contains("/pipeplug-mirror, which comes first\n"), "{}", ran.text());
}

#[test]
fn records_that_are_no_file_are_told_and_not_waited_for() {
    let home = Home::new();
    home.sources.standard("mirror", MIRROR);
    let root = home.home.path().join(".local/share/pipeplug");
    fs::create_dir_all(&root).unwrap();
    let fifo = home.sources.fifo("fifo");
    home.run(["add", "fifo"]).exits(4).says("is a FIFO");
    home.run(["add", "--no-metadata", "fifo"])
        .exits(4)
        .says("a FIFO, where an executable file is expected");

    // The FIFO has no writer, and the device has no end.
    for (target, problem) in
        [(fifo.to_str().unwrap(), "it is a FIFO"), ("/dev/zero", "it is a device")]
    {
        symlink(target, root.join("added.json")).unwrap();
        let told = format!("added.json\", cannot be understood ({problem}, not a regular file)");
        home.run(["list"]).exits(0).prints_part(&told);
        home.run(["add", "mirror", "--no-metadata"]).exits(1).says(&told);
        home.run(["rm", "mirror"]).exits(1).says(&told);
        fs::remove_file(root.join("added.json")).unwrap();

        let _ = fs::remove_file(root.join("added.lock"));
        symlink(target, root.join("added.lock")).unwrap();
        let told = format!("added.lock\": {problem}, not a regular file");
        home.run(["add", "mirror", "--no-metadata"]).exits(1).says(&told);
        home.run(["rm", "mirror"]).exits(1).says(&told);
        fs::remove_file(root.join("added.lock")).unwrap();
    }

    home.run(["add", "mirror"]).exits(0);
    let records = fs::read_to_string(root.join("added.json")).unwrap();
    let twice = records.replacen("\"plugins\": {", "\"plugins\": { \"mirror\": 1,", 1);
    assert_ne!(records, twice);
    fs::write(root.join("added.json"), &twice).unwrap();
    home.run(["rm", "mirror"]).exits(1).says("the key \"mirror\" occurs twice");
    assert_eq!(fs::read_to_string(root.join("added.json")).unwrap(), twice);
}

#[test]
fn a_plugin_is_asked_in_a_sandbox_before_it_is_added() {
    if !has_strict_sandbox() {
        return;
    }
    let home = Home::new();
    let needed = home.sources.file("needed", b"it");
    home.sources.standard("greedy", &format!("[ -s '{}' ] || exit 9\n{MIRROR}", needed.display()));
    let ran = home
        .run(["add", "greedy"])
        .exits(4)
        .says("is it a plugin? It may need more than its sandbox grants: --sandbox none");
    assert!(ran.stderr.contains("--no-metadata adds it without probing"), "{}", ran.stderr);
    home.run(["add", "greedy", "--sandbox-read", needed.to_str().unwrap()]).exits(0);
    home.run(["add", "greedy", "--sandbox", "none", "--force"]).exits(0);
    home.sources.executable("hangs", "#!/bin/sh\nexec sleep 600\n");
    home.run(["add", "hangs", "--timeout", "100ms", "--sandbox", "none"])
        .exits(124)
        .says("within 100ms");
    home.run(["add", "greedy", "--sandbox", "basic", "--no-metadata"])
        .exits(2)
        .says("cannot be used with");
}

#[test]
fn a_variable_can_be_let_through_to_a_plugin_that_is_asked() {
    let home = Home::new();
    home.sources.standard("needy", &format!("[ -n \"$NEEDED\" ] || exit 9\n{MIRROR}"));
    let run = |args: &[&str]| {
        let mut run = home.command(args.iter().copied());
        run.command.env("NEEDED", "x");
        run.run()
    };
    run(&["add", "needy"]).exits(4);
    let ran = run(&["add", "needy", "--env-pass", "NEEDED"]).exits(0);
    assert!(
        ran.text().contains("pipeplug run needy --env-pass NEEDED --call CMD"),
        "{}",
        ran.text()
    );
    run(&["add", "needy", "--force", "--no-metadata"]).exits(0);
    settle();
    assert!(!run(&["list"]).exits(0).text().contains("a mirror"));
    // A failure is remembered for those that get the same variables.
    assert!(run(&["list", "--env-pass", "NEEDED"]).exits(0).text().contains("a mirror"));
}

#[test]
fn many_may_add_at_once() {
    let home = Home::new();
    let names: Vec<_> = (0..8).map(|i| format!("mirror{i}")).collect();
    for name in &names {
        home.sources.standard(name, &format!("{MIRROR}\n# {name}"));
    }
    thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| home.run(["add", name]).exits(0));
            scope.spawn(|| home.run(["add", name, "--name", "same", "--force"]).exits(0));
            scope.spawn(|| home.run(["list"]).exits(0));
        }
    });
    let rows = home.run(["list", "--json", "--refresh"]).exits(0).json();
    assert_eq!(rows.len(), names.len() + 1);
    for row in rows {
        assert_eq!(row["state"], "usable", "{row}");
        assert!(row["added"].is_object() && row.get("changed_to").is_none(), "{row}");
    }
}

/// Starts it, to be killed.
fn start(mut run: Run) -> Child {
    run.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn one_that_is_killed_while_it_copies_leaves_nothing_to_be_found() {
    let home = Home::new();
    // Nothing on the disk, and more than is copied in a moment.
    let source = home.sources.path().join("large");
    let file = File::create(&source).unwrap();
    file.set_len(16 << 30).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o755)).unwrap();
    let mut child = start(home.command(["add", "--no-metadata", "large"]));
    let begun = Instant::now();
    let is_copying =
        || fs::read_dir(home.plugins("pipeplug")).is_ok_and(|mut files| files.next().is_some());
    while !is_copying() {
        assert!(begun.elapsed() < LONG, "it does not begin to copy");
        thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(is_copying(), "what it has written is still there");
    assert!(home.list().is_empty());
    home.sources.standard("small", MIRROR);
    home.run(["add", "small", "--name", "large"]).exits(0);
    assert_eq!(home.list().len(), 1);
}

#[test]
fn one_that_is_killed_at_any_time_leaves_a_whole_file() {
    let home = Home::new();
    let versions = ["one", "two"].map(|name| {
        let path = home.sources.standard(name, &MIRROR.replace("a mirror", &name.repeat(20_000)));
        fs::read(path).unwrap()
    });
    home.run(["add", "--no-metadata", "one", "--name", "x"]).exits(0);
    for i in 0..40 {
        let source = ["one", "two"][i % 2];
        // One that replaces, and one that is new.
        let new = format!("new{i}");
        for name in ["x", &new] {
            let mut child =
                start(home.command(["add", "--no-metadata", source, "--name", name, "--force"]));
            // As far as it comes in that time: that differs, and any is a test.
            thread::sleep(Duration::from_micros(500 * i as u64));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let rows = home.run(["list", "--json", "--no-metadata"]).exits(0).json();
        assert!(rows.iter().any(|row| row["name"] == "x"), "{rows:?}");
        for row in rows {
            let found = fs::read(row["path"].as_str().unwrap()).unwrap();
            assert!(versions.contains(&found), "{} bytes: {row}", found.len());
            assert!(row["state"] == "usable" && row["added"].is_object(), "{row}");
        }
    }
    home.run(["add", "two", "--name", "x", "--force"]).exits(0);
    let rows = home.list();
    assert!(
        rows.iter().find(|row| row["name"] == "x").unwrap().get("changed_to").is_none(),
        "{rows:?}"
    );
}
