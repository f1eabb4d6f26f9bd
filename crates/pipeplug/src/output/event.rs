//! Events of a run, and their JSON form.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use pipeplug_host::ChunkHead;
use pipeplug_host::Format;
use pipeplug_host::{Output, Plugin, Progress, Stopped, WaitStatus};
use serde_json::{Map, Value, json};

use crate::exit::{CommandError, Crashed};

/// Section of the help about the JSON form.
pub(crate) const HELP: &str = "\
JSON (--json), one object per line on stdout, each with \"event\":
  metadata  the plugin has started: plugin, path, pid, format, seconds,
            metadata (an object of strings)
  part      a part of the reply, with --stream: command, data
  refused   the plugin takes no parts, or no more, with --stream: command,
            reason
  reply     the reply to a --call: command, data, seconds; line, with
            --data-each
  progress  a --call reports progress: command, done; total and message, if
            it says them
  error     a call or the run failed: message; command, for a call; line,
            with --data-each; code and data (any JSON) of the error, if it
            has them; exit_code;
            stderr (the last lines), if the plugin is the cause;
            crash, if the plugin ended: plugin, path, pid, seconds (it ran),
            status (in words), code or signal and core_dumped, panic; calls
            (open calls: id, command, seconds) and calls_open (their number);
            received and sent (last chunks: id, direction, command, length)
  incoming  a request or one-way of the plugin: kind (request or one-way),
            command, data, answered
  stderr    a line of the plugin's stderr: line
  stdout    a line of the plugin's stdout, with --stdout log: line
  stopped   a signal has stopped the plugin, and its calls wait: pid, signal
            (its number), name
  exit      the plugin has ended: status (in words), code or signal and
            core_dumped, by (how it was stopped), left (process ids that it
            started, that still run and cannot be stopped, if any), held
            (stdout, stderr: streams that another process keeps open, if any)
Data that is not UTF-8 is in data_base64 instead of data.";

/// One event of a run.
pub(crate) enum Event<'a> {
    Started(&'a Started<'a>),
    /// A part of a stream.
    Part {
        command: &'a str,
        data: &'a [u8],
    },
    Reply {
        command: &'a str,
        data: &'a [u8],
        took: Duration,
        /// Line that the call had its data from.
        line: Option<u64>,
    },
    Progress {
        command: &'a str,
        progress: &'a Progress,
    },
    Failed(&'a CommandError),
    /// The plugin has not taken the parts of a stream, and has replied.
    Refused {
        command: &'a str,
        reason: &'a str,
    },
    Request {
        status: RequestStatus,
        command: &'a str,
        data: &'a [u8],
    },
    Line {
        output: Output,
        line: &'a str,
    },
    /// A signal has stopped the process.
    Suspended {
        pid: i32,
        signal: i32,
    },
    Ended(Stopped),
}

/// Running plugin, with its format and the time that its start took.
pub(crate) struct Started<'a> {
    pub(crate) plugin: &'a Plugin,
    pub(crate) format: Format,
    pub(crate) took: Duration,
}

/// Kind of a chunk from the plugin, and the answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestStatus {
    OneWay,
    Answered,
    Refused,
}

impl Event<'_> {
    /// True if the user knows already: Ctrl-C was pressed, or the reader closed the pipe.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self, Self::Failed(failure) if failure.error.is_none())
    }

    pub(crate) fn to_json(&self) -> Value {
        let (event, fields) = match self {
            Self::Started(started) => ("metadata", started.to_json()),
            Self::Part { command, data } => {
                let mut fields = object(json!({ "command": command }));
                insert_data(&mut fields, data);
                ("part", fields)
            }
            Self::Reply { command, data, took, line } => {
                let mut fields =
                    object(json!({ "command": command, "seconds": took.as_secs_f64() }));
                fields.extend(line.map(|line| ("line".into(), line.into())));
                insert_data(&mut fields, data);
                ("reply", fields)
            }
            Self::Progress { command, progress } => {
                let Progress { done, total, message, .. } = progress;
                let mut fields = object(json!({ "command": command, "done": done }));
                fields.extend(total.map(|total| ("total".into(), total.into())));
                if !message.is_empty() {
                    fields.insert("message".into(), message.as_str().into());
                }
                ("progress", fields)
            }
            Self::Failed(failure) => ("error", failed(failure)),
            Self::Refused { command, reason } => {
                ("refused", object(json!({ "command": command, "reason": reason })))
            }
            Self::Request { status, command, data } => {
                let kind = if *status == RequestStatus::OneWay { "one-way" } else { "request" };
                let answered = *status == RequestStatus::Answered;
                let mut fields =
                    object(json!({ "kind": kind, "command": command, "answered": answered }));
                insert_data(&mut fields, data);
                ("incoming", fields)
            }
            Self::Line { output: Output::Stdout, line } => {
                ("stdout", object(json!({ "line": line })))
            }
            Self::Line { output: _, line } => ("stderr", object(json!({ "line": line }))),
            Self::Suspended { pid, signal } => {
                let name = signal_hook::low_level::signal_name(*signal);
                ("stopped", object(json!({ "pid": pid, "signal": signal, "name": name })))
            }
            Self::Ended(stopped) => {
                let mut fields = object(json!({ "by": stopped.by.to_string() }));
                insert_status(&mut fields, stopped.status);
                if !stopped.left.is_empty() {
                    let left: Vec<_> = stopped.left.iter().map(|pid| pid.as_raw()).collect();
                    fields.insert("left".into(), left.into());
                }
                if !stopped.held.is_empty() {
                    let held: Vec<_> = stopped.held.iter().map(Output::to_string).collect();
                    fields.insert("held".into(), held.into());
                }
                ("exit", fields)
            }
        };
        let mut all = object(json!({ "event": event }));
        all.extend(fields);
        Value::Object(all)
    }
}

