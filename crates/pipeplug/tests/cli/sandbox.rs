//! Options for the rights of a plugin and for the check of its file.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use pipeplug_host::LockFile;

use crate::common::{MIRROR, Place, has_strict_sandbox, pipeplug, wait};

#[test]
fn the_environment_is_let_through_by_name() {
    let run = |options: &[&str]| {
        let mut run =
            pipeplug([&["run", "@echo"], options, &["--call", "env", "MY_SECRET"]].concat());
        run.command.env("MY_SECRET", "s");
        run.run()
    };
    run(&[]).exits(1).says("MY_SECRET is not set");
    run(&["--env-pass", "MY_SECRET"]).exits(0).prints("s");
    run(&["--env-inherit"]).exits(0).prints("s");
    run(&["--env-inherit", "--env", "MY_SECRET=t"]).exits(0).prints("t");
    run(&["--env-pass", "A=B"]).exits(2).says("the name of a variable has no `=`");
}

#[test]
fn variables_that_did_not_get_through_are_named_where_a_plugin_does_not_start() {
    let place = Place::new();
    let needs = "#!/bin/sh\n[ -n \"$PYTHONPATH\" ] || { echo 'No module named x' >&2; exit 1; \
                 }\necho \"${SAYS:-failed}\" >&2\nexit \"$STATUS\"\n";
    let path = place.executable("needs", needs);
    let run = |options: &[&str]| {
        let args = [&["run", path.to_str().unwrap(), "--env", "STATUS=0"], options].concat();
        let mut run = place.pipeplug(args);
        for name in ["PYTHONPATH", "LD_PRELOAD_X", "GEM_PATH", "VIRTUAL_ENV", "MY_SECRET"] {
            run.command.env(name, "/nonexistent");
        }
        run.command.env("LC_ALL", "C").env_remove("PYENV_VERSION");
        for name in ["CONDA_PREFIX", "PYENV_ROOT", "PYTHONHOME", "PYTHONUSERBASE"] {
            run.command.env_remove(name);
        }
        run.run()
    };
    let names = |stderr: &str| {
        let told = stderr
            .split("it did not get ")
            .nth(1)
            .and_then(|rest| rest.split(':').next())
            .map(str::to_owned);
        told.map(|told| told.split(", ").map(str::to_owned).collect::<Vec<_>>()).unwrap_or_default()
    };
    let ran = run(&[]).exits(4).says("`--env-pass NAME` (PluginBuilder::env_pass) passes one on");
    assert_eq!(names(&ran.stderr), ["PYTHONPATH", "VIRTUAL_ENV"], "{}", ran.stderr);
    // With one that is passed on the others of Python are named still, where it is about Python;
    // one that ended well lacks none, nor does one that has all.
    let passed = ["--env-pass", "PYTHONPATH", "--env", "STATUS=3"];
    let ran = run(&[&passed[..], &["--env", "SAYS=python3: it failed"]].concat());
    assert_eq!(names(&ran.exits(4).stderr), ["VIRTUAL_ENV"]);
    let ran = run(&passed).exits(4).says("exit status 3");
    assert!(!ran.stderr.contains("it did not get"), "{}", ran.stderr);
    for options in [&["--env-pass", "PYTHONPATH"][..], &["--env-inherit", "--env", "STATUS=3"]] {
        let ran = run(options).exits(4);
        assert!(!ran.stderr.contains("it did not get"), "{}", ran.stderr);
    }
}

#[test]
#[cfg(linux_native)]
fn the_limit_of_cpu_time_is_named_whenever_it_is_reached() {
    let place = Place::new();
    let busy = place.executable("busy", "#!/bin/sh\nwhile :; do :; done\n");
    let run = |plugin: &str, more: &[&str]| {
        let args =
            [&["run", plugin, "--sandbox", "basic", "--sandbox-cpu", "500ms"], more].concat();
        place.pipeplug(args).run()
    };
    run(busy.to_str().unwrap(), &[])
        .exits(4)
        .says("its sandbox allows it 500ms of CPU time")
        .says("--sandbox-cpu");
    let body = MIRROR.replace("*)", "busy) while :; do :; done ;;\n    *)");
    let later = place.standard("later", &body);
    run(later.to_str().unwrap(), &["--call", "busy"])
        .exits(5)
        .says("SIGXCPU")
        .says("of CPU time, rounded up to whole seconds: --sandbox-cpu allows more");
}

