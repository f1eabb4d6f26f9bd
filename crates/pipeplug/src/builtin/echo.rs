//! `@echo`: a plugin to try out a host.

use std::io::{BufRead as _, BufReader};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pipeplug_guest::{Failure, Guest, HandlerError, Main, Reply, Request, failure_code};
use serde_json::json;

use super::BuiltIn;

/// Commands, for a caller of one that does not exist.
pub(super) const COMMANDS: [&str; 20] = [
    "echo", "grep", "upper", "reverse", "log", "event", "print", "count", "args", "config", "env",
    "cwd", "sleep", "steps", "deadline", "fail", "crash", "exit", "ask", "tell",
];

const HELP: &str = "\
                    echo DATA (with --stream each part), grep TEXT (lines of a stream), upper \
                    DATA, reverse DATA, log DATA (to stderr), event LEVEL TEXT (to its log), \
                    print DATA (to stdout), count (calls so far), args, config, env NAME, cwd, \
                    sleep MILLISECONDS (or until the call is given up), steps COUNT (10 ms each, \
                    with progress), deadline (milliseconds left), fail MESSAGE, \
                    crash, exit STATUS, ask CMD [DATA] (calls the host), tell CMD [DATA] (one-way \
                    to the host)";

pub(super) fn run(plugin: &BuiltIn) -> ExitCode {
    let counted = AtomicU64::new(0);
    if let Err(error) = pipeplug_guest::logging() {
        eprintln!("{error}");
    }
    Guest::new()
        .name(plugin.name)
        .metadata("Description", plugin.description)
        .metadata("Help", HELP)
        .handler(move |main: &Main, request: &mut Request| answer(main, request, &counted))
        .register()
        .wait()
}

fn answer(main: &Main, request: &mut Request, counted: &AtomicU64) -> Result<Reply, HandlerError> {
    let count = counted.fetch_add(1, Ordering::Relaxed) + 1;
    match request.command() {
        "echo" if request.has_stream() => echo_parts(request),
        "grep" => grep(request),
        "echo" => Ok(request.take_buffer().into()),
        "upper" => Ok(request.text()?.to_uppercase().into()),
        "reverse" => Ok(request.text()?.chars().rev().collect::<String>().into()),
        "log" => {
            eprintln!("{}", request.text()?);
            Ok(Reply::empty())
        }
        "event" => {
            let (level, text) = command_and_data(request.text()?);
            match level {
                "error" => tracing::error!(count, "{text}"),
                "warn" => tracing::warn!(count, "{text}"),
                "info" => tracing::info!(count, "{text}"),
                "debug" => tracing::debug!(count, "{text}"),
                "trace" => tracing::trace!(count, "{text}"),
                _ => {
                    return Err(
                        "there is no such level: write event LEVEL TEXT, as event warn slow".into(),
                    );
                }
            }
            Ok(Reply::empty())
        }
        "print" => {
            println!("{}", request.text()?);
            Ok(Reply::empty())
        }
        "count" => Ok(count.to_string().into()),
        // The first two selected this plugin.
        "args" => {
            let own: Vec<_> = main.args().iter().skip(2).map(|arg| arg.to_string_lossy()).collect();
            Ok(own.join(" ").into())
        }
        "config" => match main.config::<serde_json::Value>()? {
            Some(config) => Ok(config.to_string().into()),
            None => {
                Err("the host has no configuration for it: --config FILE|JSON gives one".into())
            }
        },
        "env" => match std::env::var_os(request.text()?) {
            Some(value) => Ok(value.into_encoded_bytes().into()),
            None => {
                let name = request.text()?;
                let failure = Failure::new("not_set", format!("{name} is not set"));
                Err(failure.data(json!({ "name": name })).into())
            }
        },
        "cwd" => Ok(std::env::current_dir()?.into_os_string().into_encoded_bytes().into()),
        "sleep" => {
            let begun = Instant::now();
            if request.is_one_way() {
                // A one-way cannot be cancelled, but the plugin can be stopped.
                let why = main.stopping().wait_timeout(Duration::from_millis(number(request)?));
                if let Some(why) = why {
                    eprintln!(
                        "sleep: the plugin ends ({why:?}) after {} ms",
                        begun.elapsed().as_millis()
                    );
                }
            } else if request.cancellation().wait_timeout(Duration::from_millis(number(request)?)) {
                // The caller no longer waits for the answer.
                eprintln!("sleep: given up by the caller after {} ms", begun.elapsed().as_millis());
                // An error: a normal answer would look like one that came in time.
                return Err("given up by the caller".into());
            }
            Ok(Reply::empty())
        }
        "steps" => {
            let count = number(request)?;
            for done in 0..count {
                request.progress(done, Some(count), &format!("step {}", done + 1));
                if request.cancellation().wait_timeout(Duration::from_millis(10)) {
                    return Err("given up by the caller".into());
                }
            }
            request.progress(count, Some(count), "");
            Ok(Reply::empty())
        }
        "deadline" => Ok(request.deadline().map_or_else(
            || "none".into(),
            |deadline| {
                deadline.saturating_duration_since(Instant::now()).as_millis().to_string().into()
            },
        )),
        "fail" => Err(request.text()?.into()),
        "crash" => std::process::abort(),
        "exit" => std::process::exit(number(request)?),
        "ask" => {
            let (command, data) = command_and_data(request.text()?);
            Ok(main.call_bytes(command, data)?.into())
        }
        "tell" => {
            let (command, data) = command_and_data(request.text()?);
            Ok(main.notify(command, data)?.into())
        }
        _ => {
            let message = format!("unknown command {:?}", request.command());
            let failure = Failure::new(failure_code::UNKNOWN_COMMAND, message);
            Err(failure.data(json!({ "commands": COMMANDS })).into())
        }
    }
}

/// Sends each part back.
fn echo_parts(request: &mut Request) -> Result<Reply, HandlerError> {
    if request.is_one_way() {
        request.parts().try_for_each(|part| part.map(drop))?;
        return Ok(Reply::empty());
    }
    let mut reply = request.reply_parts()?;
    reply.send_all(vec![request.take_buffer()].into_iter().filter(|first| !first.is_empty()))?;
    for part in request.parts() {
        reply.send(part?)?;
    }
    Ok(Reply::empty())
}

/// Sends the lines back that contain the text of the request, each as soon as it is there.
fn grep(request: &mut Request) -> Result<Reply, HandlerError> {
    let mut reply = request.reply_parts()?;
    let mut lines = BufReader::new(request.parts());
    let wanted = request.text()?;
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        let is_found = String::from_utf8_lossy(&line).contains(wanted);
        if is_found {
            reply.send(std::mem::take(&mut line))?;
        }
        line.clear();
    }
    Ok(Reply::empty())
}

fn number<N: std::str::FromStr>(request: &Request) -> Result<N, HandlerError> {
    let text = request.text()?;
    if text.is_empty() {
        let command = request.command();
        return Err(format!("DATA is missing: it is a number, as in {command} 3").into());
    }
    text.parse().map_err(|_| format!("{text:?} is not a number, or out of range").into())
}

fn command_and_data(text: &str) -> (&str, &str) {
    text.split_once(' ').unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_has_every_command() {
        for command in COMMANDS {
            let is_helped = HELP.split(", ").any(|help| help.split(' ').next() == Some(command));
            assert!(is_helped, "{command}");
        }
    }
}