impl Started<'_> {
    /// Metadata and properties of the plugin.
    pub(crate) fn to_json(&self) -> Map<String, Value> {
        let plugin = self.plugin;
        let metadata: Map<_, _> = plugin
            .metadata()
            .iter()
            .map(|(key, value)| (key.to_owned(), Value::from(value)))
            .collect();
        object(json!({
            "plugin": plugin.name(),
            "path": plugin.path().to_string_lossy(),
            "pid": plugin.pid().as_raw(),
            "format": self.format.to_string(),
            "seconds": self.took.as_secs_f64(),
            "metadata": metadata,
        }))
    }
}

fn failed(failure: &CommandError) -> Map<String, Value> {
    let message = failure.error.as_ref().map(|error| format!("{error:#}"));
    let mut fields = object(json!({ "message": message, "exit_code": failure.reason.code() }));
    if let Some(command) = &failure.command {
        fields.insert("command".into(), command.as_str().into());
    }
    fields.extend(failure.line.map(|line| ("line".into(), line.into())));
    if let Some(coded) = &failure.coded {
        fields.insert("code".into(), coded.code.as_str().into());
        fields.extend(coded.data.clone().map(|data| ("data".into(), data)));
    }
    if !failure.stderr.is_empty() {
        fields.insert("stderr".into(), failure.stderr.clone().into());
    }
    if let Some(crashed) = &failure.crash {
        // Only the first line: the rest of the text is in the fields of `crash`.
        if let Some(Value::String(message)) = fields.get_mut("message") {
            message.truncate(message.find('\n').unwrap_or(message.len()));
        }
        fields.insert("crash".into(), crash(crashed));
    }
    fields
}

fn crash(Crashed { crash, postmortem }: &Crashed) -> Value {
    let calls: Vec<_> = postmortem
        .open_calls
        .iter()
        .map(|call| json!({ "id": call.thread_id.as_u64(), "command": call.command, "seconds": call.age.as_secs_f64() }))
        .collect();
    let heads = |chunks: &[ChunkHead]| -> Vec<_> {
        let head = |head: &ChunkHead| {
            json!({
                "id": head.thread_id.as_u64(),
                "direction": head.direction.to_string(),
                "command": head.command,
                "length": head.buffer_len,
            })
        };
        chunks.iter().map(head).collect()
    };
    let mut fields = object(json!({
        "plugin": crash.plugin,
        "path": crash.path.to_string_lossy(),
        "pid": crash.pid.as_raw(),
        "seconds": crash.ran.as_secs_f64(),
        "panic": crash.panic,
        "calls": calls,
        "calls_open": postmortem.open_count,
        "received": heads(&postmortem.received),
        "sent": heads(&postmortem.sent),
    }));
    if let Some(status) = crash.status {
        insert_status(&mut fields, status);
    }
    Value::Object(fields)
}

/// Inserts the wait status of a process: in words, and its code or signal.
fn insert_status(fields: &mut Map<String, Value>, status: WaitStatus) {
    fields.insert("status".into(), status.to_string().into());
    match status {
        WaitStatus::Exited(code) => fields.insert("code".into(), code.into()),
        WaitStatus::Signaled { signal, core_dumped } => {
            fields.insert("core_dumped".into(), core_dumped.into());
            fields.insert("signal".into(), signal.into())
        }
        _ => None,
    };
}

fn insert_data(fields: &mut Map<String, Value>, data: &[u8]) {
    match std::str::from_utf8(data) {
        Ok(text) => fields.insert("data".into(), text.into()),
        Err(_) => fields.insert("data_base64".into(), BASE64.encode(data).into()),
    };
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => unreachable!("only objects are written above"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::ExitReason;

    #[test]
    fn data_is_text_or_base64() {
        let reply = |data| {
            Event::Reply { command: "c", data, took: Duration::from_millis(500), line: None }
                .to_json()
        };
        assert_eq!(
            reply(b"a\n"),
            json!({ "event": "reply", "command": "c", "data": "a\n", "seconds": 0.5 })
        );
        assert_eq!(
            reply(&[0xff]),
            json!({ "event": "reply", "command": "c", "data_base64": "/w==", "seconds": 0.5 })
        );
    }

    #[test]
    fn errors_omit_absent_fields() {
        let failure = CommandError::message(ExitReason::Failed, "no").of_command("c");
        assert_eq!(
            Event::Failed(&failure).to_json(),
            json!({ "event": "error", "command": "c", "message": "no", "exit_code": 1 })
        );
    }
}
