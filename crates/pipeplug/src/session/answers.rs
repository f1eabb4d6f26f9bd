//! `--answer CMD=DATA`: answers of the host to requests of the plugin.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use pipeplug_host::{Failure, Handler, HandlerError, Plugin, Reply, Request, failure_code};

use crate::args::data::{Data, Loader};
use crate::exit::CommandError;
use crate::output::event::{Event, RequestStatus};
use crate::output::report::Report;
use crate::output::text::Escaped;

/// One `--answer` of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AnswerArg {
    pub(crate) command: String,
    data: Data,
}

/// Parses `CMD=DATA`.
pub(crate) fn parse(arg: OsString) -> Result<AnswerArg, String> {
    let mut bytes = arg.into_vec();
    let Some(at) = bytes.iter().position(|byte| *byte == b'=') else {
        return Err("there is no `=`; write CMD=DATA, as in --answer greet=hello".into());
    };
    let data = bytes.split_off(at + 1);
    bytes.pop();
    let command = String::from_utf8(bytes).map_err(|_| "the command is not UTF-8".to_owned())?;
    Ok(AnswerArg { command, data: Data::parse(std::ffi::OsStr::from_bytes(&data))? })
}

/// Handler that answers the plugin with the data of `--answer`, refuses other requests, and shows
/// all of them.
#[derive(Clone)]
pub(crate) struct AnswerHandler {
    known: Arc<RwLock<BTreeMap<String, Arc<[u8]>>>>,
    counts: Arc<Counts>,
    report: Arc<Report>,
}

/// Requests and one-ways of the plugin so far.
#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    one_ways: AtomicU64,
}

impl AnswerHandler {
    pub(crate) fn load(
        answers: &[AnswerArg],
        loader: &mut Loader,
        report: &Arc<Report>,
    ) -> Result<Self, CommandError> {
        let mut known = BTreeMap::new();
        for answer in answers {
            known.insert(answer.command.clone(), loader.load(&answer.data)?.into());
        }
        let (known, counts) = (Arc::new(RwLock::new(known)), Arc::default());
        Ok(Self { known, counts, report: Arc::clone(report) })
    }
}

impl AnswerHandler {
    /// The same answers, for a plugin with another report.
    pub(crate) fn reporting_to(&self, report: &Arc<Report>) -> Self {
        Self { report: Arc::clone(report), ..self.clone() }
    }

    /// Answers requests of this command with the data from now on.
    pub(crate) fn answer(&self, command: &str, data: Vec<u8>) {
        self.known
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(command.into(), data.into());
    }

    /// Refuses requests of this command from now on. False if they were refused before.
    pub(crate) fn refuse(&self, command: &str) -> bool {
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(command).is_some()
    }

    /// Commands and the data that answers them.
    pub(crate) fn known(&self) -> BTreeMap<String, Arc<[u8]>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Numbers of requests and of one-ways so far.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let Counts { requests, one_ways } = &*self.counts;
        (requests.load(Ordering::Relaxed), one_ways.load(Ordering::Relaxed))
    }
}

impl Handler for AnswerHandler {
    fn handle(&self, _plugin: &Plugin, request: &mut Request) -> Result<Reply, HandlerError> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let answer = known.get(request.command()).cloned();
        // The report may wait for the terminal.
        drop(known);
        let counts = &*self.counts;
        let count = if request.is_one_way() { &counts.one_ways } else { &counts.requests };
        count.fetch_add(1, Ordering::Relaxed);
        let status = match (request.is_one_way(), &answer) {
            (true, _) => RequestStatus::OneWay,
            (false, Some(_)) => RequestStatus::Answered,
            (false, None) => RequestStatus::Refused,
        };
        self.report.show(&Event::Request {
            status,
            command: request.command(),
            data: request.buffer(),
        });
        match (status, answer) {
            (RequestStatus::OneWay, _) => Ok(Reply::empty()),
            (_, Some(answer)) => Ok(answer[..].into()),
            (_, None) => {
                let command = Escaped(request.command());
                let gives = self.report.gives_answer(&command);
                let message = format!("the host has no answer to \"{command}\" ({gives})");
                Err(Failure::new(failure_code::UNKNOWN_COMMAND, message).into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_equals_sign_divides() {
        let answer = parse("a=b=c".into()).unwrap();
        assert_eq!(answer, AnswerArg { command: "a".into(), data: Data::Literal(b"b=c".to_vec()) });
        assert_eq!(parse("a=@-".into()).unwrap().data, Data::Stdin);
        assert_eq!(parse("a=".into()).unwrap().data, Data::Literal(vec![]));
        assert!(parse("a".into()).unwrap_err().contains("there is no `=`"));
    }
}
