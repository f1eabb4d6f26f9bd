//! Texts of `help`, `stat` and `meta`.

use std::fmt::Write as _;

use pipeplug_host::Plugin;
use pipeplug_service::Description;

use super::known::Known;
use super::line::{VERBS, Verb};
use super::live::Live;
use crate::output::services;
use crate::output::style::{Paint, Role};
use crate::output::text::{self, Escaped};
use crate::session::answers::AnswerHandler;
use std::sync::atomic::{AtomicU64, Ordering};

/// Width of the first column.
const FIRST: usize = 20;

const DATA: &str = "\
DATA is the rest of the line as it is written, @FILE for the content of a file, or @@TEXT for
the text @TEXT. One word in quotes loses them. Arguments of a method that the plugin
describes are NAME=VALUE, with quotes around spaces, or a JSON object. Tab completes.
A line that begins with # is a comment, and one that begins with a space is not kept in
the history.";

/// Text of `help`.
pub(super) fn help(known: &Known, paint: Paint, columns: usize) -> String {
    let mut out = String::new();
    for Verb { usage, about, .. } in &VERBS {
        row(&mut out, paint, usage, about, columns);
    }
    out.push('\n');
    for line in text::wrap(&DATA.replace('\n', " "), columns) {
        let _ = writeln!(out, "{line}");
    }
    let methods: Vec<_> = known.methods().collect();
    if !methods.is_empty() {
        out.push('\n');
    }
    for (_, method) in methods {
        let docs = method.docs.lines().next().unwrap_or_default();
        row(
            &mut out,
            paint,
            &Escaped(&method.command).to_string(),
            &Escaped(docs).to_string(),
            columns,
        );
    }
    let others: Vec<_> = known.others().map(|name| Escaped(name).to_string()).collect();
    if !others.is_empty() {
        out.push('\n');
        row(&mut out, paint, "other commands", &others.join(", "), columns);
    }
    out
}

/// Text of `help NAME`: of a method, or else of a verb. `None` if nothing is known of it.
pub(super) fn help_of(known: &Known, name: &str, paint: Paint, columns: usize) -> Option<String> {
    let verb = VERBS.iter().find(|verb| verb.name == name || verb.name == "quit" && name == "exit");
    if let Some((service, method)) = known.method(name) {
        let mut service = service.clone();
        service.methods.retain(|other| other.name == method.name);
        let types = service.signature(method);
        // Only types that the method mentions.
        service.definitions.retain(|name, _| types.contains(name.as_str()));
        let text = services::list(&Description { services: vec![service] }, paint, Some(columns));
        return Some(text.trim_start_matches('\n').to_owned());
    }
    let Verb { usage, about, .. } = verb?;
    let mut out = String::new();
    row(&mut out, paint, usage, about, columns);
    if matches!(name, "call" | "notify" | "answer") {
        for line in text::wrap(&DATA.replace('\n', " "), columns) {
            let _ = writeln!(out, "{line}");
        }
    }
    Some(out)
}

/// Text of `meta`.
pub(super) fn meta(plugin: &Plugin, paint: Paint, columns: usize) -> String {
    let mut out = String::new();
    for (key, value) in plugin.metadata().iter() {
        row(&mut out, paint, &Escaped(key).to_string(), &Escaped(value).to_string(), columns);
    }
    out
}

/// Text of `stat`.
pub(super) fn stat(
    live: &Live,
    answers: &AnswerHandler,
    jobs: usize,
    paint: Paint,
    columns: usize,
) -> String {
    let plugin = &live.session.plugin;
    let stats = plugin.connection().stats();
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let mut out = String::new();
    let mut add = |name: &str, value: String| row(&mut out, paint, name, &value, columns);
    add("plugin", format!("{}, {}", Escaped(plugin.name()), text::short_path(plugin.path())));
    match plugin.status() {
        Some(status) => add("process", format!("has ended: {status}; `restart` starts it again")),
        None => {
            let stopped = plugin.stopped_by().map_or_else(String::new, |signal| {
                let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
                format!(", stopped by {name}")
            });
            let time = text::took(live.begun.elapsed());
            add("process", format!("{}, started {time} ago{stopped}", plugin.pid()));
        }
    }
    if let Some(memory) = memory(plugin) {
        add("memory", memory);
    }
    add("format", live.session.format().to_string());
    let features = plugin.metadata().value("pipeplug.features").unwrap_or_default();
    let features = if features.is_empty() { "none" } else { features };
    add("features", Escaped(features).to_string());
    add("calls in flight", format!("{}, in the background {jobs}", stats.open_calls));
    let counts = &live.counts;
    let (answered, failed) = (count(&counts.answered), count(&counts.failed));
    add("calls", format!("{} answered, {failed} failed", answered));
    add("one-ways", count(&counts.one_ways).to_string());
    let (requests, one_ways) = answers.counts();
    add("of the plugin", format!("{requests} requests, {one_ways} one-ways"));
    add("streams", format!("{} open", stats.open_streams));
    add("waiting", format!("{} B to be sent, {} B for a handler", stats.queued, stats.held));
    if let Some(credit) = stats.credit {
        add("not sent", credit.to_string());
    }
    let dropped = stats.late_replies + stats.unknown_replies + stats.skipped + stats.unexpected;
    if dropped > 0 {
        add(
            "dropped",
            format!(
                "{} late replies, {} replies to nothing, {} chunks over a limit, {} that made no sense",
                stats.late_replies, stats.unknown_replies, stats.skipped, stats.unexpected
            ),
        );
    }
    out
}

/// Resident memory of the process, as Linux tells it: proc_pid_status(5).
fn memory(plugin: &Plugin) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", plugin.pid())).ok()?;
    let size = |key: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    let (now, most) = (size("VmRSS:")?, size("VmHWM:")?);
    Some(format!("{:.1} MiB, at most {:.1} MiB", now as f64 / 1024.0, most as f64 / 1024.0))
}

/// Adds a name and a text, in two columns.
fn row(out: &mut String, paint: Paint, name: &str, value: &str, columns: usize) {
    let width = text::width(name);
    let mut lines = text::wrap(value, columns.saturating_sub(FIRST + 2).max(20)).into_iter();
    let gap = FIRST.saturating_sub(width).max(1) + 1;
    let first = if width > FIRST { None } else { lines.next() };
    // Writing to a String does not fail.
    let _ = match first {
        Some(first) if !first.is_empty() => {
            writeln!(out, "{}{:gap$}{first}", paint.paint(Role::Title, name), "")
        }
        _ => writeln!(out, "{}", paint.paint(Role::Title, name)),
    };
    for line in lines {
        let _ = writeln!(out, "{:1$}{line}", "", FIRST + 1);
    }
}