#[test]
fn a_missing_command_is_named_and_nothing_else() {
    let place = Place::new();
    let env = place.executable("env-line", "#!/usr/bin/env no-such-python\n");
    let shell = place.executable("shell", "#!/bin/sh\nno-such-python plugin.py\n");
    let wrong = place.executable("wrong", "#!/bin/sh\nexec /etc/passwd\n");
    let mut levels = vec!["none"];
    levels.extend(has_strict_sandbox().then_some("strict"));
    for level in levels {
        for (plugin, says) in [
            (
                &env,
                "command \"no-such-python\" was not found: install it, or have its directory in \
                 PATH",
            ),
            (
                &shell,
                "command \"no-such-python\" was not found: install it, or have its directory in \
                 PATH",
            ),
            (&wrong, "command \"/etc/passwd\" "),
        ] {
            let mut run = place.pipeplug(["run", plugin.to_str().unwrap(), "--sandbox", level]);
            run.command.env("PYTHONPATH", "/nonexistent");
            let ran = run.run().exits(4).says(says);
            for hint in ["--env-pass", "--sandbox-read", "--sandbox none"] {
                assert!(!ran.stderr.contains(hint), "{level}: {}", ran.stderr);
            }
        }
    }
    let mut run = place.pipeplug(["run", "/bin/cat", "--", "/no/such"]);
    run.command.env("PYTHONPATH", "/nonexistent").env("NODE_OPTIONS", "--no-such");
    let ran = run.run().exits(4);
    assert!(!ran.stderr.contains("--env-pass"), "{}", ran.stderr);
}

#[test]
fn a_directory_that_the_sandbox_hides_is_named() {
    if !has_strict_sandbox() {
        return;
    }
    let place = Place::new();
    let dir = place.path().join("a plugin");
    fs::create_dir(&dir).unwrap();
    let own = dir.canonicalize().unwrap();
    let grant = format!("let it read that (`--sandbox-read {own:?}`, Sandbox::read)");
    let python = "#!/usr/bin/python3\nimport own\n";
    let node = "#!/usr/bin/env node\nrequire('./own.js')\n";
    let shell = "#!/bin/sh\n. \"${0%/*}/own.sh\"\n";
    for (program, name, code, own_name) in [
        ("python3", "python", python, "own.py"),
        ("node", "node", node, "own.js"),
        ("sh", "shell", shell, "own.sh"),
    ] {
        if !Path::new("/usr/bin").join(program).exists() {
            crate::common::missing(&format!("/usr/bin/{program} is missing"));
            continue;
        }
        let plugin = place.executable(&format!("a plugin/{name}"), code);
        fs::write(dir.join(own_name), "").unwrap();
        let run = |options: &[&str]| {
            place.pipeplug([&["run", plugin.to_str().unwrap()], options].concat()).run()
        };
        run(&["--sandbox", "strict"]).exits(4).says(&grant);
        // A link leads there.
        let link = place.path().join(format!("link-to-{name}"));
        std::os::unix::fs::symlink(&plugin, &link).unwrap();
        let args = ["run", link.to_str().unwrap(), "--sandbox", "strict"];
        place.pipeplug(args).run().exits(4).says(if name == "shell" { "" } else { &grant });
        // Where nothing is hidden, and where the plugin has it, that is not the cause.
        let own = own.to_str().unwrap();
        for options in
            [&["--sandbox", "basic"][..], &["--sandbox", "strict", "--sandbox-read", own], &[]]
        {
            let ran = run(options).exits(4);
            assert!(!ran.stderr.contains("hides what is in"), "{options:?}: {}", ran.stderr);
        }
    }
    // What a plugin says is no reason to grant it more.
    let asks = place.executable(
        "a plugin/asks",
        "#!/bin/sh\necho 'No such file or directory: /etc/ssh' >&2; exit 1\n",
    );
    // Nor is there anything beside it that it would have.
    let ran = place.pipeplug(["run", asks.to_str().unwrap(), "--sandbox", "strict"]).run().exits(4);
    assert!(!ran.stderr.contains("--sandbox-read"), "{}", ran.stderr);
    // All of a home is too much to grant.
    fs::write(place.path().join("own.sh"), "").unwrap();
    let plugin = place.executable("at-home", shell);
    let ran =
        place.pipeplug(["run", plugin.to_str().unwrap(), "--sandbox", "strict"]).run().exits(4);
    ran.says("move it into a directory of its own");
}

