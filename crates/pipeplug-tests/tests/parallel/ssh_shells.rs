//! Command lines of ssh in each login shell: given to the shell as sshd does it, and by a real
//! server.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use pipeplug_host::Format;
use pipeplug_host::StartErrorKind;
use pipeplug_host::launcher::{Launcher as _, Ssh};
use pipeplug_host::process::{Launch, SpawnErrorKind};
use pipeplug_tests::{LONG, Script, Sshd, eventually, tool};

use crate::misbehave;

/// Login shells, with their Debian packages.
const SHELLS: [(&str, &str); 8] = [
    ("sh", "dash"),
    ("bash", "bash"),
    ("dash", "dash"),
    ("zsh", "zsh"),
    ("fish", "fish"),
    ("csh", "tcsh"),
    ("tcsh", "tcsh"),
    ("ash", "busybox"),
];

/// File that each shell reads when it starts, and the line of docs/placement.md that keeps it from
/// printing.
const STARTUP_FILES: [(&str, &str, &str); 5] = [
    ("bash", ".bashrc", "[ -t 1 ] || return"),
    ("zsh", ".zshenv", "[ -t 1 ] || return"),
    ("fish", ".config/fish/config.fish", "status is-interactive; or return"),
    ("csh", ".cshrc", "if (! $?prompt) exit"),
    ("tcsh", ".tcshrc", "if (! $?prompt) exit"),
];

/// Arguments that one shell or another takes for something else.
const ODD: [&[u8]; 26] = [
    b"",
    b" ",
    b"a b",
    b"\n",
    b"a\necho injected >&2\nb",
    b"a\n\n",
    b"!",
    b"!!",
    b"!echo",
    b"it's",
    b"'\"`",
    b"$HOME $(echo injected) `echo injected`",
    b"\\",
    b"\\\\",
    b"\\'",
    b"\\n\\0101\\c",
    b"%s%d%%",
    b"~",
    b"=sh",
    b"*",
    b"{a,b}",
    b"^a^b",
    b"-x",
    b"--",
    b"_0101",
    b"\xff\xfe\x80.",
];

/// The shell's path; `None` where it is not installed, which is told. Busybox is one that is called
/// `ash`.
fn shell(name: &str, package: &str, dir: &Path) -> Option<PathBuf> {
    if name != "ash" {
        return tool(name, package);
    }
    let path = dir.join(name);
    symlink(tool("busybox", package)?, &path).unwrap();
    Some(path)
}

/// An ssh that gives the line to that shell, as sshd does.
fn stand_in(shell: &Path, version: &str) -> Script {
    let body = format!(
        "if [ \"$1\" = -V ]; then echo '{version}' >&2; exit; fi\n\
         printf '%s\\n' \"$@\" >\"$dir/args\"\nwhile [ \"$1\" != -- ]; do shift; done\nexec '{}' \
         -c \"$3\"",
        shell.display()
    );
    Script::new(&body)
}

/// A program that prints its directory, variable `A` and arguments, each with a NUL byte behind it.
fn tells() -> Script {
    Script::new("printf '%s\\0' \"$(pwd)\" \"$A\" \"$@\"")
}

/// Waits for the end of the process, and returns its standard output.
fn output(ssh: &Ssh, launch: &Launch) -> Vec<u8> {
    let started = ssh.start(launch).unwrap();
    let mut bytes = Vec::new();
    let mut from = File::from(started.from_guest);
    eventually("its output ends", || match from.read_to_end(&mut bytes) {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(error) => panic!("{error}"),
    });
    bytes
}

/// Starts it with these arguments, in that directory, and compares all that arrives.
#[track_caller]
fn assert_arrives(ssh: &Ssh, what: &str, cwd: &Path, variable: &[u8], args: &[Vec<u8>]) {
    let program = tells();
    let mut launch = Launch::new(program.path());
    launch.cwd = Some(cwd.to_owned());
    launch.env.set("A", OsStr::from_bytes(variable));
    launch.args = args.iter().cloned().map(OsString::from_vec).collect();
    let printed = output(ssh, &launch);
    let words: Vec<_> =
        printed.strip_suffix(b"\0").unwrap_or(&printed).split(|byte| *byte == 0).collect();
    let words: Vec<_> = words.into_iter().map(OsStr::from_bytes).collect();
    let own =
        [cwd.as_os_str().as_bytes(), variable].into_iter().chain(args.iter().map(Vec::as_slice));
    let own: Vec<_> = own.map(OsStr::from_bytes).collect();
    assert_eq!(words, own, "{what}");
}

