//! `pipeplug new`: each project builds, passes its test, and passes `pipeplug conform`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::{Place, has_tool};

/// Directory of this repository.
fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// `PATH` in which the program is found by its name.
pub(crate) fn path_with_program() -> OsString {
    let own = Path::new(env!("CARGO_BIN_EXE_pipeplug")).parent().unwrap().to_owned();
    let others = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(own).chain(std::env::split_paths(&others))).unwrap()
}

/// Makes a project.
pub(crate) fn project(place: &Place, name: &str, args: &[&str]) -> PathBuf {
    let ran = place.pipeplug([&["new", name], args].concat()).in_place().run().exits(0);
    let told = ran.text();
    assert!(told.contains("\nnext:\n") && told.contains(&format!("  cd {name}\n")), "{told}");
    place.path().join(name)
}

/// Runs a command in the directory, which has to succeed.
#[track_caller]
fn succeed(dir: &Path, command: &[&str]) {
    let mut run = Command::new(command[0]);
    run.args(&command[1..]).current_dir(dir).env("PATH", path_with_program()).stdin(Stdio::null());
    // Of its own, so that the library's locks do not wait for this build.
    run.env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("new"));
    let ran = run.output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", ran.status);
}

/// Checks the plugin. None of the checks may fail, and a plugin of the base protocol passes most.
#[track_caller]
fn conforms(place: &Place, plugin: &Path, args: &[&str]) {
    let plugin = plugin.to_str().unwrap();
    let mut run = place.pipeplug([&["conform", plugin, "--timeout", "120s"], args].concat());
    run.command.env("PATH", path_with_program());
    let ran = run.run();
    let failed: Vec<_> = ran.text().lines().filter(|line| line.starts_with("FAIL")).collect();
    assert_eq!((ran.code, failed), (Some(0), vec![]), "{}\n{}", ran.text(), ran.stderr);
    let passed = ran.text().lines().filter(|line| line.starts_with("pass ")).count();
    assert!(passed >= 50, "{}", ran.text());
}

#[test]
fn a_project_in_rust() {
    let place = Place::new();
    let root = checkout();
    let dir = project(&place, "my-hello", &["--path", root.to_str().unwrap()]);
    // The versions that are here already.
    fs::copy(root.join("Cargo.lock"), dir.join("Cargo.lock")).unwrap();
    succeed(&dir, &["cargo", "test", "--quiet", "--offline"]);
    succeed(&dir, &["cargo", "build", "--quiet", "--offline"]);
    succeed(&dir, &["cargo", "fmt", "--check"]);
    let plugin = Path::new(env!("CARGO_TARGET_TMPDIR")).join("new/debug/my-hello");
    conforms(&place, &plugin, &["--call", "greeter.hello={\"name\":\"x\"}"]);
    let plugin = plugin.to_str().unwrap().to_owned();
    place
        .pipeplug(["run", &plugin, "--call", "greeter.hello", "name=world"])
        .run()
        .exits(0)
        .prints("\"hello, world\"");
}

