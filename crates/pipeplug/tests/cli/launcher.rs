//! Launchers, with stand-ins for their clients, and plugins that run already.

use std::path::{Path, PathBuf};
use std::thread;

use pipeplug_guest::{Guest, Main, OnEnd, Request};

use crate::common::{Place, Run, pipeplug};

/// The program, with this directory first in `PATH`.
fn with_programs(place: &Place, args: &[&str]) -> Run {
    let mut run = place.pipeplug(args);
    let path = std::env::var_os("PATH").unwrap();
    let all = std::env::join_paths(
        [PathBuf::from(place.path())].into_iter().chain(std::env::split_paths(&path)),
    );
    run.command.env("PATH", all.unwrap());
    run
}

#[test]
fn what_does_not_go_together_is_explained() {
    let usage = |args: &[&str], told: &str| {
        pipeplug([&["run"], args].concat()).run().exits(2).prints("").says(told);
    };
    usage(&["--ssh", "there"], "<PLUGIN>");
    usage(&["./plugin", "--ssh", "there", "--kubectl", "image"], "cannot be used with");
    usage(&["./plugin", "--namespace", "a"], "--kubectl");
    usage(&["--kubectl", "image", "--limit", "cpu"], "write NAME=QUANTITY, as in cpu=500m");
    usage(&["./plugin", "--attach", "/tmp/s"], "cannot be used with");
    for option in
        [&["--env", "A=b"][..], &["--cwd", "/"], &["--stdio"], &["--stdin", "null"], &["--", "x"]]
    {
        usage(&[&["--attach", "/tmp/s"], option].concat(), "cannot be used with");
    }
}

#[test]
fn ssh_is_told_where_and_what() {
    let place = Place::new();
    // It has the destination and the line for the shell there behind its options.
    place.executable(
        "ssh",
        "#!/bin/sh\n[ \"$1\" != -V ] || exit 0\ncase $* in *ConnectTimeout=9\\ *) echo 9 s >&2; \
         esac\n\
         while [ \"$1\" != -- ]; do shift; done\necho \"$2\" >&2; exec sh -c \"$3\"\n",
    );
    let plugin =
        place.executable("it's a plugin", "#!/bin/sh\nexec \"$PROGRAM\" __plugin echo \"$@\"\n");
    let args =
        ["run", "--ssh", "me@there", plugin.to_str().unwrap(), "--env", "A=$B", "--cwd", "/"];
    let calls = ["--call", "env", "A", "--call", "cwd", "--call", "args", "--", "a b"];
    let mut run = with_programs(&place, &[&args[..], &calls].concat());
    run.command.env("PROGRAM", env!("CARGO_BIN_EXE_pipeplug"));
    run.run().exits(0).prints("$B/a b").says_only("it's a plugin: me@there\n");

    let ran = with_programs(&place, &["run", "--ssh", "there", "/no/such/plugin"]).run().exits(4);
    ran.says(
        "plugin \"/no/such/plugin\" did not start on there (ssh): there is no such file there \
         (status 127)",
    );
    let ran =
        with_programs(&place, &["run", "--ssh", "there", "/no/such/plugin", "--timeout", "12s"]);
    ran.run().exits(4).says("plugin: 9 s\n");
    let silent = place.executable("silent", "#!/bin/sh\nexec sleep 60\n");
    let args = ["run", "--ssh", "there", silent.to_str().unwrap(), "--timeout", "300ms"];
    with_programs(&place, &args).run().exits(124).says("A slow one needs more time: `--timeout`");
    let ran = with_programs(&place, &["run", "--ssh", "there", "@echo"]).run().exits(3);
    ran.says_only(
        "pipeplug: @echo is built into this program and does not exist there; name a file that \
         does, as in ./@echo\n",
    );
}

#[test]
fn kubectl_is_told_what_to_run() {
    let place = Place::new();
    let script =
        "#!/bin/sh\nfor arg; do echo \"$arg\" >&2; done\nexec \"$PROGRAM\" __plugin echo\n";
    place.executable("kubectl", script);
    let options = [
        "--namespace",
        "plugins",
        "--context",
        "far",
        "--request",
        "cpu=1",
        "--limit",
        "memory=64Mi",
    ];
    let more = [
        "--image-pull-policy",
        "never",
        "--overrides",
        r#"{"spec":{"priority":7}}"#,
        "--call",
        "upper",
        "x",
    ];
    let mut run =
        with_programs(&place, &[&["run", "--kubectl", "spell:2"], &options[..], &more].concat());
    run.command.env("PROGRAM", env!("CARGO_BIN_EXE_pipeplug"));
    let ran = run.run().exits(0).prints("X");
    let lines =
        ["--context=far", "--namespace=plugins", "run", "--image=spell:2", "--stdin", "--rm"];
    let ran = lines.into_iter().fold(ran, |ran, line| ran.says(&format!("spell:2: {line}\n")));
    let ran = ran.says(r#""requests":{"cpu":"1"}"#).says(r#""limits":{"memory":"64Mi"}"#);
    ran.says(r#""imagePullPolicy":"Never""#).says(r#""priority":7"#);
}

#[test]
#[cfg(target_os = "linux")]
fn a_plugin_that_runs_is_attached_to_and_let_go_of() {
    let place = Place::new();
    let socket = place.path().join("s");
    let args = ["--pipeplug-listen".into(), socket.clone().into_os_string()];
    // This process is the plugin: it does not end when it is told to.
    let guest = thread::spawn(move || {
        let answer = |_: &Main, request: &mut Request| Ok(request.take_buffer().into());
        Guest::new().args(args).on_end(OnEnd::Stay).handler(answer).try_register().unwrap()
    });
    while !is_listened_at(&socket) {
        thread::yield_now();
    }
    let args =
        ["run", "--attach", socket.to_str().unwrap(), "--grace", "100ms", "--call", "x", "hello"];
    let ran = pipeplug(args).run().exits(0).prints("hello");
    ran.says_only(
        "pipeplug: s did not end when asked: it was left running, since another program started \
         it\n",
    );
    drop(guest.join().unwrap());

    let ran = pipeplug(["run", "--attach", socket.to_str().unwrap()]).run().exits(4);
    ran.says("there is no such file: start the plugin with `--pipeplug-listen` and this path");
}

/// True if a socket at this path accepts connections: proc_net(5), `SO_ACCEPTCON` of the flags.
#[cfg(target_os = "linux")]
pub(crate) fn is_listened_at(path: &Path) -> bool {
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
    sockets
        .lines()
        .any(|line| line.ends_with(path.to_str().unwrap()) && line.contains(" 00010000 "))
}
