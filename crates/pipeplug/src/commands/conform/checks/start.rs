//! Start and metadata.

use pipeplug_wire::{Direction, command};

use crate::commands::conform::catalog::{Check, Scope};
use crate::commands::conform::guest::{FEATURES, Setup, Way, parse_number};
use crate::commands::conform::outcome::{Checked, came, not_applicable};
use crate::commands::conform::peer::shown;

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "start/metadata",
        section: "Start",
        sends: "GetMetadata that names every feature",
        expects: "a JSON object whose values are strings, or cmd.error",
        scope: Scope::Every,
        run: metadata,
    },
    Check {
        name: "start/protocol-keys",
        section: "Negotiation",
        sends: "GetMetadata that names every feature",
        expects: "the keys `pipeplug.…` of the answer have values of their grammar",
        scope: Scope::Every,
        run: protocol_keys,
    },
    Check {
        name: "start/empty-buffer",
        section: "Start",
        sends: "GetMetadata with an empty buffer, as older hosts do, then a ping",
        expects: "metadata, and an answer to the ping",
        scope: Scope::Every,
        run: empty_buffer,
    },
    Check {
        name: "start/unknown-keys",
        section: "Negotiation",
        sends: "GetMetadata with unknown keys and features, and windows that are no numbers",
        expects: "metadata, and an answer to the ping that follows",
        scope: Scope::Every,
        run: unknown_keys,
    },
    Check {
        name: "start/base-only",
        section: "Negotiation",
        sends: "GetMetadata that names no feature, then calls, a failing one among them",
        expects: "only chunks of the base protocol: no other cmd.* and no cmd.failure",
        scope: Scope::Every,
        run: base_only,
    },
    Check {
        name: "start/silent-before-metadata",
        section: "Start",
        sends: "nothing",
        expects: "nothing: the first chunk shows the format to the plugin",
        scope: Scope::Every,
        run: silent,
    },
    Check {
        name: "start/at-once",
        section: "Start",
        sends: "GetMetadata, a ping and an unknown request in one write",
        expects: "a response to each",
        scope: Scope::Every,
        run: at_once,
    },
    Check {
        name: "start/descriptors",
        section: "Descriptors",
        sends: "GetMetadata and a ping over the descriptors 3 and 4, named in the arguments",
        expects: "answers",
        scope: Scope::Every,
        run: descriptors,
    },
    Check {
        name: "start/other-descriptors",
        section: "Descriptors",
        sends: "GetMetadata and a ping over the descriptors 8 and 9, named in the arguments",
        expects: "answers",
        scope: Scope::Every,
        run: other_descriptors,
    },
    Check {
        name: "start/two-digit-descriptors",
        section: "Descriptors",
        sends: "GetMetadata and a ping over the descriptors 12 and 21, named in the arguments",
        expects: "answers",
        scope: Scope::Every,
        run: two_digit_descriptors,
    },
    Check {
        name: "start/stdio",
        section: "Descriptors",
        sends: "GetMetadata, a ping, the user's call and cmd.stop over stdin and stdout, without \
                arguments that name them",
        expects: "answers, and nothing but chunks on stdout",
        scope: Scope::Every,
        run: stdio,
    },
];

fn metadata(setup: &Setup) -> Checked {
    let guest = setup.begin_with(FEATURES, &[])?;
    match guest.metadata.iter().find(|(_, value)| !value.is_string()) {
        None => Ok(()),
        Some((key, value)) => Err(came(format!("the value of {key:?} is {value}"))),
    }
}

fn protocol_keys(setup: &Setup) -> Checked {
    let guest = setup.begin_with(FEATURES, &[])?;
    for (key, value) in &guest.metadata {
        let value = value.as_str().unwrap_or_default();
        let mut words = value.split(' ').filter(|word| !word.is_empty());
        let is_right = match key.as_str() {
            "pipeplug.protocol" => value == "1",
            "pipeplug.window" | "pipeplug.stream_window" => parse_number(value).is_some(),
            "pipeplug.interface_versions" => {
                words.all(|word| parse_number(word).is_some_and(|n| u32::try_from(n).is_ok()))
            }
            "pipeplug.services" => words.all(is_service),
            "pipeplug.features" => value.chars().all(|c| c.is_ascii_graphic() || c == ' '),
            "pipeplug.config" | "pipeplug.log_level" => {
                return Err(came(format!("the key {key:?}, which only hosts send")));
            }
            _ => true,
        };
        if !is_right {
            return Err(came(format!("{key:?} has the value {value:?}")));
        }
    }
    if guest.names("stream") && !(guest.names("context") && guest.names("cancel")) {
        return Err(came("it names `stream` without `context` and `cancel` (section Streams)"));
    }
    Ok(())
}