#[test]
fn what_is_not_allowed_is_refused_unseen() {
    let calls =
        ["--call", "ask", "clock", "--call", "ask", "delete all", "--call", "tell", "delete all"];
    let all = ["run", "@echo", "--answer", "clock=noon", "--answer", "delete=gone"];
    pipeplug([&all[..], &calls].concat()).run().exits(0).prints("noongone").says("tells delete");
    let ran =
        pipeplug([&all[..], &["--allow", "clock"], &calls].concat()).run().exits(1).prints("noon");
    let ran = ran.says("the host does not allow this plugin to ask for \"delete\"");
    let ran = ran.says("which the plugin may not send");
    assert!(!ran.stderr.contains("echo tells delete"), "{}", ran.stderr);
}

#[test]
fn a_sum_is_demanded() {
    let place = Place::new();
    let path = place.standard("mirror", MIRROR);
    let path = path.to_str().unwrap();
    let pinned = place
        .pipeplug(["pin", path, "--lock-file"].into_iter().chain([lock(&place).as_str()]))
        .run()
        .exits(0);
    let sum = pinned.text().split_whitespace().next().unwrap().to_owned();
    assert_eq!(sum.len(), 64, "{sum}");
    let run = |option: &str| place.pipeplug(["run", path, option, "--call", "x", "y"]).run();
    run(&format!("--sha256={sum}")).exits(0).prints("<x y>");
    run(&format!("--sha256={}", sum.replace(&sum[..1], "g")))
        .exits(2)
        .says("64 hexadecimal digits");
    let other = "0".repeat(64);
    run(&format!("--sha256={other}")).exits(4).prints("").says(&sum).says(&other);
}

fn lock(place: &Place) -> String {
    place.path().join("pipeplug.lock").display().to_string()
}

#[test]
fn pins_are_demanded_and_changed() {
    let place = Place::new();
    let path = place.standard("mirror", MIRROR);
    let [mirror, other] = [path.to_str().unwrap(), "other"];
    place.standard(other, MIRROR);
    // By default the lock file is in the working directory.
    let in_place = |args: &[&str]| {
        let mut run = place.pipeplug(args);
        run.command.current_dir(place.path());
        run.run()
    };
    let run = |plugin: &str| in_place(&["run", "--locked", plugin, "--call", "x", "y"]);
    run(mirror).exits(4).says("there is no lock file \"pipeplug.lock\"");
    in_place(&["pin", mirror]).exits(0);
    run(mirror).exits(0).prints("<x y>");
    run("./mirror").exits(0).prints("<x y>");
    run(other).exits(4).says("is not pinned in \"pipeplug.lock\"").says("`pipeplug pin`");

    let changed = fs::read_to_string(&path).unwrap() + "# more\n";
    place.executable("mirror", &changed);
    run(mirror).exits(4).prints("").says("is not the file that was pinned").says("pipeplug.lock");
    in_place(&["pin", mirror, other]).exits(0).says_only("");
    run(mirror).exits(0).prints("<x y>");
    run(other).exits(0).prints("<x y>");

    // All or none.
    let before = fs::read(lock(&place)).unwrap();
    in_place(&["pin", mirror, "missing"]).exits(3).prints("");
    in_place(&["pin", "@echo"]).exits(2).says("has no file to pin");
    in_place(&["pin", "./"]).exits(1).says("not a regular file");
    assert_eq!(fs::read(lock(&place)).unwrap(), before);
    fs::write(lock(&place), "{}").unwrap();
    in_place(&["pin", mirror]).exits(1).says("cannot be understood");
    assert_eq!(fs::read(lock(&place)).unwrap(), b"{}");
}