/// A directory whose name no shell leaves alone.
fn odd_directory() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let odd =
        dir.path().canonicalize().unwrap().join(OsStr::from_bytes(b"-it's!\n $HOME\\ \"\xff~"));
    fs::create_dir(&odd).unwrap();
    (dir, odd)
}

/// Each byte, alone and between others, all of them in one, and the odd ones.
fn hard_arguments() -> Vec<Vec<u8>> {
    let alone = (1..=255).map(|byte| vec![byte]);
    let between = (1..=255).map(|byte| vec![b'a', byte, b'1']);
    let odd = ODD.iter().map(|arg| arg.to_vec());
    alone.chain(between).chain([(1..=255).collect()]).chain(odd).collect()
}

#[test]
fn every_byte_arrives_through_every_login_shell() {
    let shells = tempfile::tempdir().unwrap();
    let (_dir, cwd) = odd_directory();
    let args = hard_arguments();
    let variable: Vec<u8> = (1..=255).collect();
    for (name, package) in SHELLS {
        let Some(shell) = shell(name, package, shells.path()) else { continue };
        let ssh = stand_in(&shell, "OpenSSH_9.2p1");
        assert_arrives(&Ssh::new("there").program(ssh.path()), name, &cwd, &variable, &args);
    }
}

#[test]
fn arguments_of_any_bytes_arrive() {
    let shells = tempfile::tempdir().unwrap();
    let (_dir, cwd) = odd_directory();
    let byte = || fastrand::u8(1..=255);
    for _ in 0..10 {
        let word = || (0..fastrand::usize(0..40)).map(|_| byte()).collect::<Vec<u8>>();
        let args: Vec<_> = (0..fastrand::usize(0..10)).map(|_| word()).collect();
        let variable = word();
        for (name, package) in SHELLS {
            let path = shells.path().join(name);
            let shell =
                if path.exists() { Some(path) } else { shell(name, package, shells.path()) };
            let Some(shell) = shell else { continue };
            let ssh = stand_in(&shell, "OpenSSH_9.2p1");
            let what = format!("{name}: {variable:?} {args:?}");
            assert_arrives(&Ssh::new("there").program(ssh.path()), &what, &cwd, &variable, &args);
        }
    }
}

#[test]
fn the_script_is_for_every_shell_that_is_somewhere_the_posix_one() {
    let (_dir, cwd) = odd_directory();
    let args = hard_arguments();
    let variable: Vec<u8> = (1..=255).collect();
    for command in ["dash", "bash --posix", "busybox sh", "zsh --emulate sh"] {
        let name = command.split(' ').next().unwrap();
        if tool(name, name).is_none() {
            continue;
        }
        for locale in ["C", "C.UTF-8"] {
            let ssh = Script::new(&format!(
                "[ \"$1\" != -V ] || exit 0\nwhile [ \"$1\" != -- ]; do shift; done\n\
                 export LC_ALL={locale}\nexec sh -c \"exec {command}${{3#exec /bin/sh}}\""
            ));
            let what = format!("{command} in {locale}");
            assert_arrives(&Ssh::new("there").program(ssh.path()), &what, &cwd, &variable, &args);
        }
    }
}

#[test]
fn settings_of_a_shell_change_nothing() {
    // What the user sets where the shell reads it, also without a terminal.
    let settings = [
        ("tcsh", ".tcshrc", "set backslash_quote nonomatch\nset symlinks = expand\n"),
        (
            "zsh",
            ".zshenv",
            "setopt rcquotes extendedglob globsubst kshglob banghist cshjunkiequotes\n",
        ),
    ];
    for (name, file, text) in settings {
        let Some(shell) = tool(name, name) else { continue };
        let Some(sshd) = Sshd::start_with_shell(&shell) else { return };
        fs::write(sshd.home().join(file), text).unwrap();
        let ssh = Ssh::new(Sshd::NAME).args(sshd.options());
        let (_dir, cwd) = odd_directory();
        assert_arrives(&ssh, name, &cwd, b"it's\n!", &hard_arguments());
    }
}

