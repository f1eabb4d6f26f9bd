//! Plays one side of a recording against the other.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use pipeplug_host::recording::Travel;
use pipeplug_host::{
    CallError, Connection, Failure, Handler, HandlerError, Plugin, Reply, Request, Responder,
    failure_code,
};
use serde_json::Value;

use super::compare::{self, Pointer};
use super::script::{LeftOut, Script, was_answered};
use crate::output::text::{Escaped, QuotedData};
use crate::trace::spans::{Outcome, Span, SpanKind};

/// Time to wait for what is to come, unless the user gives another.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Plays one side.
pub(super) struct Player {
    shared: Arc<Shared>,
    timeout: Duration,
}

struct Shared {
    script: Script,
    ignored: Vec<Pointer>,
    state: Mutex<State>,
    changed: Condvar,
    timeout: Duration,
}

#[derive(Default)]
struct State {
    /// For each call of the played side, whether it has ended.
    ended: Vec<bool>,
    /// For each request and one-way of the other side, whether it has come, or is not waited for.
    came: Vec<bool>,
    differences: Vec<Difference>,
    /// True once the connection has ended: nothing comes any more.
    is_gone: bool,
    /// Requests that were never answered.
    unanswered: Vec<Responder>,
}

/// A difference between the recording and now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) title: String,
    pub(super) lines: Vec<String>,
}

/// Result of a replay.
pub(super) struct ReplayResult {
    pub(super) differences: Vec<Difference>,
    own: usize,
    others: usize,
    left_out: LeftOut,
}

impl Player {
    pub(super) fn new(script: Script, ignored: Vec<Pointer>, timeout: Option<Duration>) -> Self {
        let timeout = timeout.unwrap_or(TIMEOUT);
        let state = State {
            ended: vec![false; script.own.len()],
            came: vec![false; script.others.len()],
            ..State::default()
        };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let shared = Arc::new(Shared { script, ignored, state, changed, timeout });
        Self { shared, timeout }
    }

    /// Handler that answers a plugin as it was answered.
    pub(super) fn handler(&self) -> impl Handler + use<> {
        let shared = Arc::clone(&self.shared);
        move |_: &Plugin, request: &mut Request| shared.answer(request)
    }

    /// Answers a request as it was answered.
    pub(super) fn answer(&self, request: &mut Request) -> Result<Reply, HandlerError> {
        self.shared.answer(request)
    }

    /// Notes that the other side is gone, so that nothing more is waited for.
    pub(super) fn gone(&self) {
        self.shared.lock().is_gone = true;
        self.shared.changed.notify_all();
    }

    /// Compares what the plugin says of itself. What the protocol negotiates is not compared.
    pub(super) fn compare_metadata(&self, plugin: &Plugin) {
        self.shared.compare_metadata(plugin);
    }

    /// Sends what this side had sent, and compares what comes.
    ///
    /// # Blocking
    /// Until all has come, or nothing has for the timeout.
    pub(super) fn play(&self, peer: &Connection) {
        let shared = &self.shared;
        thread::scope(|scope| {
            for (index, span) in shared.script.own.iter().enumerate() {
                shared.wait_for_what_came_before(span);
                let data = span.request.data.as_deref().unwrap_or_default();
                if span.kind == SpanKind::OneWay {
                    let sent = peer.notify(&span.command, data);
                    if let Err(error) = sent {
                        let lines = error.to_string().lines().take(1).map(str::to_owned).collect();
                        shared.differ(format!("{} was not sent", title(index, span)), lines);
                    }
                    shared.ended(index);
                    continue;
                }
                let call = peer.request(&span.command, data).timeout(self.timeout);
                let call = call.begin();
                if !was_answered(span) {
                    // Its caller did not wait either.
                    shared.ended(index);
                    continue;
                }
                scope.spawn(move || {
                    let result = call.and_then(|call| call.wait());
                    shared.lock().is_gone |= matches!(result, Err(CallError::Closed { .. }));
                    let lines = compare::result(span, &result, &shared.ignored);
                    if !lines.is_empty() {
                        shared
                            .differ(format!("{}: the response differs", title(index, span)), lines);
                    }
                    shared.ended(index);
                });
            }
        });
        shared.wait_for_requests(|_| true);
        // Requests that were never answered get an error now.
        let unanswered = std::mem::take(&mut shared.lock().unanswered);
        drop(unanswered);
    }

