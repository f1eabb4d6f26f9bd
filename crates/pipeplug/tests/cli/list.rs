//! `pipeplug list`.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::common::{MIRROR, Place, Run, has_strict_sandbox, is_gone, pipeplug, settle};

/// Two places: a plugin in each format, a broken one, one that is no executable; and another of the
/// first's name.
struct Places {
    first: Place,
    second: Place,
}

impl Places {
    fn new() -> Self {
        let (first, second) = (Place::new(), Place::new());
        first.standard("pipeplug-mirror", MIRROR);
        first.executable("pipeplug-broken", "#!/bin/sh\nexit 3\n");
        second.standard("pipeplug-mirror", MIRROR);
        second.classic("pipeplug-old", &MIRROR.replace("a mirror", "an old mirror"));
        let file = second.file("pipeplug-plain", b"");
        std::fs::set_permissions(file, PermissionsExt::from_mode(0o644)).unwrap();
        second.executable("editor-spell", "#!/bin/sh\n");
        Self { first, second }
    }

    fn pipeplug(&self, args: &[&str]) -> Run {
        let mut run = pipeplug(args);
        let path = std::env::join_paths([self.first.path(), self.second.path()]).unwrap();
        run.command.env("PIPEPLUG_PATH", path);
        run
    }
}

#[test]
fn a_table_shows_what_is_usable_and_what_is_not() {
    let places = Places::new();
    let ran = places.pipeplug(&["list"]).run().exits(0).says_only("");
    let (first, second) = (places.first.path().display(), places.second.path().display());
    for line in [
        format!("{first}\n"),
        "  mirror    a mirror\n".into(),
        format!(
            "  broken    plugin \"{first}/pipeplug-broken\" ended before it answered: exit status \
             3 after "
        ),
        format!("{second}\n"),
        "  old       an old mirror\n".into(),
        format!("  mirror    shadowed by {first}/pipeplug-mirror\n"),
        "  plain     not executable (mode 0644), run `chmod +x` on it\n".into(),
        "  @echo     answers".into(),
    ] {
        assert!(ran.text().contains(&line), "{line:?} is not in:\n{}", ran.text());
    }
    assert!(!ran.text().contains("spell"), "{}", ran.text());
}

#[test]
fn json_has_an_object_for_each() {
    let places = Places::new();
    let ran = places.pipeplug(&["list", "--json"]).run().exits(0).says_only("");
    let all = ran.json();
    let of = |name: &str, place: &Place| -> Value {
        let path = place.path().join(format!("pipeplug-{name}"));
        all.iter().find(|row| row["path"] == path.to_str().unwrap()).unwrap().clone()
    };
    let path = |place: &Place, name: &str| place.path().join(name).to_str().unwrap().to_owned();
    assert_eq!(
        of("mirror", &places.first),
        json!({ "name": "mirror", "path": path(&places.first, "pipeplug-mirror"), "state": "usable", "description": "a mirror", "format": "standard", "stdio": false, "remembered": false })
    );
    assert_eq!(of("old", &places.second)["format"], "classic");
    assert_eq!(of("mirror", &places.second)["shadowed_by"], path(&places.first, "pipeplug-mirror"));
    assert_eq!(of("broken", &places.first)["state"], "unusable");
    assert!(of("plain", &places.second)["problem"].as_str().unwrap().contains("chmod"));
}

#[test]
fn without_metadata_nothing_is_started() {
    let place = Place::new();
    let mark = place.path().join("started");
    place.executable("pipeplug-mark", &format!("#!/bin/sh\n: >'{}'\n", mark.display()));
    let ran = place.pipeplug(["list", "--no-metadata", "--json"]).run().exits(0);
    assert_eq!(ran.json()[0]["name"], "mark");
    assert_eq!(ran.json()[0]["state"], "usable");
    assert!(!mark.exists());
    place.pipeplug(["list", "--sandbox", "none"]).run().exits(0);
    assert!(mark.exists(), "with metadata it is started");
}

#[test]
fn an_interrupt_ends_what_was_started() {
    let place = Place::new();
    let fifo = place.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    place.executable(
        "pipeplug-slow",
        &format!("#!/bin/sh\necho $$ >'{}'\nexec sleep 600\n", fifo.display()),
    );
    let run = place.pipeplug(["list", "--json", "--sandbox", "none"]).watch();
    let pid = std::fs::read_to_string(&fifo).unwrap().trim().parse().unwrap();
    run.signal(Signal::SIGINT);
    assert_eq!(run.code(), Some(130));
    assert!(is_gone(pid));
}

#[test]
fn another_host_has_other_plugins() {
    let places = Places::new();
    let ran = places.pipeplug(&["list", "--host", "editor", "--no-metadata"]).run().exits(0);
    assert_eq!(ran.text(), format!("{}\n  spell\n", places.second.path().display()));
}