#[test]
fn a_real_server_runs_it_by_every_login_shell_and_tells_what_fails() {
    let shells = tempfile::tempdir().unwrap();
    for (name, package) in SHELLS {
        let Some(shell) = shell(name, package, shells.path()) else { continue };
        let Some(sshd) = Sshd::start_with_shell(&shell) else { return };
        let ssh = Ssh::new(Sshd::NAME).args(sshd.options());
        let (_dir, cwd) = odd_directory();
        assert_arrives(&ssh, name, &cwd, b"it's\n!", &hard_arguments());

        let plugin = misbehave(&["plain", "a\ntouch injected", "!!"]).handshake_timeout(LONG);
        let plugin = plugin.launcher(ssh.clone()).start().unwrap();
        assert_eq!(plugin.call("args", "").unwrap(), "plain a\ntouch injected !!", "{name}");
        plugin.stop().unwrap();
        assert!(!sshd.home().join("injected").exists(), "{name}");

        let told = |launched: pipeplug_host::PluginBuilder| {
            let error = launched.handshake_timeout(LONG).launcher(ssh.clone()).start().unwrap_err();
            assert!(
                matches!(error.kind(), StartErrorKind::Launcher { .. }) && error.is_permanent(),
                "{name}: {error:?}"
            );
            error.to_string()
        };
        let message = told(misbehave(&[]).current_dir("/nope"));
        assert!(
            message.contains("working directory cannot be entered there (status 125)"),
            "{name}: {message}"
        );
        let message = told(pipeplug_host::Plugin::builder("/no/such/plugin"));
        assert!(message.contains("there is no such file there (status 127)"), "{name}: {message}");
    }
}

#[test]
fn a_login_shell_that_prints_is_named() {
    for (name, file, remedy) in STARTUP_FILES {
        let Some(shell) = tool(name, if name == "csh" { "tcsh" } else { name }) else { continue };
        let Some(sshd) = Sshd::start_with_shell(&shell) else { return };
        let path = sshd.home().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = "echo Welcome to this machine\necho and more\n";
        fs::write(&path, text).unwrap();
        let builder = misbehave(&[]).handshake_timeout(LONG);
        let builder = builder.launcher(Ssh::new(Sshd::NAME).args(sshd.options()));
        for format in [Format::Standard, Format::Classic] {
            let error = builder.clone().format(format).start().unwrap_err();
            let message = error.to_string();
            assert!(
                matches!(error.kind(), StartErrorKind::Launcher { .. }) && error.is_permanent(),
                "{name}: {error:?}"
            );
            assert!(
                message.contains("its login shell there prints to standard output")
                    && message.contains("\"Welcome to this machine\"")
                    && message.contains("`ssh there true` prints nothing"),
                "{name}: {message}"
            );
        }
        fs::write(&path, format!("{remedy}\n{text}")).unwrap();
        builder.start().unwrap();
    }
}

#[test]
fn a_login_shell_that_lets_nobody_in_is_named() {
    let Some(shell) = tool("nologin", "login") else { return };
    let Some(sshd) = Sshd::start_with_shell(&shell) else { return };
    for format in [Format::Standard, Format::Classic] {
        let ssh = Ssh::new(Sshd::NAME).args(sshd.options());
        let builder = misbehave(&[]).handshake_timeout(LONG).format(format);
        let message = builder.launcher(ssh).start().unwrap_err().to_string();
        assert!(
            message.contains("its login shell there prints")
                && message.contains("\"This account is"),
            "{format}: {message}"
        );
    }
}

#[test]
fn a_plugin_that_prints_is_not_taken_for_its_login_shell() {
    let Some(sshd) = Sshd::start() else { return };
    let chatty = Script::new("echo Welcome to this plugin; cat >/dev/null");
    let ssh = Ssh::new(Sshd::NAME).args(sshd.options());
    let builder = pipeplug_host::Plugin::builder(chatty.path()).handshake_timeout(LONG);
    let error = builder.launcher(ssh).start().unwrap_err();
    assert!(matches!(error.kind(), StartErrorKind::Garbage { .. }), "{error:?}");
}

