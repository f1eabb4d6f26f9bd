//! `pipeplug.toml`.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;

use crate::common::{Place, Ran};

/// Answers with its environment, its arguments and its directory.
const TELLS: &str = r#"
while recv; do
    case $cmd in
    cmd.stop) exit 0 ;;
    GetMetadata) send 3 "$cmd" '{}' ;;
    env) send 3 "$cmd" "${!data}" ;;
    cwd) send 3 "$cmd" "$PWD" ;;
    ask) old=$id id=7; send 2 "$data" ''; recv; id=$old; send 3 ask "$data" ;;
    esac
done
"#;

/// A project with a plugin and a file of it.
fn project(options: &str) -> Place {
    let place = Place::new();
    place.standard("tells", TELLS);
    write(&place.path().join("pipeplug.toml"), options);
    place
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    // Not what the mask of the tester says.
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

fn of_user(place: &Place, options: &str) {
    write(&place.path().join(".config/pipeplug/pipeplug.toml"), options);
}

fn run(place: &Place, args: &[&str]) -> Ran {
    run_in(place, ".", args)
}

fn run_in(place: &Place, dir: &str, args: &[&str]) -> Ran {
    let mut run = place.pipeplug(args);
    run.command.current_dir(place.path().join(dir)).env_remove("XDG_CONFIG_HOME");
    run.run()
}

fn env(place: &Place, more: &[&str]) -> (String, String) {
    let ran = run(place, &[&["run", "./tells", "--call", "env", "WORD"], more].concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    (String::from_utf8(ran.stdout).unwrap(), ran.stderr)
}

#[test]
fn options_are_taken_from_the_file_and_the_command_line_wins() {
    let place = project(
        "[plugins.tells]\nenv = { WORD = 'file' }\ntimeout = 5\n[plugins.x]\nstdio = true\n",
    );
    assert_eq!(env(&place, &[]), ("file".into(), String::new()));
    assert_eq!(env(&place, &["--env", "WORD=line"]).0, "line");
    assert_eq!(env(&place, &["--no-config-file", "--env", "OTHER=1"]).0, "");
    let (_, stderr) = env(&place, &["-v", "--timeout", "9"]);
    assert!(stderr.contains("--env is that of ~/pipeplug.toml"), "{stderr}");
    assert!(!stderr.contains("--timeout is"), "{stderr}");
    // From below, and not for another plugin of the same name.
    fs::create_dir(place.path().join("sub")).unwrap();
    let ran = run_in(&place, "sub", &["run", "../tells", "--call", "env", "WORD"]);
    assert_eq!(ran.stdout, b"file");
    let other = Place::new();
    let tells = other.standard("tells", TELLS);
    let ran = run(&place, &["run", tells.to_str().unwrap(), "--call", "env", "WORD"]);
    assert_eq!(ran.stdout, b"", "the file is not about it");
    let ran = run(&place, &["run", "tells", "--call", "env", "WORD"]);
    assert_eq!(
        (ran.code, ran.stdout.as_slice()),
        (Some(0), &b""[..]),
        "nor is it for a name: {ran:?}"
    );
}

#[test]
fn the_nearest_file_wins_and_that_of_the_user_is_for_all_plugins() {
    let place = project("[plugins.tells]\nenv = ['WORD=outer']\nlog-level = 'info'\n");
    of_user(&place, "[plugins.tells]\nenv = ['WORD=user']\n");
    assert_eq!(env(&place, &[]).0, "outer");
    let ran = run(&place, &["run", "tells", "--call", "env", "WORD"]);
    assert_eq!(ran.stdout, b"user");
    let inner = place.path().join("inner");
    write(&inner.join("pipeplug.toml"), "[plugins.tells]\nenv = ['WORD=inner']\n");
    fs::rename(place.path().join("tells"), inner.join("tells")).unwrap();
    let args = ["run", "./tells", "--call", "env", "WORD", "-v"];
    let ran = run_in(&place, "inner", &args);
    assert_eq!(ran.stdout, b"inner");
    assert!(ran.stderr.contains("--log-level is that of ~/pipeplug.toml"), "{ran:?}");
}

#[test]
fn paths_are_relative_to_the_file() {
    let place = project("[plugins.tells]\ncwd = 'sub'\nanswer = ['name=@name.txt', 'mail=@@x']\n");
    fs::create_dir(place.path().join("sub")).unwrap();
    place.file("name.txt", b"ada");
    let dir = place.path().join("sub");
    for (dir_of_run, plugin) in [(".", "./tells"), ("sub", "../tells")] {
        let args =
            ["run", plugin, "--call", "cwd", "--call", "ask", "name", "--call", "ask", "mail"];
        let ran = run_in(&place, dir_of_run, &args);
        let expected = format!("{}ada@x", dir.display());
        assert_eq!(String::from_utf8(ran.stdout).unwrap(), expected, "{}", ran.stderr);
    }
}

#[test]
fn an_option_replaces_those_that_exclude_it() {
    let place = project("[plugins.tells]\nstdio = true\nvia = 'false'\n");
    let ran = run(
        &place,
        &["run", "./tells", "--call", "env", "PATH", "--via", "env", "--stdin", "null"],
    );
    assert!(!ran.stderr.contains("cannot be used with"), "{ran:?}");
    // Two of the same file do not fit together, and the file is named.
    write(&place.path().join("pipeplug.toml"), "[plugins.tells]\nmemory = '64M'\n");
    let ran = run(&place, &["run", "./tells", "--call", "env", "PATH"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("--memory of ~/pipeplug.toml; --no-config-file"), "{ran:?}");
    // An option of the command line may need one of the file.
    write(&place.path().join("pipeplug.toml"), "[plugins.tells]\ndocker = 'i'\n");
    let ran = run(&place, &["run", "./tells", "--memory", "64M", "--call", "env", "PATH"]);
    assert_ne!(ran.code, Some(2), "{ran:?}");
    // An error of the command line alone is none of the file.
    let ran = run(&place, &["run", "./tells", "--nonsense"]);
    assert!(ran.code == Some(2) && !ran.stderr.contains("pipeplug.toml"), "{ran:?}");
}

#[test]
fn mistakes_are_named_with_their_line() {
    for (text, told) in [
        (
            "[plugins.tells]\n\ntimeuot = '5s'\n",
            ":3: unknown key `timeuot`, did you mean `timeout`?",
        ),
        (
            "[plugins.other]\nnonsense = 1\n",
            ":2: unknown key `nonsense`; keys are the long options",
        ),
        ("[plugins.tells]\ncall = 'x'\n", ":2: unknown key `call`"),
        ("[plugins.tells]\nno-config-file = true\n", ":2: unknown key `no-config-file`"),
        ("[tells]\nstdio = true\n", ":1: unknown key `tells`; options are in a table"),
        ("[plugins.tells]\nstdio = 'yes'\n", ":2: `stdio` is true or false"),
        ("[plugins.tells]\ntimeout = []\n", ":2: `timeout` is text or a number"),
        ("[plugins.tells]\ntimeout = true\n", ":2: `timeout` is text or a number"),
        ("plugins = 1\n", ":1: not a table"),
        ("[plugins.tells]\ntimeout = \n", ":2: "),
        ("[plugins.tells]\ntimeout = 1\ntimeout = 2\n", ":3: duplicate key"),
    ] {
        let ran = run(&project(text), &["run", "./tells", "--call", "env", "PATH"]);
        assert_eq!(ran.code, Some(2), "{text}: {ran:?}");
        assert!(ran.stderr.contains(&format!("~/pipeplug.toml{told}")), "{text}: {ran:?}");
    }
    // A value is checked as that of the command line is.
    let ran = run(&project("[plugins.tells]\ntimeout = 'x'\n"), &["run", "./tells"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("--timeout of ~/pipeplug.toml"), "{ran:?}");
}

#[test]
fn a_file_that_others_may_write_is_not_read() {
    let place = project("[plugins.tells]\nenv = ['WORD=file']\n");
    let file = place.path().join("pipeplug.toml");
    for mode in [0o664, 0o646, 0o666] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let (word, stderr) = env(&place, &[]);
        assert_eq!(word, "", "{mode:o}");
        assert!(stderr.contains("pipeplug.toml is not read: others may write it"), "{stderr}");
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(env(&place, &[]).0, "file");
    // A FIFO, which would block.
    fs::remove_file(&file).unwrap();
    place.fifo("pipeplug.toml");
    assert!(env(&place, &[]).1.contains("no regular file"));
    fs::remove_file(&file).unwrap();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can make files of another user");
        return;
    }
    write(&file, "[plugins.tells]\nenv = ['WORD=file']\n");
    chown(&file, Some(1), Some(1)).unwrap();
    let (word, stderr) = env(&place, &[]);
    assert_eq!(word, "");
    assert!(stderr.contains("it belongs to user 1"), "{stderr}");
    // Nor a link of another user to a file of this one.
    chown(&file, Some(0), Some(0)).unwrap();
    fs::rename(&file, place.path().join("elsewhere.toml")).unwrap();
    symlink("elsewhere.toml", &file).unwrap();
    assert_eq!(env(&place, &[]).0, "file");
    std::os::unix::fs::lchown(&file, Some(1), Some(1)).unwrap();
    let (word, stderr) = env(&place, &[]);
    assert_eq!(word, "");
    assert!(stderr.contains("it belongs to user 1"), "{stderr}");
}

#[test]
fn a_file_of_a_project_weakens_no_sandbox() {
    let weak = "[plugins.tells]\nenv = ['WORD=file']\nsandbox = 'none'\nlog-level = 'info'\n";
    let place = project(weak);
    // Without a wish of the user it is as if the plugin were started by hand.
    assert_eq!(env(&place, &[]).0, "file");
    let left_out = |ran: &Ran, option: &str| {
        let told = format!("{option} of ~/pipeplug.toml is left out");
        assert!(ran.stderr.contains(&told), "{option}: {ran:?}");
    };
    // With one on the command line, or by default as with `inspect`, what is harmless remains.
    let args = ["run", "./tells", "--sandbox", "basic", "--sandbox-best-effort", "-v"];
    let ran = run(&place, &[&args[..], &["--call", "env", "WORD"]].concat());
    assert_eq!(ran.stdout, b"", "{ran:?}");
    left_out(&ran, "--env");
    assert!(ran.stderr.contains("--log-level is that of"), "{ran:?}");
    let sum = format!("--sha256={}", "0".repeat(64));
    left_out(&run(&place, &["run", "./tells", &sum]), "--env");
    let ran = run(&place, &["inspect", "./tells"]);
    left_out(&ran, "--env");
    left_out(&ran, "--sandbox");
    // And with one of the user's file, which may grant what it likes.
    of_user(&place, "[plugins.tells]\nsandbox = 'basic'\nsandbox-best-effort = true\ncwd = '/'\n");
    let ran = run(&place, &["run", "./tells", "--call", "env", "WORD", "--call", "cwd", "-v"]);
    assert_eq!(ran.stdout, b"/", "{ran:?}");
    left_out(&ran, "--sandbox");
    assert!(
        ran.stderr.contains("--sandbox is that of ~/.config/pipeplug/pipeplug.toml"),
        "{ran:?}"
    );
}