#[test]
fn where_there_is_nothing_it_says_where_it_looked() {
    let place = Place::new();
    let ran = place.pipeplug(["list", "--host", "nobody"]).run().exits(0);
    let text = ran.text();
    assert!(
        text.starts_with("No plugins of nobody were found: no executable nobody-NAME in\n"),
        "{text}"
    );
    assert!(
        text.contains("~/\n") || text.contains(&format!("{}\n", place.path().display())),
        "{text}"
    );
    assert!(text.contains("~/.local/share/nobody/plugins (does not exist)\n"), "{text}");
    assert!(text.contains("PIPEPLUG_PATH"), "{text}");
}

#[test]
fn a_place_that_cannot_be_searched_is_told() {
    let mut run = pipeplug(["list"]);
    run.command.env("PIPEPLUG_PATH", "relative");
    let ran = run.run().exits(0);
    assert!(ran.text().contains("a relative entry of PIPEPLUG_PATH, ignored"), "{}", ran.text());
}

/// A listing outside of a sandbox, for plugins that write files.
fn list(place: &Place, options: &[&str]) -> Run {
    place.pipeplug([&["list", "--sandbox", "none"], options].concat())
}

/// A mirror that notes each start in a file.
fn noting(place: &Place, name: &str) -> impl Fn() -> usize {
    let starts = place.path().join("starts");
    place.standard(name, &format!("echo start >>'{}'\n{MIRROR}", starts.display()));
    move || std::fs::read_to_string(&starts).unwrap_or_default().lines().count()
}

#[test]
fn what_plugins_are_is_remembered_until_their_files_change() {
    let place = Place::new();
    let starts = noting(&place, "pipeplug-mirror");
    place.executable("pipeplug-broken", "#!/bin/sh\nexit 3\n");
    settle();
    let first = list(&place, &[]).run().exits(0);
    assert_eq!(starts(), 1);
    assert!(!first.text().contains("an earlier time"), "{}", first.text());
    let second = list(&place, &[]).run().exits(0);
    assert_eq!(starts(), 1, "nothing is started");
    let note = "A plugin that did not answer is probed again after an hour, or now with \
                --refresh.\n\nbuilt in\n";
    assert_eq!(
        second.text().replace(note, "built in\n"),
        first.text(),
        "and the same is shown, with the error"
    );
    assert!(second.text().contains(note), "{}", second.text());
    let known = place.pipeplug(["list", "--no-metadata", "--json"]).run().exits(0).json();
    assert_eq!(known[0]["remembered"], true);
    assert!(known[0]["problem"].as_str().unwrap().contains("exit status 3"), "{known:?}");
    assert_eq!(known[1]["description"], "a mirror");
    list(&place, &["--refresh"]).run().exits(0);
    assert_eq!(starts(), 2);
    place.standard("pipeplug-mirror", &MIRROR.replace("a mirror", "changed!"));
    let changed = list(&place, &[]).run().exits(0);
    assert!(changed.text().contains("changed!\n"), "{}", changed.text());
    place
        .pipeplug(["list", "--refresh", "--no-metadata"])
        .run()
        .exits(2)
        .says("cannot be used with");
}

#[test]
fn many_may_list_at_once() {
    let place = Place::new();
    let starts = noting(&place, "pipeplug-mirror");
    settle();
    let expected = list(&place, &["--refresh"]).run().exits(0);
    std::thread::scope(|scope| {
        for options in [&[][..], &["--refresh"]].repeat(4) {
            let (place, expected) = (&place, &expected);
            scope.spawn(move || list(place, options).run().exits(0).prints(expected.text()));
        }
    });
    let before = starts();
    list(&place, &[]).run().exits(0).prints(expected.text());
    assert_eq!(starts(), before);
}

#[test]
fn a_cache_that_is_no_file_is_ignored_and_not_waited_for() {
    let place = Place::new();
    let starts = noting(&place, "pipeplug-mirror");
    let cache = place.path().join(".cache/pipeplug/pipeplug.json");
    std::fs::create_dir_all(cache.parent().unwrap()).unwrap();
    let fifo = place.fifo("fifo");
    settle();
    for (i, target) in [fifo.to_str().unwrap(), "/dev/zero"].into_iter().enumerate() {
        let _ = std::fs::remove_file(&cache);
        std::os::unix::fs::symlink(target, &cache).unwrap();
        let ran = place.pipeplug(["list", "--no-metadata", "-vv"]).run().exits(0);
        ran.says("the cache of metadata cannot be read").says("not a regular file");
        list(&place, &[]).run().exits(0).prints_part("a mirror");
        assert_eq!(starts(), i + 1);
        list(&place, &[]).run().exits(0).prints_part("a mirror");
        assert_eq!(starts(), i + 1, "a file has taken its place");
    }
}

