//! Completion, in real shells: a line with tabs is typed in a terminal, and has to run.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use nix::pty::{Winsize, openpty};

use crate::common::{MIRROR, Place, Run, has_tool, pipeplug, settle};

/// Time for a shell to answer; a machine that builds is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// Scripts of this build, and a directory with the program for `PATH`.
fn scripts(place: &Place) {
    place.pipeplug(["generate", place.path().to_str().unwrap()]).run().exits(0).says_only("");
}

/// A shell with its home in the place, and this build in its `PATH`.
fn shell(place: &Place, program: &str, args: &[&str]) -> Command {
    let bin = Path::new(env!("CARGO_BIN_EXE_pipeplug")).parent().unwrap();
    let mut path = vec![bin.to_owned()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let mut command = Command::new(program);
    command
        .args(args)
        .current_dir(place.path())
        .env("PATH", std::env::join_paths(path).unwrap())
        .env("HOME", place.path())
        .env("PIPEPLUG_PATH", place.path())
        .env("TERM", "dumb")
        .env("PS1", "> ")
        .env_remove("XDG_DATA_HOME")
        .env_remove("XDG_CACHE_HOME");
    command
}

/// Types lines in a terminal, each when the answer to the one before has come. Each has the text that
/// has to appear, which the line itself does not have.
fn type_lines(mut shell: Command, lines: &[(&str, &str)]) {
    let size = Winsize { ws_row: 24, ws_col: 300, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(&size, None).unwrap();
    let slave = || Stdio::from(pty.slave.try_clone().unwrap());
    let mut child = shell.stdin(slave()).stdout(slave()).stderr(slave()).spawn().unwrap();
    drop(pty.slave);
    let mut terminal = File::from(pty.master);
    let mut output = terminal.try_clone().unwrap();
    let (sender, received) = channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = output.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    for (line, expected) in lines {
        terminal.write_all(line.as_bytes()).unwrap();
        let mut shown = String::new();
        while !shown.contains(expected) {
            let Ok(bytes) = received.recv_timeout(PATIENCE) else {
                let _ = child.kill();
                panic!("{line:?}: {expected:?} did not come, but {shown:?}");
            };
            shown.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Lines that need completion to do what is expected. `tab` completes a unique candidate.
fn lines() -> [(&'static str, &'static str); 7] {
    [
        ("pipeplug ru\t@ec\t--call upp\thello\n", "HELLO"),
        ("pipeplug run @echo --call upper opt --sandbox=non\t\n", "OPT"),
        ("pipeplug run @echo --call upper sep --sandbox non\t\n", "SEP"),
        ("pipeplug run mirr\t--call installed\n", "<installed >"),
        ("pipeplug run ./pipeplug-mi\t--call path\n", "<path >"),
        ("pipeplug run @echo --call upper @data\t\n", "FROM A FILE"),
        ("pipeplug run ./with\t--call space\n", "<space >"),
    ]
}

/// A place with an installed plugin, one with a space in its name, and a data file.
fn place() -> Place {
    let place = Place::new();
    place.standard("pipeplug-mirror", MIRROR);
    place.standard("with space", MIRROR);
    place.file("data file", b"from a file");
    scripts(&place);
    place
}

#[test]
fn bash_completes_options_plugins_and_commands() {
    if !has_tool("bash", "bash") {
        return;
    }
    let place = place();
    let shell = shell(&place, "bash", &["--norc", "--noprofile", "-i"]);
    let mut typed = vec![(". completions/pipeplug.bash; echo rea''dy\n", "ready")];
    typed.extend(lines());
    // What is at the cursor, and not at the end of the line; and two words in quotes.
    typed.push(("pipeplug run @echo --call uppe hi\x1b[D\x1b[D\x1b[D\t\n", "HI"));
    typed.push(("pipeplug run \"./with\t --call quoted\n", "<quoted >"));
    type_lines(shell, &typed);
}

#[test]
fn zsh_completes_options_plugins_and_commands() {
    if !has_tool("zsh", "zsh") {
        return;
    }
    let place = place();
    // As an installed file, which has to complete at the first use.
    let shell = shell(&place, "zsh", &["-f", "-i"]);
    let start = "fpath=($PWD/completions $fpath); autoload -Uz compinit; compinit -u -D; echo \
                 rea''dy\n";
    let mut typed = vec![(start, "ready")];
    typed.extend(lines());
    type_lines(shell, &typed);
}

/// Candidates of fish for a line, without their descriptions.
fn fish(place: &Place, line: &str) -> Vec<String> {
    let script = format!("source completions/pipeplug.fish; complete -C '{line}'");
    let output = shell(place, "fish", &["--no-config", "-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

#[test]
fn fish_completes_options_plugins_and_commands() {
    if !has_tool("fish", "fish") {
        return;
    }
    let place = place();
    assert_eq!(fish(&place, "pipeplug ru"), ["run"]);
    assert_eq!(fish(&place, "pipeplug run @ec"), ["@echo"]);
    assert_eq!(fish(&place, "pipeplug run mirr"), ["mirror"]);
    assert_eq!(fish(&place, "pipeplug run ./w"), ["./with space"]);
    assert_eq!(fish(&place, "pipeplug run @echo --call upp"), ["upper"]);
    assert_eq!(fish(&place, "pipeplug run @echo --call upper @da"), ["@data file"]);
    let levels = ["none", "basic", "strict", "declared"];
    assert_eq!(fish(&place, "pipeplug run @echo --sandbox "), levels);
}

/// Candidates for the last word.
fn candidates(place: &Place, words: &[&str]) -> Vec<String> {
    let ran = complete(place, words).run().exits(0).says_only("");
    ran.text().lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

fn complete(place: &Place, words: &[&str]) -> Run {
    let mut run = place.pipeplug([&["--", "pipeplug"], words].concat()).in_place();
    run.command.env("COMPLETE", "fish").env_remove("_CLAP_COMPLETE_INDEX");
    run
}

/// A plugin that describes a service, counts its starts, and names a command that a shell would run.
const DESCRIBED: &str = r#"
echo start >>"$(dirname "$0")/starts"
while recv; do
    case $cmd in
    GetMetadata) send 3 "$cmd" '{"pipeplug.services":"spell/1"}' ;;
    GetServices) send 3 "$cmd" '{"services":[{"name":"spell","version":1,"oldest":1,"methods":[
        {"name":"suggest","command":"spell.suggest"},{"name":"learn","command":"spell.learn"},
        {"name":"bad","command":"spell.$(touch pwned)"}]}]}' ;;
    cmd.stop) exit 0 ;;
    *) send 3 "$cmd" x ;;
    esac
done
"#;

#[test]
fn a_plugin_that_has_described_itself_is_not_started_for_its_commands() {
    let place = Place::new();
    let path = place.standard("speller", DESCRIBED);
    let starts = || std::fs::read_to_string(place.path().join("starts")).unwrap_or_default().len();
    let of = |current: &str| candidates(&place, &["run", "./speller", "--call", current]);
    // Nothing is known of it, and completion does not start what was never started.
    assert!(of("").is_empty());
    assert_eq!(starts(), 0);
    settle();
    place.pipeplug(["inspect", "./speller", "--sandbox", "none"]).in_place().run().exits(0);
    let started = starts();
    assert!(started > 0);
    assert_eq!(of(""), ["spell.suggest", "spell.learn"]);
    assert_eq!(of("spell.s"), ["spell.suggest"]);
    let bench = ["bench", "--duration", "1s", path.to_str().unwrap(), "--call", "spell.l"];
    assert_eq!(candidates(&place, &bench), ["spell.learn"]);
    // One of a container is another one.
    assert!(candidates(&place, &["run", "./speller", "--docker", "x", "--call", ""]).is_empty());
    // It may answer otherwise since.
    place.standard("speller", &format!("{DESCRIBED}\n# changed"));
    assert!(of("").is_empty());
    assert_eq!(starts(), started);
}

#[test]
fn the_interface_of_a_lock_file_is_a_source_of_commands() {
    let place = Place::new();
    place.standard("speller", DESCRIBED);
    let pin = ["pin", "./speller", "--interface", "--sandbox", "none"];
    place.pipeplug(pin).in_place().run().exits(0);
    std::fs::remove_dir_all(place.path().join(".cache")).unwrap();
    let found = candidates(&place, &["run", "./speller", "--call", ""]);
    assert_eq!(found, ["spell.suggest", "spell.learn"]);
}

#[test]
fn options_are_offered_where_one_begins() {
    let place = Place::new();
    place.standard("pipeplug-mirror", MIRROR);
    let found = candidates(&place, &["run", ""]);
    assert_eq!(found, ["mirror", "@echo", "./pipeplug-mirror"]);
    let found = candidates(&place, &["run", "--sandbox-r"]);
    assert_eq!(found, ["--sandbox-read"]);
    let found = candidates(&place, &[""]);
    assert!(found.contains(&"run".to_owned()) && !found.iter().any(|it| it.starts_with('-')));
    assert!(!found.contains(&"generate".to_owned()), "{found:?}");
    // Only what was added can be removed.
    assert!(candidates(&place, &["rm", ""]).iter().all(|it| it.starts_with('-')));
}

#[test]
fn the_variable_of_another_program_is_passed_over() {
    let mut run = pipeplug(["run", "@echo", "--call", "echo", "x"]);
    run.command.env("COMPLETE", "bash");
    run.run().exits(0).prints("x").says_only("");
    let mut run = pipeplug::<&str>([]);
    run.command.env("COMPLETE", "tcsh");
    run.run().exits(2).prints("").says_only(
        "pipeplug: COMPLETE=tcsh: no completion for this shell; there is one for bash, zsh and \
         fish, as in COMPLETE=bash pipeplug\n",
    );
    let mut run = pipeplug::<&str>([]);
    run.command.env("COMPLETE", "/usr/bin/zsh");
    run.run().exits(0).prints_part("#compdef pipeplug").says_only("");
}

#[test]
fn each_command_has_a_manual_page_that_man_shows() {
    let place = Place::new();
    scripts(&place);
    let pages = place.path().join("man");
    let names: Vec<_> = std::fs::read_dir(&pages).unwrap().map(|it| it.unwrap().path()).collect();
    assert!(names.len() > 14, "{names:?}");
    let page = std::fs::read_to_string(pages.join("pipeplug-run.1")).unwrap();
    for part in [
        ".SH EXAMPLES\n.nf\n.in ",
        ".SH \"EXIT STATUS\"",
        "\\-\\-sandbox\\-read",
        "unchecked\\fR\nSend",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    if !has_tool("man", "man-db") {
        return;
    }
    for path in names {
        let mut man = Command::new("man");
        man.args(["--warnings", "-l"]).arg(&path).env("MANWIDTH", "80").env("LC_ALL", "C.UTF-8");
        let output = man.output().unwrap();
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let wide = text.lines().find(|line| line.chars().count() > 80);
        assert_eq!(wide, None, "{}", path.display());
    }
}