#[test]
fn inspect_starts_a_plugin_in_the_strict_sandbox() {
    if !has_strict_sandbox() {
        return;
    }
    let place = Place::new();
    let data = place.file("data", b"data").display().to_string();
    let needy =
        place.standard("needy", &format!("[ \"$(cat '{data}')\" = data ] || exit 9\n{MIRROR}"));
    let inspect = |options: &[&str]| {
        place.pipeplug([&["inspect", needy.to_str().unwrap()], options].concat()).run()
    };
    inspect(&[])
        .exits(4)
        .says("exit status 9")
        .says("it may need more than its sandbox grants: --sandbox none");
    inspect(&["-v", "--sandbox-read", &data])
        .exits(0)
        .says("its sandbox is strict")
        .prints_part("a mirror");
    inspect(&["--sandbox", "none"]).exits(0).prints_part("a mirror");
    inspect(&["--sandbox", "none", "--sandbox-read", &data])
        .exits(2)
        .says("--sandbox-read needs a sandbox");
    // What runs elsewhere has no sandbox unless one is demanded, which is refused.
    let elsewhere = |options: &[&str]| {
        pipeplug([&["inspect", "@echo", "--via", "env"], options].concat()).run()
    };
    let ran = elsewhere(&["-v"]).exits(0).prints_part("Description");
    assert!(!ran.stderr.contains("sandbox"), "{}", ran.stderr);
    elsewhere(&["--sandbox-read", &data]).exits(2).says("--sandbox-read needs a sandbox");
    elsewhere(&["--sandbox", "strict"]).exits(4).says("only for a plugin that this host starts");
}

