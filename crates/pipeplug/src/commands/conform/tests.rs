//! Tests of the list of checks.

use std::collections::BTreeSet;
use std::path::Path;

use super::report::Subject;
use super::*;

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    std::fs::read_to_string(path).unwrap()
}

fn rows(page: &str, heading: &str) -> Vec<String> {
    let section = page.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    section.lines().filter(|line| line.starts_with("| `")).map(str::to_owned).collect()
}

#[test]
fn the_page_lists_every_check_and_no_other() {
    let page = page("conformance.md");
    let of_plugins: Vec<_> =
        catalog::all().map(|check| Subject::of_plugin(check).row_of_docs()).collect();
    let of_hosts: Vec<_> = host::all().map(|check| Subject::of_host(check).row_of_docs()).collect();
    assert_eq!(rows(&page, "Checks of a plugin"), of_plugins, "docs/conformance.md");
    assert_eq!(rows(&page, "Checks of a host"), of_hosts, "docs/conformance.md");
}

#[test]
fn every_section_is_one_of_the_protocol() {
    let page = page("protocol.md");
    let headings: BTreeSet<_> = page
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim())
        .collect();
    let all = catalog::all().map(Subject::of_plugin).chain(host::all().map(Subject::of_host));
    for subject in all {
        assert!(headings.contains(subject.section()), "{}: {}", subject.name, subject.section());
    }
}

#[test]
fn names_are_unique_and_have_a_group() {
    for names in [
        catalog::all().map(|check| check.name).collect::<Vec<_>>(),
        host::all().map(|check| check.name).collect(),
    ] {
        let unique: BTreeSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
        assert!(names.iter().all(|name| name.matches('/').count() == 1));
    }
}

#[test]
fn the_list_marks_the_checks_that_basic_leaves_out() {
    let page = page("conformance.md");
    let line = page.lines().find(|line| line.starts_with("`--basic` leaves out ")).unwrap();
    let left_out: Vec<_> = catalog::all()
        .filter(|check| check.scope == Scope::Full)
        .map(|check| format!("`{}`", check.name))
        .collect();
    assert_eq!(line, format!("`--basic` leaves out {}.", left_out.join(", ")));
}

#[test]
fn a_wrong_name_has_the_nearest_one() {
    let names = || catalog::all().map(|check| check.name);
    let select = |wanted: &str| catalog::select(names(), &[wanted.to_owned()]);
    assert_eq!(select("call/ping").unwrap(), ["call/ping"]);
    assert!(select("flow").unwrap().len() > 3);
    assert!(select("call/pign").unwrap_err().contains("\"call/ping\""));
    assert!(select("pign").unwrap_err().contains("\"call/ping\""));
    assert!(select("zzz").unwrap_err().contains("--list"));
}

#[test]
fn a_call_is_a_command_and_data() {
    let call = parse_call("grep=a=b").unwrap();
    assert_eq!((call.cmd.as_str(), &call.data[..]), ("grep", &b"a=b"[..]));
    assert_eq!(parse_call("count").unwrap().data, b"");
    assert!(parse_call("cmd.ping").is_err());
}
