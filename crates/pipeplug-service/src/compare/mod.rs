//! Comparison of interfaces: what an update breaks, and for whom.

mod schema;

use std::fmt;

use pipeplug_net::Escaped;
use serde::Serialize;
use serde_json::{Value, json};

use crate::interface::{Interface, Method};
use crate::schema::Schema;
use schema::Difference;

/// A difference between two versions of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Change {
    /// Method that it is about. `None` for the service as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Description of the difference.
    pub what: String,
    /// Its effects.
    pub effect: Effect,
}

/// Effect of a [`Change`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// None: callers and services of both versions work together.
    Compatible,
    /// Callers of the new version do not work with services of the old one.
    BreaksServices,
    /// Callers of the old version do not work with services of the new one.
    BreaksCallers,
    /// Neither works with the other.
    BreaksBoth,
}

impl Effect {
    fn new(breaks_callers: bool, breaks_services: bool) -> Self {
        match (breaks_callers, breaks_services) {
            (false, false) => Self::Compatible,
            (false, true) => Self::BreaksServices,
            (true, false) => Self::BreaksCallers,
            (true, true) => Self::BreaksBoth,
        }
    }
}

impl Change {
    /// The change of a whole service that has come or gone. `None` if both versions have it, or
    /// none.
    #[must_use]
    pub fn whole(is_in_old: bool, is_in_new: bool) -> Option<Self> {
        let (what, effect) = match (is_in_old, is_in_new) {
            (true, false) => ("the service is gone", Effect::BreaksCallers),
            (false, true) => ("the service is new", Effect::BreaksServices),
            _ => return None,
        };
        Some(Self { method: None, what: what.into(), effect })
    }

    /// Returns true if callers and services of both versions work together.
    #[must_use]
    pub fn is_compatible(&self) -> bool {
        self.effect == Effect::Compatible
    }

    /// Returns true if callers of the old version do not work with services of the new one.
    #[must_use]
    pub fn breaks_callers(&self) -> bool {
        matches!(self.effect, Effect::BreaksCallers | Effect::BreaksBoth)
    }

    /// Returns true if callers of the new version do not work with services of the old one.
    #[must_use]
    pub fn breaks_services(&self) -> bool {
        matches!(self.effect, Effect::BreaksServices | Effect::BreaksBoth)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.method {
            Some(method) => write!(f, "{}: {}", Escaped(method), Escaped(&self.what)),
            None => write!(f, "{}", Escaped(&self.what)),
        }
    }
}

/// Compares two versions of a service's interface. Docs do not count.
#[must_use]
pub fn compare(old: &Interface, new: &Interface) -> Vec<Change> {
    let mut changes = Vec::new();
    if old.version != new.version {
        let serves_old = (new.oldest..=new.version).contains(&old.version);
        let serves_new = (old.oldest..=old.version).contains(&new.version);
        changes.push(Change {
            method: None,
            what: format!("version {} becomes {}", old.version, new.version),
            effect: Effect::new(!serves_old, !serves_new),
        });
    }
    if old.codec != new.codec {
        let name = |codec: &Option<String>| codec.clone().unwrap_or_else(|| "json".into());
        changes.push(Change {
            method: None,
            what: format!("calls use {} instead of {}", name(&new.codec), name(&old.codec)),
            // Peers of different interfaces use JSON.
            effect: Effect::Compatible,
        });
    }
    for method in &old.methods {
        match new.method(&method.name) {
            Some(newer) => {
                Comparison { old, new, name: &method.name, changes: &mut changes }
                    .methods(method, newer);
            }
            None => changes.push(Change {
                method: Some(method.name.clone()),
                what: "the method is gone".into(),
                effect: Effect::BreaksCallers,
            }),
        }
    }
    for method in new.methods.iter().filter(|method| old.method(&method.name).is_none()) {
        changes.push(Change {
            method: Some(method.name.clone()),
            what: "the method is new".into(),
            effect: Effect::BreaksServices,
        });
    }
    changes
}

struct Comparison<'a> {
    old: &'a Interface,
    new: &'a Interface,
    name: &'a str,
    changes: &'a mut Vec<Change>,
}

impl Comparison<'_> {
    fn change(&mut self, what: String, effect: Effect) {
        self.changes.push(Change { method: Some(self.name.into()), what, effect });
    }

    fn methods(&mut self, old: &Method, new: &Method) {
        if old.one_way != new.one_way {
            // A service takes both forms. A result that comes or goes is a difference of its own.
            let kind = |one_way| if one_way { "a one-way" } else { "a call" };
            let what = format!("{} becomes {}", kind(old.one_way), kind(new.one_way));
            self.change(what, Effect::Compatible);
        }
        if old.idempotent != new.idempotent {
            // Callers make an idempotent call again where they cannot tell if it was handled.
            let what = if new.idempotent {
                "it is idempotent now: new callers repeat it"
            } else {
                "it is not idempotent any more: callers that exist repeat it"
            };
            self.change(what.into(), Effect::new(old.idempotent, new.idempotent));
        }
        self.schemas("argument", old.arguments.as_ref(), new.arguments.as_ref(), true);
        self.items("items that it takes", old.items_in.as_ref(), new.items_in.as_ref(), true);
        self.items("items of its result", old.items_out.as_ref(), new.items_out.as_ref(), false);
        self.schemas("result", old.result.as_ref(), new.result.as_ref(), false);
        self.schemas("error", old.error.as_ref(), new.error.as_ref(), false);
    }

    /// Compares items. A stream that comes or goes changes how the method is called.
    fn items(&mut self, what: &str, old: Option<&Value>, new: Option<&Value>, is_sent: bool) {
        match (old, new) {
            (Some(_), Some(_)) => self.schemas(what, old, new, is_sent),
            (None, None) => {}
            (Some(_), None) => self.change(format!("the {what} are gone"), Effect::BreaksBoth),
            (None, Some(_)) => self.change(format!("the {what} are new"), Effect::BreaksBoth),
        }
    }

    /// Compares two schemas of values that the caller sends (`is_sent`) or gets.
    fn schemas(&mut self, what: &str, old: Option<&Value>, new: Option<&Value>, is_sent: bool) {
        let is_error = what == "error";
        // Arguments that are not there are an object without properties, a result is `null`.
        let nothing = json!({ "type": if is_sent { "object" } else { "null" } });
        let old = Schema { value: old.unwrap_or(&nothing), root: self.old };
        let new = Schema { value: new.unwrap_or(&nothing), root: self.new };
        for difference in schema::differences(old, new) {
            let Difference { path, what: difference, is_alternative, old_fits_new, new_fits_old } =
                difference;
            let effect = if is_error && is_alternative {
                // The call fails either way: with the error's message, if not with its type.
                Effect::Compatible
            } else if is_sent {
                Effect::new(!old_fits_new, !new_fits_old)
            } else {
                Effect::new(!new_fits_old, !old_fits_new)
            };
            let at = if path.is_empty() { String::new() } else { format!(" \"{path}\"") };
            self.change(format!("{what}{at} {difference}"), effect);
        }
    }
}

#[cfg(test)]
mod tests;
