//! Progress of calls between processes.

use std::num::NonZeroUsize;
use std::thread;

use pipeplug_host::{Caller, HandlerError, Plugin, Pool, Progress, Reply, Request, Supervisor};

use crate::plain;
use crate::supervisor::eager;

/// Makes the call; gives the reports of it.
fn reports<C: Caller>(caller: &C, file: &str) -> Vec<u64>
where
    C::Pending: pipeplug_host::PendingReply,
{
    use pipeplug_host::PendingReply as _;
    let (request, progress) = caller.request("steps", file).progress();
    let call = request.begin().unwrap();
    let reports = progress.map(|report| report.done).collect();
    call.wait().unwrap();
    reports
}

#[test]
fn whatever_can_be_called_has_progress() {
    let plugin = plain().start().unwrap();
    let supervisor = Supervisor::builder(plain()).build().unwrap();
    let pool = Pool::new(Supervisor::builder(plain()), NonZeroUsize::MIN).unwrap();
    for reports in [reports(&plugin, ""), reports(&supervisor, ""), reports(&pool, "")] {
        assert_eq!(reports.last(), Some(&2), "{reports:?}");
        assert!(reports.iter().all(|done| [1, 2].contains(done)), "{reports:?}");
    }
}

#[test]
fn a_plugin_gets_the_progress_of_its_host() {
    let handler = |_: &Plugin, request: &mut Request| -> Result<Reply, HandlerError> {
        request.progress(7, None, "seven");
        Ok(Reply::empty())
    };
    let plugin = plain().handler(handler).start().unwrap();
    assert_eq!(plugin.call("progress-of-host", "x").unwrap(), "7 seven");
}

#[test]
fn a_call_that_is_made_again_goes_on_to_report() {
    let dir = pipeplug_tests::Script::new("");
    let supervisor = eager(plain()).build().unwrap();
    let file = dir.dir().join("died").display().to_string();
    let (request, progress) = supervisor.request("steps", file.as_str()).idempotent().progress();
    let taken = thread::spawn(|| progress.collect::<Vec<Progress>>());
    request.wait().unwrap();
    let taken = taken.join().unwrap();
    assert_eq!(taken.last().map(|report| report.done), Some(2), "{taken:?}");
}

#[test]
fn a_crash_ends_the_reports() {
    let dir = pipeplug_tests::Script::new("");
    let plugin = plain().start().unwrap();
    let file = dir.dir().join("died").display().to_string();
    let (request, mut progress) = plugin.request("steps", file.as_str()).progress();
    let call = request.begin().unwrap();
    assert_eq!(progress.next().map(|report| report.message), Some("one".into()));
    assert_eq!(progress.next(), None);
    call.wait().unwrap_err();
}
