//! Permissions: `add` and `pin` ask, `list` and `inspect` show, `run --sandbox declared` enforces.

use std::fs;

use pipeplug_host::LockFile;

use crate::common::{Place, has_strict_sandbox};
use crate::controlling::Session;

/// Commands beside which a plugin declares permissions: reads a file, shows its environment, asks the
/// host.
const BODY: &str = r#"
while recv; do
    case $cmd in
    cmd.stop) exit 0 ;;
    GetMetadata) send 3 "$cmd" "$metadata" ;;
    cat) send 3 "$cmd" "$(cat "$data" 2>&1)" ;;
    env) send 3 "$cmd" "$(env)" ;;
    *) send 3 "$cmd" "<$cmd $data>" ;;
    esac
done
"#;

/// Writes a plugin that declares these permissions, as JSON. None if they are empty.
fn plugin(place: &Place, name: &str, permissions: &str) -> String {
    let declared = match permissions {
        "" => String::new(),
        _ => format!(r#","pipeplug.permissions":{permissions}"#),
    };
    let body = format!("metadata='{{\"Description\":\"a test\"{declared}}}'\n{BODY}");
    place.standard(name, &body).to_str().unwrap().to_owned()
}

fn lock(place: &Place) -> String {
    let path = place.path().join(".local/share/pipeplug").join(LockFile::NAME);
    fs::read_to_string(path).unwrap_or_default()
}

fn run(place: &Place, args: &[&str]) -> crate::common::Ran {
    place.pipeplug(args).in_place().run()
}

const FIRST: &str = r#"{"write":["{cwd}/out"],"connect":[443],"environment":["MY_EDITOR"]}"#;
const MORE: &str = r#"{"write":["{cwd}/out"],"connect":[22,443],"read":["{home}/.ssh"],"environment":["MY_EDITOR"]}"#;

#[test]
fn add_asks_once_in_a_terminal_and_records_the_answer() {
    if !has_strict_sandbox() {
        return;
    }
    let place = Place::new();
    let path = plugin(&place, "spell", FIRST);
    let shown = "spell asks for permissions. It wants to\r\n  - read and change out in the folder that it \
                 is started in\r\n  - connect to TCP port 443, on any machine\r\n  - see the environment \
                 variable MY_EDITOR\r\nAllow this, and add it? [y/N] ";
    for keys in ["n\n", "\n", "\x04", "yes, but\n"] {
        let mut session = Session::start(&place, &["add", &path]);
        session.until(shown);
        session.type_in(keys);
        session.until("spell was not allowed what it asks for: nothing was changed");
        assert_eq!(session.code(), Some(1), "{keys:?}");
        assert_eq!(lock(&place), "");
        run(&place, &["run", "--sandbox", "declared", "spell"]).exits(4);
    }
    let mut session = Session::start(&place, &["add", &path]);
    session.until(shown);
    session.type_in("\x03");
    assert_eq!(session.code(), Some(130));
    let mut session = Session::start(&place, &["add", &path]);
    session.until(shown);
    session.type_in("y\n");
    session.until("  may     read and change out in the folder that it is started in\r\n");
    assert_eq!(session.code(), Some(0));
    assert!(lock(&place).contains("{cwd}/out"), "{}", lock(&place));
    // The same again, and less: no question.
    run(&place, &["add", "--force", &path]).exits(0);
    let path = plugin(&place, "spell", r#"{"connect":[443]}"#);
    run(&place, &["add", "--force", &path]).exits(0).prints_part("may     connect to TCP port 443");
    assert!(!lock(&place).contains("{cwd}/out"), "{}", lock(&place));
    // More: only what is new.
    let path = plugin(&place, "spell", FIRST);
    let mut session = Session::start(&place, &["add", "--force", &path]);
    session.until(
        "spell asks for more than it was allowed before. It also wants to\r\n  - read and change out in \
         the folder that it is started in\r\n  - see the environment variable MY_EDITOR\r\nAllow this",
    );
    session.type_in("no\n");
    assert_eq!(session.code(), Some(1));
    assert!(!lock(&place).contains("{cwd}/out"), "{}", lock(&place));
    // Removed, it is a stranger again.
    run(&place, &["rm", "spell"]).exits(0);
    assert!(!lock(&place).contains("connect"), "{}", lock(&place));
}

#[test]
fn without_a_terminal_add_says_what_is_asked_for_and_how_to_allow_it() {
    if !has_strict_sandbox() {
        return;
    }
    let place = Place::new();
    let path = plugin(&place, "spell", FIRST);
    run(&place, &["add", &path]).exits(1).says_only(
        "pipeplug: spell asks to read and change out in the folder that it is started in; connect to TCP \
         port 443, on any machine; see the environment variable MY_EDITOR; there is no terminal to ask \
         in: --yes allows that\n",
    );
    assert_eq!(lock(&place), "");
    run(&place, &["add", "--yes", &path]).exits(0).prints_part("  may     read and change out");
    // What cannot be added is not asked for.
    run(&place, &["add", &path]).exits(1).says("--force");
    let path = plugin(&place, "spell", MORE);
    run(&place, &["add", "--force", &path]).exits(1).says_only(
        "pipeplug: spell also asks to read .ssh in your home folder; connect to TCP port 22, on any \
         machine; there is no terminal to ask in: --yes allows that\n",
    );
    // What is not understood is not added.
    for (permissions, part) in [
        (
            r#"{"usb":[1]}"#,
            "the kind of permission \"usb\" is not known here: it needs a newer pipeplug",
        ),
        (r#"{"read":["{plugin}/../x"]}"#, "it has `..`, which could lead anywhere"),
        (r#""text""#, "no JSON object of lists"),
    ] {
        let path = plugin(&place, "odd", permissions);
        run(&place, &["add", "-y", &path]).exits(4).says(part).says("it was not added");
    }
    // A copy has no folder.
    let path = plugin(&place, "near", r#"{"read":["{plugin}/words"]}"#);
    run(&place, &["add", "-y", &path]).exits(1).says("add it with --link");
    run(&place, &["add", "-y", "--link", &path]).exits(0);
}

#[test]
fn a_file_beside_the_plugin_is_asked_for_before_it_starts() {
    if !has_strict_sandbox() {
        return;
    }
    let place = Place::new();
    let words = place.file("words", b"teh");
    let body = format!("[ -r '{}' ] || exit 3\nmetadata='{{}}'\n{BODY}", words.display());
    let path = place.standard("needs", &body);
    let path = path.to_str().unwrap();
    let words = words.canonicalize().unwrap();
    run(&place, &["add", path]).exits(4).says("exit status 3");
    let declared = format!("{{\"read\":[\"{}\"]}}", words.display());
    place.file("needs.permissions.json", declared.as_bytes());
    run(&place, &["add", path]).exits(1).says("asks to read /").says("--yes allows that");
    run(&place, &["add", "--yes", path]).exits(0);
    let words = words.to_str().unwrap();
    let args = ["run", "--sandbox", "declared", "needs", "--call", "cat", words];
    run(&place, &args).exits(0).prints("teh");
    run(&place, &["run", "--sandbox", "strict", "needs"]).exits(4);
    // One that says less than the plugin.
    place.file("spell.permissions.json", br#"{"connect":[443]}"#);
    let path = plugin(&place, "spell", FIRST);
    run(&place, &["add", "--yes", &path])
        .exits(4)
        .says("asks for more than it is allowed: read and change out");
    run(&place, &["add", "--yes", "--sandbox", "none", &path]).exits(4).says(
        "spell declares more than the file spell.permissions.json beside it: read and change out",
    );
    run(&place, &["list"]).exits(0).prints_part("may read /");
}

/// The file is copied and the permissions are recorded by one process at a time.
#[test]
fn two_that_add_one_name_at_once_do_not_mix() {
    let place = Place::new();
    for (name, port) in [("one", 1), ("two", 2)] {
        place.executable(name, &format!("#!/bin/sh\n# {name}\n"));
        let beside = format!("{name}{}", pipeplug_host::Permissions::FILE_SUFFIX);
        place.file(&beside, format!("{{\"connect\":[{port}]}}").as_bytes());
    }
    for _ in 0..10 {
        std::thread::scope(|scope| {
            for name in ["one", "two"] {
                let path = place.path().join(name);
                let path = path.to_str().unwrap().to_owned();
                let place = &place;
                scope.spawn(move || {
                    let args = ["add", &path, "--name", "x", "--force", "--yes", "--no-metadata"];
                    run(place, &args).exits(0);
                });
            }
        });
        let file = place.path().join(".local/share/pipeplug/plugins/pipeplug-x");
        let file = fs::read_to_string(file).unwrap();
        let port = if file.contains("# one") { 1 } else { 2 };
        let allowed = lock(&place).split_whitespace().collect::<String>();
        assert!(allowed.contains(&format!("\"connect\":[{port}]")), "{file}{allowed}");
    }
}

#[test]
fn a_file_that_changes_while_the_question_waits_is_not_added() {
    let place = Place::new();
    let path = place.executable("spell", "#!/bin/sh\n");
    place.file(
        &format!("spell{}", pipeplug_host::Permissions::FILE_SUFFIX),
        br#"{"connect":[443]}"#,
    );
    let mut session = Session::start(&place, &["add", path.to_str().unwrap(), "--no-metadata"]);
    session.until("Allow this, and add it? [y/N] ");
    fs::write(&path, "#!/bin/sh\n# another\n").unwrap();
    session.type_in("y\n");
    session.until("has changed while it was probed and asked about, and was not added");
    assert_eq!(session.code(), Some(1));
    assert_eq!(lock(&place), "");
    assert!(!place.path().join(".local/share/pipeplug/plugins/pipeplug-spell").exists());
}

#[test]
fn a_lock_file_that_cannot_be_read_keeps_the_plugin() {
    let place = Place::new();
    let path = place.executable("spell", "#!/bin/sh\n");
    run(&place, &["add", path.to_str().unwrap(), "--no-metadata"]).exits(0);
    let lock = place.path().join(".local/share/pipeplug").join(LockFile::NAME);
    fs::write(&lock, "no lock file").unwrap();
    run(&place, &["rm", "spell"]).exits(1).prints("").says("pipeplug.lock");
    assert!(place.path().join(".local/share/pipeplug/plugins/pipeplug-spell").exists());
    fs::remove_file(lock).unwrap();
    run(&place, &["rm", "spell"]).exits(0);
}

#[test]
fn run_enforces_what_was_allowed_and_nothing_else() {
    if !has_strict_sandbox() {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.path().join("out")).unwrap();
    let (file, secret) = (place.file("out/a", b"mine"), place.file("secret", b"yours"));
    let (file, secret) = (file.to_str().unwrap(), secret.to_str().unwrap());
    let path = plugin(&place, "spell", FIRST);
    run(&place, &["add", "--yes", &path]).exits(0);
    let args = ["run", "--sandbox", "declared", "spell", "--call"];
    let run_with = |more: &[&str]| {
        let mut run = place.pipeplug([&args[..], more].concat()).in_place();
        run.command.env("MY_EDITOR", "ed").env("MY_SECRET", "s");
        run.run()
    };
    run_with(&["cat", file]).exits(0).prints("mine");
    let ran = run_with(&["cat", secret]).exits(0);
    assert!(ran.text().contains("No such file"), "{}", ran.text());
    let ran = run_with(&["env"]).exits(0);
    assert!(
        ran.text().contains("MY_EDITOR=ed") && !ran.text().contains("MY_SECRET"),
        "{}",
        ran.text()
    );
    // A new version that wants more does not start, and the message says how to allow it.
    let installed = ".local/share/pipeplug/plugins/pipeplug-spell";
    plugin(&place, installed, MORE);
    let how = format!("; `pipeplug add --force {path}` shows what it asks for, and asks you");
    run_with(&["cat", file])
        .exits(4)
        .says(
            "asks for more than it is allowed: read .ssh in your home folder; connect to TCP port 22, on \
             any machine; allow that first, in ",
        )
        .says(&how);
    run(&place, &["list"]).exits(0).prints_part(
        "asks to read .ssh in your home folder; connect to TCP port 22, on any machine (not allowed yet)",
    );
    // Options that would grant more are refused.
    for option in [
        &["--sandbox-read", "/etc"][..],
        &["--sandbox-connect", "1"],
        &["--sandbox-best-effort"],
        &["--env-pass", "MY_SECRET"],
        &["--env-inherit"],
    ] {
        let args = [&args[..4], option].concat();
        run(&place, &args).exits(2).says("does not go with --sandbox declared");
    }
    // Nothing is recorded for it.
    run(&place, &["add", "--no-metadata", "--name", "other", &path]).exits(0);
    run(&place, &["run", "--sandbox", "declared", "other"])
        .exits(4)
        .says("nothing is allowed to it")
        .says(&format!("`pipeplug add --force --name other {path}` shows"));
    run(&place, &["run", "--sandbox", "declared", "@echo"])
        .exits(4)
        .says("nothing is allowed to it");
    run(&place, &["list", "--sandbox", "declared"]).exits(2).says("none, basic, strict");
}

#[test]
fn a_path_needs_a_lock_file_that_is_named() {
    if !has_strict_sandbox() {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.path().join("out")).unwrap();
    plugin(&place, "spell", FIRST);
    let declared = ["run", "--sandbox", "declared", "./spell", "--call", "hi"];
    let locked = [&declared[..], &["--locked"]].concat();
    let how = "`pipeplug pin --permissions ./spell` asks you and makes one, then add --locked";
    run(&place, &declared).exits(2).says(how);
    run(&place, &locked).exits(4);
    run(&place, &["pin", "./spell"]).exits(0);
    run(&place, &locked)
        .exits(4)
        .says("nothing is allowed to it")
        .says("`pipeplug pin --permissions ./");
    run(&place, &["pin", "--permissions", "./spell"]).exits(1).says("--yes allows that");
    run(&place, &["pin", "--permissions", "--yes", "./spell"])
        .exits(0)
        .prints_part("  may connect to TCP port 443, on any machine\n");
    // A lock file in the directory may have come with the plugin. It counts only if it is named.
    run(&place, &declared).exits(2).says(how);
    // The lock file is in the folder, and the plugin may write only below out.
    run(&place, &locked).exits(0).prints("<hi >");
    place.file("pipeplug.toml", b"[plugins.spell]\nlocked = true\n");
    run(&place, &declared).exits(2).says("--locked of").says(how);
    run(&place, &["run", "./spell", "--call", "hi"]).exits(0);
    plugin(&place, "spell", MORE);
    run(&place, &["pin", "--permissions", "./spell"])
        .exits(1)
        .says("./spell also asks to read .ssh");
    run(&place, &["pin", "./spell"]).exits(0);
    run(&place, &locked)
        .exits(4)
        .says("asks for more than it is allowed")
        .says("pin --permissions ./");
}

#[test]
fn list_and_inspect_show_permissions() {
    if !has_strict_sandbox() {
        return;
    }
    let place = Place::new();
    let path = plugin(&place, "spell", FIRST);
    run(&place, &["inspect", &path]).exits(0).prints_part(
        "\nasks to      read and change out in the folder that it is started in\n             connect to \
         TCP port 443, on any machine\n             see the environment variable MY_EDITOR\n",
    );
    let said = run(&place, &["inspect", "--json", &path]).exits(0).json();
    assert_eq!(said[0]["permissions"]["connect"][0], 443);
    let odd = plugin(&place, "odd", r#"{"usb":[1]}"#);
    run(&place, &["inspect", &odd]).exits(0).prints_part("(permissions that cannot be understood");
    run(&place, &["add", "--yes", &path]).exits(0);
    let row = &run(&place, &["list", "--json"]).exits(0).json()[0];
    assert_eq!(row["allowed"], row["permissions"]);
    assert_eq!(row["allowed"]["write"][0], "{cwd}/out");
    run(&place, &["list"]).exits(0).prints_part(
        "            may read and change out in the folder that it is started in; connect",
    );
    let quiet = plugin(&place, "quiet", "");
    run(&place, &["add", &quiet]).exits(0);
    run(&place, &["run", "--sandbox", "declared", "quiet", "--call", "hi"])
        .exits(0)
        .prints("<hi >");
    let row = &run(&place, &["list", "--json"]).exits(0).json()[0];
    assert!(row["name"] == "quiet" && row.get("permissions").is_none(), "{row}");
}
