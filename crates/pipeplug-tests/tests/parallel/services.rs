//! Typed services between processes.

use std::num::NonZeroUsize;
use std::time::Duration;

use pipeplug_host::{Plugin, PluginBuilder, Pool, StartErrorKind, Supervisor};
use pipeplug_service::{CallOptions, Client, NoServiceKind, ServiceError};
use pipeplug_tests::typed::{Host, HostClient, HostServer, WorkAsyncClient, WorkClient};

struct Answers;

impl Host for Answers {
    fn answer(&self, question: String) -> String {
        format!("{question}? 42")
    }
}

fn plugin(mode: &str) -> PluginBuilder {
    Plugin::builder(env!("CARGO_BIN_EXE_typed")).arg(mode)
}

#[test]
fn a_plugin_is_called_and_calls_its_host() {
    let plugin = plugin("").service(HostServer::new(Answers)).start().unwrap();
    let work: WorkClient = plugin.client().unwrap();
    assert_eq!(i64::from(work.pid().unwrap()), i64::from(plugin.pid().as_raw()));
    assert_eq!(work.ask("life".into()).unwrap(), "life? 42");
    assert!(!work.deadline().unwrap());
    let options = CallOptions::new().timeout(Duration::from_secs(60));
    assert!(work.with(options).deadline().unwrap());
    // The second service of the plugin.
    let echo: HostClient = plugin.client().unwrap();
    assert_eq!(echo.answer("x".into()).unwrap(), "x");
    plugin.stop().unwrap();
    let error = work.pid().unwrap_err();
    assert!(
        matches!(&error, ServiceError::Call(error) if error.code() == Some("closed")),
        "{error}"
    );
}

#[test]
fn a_host_without_the_service_is_named() {
    let plugin = plugin("").start().unwrap();
    let work: WorkClient = plugin.client().unwrap();
    let error = work.ask("life".into()).unwrap_err();
    assert_eq!(error.to_string(), "the host has no service \"host\"; it has none at all");
}

#[test]
fn an_allow_list_counts_for_methods() {
    let builder = plugin("").service(HostServer::new(Answers));
    let work: WorkClient = builder.clone().allow(["other"]).start().unwrap().client().unwrap();
    let error = work.ask("life".into()).unwrap_err().to_string();
    assert!(error.starts_with("host.answer: "), "{error}");
    assert!(!error.contains("42"), "{error}");
    let work: WorkClient = builder.allow(["host.answer"]).start().unwrap().client().unwrap();
    assert_eq!(work.ask("life".into()).unwrap(), "life? 42");
}

#[test]
fn a_plugin_without_the_service_or_with_an_older_one_is_refused() {
    let other = plugin("other").start().unwrap();
    let error = other.client::<WorkClient>().unwrap_err();
    assert!(matches!(error.kind(), NoServiceKind::Missing { offered } if offered == &["host"]));
    assert_eq!(error.to_string(), "typed has no service \"work\"; it has host");

    let older = plugin("older").start().unwrap();
    let error = older.client::<WorkClient>().unwrap_err();
    let NoServiceKind::Version { theirs: (1, 1), ours: 2, changes } = error.kind() else {
        panic!("{error:?}")
    };
    let missing: Vec<_> = changes.iter().filter_map(|change| change.method.as_deref()).collect();
    assert_eq!(missing, ["ask", "crash_once", "deadline"]);

    for (mode, expected) in [
        ("none", "has no service \"work\"; it has none at all"),
        ("older", "has version 1 of the service \"work\", and this side needs version 2"),
    ] {
        let error = plugin(mode).requires::<WorkClient>().start().unwrap_err();
        assert!(matches!(error.kind(), StartErrorKind::Service { .. }), "{error:?}");
        assert!(error.is_permanent());
        assert!(error.to_string().contains(expected), "{error}");
    }
    plugin("").requires::<WorkClient>().requires::<HostClient>().start().unwrap();
}

#[test]
fn a_client_outlives_a_crash_under_a_supervisor() {
    let directory = tempfile::tempdir().unwrap();
    let marker = directory.path().join("marker").to_string_lossy().into_owned();
    let supervisor = Supervisor::builder(plugin("").requires::<WorkClient>()).build().unwrap();
    let work: WorkClient = supervisor.client();
    let first = work.pid().unwrap();
    // Made again, since the method is idempotent.
    let second = work.crash_once(marker).unwrap();
    assert_ne!(first, second);
    assert_eq!(work.pid().unwrap(), second);
}

#[test]
fn a_supervisor_gives_up_a_plugin_without_the_service() {
    let supervisor = Supervisor::builder(plugin("none").requires::<WorkClient>()).build().unwrap();
    let work: WorkClient = supervisor.client();
    let error = work.pid().unwrap_err();
    assert!(error.to_string().contains("has no service \"work\""), "{error}");
}

#[test]
fn a_client_calls_the_members_of_a_pool() {
    let pool = Pool::new(Supervisor::builder(plugin("")), NonZeroUsize::new(2).unwrap()).unwrap();
    let work: WorkAsyncClient = pool.client();
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    let mut pids = runtime.block_on(async {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let work = work.clone();
            calls.spawn(async move { work.pid().await.unwrap() });
        }
        calls.join_all().await
    });
    pids.sort_unstable();
    pids.dedup();
    assert!((1..=2).contains(&pids.len()), "{pids:?}");
    assert_eq!(WorkAsyncClient::interface(), WorkClient::interface());
}
