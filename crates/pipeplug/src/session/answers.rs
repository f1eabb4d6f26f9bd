//! `--answer CMD=DATA`: answers of the host to requests of the plugin.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

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
    known: Arc<BTreeMap<String, Vec<u8>>>,
    report: Arc<Report>,
}

impl AnswerHandler {
    pub(crate) fn load(
        answers: &[AnswerArg],
        loader: &mut Loader,
        report: &Arc<Report>,
    ) -> Result<Self, CommandError> {
        let mut known = BTreeMap::new();
        for answer in answers {
            known.insert(answer.command.clone(), loader.load(&answer.data)?);
        }
        Ok(Self { known: Arc::new(known), report: Arc::clone(report) })
    }
}

impl AnswerHandler {
    /// The same answers, for a plugin with another report.
    pub(crate) fn reporting_to(&self, report: &Arc<Report>) -> Self {
        Self { known: Arc::clone(&self.known), report: Arc::clone(report) }
    }
}

impl Handler for AnswerHandler {
    fn handle(&self, _plugin: &Plugin, request: &mut Request) -> Result<Reply, HandlerError> {
        let answer = self.known.get(request.command());
        let status = match (request.is_one_way(), answer) {
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
            (_, Some(answer)) => Ok(answer.as_slice().into()),
            (_, None) => {
                let command = Escaped(request.command());
                let message = format!(
                    "the host has no answer to \"{command}\" (--answer {command}=DATA gives one)"
                );
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
