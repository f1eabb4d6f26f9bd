//! Commands of the plugin, as far as they are known.

use std::collections::BTreeSet;

use pipeplug_service::{Description, Interface, Method};

use crate::commands::run::argument_schema;
use serde_json::Value;

/// What the plugin has said of its commands.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) description: Description,
    /// Commands that are no methods of a service: those that it named, and those that it answered.
    others: BTreeSet<String>,
    /// Numbers of calls in the background.
    pub(super) jobs: Vec<u32>,
    /// Commands of the plugin's requests that have an answer.
    pub(super) answers: Vec<String>,
}

impl Known {
    /// Forgets everything of the plugin that ran before.
    pub(super) fn describe(&mut self, description: Description) {
        self.description = description;
        self.others.clear();
    }

    pub(super) fn learn(&mut self, command: &str) {
        // A plugin decides how long this list gets.
        const MOST: usize = 1000;
        if self.method(command).is_none() && self.others.len() < MOST {
            self.others.insert(command.to_owned());
        }
    }

    /// Finds the method of a command: its whole name, or its own name if only one service has it.
    pub(super) fn method(&self, command: &str) -> Option<(&Interface, &Method)> {
        let all = || self.methods();
        if let Some(found) = all().find(|(_, method)| method.command == command) {
            return Some(found);
        }
        let mut named = all().filter(|(_, method)| method.name == command);
        named.next().filter(|_| named.next().is_none())
    }

    pub(super) fn methods(&self) -> impl Iterator<Item = (&Interface, &Method)> {
        let services = self.description.services.iter();
        services.flat_map(|service| service.methods.iter().map(move |method| (service, method)))
    }

    /// Commands that are no methods of a service.
    pub(super) fn others(&self) -> impl Iterator<Item = &str> {
        self.others.iter().map(String::as_str)
    }

    /// All names of commands.
    pub(super) fn names(&self) -> Vec<&str> {
        let commands = self.methods().map(|(_, method)| method.command.as_str());
        let short = self.methods().map(|(_, method)| method.name.as_str());
        let short = short.filter(|name| self.method(name).is_some());
        let mut names: Vec<_> = commands.chain(short).chain(self.others()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Values that an argument can have, if they are few.
    pub(super) fn values(&self, command: &str, argument: &str) -> Vec<String> {
        let schema = self
            .method(command)
            .and_then(|(service, method)| argument_schema(service, method, argument));
        schema.map(values).unwrap_or_default()
    }
}

fn values(schema: &Value) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        value => Some(value.to_string()),
    };
    let list = |key: &str| schema.get(key).and_then(Value::as_array).into_iter().flatten();
    if schema.get("type").and_then(Value::as_str) == Some("boolean") {
        return vec!["true".into(), "false".into()];
    }
    let constants = schema.get("const").into_iter().chain(list("enum")).filter_map(text);
    constants.chain(list("oneOf").chain(list("anyOf")).flat_map(values)).collect()
}