/// True for `name/version` and `name/oldest-version`.
pub(super) fn is_service(word: &str) -> bool {
    let Some((name, versions)) = word.split_once('/') else { return false };
    let is_name = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let version = |text: &str| parse_number(text).and_then(|number| u32::try_from(number).ok());
    let is_range = match versions.split_once('-') {
        Some((oldest, newest)) => version(oldest).zip(version(newest)).is_some_and(|(a, b)| a <= b),
        None => version(versions).is_some(),
    };
    is_name && is_range
}

fn empty_buffer(setup: &Setup) -> Checked {
    if setup.config.is_some() || !setup.metadata.is_empty() {
        return Err(not_applicable("the plugin is given metadata that older hosts do not send"));
    }
    let mut guest = setup.start()?;
    guest.hello_raw(b"")?;
    guest.ping()
}

fn unknown_keys(setup: &Setup) -> Checked {
    let keys = [
        ("pipeplug.unheard-of", "x"),
        ("Unheard", "of"),
        ("pipeplug.window", "-1"),
        ("pipeplug.stream_window", "007"),
    ];
    let mut guest = setup.begin_with("unheard-of", &keys)?;
    guest.ping()
}

fn base_only(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    let call = setup.call.clone();
    for (cmd, data) in [(call.cmd.as_str(), &call.data[..]), ("conform-unheard-of", b"")] {
        let response = guest.call(cmd, data)?;
        if response.command == command::FAILURE {
            return Err(came(shown(&response)));
        }
    }
    guest.rest()?;
    let is_foreign =
        |cmd: &str| command::is_reserved(cmd) && ![command::ERROR, command::PING].contains(&cmd);
    match guest.seen.iter().find(|chunk| is_foreign(&chunk.command)) {
        None => Ok(()),
        Some(chunk) => Err(came(shown(chunk))),
    }
}

fn silent(setup: &Setup) -> Checked {
    let mut guest = setup.start()?;
    // A plugin that has started by then would have written.
    guest.settle()?;
    guest.settle()?;
    if let Some(chunk) = guest.seen.front() {
        return Err(came(shown(chunk)));
    }
    guest.hello("", &[])?;
    let is_before = |chunk: &pipeplug_wire::Chunk| chunk.direction == Direction::Response;
    match guest.seen.iter().find(|chunk| is_before(chunk)) {
        None => Ok(()),
        Some(chunk) => Err(came(shown(chunk))),
    }
}

fn descriptors(setup: &Setup) -> Checked {
    greets(setup, Way::Pipes)
}

fn other_descriptors(setup: &Setup) -> Checked {
    greets(setup, Way::Numbers(8, 9))
}

fn two_digit_descriptors(setup: &Setup) -> Checked {
    greets(setup, Way::Numbers(12, 21))
}

fn at_once(setup: &Setup) -> Checked {
    let mut guest = setup.start()?;
    let offer = setup.offer("", &[]);
    let chunks = [
        guest.chunk(1, Direction::Request, command::GET_METADATA, &offer),
        guest.chunk(2, Direction::Request, command::PING, b""),
        guest.chunk(3, Direction::Request, "conform-unheard-of", b"data"),
    ];
    guest.send_raw(&chunks.concat())?;
    (1..=3).try_for_each(|id| guest.response(id).map(drop))
}

fn greets(setup: &Setup, way: Way) -> Checked {
    let mut guest = setup.start_by(way, setup.format)?;
    guest.hello("", &[])?;
    guest.ping()
}

fn stdio(setup: &Setup) -> Checked {
    let mut guest = setup.start_by(Way::Stdio, setup.format)?;
    guest.hello("", &[])?;
    guest.ping()?;
    // An error is an answer, too.
    guest.call(&setup.call.cmd, &setup.call.data)?;
    guest.one_way(command::STOP, b"")?;
    guest.ends()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_a_name_and_versions() {
        for right in ["a/1", "a_b2/1-3", "a/0"] {
            assert!(is_service(right), "{right}");
        }
        for wrong in ["a", "A/1", "2a/1", "a/", "a/3-1", "a/01", "a/4294967296", "/1"] {
            assert!(!is_service(wrong), "{wrong}");
        }
    }
}