/// Each listing finds out about one plugin more than those at the same time.
#[test]
fn nothing_that_one_listing_found_out_is_lost_to_others() {
    const COUNT: usize = 20;
    let home = Place::new();
    let places: Vec<_> = (0..COUNT)
        .map(|i| {
            let place = Place::new();
            place.standard(&format!("pipeplug-p{i}"), MIRROR);
            place
        })
        .collect();
    settle();
    let list = |i: usize, option: &[&str]| {
        let mut run = home.pipeplug(["list", "--json"].iter().chain(option));
        run.command.env("PIPEPLUG_PATH", places[i].path());
        run.run().exits(0).json()
    };
    let list = &list;
    std::thread::scope(|scope| {
        for i in 0..COUNT {
            scope.spawn(move || list(i, &[]));
        }
    });
    for i in 0..COUNT {
        assert_eq!(list(i, &["--no-metadata"])[0]["description"], "a mirror", "{i}");
    }
    let left = std::fs::read_dir(home.path().join(".cache/pipeplug")).unwrap().count();
    assert_eq!(left, 1, "nothing is left of their locks");
}

#[test]
fn plugins_are_asked_in_a_sandbox_and_told_to_need_more() {
    if !has_strict_sandbox() {
        return;
    }
    let place = Place::new();
    let data = place.file("data", b"data");
    let body = format!("[ \"$(cat '{}')\" = data ] || exit 9\n{MIRROR}", data.display());
    place.standard("pipeplug-needy", &body);
    settle();
    let needy = |options: &[&str]| {
        let all = [&["list", "--json"], options].concat();
        place.pipeplug(all).run().exits(0).json().swap_remove(0)
    };
    let told = place.pipeplug(["list"]).run().exits(0);
    assert!(told.text().contains("exit status 9"), "{}", told.text());
    assert!(told.text().contains("--sandbox none probes\nwithout a sandbox"), "{}", told.text());
    let row = needy(&[]);
    assert_eq!((&row["remembered"], &row["in_sandbox"]), (&json!(true), &json!(true)), "{row}");
    let row = needy(&["--sandbox", "none"]);
    assert_eq!((&row["state"], &row["remembered"]), (&json!("usable"), &json!(false)), "{row}");
    let row = needy(&[]);
    assert_eq!((&row["state"], &row["remembered"]), (&json!("usable"), &json!(true)), "{row}");
    assert_eq!(
        needy(&["--refresh", "--sandbox", "basic", "--sandbox-best-effort"])["state"],
        "usable"
    );
    assert_eq!(needy(&["--refresh"])["state"], "unusable");
    let granted = data.to_str().unwrap();
    assert_eq!(needy(&["--sandbox-read", granted])["state"], "usable");
    place
        .pipeplug(["list", "--sandbox", "none", "--sandbox-read", granted])
        .run()
        .exits(2)
        .says("--sandbox-read needs a sandbox");
    place
        .pipeplug(["list", "--sandbox", "none", "--sandbox-best-effort"])
        .run()
        .exits(2)
        .says("--sandbox-best-effort needs a sandbox");
    place.pipeplug(["list", "--sandbox", "none", "--no-metadata"]).run().exits(2);
}

#[test]
fn a_slow_plugin_is_given_more_time() {
    let place = Place::new();
    place.standard("pipeplug-slow", &format!("sleep 1\n{MIRROR}"));
    settle();
    let state = |timeout: &str| {
        let args = ["list", "--json", "--refresh", "--sandbox", "none", "--timeout", timeout];
        place.pipeplug(args).run().exits(0).json().swap_remove(0)
    };
    let row = state("100ms");
    assert!(row["problem"].as_str().unwrap().contains("within 100ms"), "{row}");
    assert_eq!(state("30s")["state"], "usable");
    place.pipeplug(["list", "--no-metadata", "--timeout", "1s"]).run().exits(2);
}

#[test]
fn what_was_interrupted_is_not_remembered() {
    let place = Place::new();
    let fifo = place.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let starts = noting(&place, "pipeplug-mirror");
    let path = place.path().join("pipeplug-mirror");
    let script = std::fs::read_to_string(&path).unwrap();
    // It waits for a reader of the FIFO once, and is a mirror the next time.
    let wait = format!(
        "if [ -p '{0}' ]; then echo $$ >'{0}'; exec sleep 600; fi\necho start",
        fifo.display()
    );
    place.executable("pipeplug-mirror", &script.replacen("echo start", &wait, 1));
    settle();
    let run = list(&place, &["--json"]).watch();
    std::fs::read_to_string(&fifo).unwrap();
    run.signal(Signal::SIGINT);
    assert_eq!(run.code(), Some(130));
    std::fs::remove_file(&fifo).unwrap();
    let rows = list(&place, &["--json"]).run().exits(0).json();
    assert_eq!((&rows[0]["state"], &rows[0]["remembered"]), (&json!("usable"), &json!(false)));
    assert_eq!(starts(), 1);
}