    pub(super) fn result(&self) -> ReplayResult {
        let Script { own, others, left_out, .. } = &self.shared.script;
        let differences = self.shared.lock().differences.clone();
        ReplayResult { differences, own: own.len(), others: others.len(), left_out: *left_out }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn differ(&self, title: String, lines: Vec<String>) {
        self.lock().differences.push(Difference { title, lines });
    }

    fn ended(&self, index: usize) {
        self.lock().ended[index] = true;
        self.changed.notify_all();
    }

    /// Waits until `is_met`, at most for the timeout.
    fn wait_until(&self, mut is_met: impl FnMut(&State) -> bool) -> MutexGuard<'_, State> {
        let deadline = Instant::now() + self.timeout;
        let mut state = self.lock();
        while !is_met(&state) && !state.is_gone {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state
    }

    /// Waits for the responses and requests that had come before this one was sent.
    fn wait_for_what_came_before(&self, span: &Span) {
        let before = |other: &Span| other.ended.is_some_and(|ended| ended < span.begun);
        // Calls have a timeout of their own.
        drop(self.wait_until(|state| {
            let mut calls = self.script.own.iter().zip(&state.ended);
            calls.all(|(other, ended)| *ended || !before(other))
        }));
        self.wait_for_requests(|other| other.begun < span.begun);
    }

    /// Waits for requests and one-ways of the other side. Those that do not come are differences.
    fn wait_for_requests(&self, are_due: impl Fn(&Span) -> bool) {
        let others = &self.script.others;
        let is_missing = |(span, came): &(&Span, &bool)| are_due(span) && !**came;
        let mut state =
            self.wait_until(|state| !others.iter().zip(&state.came).any(|it| is_missing(&it)));
        for (index, span) in others.iter().enumerate() {
            if are_due(span) && !state.came[index] {
                state.came[index] = true;
                let title = format!("{} did not come", title(index, span));
                let lines = vec![format!("recorded{}", shown(span))];
                state.differences.push(Difference { title, lines });
            }
        }
    }

    /// Answers a request of the other side.
    fn answer(&self, request: &mut Request) -> Result<Reply, HandlerError> {
        let span = {
            let mut state = self.lock();
            let kind = if request.is_one_way() { SpanKind::OneWay } else { SpanKind::Call };
            let all = self.script.others.iter().enumerate();
            let mut candidates = all.filter(|(index, span)| {
                !state.came[*index] && span.kind == kind && span.command == request.command()
            });
            let differences = |span: &Span| {
                let recorded = span.request.data.as_deref().unwrap_or_default();
                compare::data(recorded, request.buffer(), &self.ignored)
            };
            let first = candidates.next();
            let same =
                first.into_iter().chain(candidates).find(|(_, span)| differences(span).is_empty());
            let Some((index, span)) = same.or(first) else {
                let (command, data) = (Escaped(request.command()), QuotedData(request.buffer()));
                let title = format!("{command} came, which the recording does not have");
                let lines = vec![format!("now     {data}")];
                state.differences.push(Difference { title, lines });
                let message = "the recording has no such request";
                return Err(Failure::new(failure_code::UNKNOWN_COMMAND, message).into());
            };
            let lines = differences(span);
            if !lines.is_empty() {
                let title = format!("{}: the data differs", title(index, span));
                state.differences.push(Difference { title, lines });
            }
            state.came[index] = true;
            span
        };
        self.changed.notify_all();
        // The handler had made these calls before it answered, or they had ended before: the other
        // side may go as soon as it has the answer.
        let key = (span.connection, span.travel, span.id);
        let was_before = |call: &Span| {
            call.cause == Some(key)
                || (call.ended.zip(span.ended)).is_some_and(|(it, end)| it < end)
        };
        drop(self.wait_until(|state| {
            let mut calls = self.script.own.iter().zip(&state.ended);
            calls.all(|(call, ended)| *ended || !was_before(call))
        }));
        match &span.outcome {
            Outcome::Reply => {
                let data = span.reply.as_ref().and_then(|reply| reply.data.clone());
                Ok(data.unwrap_or_default().into())
            }
            Outcome::Error { code, message } => {
                let message = message.clone().unwrap_or_default();
                Err(match code {
                    Some(code) => Failure::new(code.clone(), message).into(),
                    None => message.into(),
                })
            }
            Outcome::OneWay => Ok(Reply::empty()),
            Outcome::Open | Outcome::Cancelled | Outcome::Closed(_) => {
                self.lock().unanswered.extend(request.responder());
                Ok(Reply::empty())
            }
        }
    }

    fn compare_metadata(&self, plugin: &Plugin) {
        let recorded = self.script.metadata.as_deref();
        let recorded = recorded.and_then(|data| serde_json::from_slice(data).ok());
        let Some(Value::Object(mut recorded)) = recorded else { return };
        recorded.retain(|key, _| !key.starts_with("pipeplug."));
        let mut now = Value::Object(
            plugin
                .metadata()
                .iter()
                .filter(|(key, _)| !key.starts_with("pipeplug."))
                .map(|(key, value)| (key.to_owned(), value.into()))
                .collect(),
        );
        // A value that is no string is kept as its JSON text.
        for value in recorded.values_mut().filter(|value| !value.is_string()) {
            *value = value.to_string().into();
        }
        let lines = compare::json(&mut Value::Object(recorded), &mut now, &self.ignored);
        if !lines.is_empty() {
            self.differ("the metadata differs".to_owned(), lines);
        }
    }
}

/// Name of a call or one-way, with its number among those of its side.
fn title(index: usize, span: &Span) -> String {
    let (side, number) = match span.travel {
        Travel::Sent => ("the host's", index + 1),
        Travel::Received => ("the plugin's", index + 1),
    };
    let kind = if span.kind == SpanKind::Call { "call" } else { "one-way" };
    format!("{side} {kind} {number}, {}", Escaped(&span.command))
}

fn shown(span: &Span) -> String {
    match span.request.data.as_deref().unwrap_or_default() {
        [] => " no data".to_owned(),
        data => QuotedData(data).to_string(),
    }
}

impl ReplayResult {
    /// The differences, and a summary.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for Difference { title, lines } in &self.differences {
            text.push_str(&format!("{title}\n"));
            for line in lines {
                text.push_str(&format!("  {line}\n"));
            }
        }
        let LeftOut { streams, redacted, without_data } = self.left_out;
        for (count, why) in [
            (streams, "with a stream"),
            (redacted, "whose data is redacted"),
            (without_data, "without all of its data"),
        ] {
            if count > 0 {
                let s = plural(count);
                text.push_str(&format!("{count} call{s} or one-way{s} {why} left out\n"));
            }
        }
        let count = self.differences.len();
        let differences = match count {
            0 => "no differences".to_owned(),
            count => format!("{count} difference{}", plural(count)),
        };
        text.push_str(&format!(
            "{} sent, {} expected from the other side: {differences}\n",
            self.own, self.others
        ));
        text
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
