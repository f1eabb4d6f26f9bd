//! Recordings of plugins.

use std::path::Path;

use nix::sys::signal::Signal;
use pipeplug_host::recording::{Reader, Record, RecordedEvent};
use pipeplug_host::{Crash, Recording, Supervisor};
use pipeplug_tests::{LONG, eventually, send};

use crate::plain;

fn read(path: &Path) -> Vec<Record> {
    Reader::open(path).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn the_report_of_a_crash_names_the_file_with_the_last_call() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.rec");
    let recording = Recording::to(&path);
    let plugin = plain().record(recording.clone()).start().unwrap();
    let call = plugin.request("never", "").begin().unwrap();
    send(plugin.pid().as_raw(), Signal::SIGKILL);
    let error = call.wait_timeout(LONG).unwrap_err();
    let crash = Crash::of(&error).unwrap();
    assert_eq!(crash.recording.as_deref(), Some(&*path));
    assert!(error.to_string().contains(&format!("; recorded in {path:?}")), "{error}");
    assert!(recording.flush(LONG));
    let records = read(&path);
    let RecordedEvent::Begin(about) = &records[0].event else { panic!("{records:?}") };
    assert_eq!(about["pid"], plugin.pid().as_raw());
    let is_call = |record: &Record| matches!(&record.event, RecordedEvent::Chunk(chunk) if chunk.command == "never");
    assert!(records.iter().any(is_call));
    let end = records.last().unwrap();
    assert!(matches!(&end.event, RecordedEvent::End(why) if why.contains("SIGKILL")), "{end:?}");
}

#[test]
fn the_processes_of_a_supervisor_go_to_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.rec");
    let recording = Recording::to(&path);
    let builder = plain().record(recording.clone());
    let supervisor = Supervisor::builder(builder).build().unwrap();
    supervisor.call("echo", "one").unwrap();
    let first = supervisor.pid().unwrap();
    send(first.as_raw(), Signal::SIGKILL);
    eventually("another one runs", || supervisor.pid().is_some_and(|pid| pid != first));
    supervisor.call("echo", "two").unwrap();
    assert!(recording.flush(LONG));
    let records = read(&path);
    let begins = records.iter().filter(|it| matches!(it.event, RecordedEvent::Begin(_)));
    assert_eq!(begins.map(|it| it.connection).collect::<Vec<_>>(), [1, 2]);
    for connection in [1, 2] {
        let of_it = records.iter().filter(|it| it.connection == connection);
        let echoes = of_it.filter(
            |it| matches!(&it.event, RecordedEvent::Chunk(chunk) if chunk.command == "echo"),
        );
        assert_eq!(echoes.count(), 2, "{connection}: {records:?}");
    }
}
