//! Which package may depend on which.

use super::{Finding, Severity};
use crate::project::{Package, Project};

/// What each of the layers may use of ours.
const LAYERS: [(&str, &[&str]); 6] = [
    ("pipeplug-wire", &[]),
    ("pipeplug-net", &["pipeplug-wire"]),
    ("pipeplug-host", &["pipeplug-net", "pipeplug-wire"]),
    ("pipeplug-guest", &["pipeplug-net", "pipeplug-wire"]),
    ("pipeplug-testkit", &["pipeplug-guest", "pipeplug-net", "pipeplug-wire"]),
    (CLI, &["pipeplug-host", "pipeplug-guest"]),
];

const WIRE: &str = "pipeplug-wire";
const NET: &str = "pipeplug-net";
const CLI: &str = "pipeplug";

pub(super) fn check(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, _) in LAYERS {
        if project.package(name).is_none() {
            findings.push(Finding {
                path: "Cargo.toml".into(),
                line: 0,
                message: format!("the layer {name} is no member of the workspace"),
                severity: Severity::Error,
            });
        }
    }
    for package in &project.packages {
        findings.extend(complaints(package).into_iter().map(|message| Finding {
            path: project.relative(&package.manifest_path).to_owned(),
            line: 0,
            message,
            severity: Severity::Error,
        }));
    }
    findings
}

fn complaints(package: &Package) -> Vec<String> {
    let name = package.name.as_str();
    let allowed = LAYERS.iter().find(|(layer, _)| *layer == name).map(|(_, allowed)| *allowed);
    let mut complaints = Vec::new();
    for dependency in &package.dependencies {
        let on = dependency.name.as_str();
        // Tests may cross layers: the host's need guests to start.
        let for_users = dependency.kind.as_deref() != Some("dev");
        let ours = LAYERS.iter().any(|(layer, _)| *layer == on);
        if on == CLI {
            complaints.push(format!("{name} depends on {CLI}, on which nothing may depend"));
        } else if name == WIRE && for_users {
            complaints.push(format!("{name} depends on {on}, but may depend on nothing"));
        } else if let Some(allowed) =
            allowed.filter(|allowed| for_users && ours && !allowed.contains(&on))
        {
            complaints.push(format!(
                "{name} depends on {on}; of ours it may use only {}",
                allowed.join(", ")
            ));
        }
        if on == "mio" && name != NET {
            complaints.push(format!("{name} depends on mio, which only {NET} may"));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        let dependencies: Vec<_> =
            dependencies.iter().map(|(name, kind)| json!({ "name": name, "kind": kind })).collect();
        let json =
            json!({ "name": name, "manifest_path": "Cargo.toml", "dependencies": dependencies });
        serde_json::from_value(json).unwrap()
    }

    #[track_caller]
    fn complaint(name: &str, on: &str, kind: Option<&str>) -> String {
        let complaints = complaints(&package(name, &[(on, kind)]));
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        complaints[0].clone()
    }

    #[test]
    fn the_layers_as_they_are_drawn_pass() {
        for (name, allowed) in LAYERS {
            let dependencies: Vec<_> = allowed.iter().map(|on| (*on, None)).collect();
            assert_eq!(complaints(&package(name, &dependencies)), Vec::<String>::new());
        }
        assert!(complaints(&package("pipeplug-net", &[("mio", None), ("nix", None)])).is_empty());
        assert!(complaints(&package("sample-echo", &[("pipeplug-guest", None)])).is_empty());
    }

    #[test]
    fn wire_depends_on_nothing_but_for_its_tests() {
        assert!(complaint("pipeplug-wire", "memchr", None).contains("may depend on nothing"));
        assert!(complaint("pipeplug-wire", "cc", Some("build")).contains("may depend on nothing"));
        assert!(complaints(&package("pipeplug-wire", &[("proptest", Some("dev"))])).is_empty());
    }

    #[test]
    fn a_layer_may_not_use_one_beside_or_above_it() {
        assert!(complaint("pipeplug-net", "pipeplug-host", None).contains("only pipeplug-wire"));
        assert!(complaint("pipeplug-guest", "pipeplug-host", None).contains("only pipeplug-net"));
        assert!(complaint("pipeplug", "pipeplug-net", None).contains("only pipeplug-host"));
        assert!(
            complaints(&package("pipeplug-host", &[("pipeplug-guest", Some("dev"))])).is_empty()
        );
    }

    #[test]
    fn nothing_depends_on_the_cli() {
        assert!(complaint("sample-echo", "pipeplug", Some("dev")).contains("nothing may depend"));
    }

    #[test]
    fn only_net_names_mio() {
        assert!(complaint("pipeplug-host", "mio", None).contains("only pipeplug-net may"));
    }

    #[test]
    fn a_layer_that_is_gone_is_noticed() {
        let project = json!({ "workspace_root": "r", "target_directory": "t", "packages": [] });
        assert_eq!(check(&serde_json::from_value(project).unwrap()).len(), LAYERS.len());
    }
}
