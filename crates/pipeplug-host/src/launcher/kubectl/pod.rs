//! Pod manifest, as the API has it.

use std::ffi::OsStr;

use serde_json::{Map, Value, json};

use super::{Kubectl, PullPolicy};
use crate::launcher::client;
use crate::process::{Launch, SpawnErrorKind};

/// Overrides for `kubectl run`: the settings without an option of kubectl, and with them all of the
/// container.
pub(super) fn overrides(
    kubectl: &Kubectl,
    name: &str,
    launch: &Launch,
) -> Result<String, SpawnErrorKind> {
    let mut pod = match &kubectl.overrides {
        None => Map::new(),
        Some(text) => match serde_json::from_str(text) {
            Ok(Value::Object(pod)) => pod,
            _ => return Err(bad("the overrides of its pod", "they are not a JSON object")),
        },
    };
    pod.insert("apiVersion".into(), "v1".into());
    let spec = pod.entry("spec").or_insert_with(|| json!({}));
    let Some(spec) = spec.as_object_mut() else {
        return Err(bad("the overrides of its pod", "their `spec` is not a JSON object"));
    };
    // It is a stranger to the cluster.
    spec.entry("automountServiceAccountToken").or_insert(false.into());
    let others = match spec.remove("containers") {
        None => Vec::new(),
        Some(Value::Array(others)) => others,
        Some(_) => {
            return Err(bad("the overrides of its pod", "their `containers` are not a list"));
        }
    };
    let own = container(kubectl, name, launch)?;
    spec.insert("containers".into(), [own].into_iter().chain(others).collect());
    Ok(Value::Object(pod).to_string())
}

fn container(kubectl: &Kubectl, name: &str, launch: &Launch) -> Result<Value, SpawnErrorKind> {
    let mut container = json!({
        // kubectl attaches to the first one.
        "name": name,
        "image": kubectl.image,
        "stdin": true,
        // So that its input ends with the connection.
        "stdinOnce": true,
    });
    let mut set = |key: &str, value: Value| {
        container[key] = value;
    };
    let words = client::command_line(launch);
    let words = words.iter().map(|word| literal(word)).collect::<Result<Vec<_>, _>>()?;
    let (command, args) = words.split_at(usize::from(!launch.is_preinstalled));
    if !command.is_empty() {
        set("command", command.into());
    }
    if !args.is_empty() {
        set("args", args.into());
    }
    let variables = client::variables(launch)?;
    if !variables.is_empty() {
        let env = variables
            .into_iter()
            .map(|(name, value)| Ok(json!({ "name": text(&name)?, "value": literal(&value)? })))
            .collect::<Result<_, SpawnErrorKind>>()?;
        set("env", env);
    }
    if let Some(dir) = &launch.cwd {
        set("workingDir", text(dir.as_os_str())?.into());
    }
    let mut resources = Map::new();
    for (key, amounts) in [("requests", &kubectl.requests), ("limits", &kubectl.limits)] {
        if !amounts.is_empty() {
            resources.insert(key.into(), json!(amounts));
        }
    }
    if !resources.is_empty() {
        set("resources", resources.into());
    }
    if let Some(policy) = kubectl.pull_policy {
        let policy = match policy {
            PullPolicy::Always => "Always",
            PullPolicy::IfNotPresent => "IfNotPresent",
            PullPolicy::Never => "Never",
        };
        set("imagePullPolicy", policy.into());
    }
    Ok(container)
}

/// A text that the cluster takes as it is: `$(NAME)` would stand for a variable, and `$$` does for
/// a dollar.
fn literal(word: &OsStr) -> Result<Value, SpawnErrorKind> {
    Ok(text(word)?.replace('$', "$$").into())
}

fn text(word: &OsStr) -> Result<&str, SpawnErrorKind> {
    word.to_str()
        .ok_or_else(|| bad(&format!("{word:?}"), "it is not UTF-8, and the API takes nothing else"))
}

fn bad(what: &str, reason: &'static str) -> SpawnErrorKind {
    SpawnErrorKind::BadArgument { what: what.to_owned(), reason }
}