#[test]
fn many_may_pin_at_once() {
    const COUNT: usize = 50;
    let place = Place::new();
    let lock = lock(&place);
    let children: Vec<_> = (0..COUNT)
        .map(|i| {
            let plugin = place.file(&format!("plugin{i}"), b"");
            let mut run = place.pipeplug([
                OsStr::new("pin"),
                plugin.as_os_str(),
                "--lock-file".as_ref(),
                lock.as_ref(),
            ]);
            run.command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for child in children {
        assert_eq!(wait(child), Some(0));
    }
    assert_eq!(LockFile::open(&lock).unwrap().iter().count(), COUNT);
    let left = fs::read_dir(place.path()).unwrap().count();
    assert_eq!(left, COUNT + 1, "nothing is left of their locks");
}

#[test]
fn a_lock_file_that_is_none_is_an_error_and_is_not_waited_for() {
    let place = Place::new();
    let path = place.standard("mirror", MIRROR);
    let path = path.to_str().unwrap();
    let fifo = place.fifo("fifo");
    for (lock, problem) in [(fifo.to_str().unwrap(), "a FIFO"), ("/dev/zero", "a device")] {
        let locked = format!("--locked={lock}");
        let message = format!(
            "the lock file {lock:?} cannot be understood: it is {problem}, not a regular file"
        );
        place.pipeplug(["run", &locked, path]).run().exits(4).says(&message);
    }
    place
        .pipeplug(["pin", path, "--lock-file", fifo.to_str().unwrap()])
        .run()
        .exits(1)
        .says("it is a FIFO");
    place
        .pipeplug(["pin", fifo.to_str().unwrap()])
        .run()
        .exits(1)
        .says("it is a FIFO, not a regular file");
    let lock = lock(&place);
    let sum = "0".repeat(64);
    let text = format!(r#"{{"version":1,"plugins":{{"mirror":"{sum}","mirror":"{sum}"}}}}"#);
    fs::write(&lock, &text).unwrap();
    let ran = place.pipeplug(["run", &format!("--locked={lock}"), path]).run();
    ran.exits(4).says("the key \"mirror\" occurs twice");
    place.pipeplug(["pin", path, "--lock-file", &lock]).run().exits(1).says("occurs twice");
    assert_eq!(fs::read_to_string(&lock).unwrap(), text);
}

#[test]
fn a_sandbox_is_a_level_and_its_exceptions() {
    if !has_strict_sandbox() {
        return;
    }
    let place = Place::new();
    place.file("data", b"some data");
    let reader = place.standard(
        "reader",
        "while recv; do case $cmd in cmd.stop) exit 0 ;; GetMetadata) send 3 x '{}' ;; *) send 3 \
         x \"$(cat \"$data\" 2>&1)\" ;; esac; done",
    );
    let data = place.path().join("data").display().to_string();
    let run = |options: &[&str]| {
        place
            .pipeplug(
                [&["run", reader.to_str().unwrap()], options, &["--call", "read", &data]].concat(),
            )
            .run()
    };
    run(&[]).exits(0).prints("some data");
    run(&["--sandbox", "basic"]).exits(0).prints("some data");
    let kept = run(&["--sandbox", "strict", "-v"])
        .exits(0)
        .says("its sandbox is strict; this system has Landlock ABI");
    assert!(kept.text().contains("No such file"), "{}", kept.text());
    run(&["--sandbox", "strict", "--sandbox-read", &data]).exits(0).prints("some data");
    let told = run(&["--sandbox", "strict", "--sandbox-read", "/no/such"])
        .exits(4)
        .says("\"/no/such\" cannot be granted: No such file");
    // Another sandbox would be no help.
    assert!(!told.stderr.contains("best-effort"), "{}", told.stderr);
    for (options, says) in [
        (
            &["--sandbox-read", &data, "--sandbox-write", &data][..],
            [format!("read: {data:?}\n"), format!("write: {data:?}\n")],
        ),
        (
            &[],
            [
                "network: none\n".into(),
                "limits: 4294967296 bytes of address space, 256 open files".into(),
            ],
        ),
    ] {
        let options = [&["--sandbox", "strict", "-v"], options].concat();
        run(&options)
            .exits(0)
            .says(&format!("pipeplug:   {}", says[0]))
            .says(&format!("pipeplug:   {}", says[1]));
    }
    run(&["--sandbox-read", &data]).exits(2).says("--sandbox basic or --sandbox strict");
    run(&["--sandbox", "none"]).exits(0).prints("some data");
    run(&["--sandbox", "none", "--sandbox-write", &data])
        .exits(2)
        .says("--sandbox-write needs a sandbox");
    run(&["--sandbox", "weak"]).exits(2).says("strict");
    let sandboxed = ["run", "--sandbox", "basic", "--via", "nice", "@echo", "--call", "echo", "x"];
    pipeplug(sandboxed).run().exits(4).says(
        "via `nice`: its sandbox is made only for a plugin that this host starts as a \
               process of its own",
    );
}

#[test]
fn one_plugin_is_pinned_once_however_it_is_written() {
    let place = Place::new();
    place.standard("x", MIRROR);
    std::fs::create_dir(place.path().join("below")).unwrap();
    let mut run = place.pipeplug(["pin", "x", "./x", "below/../x", "--lock-file", "lock"]);
    run.command.current_dir(place.path());
    assert_eq!(run.run().exits(0).text().lines().count(), 1);
}

#[test]
fn a_limit_that_is_too_small_is_named() {
    if !has_strict_sandbox() {
        return;
    }
    for (option, value, named) in [
        (
            "--sandbox-memory",
            "1K",
            "its sandbox allows it 1024 bytes of address space, which is probably too little: \
             allow more",
        ),
        ("--sandbox-open-files", "3", "its sandbox allows it 3 open files"),
    ] {
        for level in ["basic", "strict"] {
            let ran = pipeplug([
                "run",
                "@echo",
                "--sandbox",
                level,
                option,
                value,
                "--call",
                "echo",
                "x",
            ])
            .run()
            .exits(4);
            let ran = ran.says(named).says(&format!("(`{option}`"));
            assert!(
                !ran.stderr.contains("is it a plugin") && !ran.stderr.contains("--sandbox none"),
                "{}",
                ran.stderr
            );
        }
    }
}

#[test]
fn an_address_where_a_port_is_expected_names_the_port() {
    for option in ["--sandbox-connect", "--sandbox-bind"] {
        pipeplug(["run", "@echo", "--sandbox", "strict", option, "localhost:80"])
            .run()
            .exits(2)
            .says("the kernel limits TCP by port and not by address: write the port alone, 80");
    }
}
