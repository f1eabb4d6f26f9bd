//! Nothing of one machine and no package registry is named in the repository.

use super::{Finding, TextFile};

// Put together here, so that this file does not hold what it looks for.
const ROOTS: [&str; 3] = [concat!("/wo", "rk"), concat!("/ro", "ot"), concat!("/ho", "me")];
const REGISTRIES: [&str; 8] = [
    concat!("crates", ".io"),
    concat!("py", "pi.org"),
    concat!("python", "hosted.org"),
    concat!("npm", "js."),
    concat!("ruby", "gems.org"),
    concat!("proxy.go", "lang.org"),
    concat!("deb.deb", "ian.org"),
    concat!("repo.mav", "en"),
];

/// The only place that a lock file may name: a mirror would be one machine's.
const INDEX: &str = concat!("registry+https://github.com/rust-lang/crates", ".io-index");

pub(super) fn check(files: &[TextFile]) -> Vec<Finding> {
    files
        .iter()
        .flat_map(|file| {
            if file.path.file_name().is_some_and(|name| name == "Cargo.lock") {
                return locked_elsewhere(file);
            }
            let mut findings = machine_paths(file);
            findings.extend(registries(file));
            findings
        })
        .collect()
}

fn machine_paths(file: &TextFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        for root in ROOTS {
            if line.match_indices(root).any(|(at, _)| is_absolute(line, at, at + root.len())) {
                findings.push(file.finding(
                    index + 1,
                    format!("names a path below {root}, which is one machine's"),
                ));
            }
        }
    }
    findings
}

/// Whether the path begins there (it is not the rest of another one) and the name ends there.
fn is_absolute(line: &str, start: usize, end: usize) -> bool {
    let within_path = |c: char| c.is_alphanumeric() || "_-./}~".contains(c);
    let within_name = |c: char| c.is_alphanumeric() || "_-.".contains(c);
    !line[..start].ends_with(within_path) && !line[end..].starts_with(within_name)
}

fn registries(file: &TextFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        for host in REGISTRIES.iter().filter(|host| line.contains(**host)) {
            findings.push(file.finding(index + 1, format!("names the package registry {host}")));
        }
    }
    findings
}

fn locked_elsewhere(file: &TextFile) -> Vec<Finding> {
    let is_source = |line: &str| line.trim_start().starts_with("source = ");
    let lines = file.text.lines().enumerate();
    lines
        .filter(|(_, line)| is_source(line) && !line.contains(INDEX))
        .map(|(index, line)| file.finding(index + 1, format!("locks a package to {}", line.trim())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::{file, lines};
    use super::*;

    #[test]
    fn a_path_of_one_machine_is_found() {
        for root in ROOTS {
            for line in [
                format!("see {root}/x"),
                format!("\"{root}\""),
                format!("a={root}/b"),
                format!("`{root}`."),
            ] {
                assert_eq!(
                    lines(&machine_paths(&file("a.md", &format!("x\n{line}")))),
                    [2],
                    "{line}"
                );
            }
        }
    }

    #[test]
    fn a_part_of_another_path_or_word_passes() {
        for line in
            [".github{}flows/ci.yml", "a{}/b", "read{}", "https://example.org{}", "{}space", "{}-x"]
        {
            for root in ROOTS {
                let line = line.replace("{}", root);
                assert!(machine_paths(&file("a.md", &line)).is_empty(), "{line}");
            }
        }
    }

    #[test]
    fn a_registry_is_found() {
        for host in REGISTRIES {
            assert_eq!(lines(&registries(&file("a.md", &format!("x\nhttps://{host}/y")))), [2]);
        }
        assert!(registries(&file("a.md", "https://example.org")).is_empty());
    }

    #[test]
    fn a_lock_file_names_the_index_and_no_mirror() {
        let good = file("Cargo.lock", &format!("[[package]]\nsource = \"{INDEX}\"\n"));
        let bad = file("Cargo.lock", "[[package]]\nsource = \"sparse+https://mirror.example/\"\n");
        assert_eq!(lines(&check(&[good, bad])), [2]);
    }

    #[test]
    fn every_file_is_looked_at() {
        let script = format!("cd {}/x", ROOTS[0]);
        assert_eq!(lines(&check(&[file(".ci/run", &script)])), [1]);
    }
}