#[test]
fn a_relative_path_begins_at_the_home_directory() {
    let Some(shell) = tool("sh", "dash") else { return };
    let Some(sshd) = Sshd::start_with_shell(&shell) else { return };
    let ssh = Ssh::new(Sshd::NAME).args(sshd.options());
    let script = tells();
    for file in ["-dir/plugin", "dir/plugin"] {
        let path = sshd.home().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(script.path(), path).unwrap();
        for cwd in [None, Some("/"), Some("dir2"), Some("-")] {
            for dir in ["dir2", "-"] {
                fs::create_dir_all(sshd.home().join(dir)).unwrap();
            }
            let mut launch = Launch::new(file);
            launch.cwd = cwd.map(PathBuf::from);
            let printed = output(&ssh, &launch);
            let there = sshd.home().canonicalize().unwrap().join(cwd.unwrap_or_default());
            let there = there.to_str().unwrap().trim_end_matches('/').to_owned();
            let there = if there.is_empty() { "/".to_owned() } else { there };
            assert_eq!(
                String::from_utf8_lossy(&printed),
                format!("{there}\0\0"),
                "{file} in {cwd:?}"
            );
        }
    }
}

#[test]
fn the_longest_command_line_arrives_and_a_longer_one_is_refused() {
    const LIMIT: usize = 131_071;
    let shells = tempfile::tempdir().unwrap();
    let program = tells();
    let launch = |len: usize| {
        let mut launch = Launch::new(program.path());
        launch.args = vec!["x".repeat(len).into()];
        launch
    };
    let ssh = Ssh::new("there").program("/no/such/ssh");
    let of = |len: usize| match ssh.start(&launch(len)).unwrap_err().kind() {
        SpawnErrorKind::BadArgument { what, .. } => what.clone(),
        other => panic!("{other:?}"),
    };
    let rest: usize =
        of(LIMIT).split(' ').find_map(|word| word.parse::<usize>().ok()).unwrap() - LIMIT;
    let longest = LIMIT - rest;
    assert!(of(longest + 1).contains("a command line of 131072 bytes"), "{}", of(longest + 1));
    for (name, package) in SHELLS {
        let Some(shell) = shell(name, package, shells.path()) else { continue };
        let Some(sshd) = Sshd::start_with_shell(&shell) else { return };
        let ssh = Ssh::new(Sshd::NAME).args(sshd.options());
        let printed = output(&ssh, &launch(longest));
        let arrived = printed.split(|byte| *byte == 0).nth(2).unwrap();
        assert!(
            arrived.len() == longest && arrived.iter().all(|byte| *byte == b'x'),
            "{name}: {}",
            arrived.len()
        );
    }
}

#[test]
fn what_no_shell_could_be_told_is_refused() {
    let ssh = Ssh::new("nowhere.invalid");
    let refused = |launch: Launch| {
        let error = ssh.start(&launch).unwrap_err();
        assert!(matches!(error.kind(), SpawnErrorKind::BadArgument { .. }), "{error:?}");
        error.to_string()
    };
    assert!(refused(Launch::new("-x")).contains("begins with a dash"));
    let mut launch = Launch::new("/plugin");
    launch.cwd = Some("".into());
    assert!(refused(launch).contains("an empty working directory"));
    let mut launch = Launch::new("plugin");
    launch.is_preinstalled = true;
    assert!(refused(launch).contains("name a path there"));
}

#[test]
fn options_that_are_newer_are_given_to_newer_versions() {
    let args = |version: &str| {
        let ssh = stand_in(Path::new("/bin/sh"), version);
        drop(output(&Ssh::new("there").program(ssh.path()), &Launch::new("/bin/true")));
        fs::read_to_string(ssh.dir().join("args")).unwrap()
    };
    let newer =
        ["RemoteCommand=none", "StdinNull=no", "ForkAfterAuthentication=no", "SessionType=default"];
    let has = |args: &str| newer.map(|option| args.contains(option));
    assert_eq!(has(&args("OpenSSH_7.4p1")), [false; 4]);
    assert_eq!(has(&args("OpenSSH_8.6p1")), [true, false, false, false]);
    assert_eq!(has(&args("OpenSSH_8.7p1")), [true; 4]);
    assert_eq!(has(&args("Dropbear v2022.83")), [false; 4]);
    assert!(!args("OpenSSH_9.5p1").contains("ChannelTimeout"));
    // A silence of 45 seconds, as documented: ssh gives up when it would ask for the third time.
    assert!(args("OpenSSH_9.5p1").contains("-oServerAliveInterval=15\n-oServerAliveCountMax=2\n"));
    assert!(args("OpenSSH_10.0p2").contains("ChannelTimeout=none"));
}
