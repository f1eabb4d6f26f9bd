//! Checks of the arguments of typed services, before anything is sent.

mod excerpt;
mod named;

use std::time::Duration;

use pipeplug_host::{Plugin, discovery};
use pipeplug_service::{
    Description, INVALID_ARGUMENT, Interface, KEY_SERVICES, Method, Mistake, ServiceName,
};
use serde_json::json;

use super::LoadedCall;
use crate::args::data::Data;
use crate::exit::{Coded, CommandError, ExitReason};
use crate::output::report::Report;
use crate::output::text::{self, Escaped};
use crate::session::describe;
use crate::session::shutdown::Shutdown;
use excerpt::excerpt;
pub(crate) use named::argument_schema;

/// Treatment of arguments that do not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checking {
    /// They are an error.
    Checked,
    /// They are sent.
    Unchecked,
}

/// Checks the arguments of all calls of typed services, and makes JSON of `NAME=VALUE`.
///
/// # Errors
/// Arguments do not fit, or there is no such method. Nothing has been sent then but the question for
/// the description, which is asked for only if it is needed.
///
/// # Blocking
/// Until the plugin has described its services.
pub(super) fn prepare(
    calls: &mut [LoadedCall<'_>],
    plugin: &Plugin,
    checking: Checking,
    timeout: Option<Duration>,
    report: &Report,
    shutdown: &Shutdown,
) -> Result<(), CommandError> {
    let offered = plugin.metadata().value(KEY_SERVICES).unwrap_or_default();
    let offered: Vec<_> = ServiceName::list(offered).map(|service| service.name).collect();
    let is_typed = |call: &LoadedCall<'_>| {
        let service = typed_method(&call.arg.command).map(|(service, _)| service);
        service.is_some_and(|service| offered.iter().any(|name| name == service))
            && (checking == Checking::Checked || call.named().is_some())
    };
    let described = if calls.iter().any(is_typed) {
        describe::ask(plugin, timeout, shutdown)
    } else {
        Ok(None)
    };
    if let Some(failure) = shutdown.failure() {
        return Err(failure);
    }
    let (description, problem) = match described {
        Ok(description) => (description.unwrap_or_default(), None),
        Err(failure) => (Description::default(), failure.error),
    };
    if let Some(problem) = &problem {
        report.note(format_args!("arguments are not checked: {}", Escaped(&problem.to_string())));
    }
    for call in calls {
        prepare_described(call, plugin.name(), &description, checking)?;
    }
    Ok(())
}

/// Checks the arguments of a call as [`prepare`] does, with a description that is there.
pub(super) fn prepare_described(
    call: &mut LoadedCall<'_>,
    plugin: &str,
    description: &Description,
    checking: Checking,
) -> Result<(), CommandError> {
    let command = call.arg.command.as_str();
    let service = typed_method(command).and_then(|(service, method)| {
        let service = description.services.iter().find(|other| other.name == service)?;
        Some((service, method))
    });
    match service {
        Some((service, method)) => {
            let prepared = Typed { service, command, checking }.prepare(call, method);
            prepared.map_err(|failure| failure.of_command(command))
        }
        // Without a description only one word is the same text for every plugin.
        None if call.named().is_some_and(|words| words.len() > 1) => {
            let message = format!(
                "{}: NAME=VALUE is for the typed services that a plugin describes, and {plugin} \
                 has none of that name; put DATA of several words in quotes",
                Escaped(command),
            );
            let failure = CommandError::message(ExitReason::Usage, message);
            Err(failure.of_command(command))
        }
        None => Ok(()),
    }
}

/// Service and method of a command. `None` if it has another form, or asks for an encoding other
/// than JSON.
fn typed_method(command: &str) -> Option<(&str, &str)> {
    command.split_once('.').filter(|(_, method)| !method.contains('@'))
}

