use super::*;

/// Lines of the findings in a file with that text.
fn lines(path: &str, text: &str) -> Vec<usize> {
    let file = TextFile { path: path.into(), text: text.to_owned() };
    findings_in(&file).into_iter().map(|(_, line, _)| line).collect()
}

fn markdown(path: &str, text: &str, check: impl Fn(&TextFile) -> Vec<Finding>) -> Vec<usize> {
    let file = TextFile { path: path.into(), text: text.to_owned() };
    check(&file).into_iter().map(|(_, line, _)| line).collect()
}

#[test]
fn only_modules_called_sys_lift_the_ban_on_unsafe() {
    let expects = "#[expect(unsafe_code, reason = \"x\")]";
    assert_eq!(lines("crates/a/src/lib.rs", &format!("mod a;\n{expects}\nmod b;")), [2]);
    assert_eq!(lines("crates/a/src/lib.rs", &format!("#!{}", &expects[1..])), [1]);
    assert_eq!(lines("crates/a/src/b.rs", "#[expect(\n    unsafe_code,\n)]\nfn a() {}"), [2]);
    for text in [&format!("{expects}\npub mod sys;"), "#![forbid(unsafe_code)]", "// unsafe_code"] {
        assert!(lines("crates/a/src/lib.rs", text).is_empty(), "{text}");
    }
}

#[test]
fn long_files_are_found_without_their_tests() {
    let code = |lines: usize| "a;\n".repeat(lines);
    let path = "crates/a/src/b.rs";
    assert_eq!(lines(path, &code(MAX_LINES + 1)), [0]);
    assert!(lines(path, &code(MAX_LINES)).is_empty());
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", code(MAX_LINES));
    assert!(lines(path, &tests).is_empty());
}

#[test]
fn what_is_unfinished_or_ignored_is_found() {
    for mark in UNFINISHED {
        assert_eq!(lines("a.rs", &format!("x\n// {mark}: later")), [2]);
        assert_eq!(lines(".ci/run", &format!("# {mark}")), [1]);
        assert!(lines("a.rs", &format!("mktemp {mark}Y")).is_empty());
        assert!(lines("a.md", mark).is_empty());
    }
    assert_eq!(lines("a.rs", "#[test]\n    #[ignore = \"slow\"]"), [2]);
}

#[test]
fn a_path_of_one_machine_is_found_and_parts_of_other_paths_pass() {
    for root in ROOTS {
        for line in ["see {}/x", "\"{}\"", "a={}/b", "`{}`."] {
            assert_eq!(lines("a", &format!("x\n{}", line.replace("{}", root))), [2], "{line}");
        }
        for line in [".github{}flows/ci.yml", "a{}/b", "https://example.org{}", "{}space", "{}-x"] {
            assert!(lines("a.md", &line.replace("{}", root)).is_empty(), "{line}");
        }
    }
}

#[test]
fn registries_and_mirrors_are_found() {
    for host in REGISTRIES {
        assert_eq!(lines("a.md", &format!("x\nhttps://{host}/y")), [2]);
    }
    assert!(lines("Cargo.lock", &format!("source = \"registry+{INDEX}\"\n")).is_empty());
    assert_eq!(lines("a/Cargo.lock", "x\nsource = \"sparse+https://mirror.example/\"\n"), [2]);
}

#[test]
fn manifests_take_the_lints_of_the_workspace() {
    let good = "[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n";
    assert!(lines("crates/a/Cargo.toml", good).is_empty());
    assert_eq!(lines("xtask/Cargo.toml", &good.replace("[lints]", "[lints.rust]")), [0]);
    assert!(lines("crates/a/fuzz/Cargo.toml", "").is_empty());
}

#[test]
fn links_and_paths_that_lead_nowhere_are_found() {
    let exists = |path: &Path| {
        ["docs/there.md", "docs/../README.md", "crates/a"].iter().any(|it| path == Path::new(it))
    };
    let links = |text: &str| markdown("docs/a.md", text, |file| docs::dead(file, exists));
    for text in [
        "[a](gone.md)",
        "[b](there.md) [b](gone.md#c)",
        "[a]: gone.md",
        "![a](gone.svg \"b\")",
        "[a](/docs/there.md)",
    ] {
        assert_eq!(links(&format!("x\n{text}")), [2], "{text}");
    }
    for text in [
        "[a](there.md#b) [c](../README.md)",
        "[a](https://example.org/gone.md) [b](#heading) [c](mailto:a@example.org)",
        "[a]: there.md \"title\"",
        "`[a](gone.md)`",
        "```text\n[a](gone.md)\n```",
    ] {
        assert!(links(text).is_empty(), "{text}");
    }
    let paths = |text: &str| markdown("README.md", text, |file| docs::dead(file, exists));
    assert_eq!(paths("x\nsee `crates/b/src/lib.rs`"), [2]);
    assert!(
        paths("`crates/a` `crates/*` `samples/<name>/` `run crates/b` `other/b` crates/b")
            .is_empty()
    );
}

#[test]
fn only_what_is_built_is_left_out() {
    for (dir, generated) in [
        ("x/target", true),
        ("wire/fuzz/corpus", true),
        ("docs/coverage", false),
        (".github", false),
        ("sdk/node/node_modules", true),
        ("sdk/node/dist", true),
        ("dist", false),
    ] {
        assert_eq!(is_generated(Path::new(dir)), generated, "{dir}");
    }
}
