//! Answers of both sides, and their records of requests and broken rules.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use pipeplug_host::{Connection, HandlerError, HandlerFuture, Reply, Request};

use crate::load::block_on;
use crate::streams;

/// Message of planned errors and panics of a handler.
pub(crate) const PLANNED: &str = "as planned";
/// Message of net for a request without an answer.
pub(crate) const DROPPED: &str = "the request was dropped without an answer";

/// Reports of progress of the command "steps".
pub(crate) const STEPS: u64 = 50;

/// Bytes of the token that each request and one-way begins with.
pub(crate) const TOKEN: usize = 8;

/// Record of one side: requests it received, and rules that were broken.
#[derive(Debug, Default)]
pub(crate) struct Board {
    seen: Mutex<HashSet<u64>>,
    notes: AtomicU64,
    violations: Mutex<Vec<String>>,
}

impl Board {
    /// Records a broken rule.
    pub(crate) fn violation(&self, what: String) {
        self.violations.lock().expect("no thread panics while it holds the lock").push(what);
    }

    /// Takes the broken rules since the last call.
    pub(crate) fn take_violations(&self) -> Vec<String> {
        std::mem::take(
            &mut *self.violations.lock().expect("no thread panics while it holds the lock"),
        )
    }

    /// One-ways that came.
    pub(crate) fn notes(&self) -> u64 {
        self.notes.load(Ordering::SeqCst)
    }

    /// Counts a one-way.
    pub(crate) fn note(&self) {
        self.notes.fetch_add(1, Ordering::SeqCst);
    }

    /// Each token comes once.
    fn see(&self, command: &str, buffer: &[u8]) -> Option<u64> {
        let Some(token) = token_of(buffer) else {
            self.violation(format!(
                "\"{command}\" came with {} bytes, too few for a token",
                buffer.len()
            ));
            return None;
        };
        if !self.seen.lock().expect("no thread panics while it holds the lock").insert(token) {
            self.violation(format!("\"{command}\" with token {token:x} was handled twice"));
        }
        Some(token)
    }
}

fn token_of(buffer: &[u8]) -> Option<u64> {
    buffer.first_chunk().copied().map(u64::from_le_bytes)
}

/// Makes a unique buffer: the token, and `len` bytes that follow from it. The period of the pattern
/// does not divide the size of a page, a pipe or a piece.
pub(crate) fn payload(token: u64, len: usize) -> Vec<u8> {
    const PERIOD: usize = 4093;
    let mut bytes = Vec::with_capacity(TOKEN + len);
    bytes.extend_from_slice(&token.to_le_bytes());
    let mut word = token;
    while bytes.len() < TOKEN + len.min(PERIOD) {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let room = TOKEN + len.min(PERIOD) - bytes.len();
        bytes.extend_from_slice(&word.to_be_bytes()[..room.min(TOKEN)]);
    }
    while bytes.len() < TOKEN + len {
        let more = PERIOD.min(TOKEN + len - bytes.len());
        bytes.extend_from_within(TOKEN..TOKEN + more);
    }
    bytes
}

/// Answers the commands that both sides know. `None` for others.
pub(crate) fn answer(board: &Board, request: &mut Request) -> Option<Result<Reply, HandlerError>> {
    let command = request.command().to_owned();
    if command == "tally" {
        return Some(Ok(board.notes().to_string().into()));
    }
    if streams::COMMANDS.contains(&command.as_str()) {
        board.see(&command, request.buffer())?;
        return Some(streams::answer(board, request));
    }
    if !["echo", "slow", "fail", "panic", "later", "task", "steps", "drop", "nest", "note"]
        .contains(&command.as_str())
    {
        return None;
    }
    let token = board.see(&command, request.buffer())?;
    Some(match command.as_str() {
        "echo" => Ok(request.take_buffer().into()),
        "slow" => {
            thread::sleep(Duration::from_micros(token % 3000));
            Ok(request.take_buffer().into())
        }
        "fail" => Err(PLANNED.into()),
        "panic" => std::panic::panic_any(PLANNED),
        "later" => {
            let buffer = request.take_buffer();
            if let Some(responder) = request.responder() {
                thread::spawn(move || responder.answer(buffer));
            }
            Ok(Reply::empty())
        }
        "task" => {
            // A task of its own executor, which may be dropped with its connection.
            let run = |future: HandlerFuture| thread::spawn(move || block_on(future));
            request.spawn(run, |request| async move { Ok(request.buffer().into()) })
        }
        "steps" => {
            (0..STEPS).for_each(|done| request.progress(done, Some(STEPS), "at work"));
            Ok(request.take_buffer().into())
        }
        "drop" => {
            drop(request.responder());
            Ok(Reply::empty())
        }
        "nest" => nest(&request.connection().clone(), request.buffer()),
        _ => {
            board.note();
            Ok(Reply::empty())
        }
    })
}

/// Calls back as many times as bytes follow the token, one within the other; the reply is the whole
/// buffer.
fn nest(connection: &Connection, buffer: &[u8]) -> Result<Reply, HandlerError> {
    let Some((last, rest)) = buffer.split_last().filter(|(_, rest)| rest.len() >= TOKEN) else {
        return Ok(buffer.into());
    };
    // Another token for each level.
    let mut inner = rest.to_vec();
    inner[0] = inner[0].wrapping_add(1);
    let mut reply = connection.call_bytes("nest", &inner)?;
    if reply != inner {
        return Err(
            format!("a nested call brought {} bytes that were not asked", reply.len()).into()
        );
    }
    reply[0] = reply[0].wrapping_sub(1);
    reply.push(*last);
    Ok(reply.into())
}

/// Keeps panics that are part of a plan from being printed.
pub(crate) fn quiet_planned_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&PLANNED) {
            print(info);
        }
    }));
}