impl LoadedCall<'_> {
    fn named(&self) -> Option<&[Vec<u8>]> {
        match &self.arg.data {
            Data::Named(words) => Some(words),
            _ => None,
        }
    }
}

/// A command of a service that is described.
struct Typed<'a> {
    service: &'a Interface,
    command: &'a str,
    checking: Checking,
}

impl Typed<'_> {
    fn prepare(&self, call: &mut LoadedCall<'_>, method: &str) -> Result<(), CommandError> {
        let Some(method) = self.service.method(method) else {
            return match self.checking {
                Checking::Unchecked if call.named().is_none() => Ok(()),
                _ => Err(self.unknown(method)),
            };
        };
        if let Some(words) = call.named() {
            let json = named::to_json(self.service, method, words, self.checking);
            call.data = json.map_err(|wrong| {
                let named::Wrong { mistake, line, at } = wrong;
                let failure = self.failure(&mistake.path, &mistake, String::new(), None);
                self.show(failure, method, Some((&line, at)))
            })?;
            return Ok(());
        }
        if self.checking == Checking::Unchecked {
            return Ok(());
        }
        let data = call.data.as_slice();
        self.service.check(method, data).map_err(|mistake| {
            let (line, column) = mistake.position(data);
            let place = format!(", at line {line}, column {column}");
            let hint = if !data.is_empty() && mistake.path.is_empty() && !data.starts_with(b"{") {
                "; arguments are a JSON object, or NAME=VALUE"
            } else {
                ""
            };
            let place = if data.is_empty() { String::new() } else { place + hint };
            let failure = self.failure(&mistake.path, &mistake, place, Some((line, column)));
            let text = String::from_utf8_lossy(data);
            // A text that is not UTF-8 has other positions.
            let is_text = !data.is_empty() && text.len() == data.len();
            self.show(failure, method, is_text.then_some((text.as_ref(), mistake.at)))
        })
    }

    fn failure(
        &self,
        field: &str,
        mistake: &Mistake,
        place: String,
        position: Option<(usize, usize)>,
    ) -> CommandError {
        let message = format!("{}: {mistake}{place}", Escaped(self.command));
        let mut data = json!({ "field": field });
        if let Some((line, column)) = position {
            data["line"] = line.into();
            data["column"] = column.into();
        }
        let coded = Coded { code: INVALID_ARGUMENT.into(), data: Some(data), is_plugins: false };
        CommandError {
            coded: Some(Box::new(coded)),
            ..CommandError::message(ExitReason::Usage, message)
        }
    }

    /// Adds the text around the mistake and the method's signature.
    fn show(
        &self,
        failure: CommandError,
        method: &Method,
        place: Option<(&str, std::ops::Range<usize>)>,
    ) -> CommandError {
        let columns = text::columns(std::io::stderr()).unwrap_or(80).saturating_sub(2).max(40);
        let mut lines = place.map(|(text, at)| excerpt(text, at, columns)).unwrap_or_default();
        let signature = Escaped(&self.service.signature(method)).to_string();
        let signature = text::wrap(&signature, columns.saturating_sub(4));
        let more = |(index, line): (usize, String)| match index {
            0 => line,
            _ => format!("    {line}"),
        };
        lines.extend(signature.into_iter().enumerate().map(more));
        CommandError { notes: lines, ..failure }
    }

    fn unknown(&self, method: &str) -> CommandError {
        let names = || self.service.methods.iter().map(|method| method.name.as_str());
        let hint = match discovery::nearest_name(method, names()) {
            Some(meant) => format!("did you mean \"{}\"?", Escaped(meant)),
            None => format!("it has {}", Escaped(&names().collect::<Vec<_>>().join(", "))),
        };
        let (command, service) = (Escaped(self.command), Escaped(&self.service.name));
        let message = format!(
            "{command}: there is no method \"{}\" in the service \"{service}\"; {hint}",
            Escaped(method)
        );
        CommandError::message(ExitReason::Usage, message)
    }
}