#[test]
fn the_crates_have_the_version_of_the_program_without_a_checkout() {
    let place = Place::new();
    let ran = place.pipeplug(["new", "hello"]).in_place().run().exits(0);
    assert!(ran.text().contains("not published yet"), "{}", ran.text());
    assert!(
        ran.text().contains("  rm -r hello && pipeplug new hello --path DIR"),
        "{}",
        ran.text()
    );
    let manifest = fs::read_to_string(place.path().join("hello/Cargo.toml")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    for line in [
        format!("pipeplug-guest = {{ version = \"{version}\", features = [\"service\"] }}"),
        format!("pipeplug-service = {{ version = \"{version}\" }}"),
        format!("pipeplug-testkit = {{ version = \"{version}\" }}"),
    ] {
        assert!(manifest.contains(&line), "{line}: {manifest}");
    }
}

#[test]
fn a_project_in_python() {
    if !has_tool("python3", "python3") {
        return;
    }
    let place = Place::new();
    let dir = project(&place, "my-hello", &["--lang", "python"]);
    succeed(&dir, &["python3", "-m", "unittest"]);
    conforms(&place, &dir.join("my_hello.py"), &["--call", "hello=x"]);
    // Mistakes that are easily made have an answer.
    let path = dir.join("my_hello.py");
    let source = fs::read_to_string(&path).unwrap();
    let is = "import sys\n\n@plugin.command(\"is\")\ndef is_(request):\n    return eval(request.text)\n\n";
    let source = source.replacen("if __name__", &format!("{is}\nif __name__"), 1);
    fs::write(&path, source).unwrap();
    let call = |data: &str| {
        place
            .pipeplug(["run", path.to_str().unwrap(), "--timeout", "20s", "--call", "is", data])
            .run()
    };
    call("'text'").exits(0).prints("text");
    call("None").exits(0).prints("");
    call("42").exits(1).says("returned int: it returns bytes, str or None");
    call("nothing").exits(1).says("name 'nothing' is not defined");
    call("sys.exit(3)").exits(5).says("has ended: exit status 3");
}

#[test]
fn a_project_in_javascript() {
    if !has_tool("node", "nodejs") {
        return;
    }
    let place = Place::new();
    let dir = project(&place, "my-hello", &["--lang", "node"]);
    succeed(&dir, &["node", "--test"]);
    let plugin = dir.join("my-hello.js");
    conforms(&place, &plugin, &["--call", "hello=x"]);
    // The library is whole: mistakes have an answer, and a lost host an exit status.
    let source = fs::read_to_string(&plugin).unwrap();
    let is = "is: (request) => eval(request.text()),\n    hello: ";
    fs::write(&plugin, source.replacen("hello: ", is, 1)).unwrap();
    let call =
        |data: &str| place.pipeplug(["run", plugin.to_str().unwrap(), "--call", "is", data]).run();
    call("'text'").exits(0).prints("text");
    call("42").exits(1).says("has returned 42, not text or bytes");
    call("nothing").exits(1).says("nothing is not defined");
    call("process.exit(3)").exits(5).says("has ended: exit status 3");
}

#[test]
fn a_project_in_typescript() {
    // The compiler is that of sdk/node, whose check builds such a project, too.
    let modules = checkout().join("sdk/node/node_modules");
    let place = Place::new();
    let dir = project(&place, "my-hello", &["--lang", "typescript"]);
    for name in ["pipeplug.js", "pipeplug.d.ts", "tsconfig.json", ".gitignore"] {
        assert!(dir.join(name).is_file(), "{name}");
    }
    let package = fs::read_to_string(dir.join("package.json")).unwrap();
    assert!(package.contains("\"build\": \"tsc && chmod +x my-hello.js\""), "{package}");
    if !has_tool("npm", "npm") || !modules.is_dir() {
        return;
    }
    std::os::unix::fs::symlink(modules, dir.join("node_modules")).unwrap();
    succeed(&dir, &["npm", "test"]);
    conforms(&place, &dir.join("my-hello.js"), &["--call", "hello=x"]);
}

#[test]
fn a_project_in_go() {
    if !has_tool("go", "golang-go") || !has_tool("gofmt", "golang-go") {
        return;
    }
    let place = Place::new();
    let dir = project(&place, "my-hello", &["--lang", "go"]);
    succeed(&dir, &["sh", "-c", "test -z \"$(gofmt -l .)\""]);
    succeed(&dir, &["go", "vet"]);
    succeed(&dir, &["go", "test"]);
    succeed(&dir, &["go", "build"]);
    conforms(&place, &dir.join("my-hello"), &["--call", "hello=x"]);
}

#[test]
fn a_project_in_c() {
    if !has_tool("cc", "gcc") || !has_tool("make", "make") {
        return;
    }
    let place = Place::new();
    let dir = project(&place, "my-hello", &["--lang", "c"]);
    succeed(&dir, &["make", "CFLAGS=-O1 -Wall -Wextra -Werror", "check"]);
    conforms(&place, &dir.join("my-hello"), &["--call", "hello=x"]);
}

#[test]
fn a_project_in_sh() {
    let place = Place::new();
    let dir = project(&place, "my-hello", &["--lang", "sh"]);
    succeed(&dir, &["./test.sh"]);
    let script = fs::read_to_string(dir.join("my-hello.sh")).unwrap();
    let script =
        script.replacen("case $ppg_command in", "case $ppg_command in\n    leave) exit 3 ;;", 1);
    let leaves = place.executable("my-hello/leaves", &script);
    let mut run = place.pipeplug(["run", leaves.to_str().unwrap(), "--call", "leave"]);
    run.command.env("PATH", path_with_program());
    run.run().exits(5).says("has ended: exit status 3");
    conforms(&place, &dir.join("my-hello.sh"), &["--basic", "--call", "hello=x"]);
    // /bin/sh is another shell elsewhere.
    for shell in ["bash", "busybox"] {
        if !has_tool(shell, shell) {
            continue;
        }
        let script = fs::read_to_string(dir.join("my-hello.sh")).unwrap();
        let interpreter = if shell == "busybox" { "busybox sh" } else { shell };
        let script = script.replacen("#!/bin/sh", &format!("#!/usr/bin/env -S {interpreter}"), 1);
        let plugin = place.executable(&format!("my-hello/with-{shell}"), &script);
        conforms(&place, &plugin, &["--basic", "--call", "hello=x"]);
    }
}

#[test]
fn nothing_is_overwritten() {
    let place = Place::new();
    let dir = project(&place, "hello", &["--lang", "sh"]);
    let plugin = dir.join("hello.sh");
    fs::write(&plugin, "mine").unwrap();
    let ran = place.pipeplug(["new", "hello", "--lang", "sh"]).in_place().run().exits(1);
    ran.says_only(
        "pipeplug: hello exists already, and is left as it is; choose another name, or remove it\n",
    );
    assert_eq!(fs::read_to_string(plugin).unwrap(), "mine");
    // Also a file, and a link to nowhere.
    place.file("file", b"");
    std::os::unix::fs::symlink("nowhere", place.path().join("link")).unwrap();
    for name in ["file", "link"] {
        place.pipeplug(["new", name]).in_place().run().exits(1).says("exists already");
    }
    assert!(!place.path().join("nowhere").exists());
}

#[test]
fn a_directory_that_cannot_be_written_is_told() {
    let place = Place::new();
    let mut run = place.pipeplug(["new", "hello"]);
    // Not even root can make anything there.
    run.command.current_dir("/proc");
    run.run().exits(1).says("pipeplug: cannot make the directory hello: ");
}

#[test]
fn mistakes_of_the_command_line_have_a_next_step() {
    let place = Place::new();
    let cases: [(&[&str], &str); 6] = [
        (&["new"], "<NAME>"),
        (&["new", "Hello"], "a name has lowercase letters, digits, `-` and `_`; hello would do"),
        (&["new", "json"], "json-plugin would do"),
        (&["new", "hello", "--lang", "pyhton"], "a similar value exists: 'python'"),
        (&["new", "hello", "--lang", "go", "--path", "."], "--path is for Rust"),
        (&["new", "hello", "--path", "."], "is no checkout of pipeplug: there is no "),
    ];
    for (args, told) in cases {
        place.pipeplug(args).in_place().run().exits(2).says(told);
    }
    let left: Vec<_> = fs::read_dir(place.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn languages_are_listed_and_known_by_other_names() {
    let place = Place::new();
    let ran = place.pipeplug(["new", "--list"]).run().exits(0);
    let words: Vec<_> =
        ran.text().lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(words, ["rust", "python", "node", "typescript", "go", "c", "sh"]);
    for (name, other) in [("a", "js"), ("b", "golang"), ("d", "shell")] {
        place.pipeplug(["new", name, "--lang", other]).in_place().run().exits(0);
    }
    assert!(place.path().join("a/a.js").exists() && place.path().join("b/go.mod").exists());
    let mode = fs::metadata(place.path().join("d/d.sh")).unwrap().permissions().mode();
    assert_eq!(mode & 0o700, 0o700);
    let mode = fs::metadata(place.path().join("d/README.md")).unwrap().permissions().mode();
    assert_eq!(mode & 0o111, 0);
}
