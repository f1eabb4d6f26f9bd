//! Services with another encoding than JSON.

#![cfg(feature = "postcard")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use pipeplug_net::{Handler, HandlerError, Refuse, Reply, Request};
use pipeplug_service::{Client, ServiceSet};
use pipeplug_testkit::Pair;

mod first {
    /// Sums.
    #[pipeplug_service::service(version = 1, codec = "postcard")]
    pub(crate) trait Sum {
        /// The sum of two numbers.
        fn add(&self, a: i64, b: i64) -> Result<i64, String>;
    }
}

mod second {
    /// Sums, with an argument more.
    #[pipeplug_service::service(version = 1, codec = "postcard")]
    pub(crate) trait Sum {
        /// The sum of up to three numbers.
        fn add(&self, a: i64, b: i64, #[serde(default)] c: i64) -> Result<i64, String>;
    }
}

struct Adder;

impl first::Sum for Adder {
    fn add(&self, a: i64, b: i64) -> Result<i64, String> {
        a.checked_add(b).ok_or_else(|| "too large".into())
    }
}

impl second::Sum for Adder {
    fn add(&self, a: i64, b: i64, c: i64) -> Result<i64, String> {
        Ok(a + b + c)
    }
}

/// Notes the commands that come.
struct Noting {
    services: ServiceSet,
    commands: Arc<Mutex<Vec<String>>>,
}

impl Handler for Noting {
    fn handle(&self, request: &mut Request) -> Result<Reply, HandlerError> {
        self.commands.lock().unwrap_or_else(|_| panic!()).push(request.command().to_owned());
        Handler::handle(&self.services, request)
    }
}

type Commands = Arc<Mutex<Vec<String>>>;

fn pair(services: ServiceSet) -> (Pair, Commands) {
    let commands = Commands::default();
    let handler = Noting { services, commands: Arc::clone(&commands) };
    (Pair::new(Refuse, handler).expect("the system gives pipes"), commands)
}

#[test]
fn programs_of_one_interface_use_the_codec() {
    let (pair, commands) = pair(ServiceSet::new().with(first::SumServer::new(Adder)));
    let sum = first::SumClient::new(pair.host.clone());
    assert_eq!(sum.add(2, 3).unwrap(), 5);
    assert_eq!(sum.add(i64::MAX, 3).unwrap_err().to_string(), "too large");
    let commands = commands.lock().unwrap().clone();
    assert!(
        commands.iter().all(|command| command.starts_with("sum.add@postcard:")),
        "{commands:?}"
    );
    // JSON is there for everyone else.
    assert_eq!(pair.host.call("sum.add", r#"{"a":1,"b":2}"#).unwrap(), "3");
}

#[test]
fn programs_of_different_interfaces_use_json_from_the_second_call_on() {
    let (pair, commands) = pair(ServiceSet::new().with(second::SumServer::new(Adder)));
    let sum = first::SumClient::new(pair.host.clone());
    for _ in 0..3 {
        assert_eq!(sum.add(2, 3).unwrap(), 5);
    }
    let commands = commands.lock().unwrap().clone();
    assert!(commands[0].starts_with("sum.add@postcard:"), "{commands:?}");
    assert_eq!(commands[1..], ["sum.add"; 3]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let sum = first::SumAsyncClient::new(pair.host.clone());
    assert_eq!(runtime.block_on(sum.add(2, 3)).unwrap(), 5);
}

#[test]
fn a_peer_that_knows_no_codes_is_called_with_json() {
    // Its error has a message only, as that of a peer of the base protocol.
    let calls = AtomicUsize::new(0);
    let handler = move |request: &mut Request| match request.command() {
        "sum.add" => Ok("5".into()),
        _ => {
            calls.fetch_add(1, Ordering::Relaxed);
            Err(format!("no such thing, {} times", calls.load(Ordering::Relaxed)).into())
        }
    };
    let pair = Pair::new(Refuse, handler).unwrap();
    let sum = first::SumClient::new(pair.host.clone());
    assert_eq!(sum.add(2, 3).unwrap(), 5);
    assert_eq!(sum.add(2, 3).unwrap(), 5);
    let error = pair.host.call("other", "").unwrap_err();
    assert!(error.to_string().ends_with("no such thing, 2 times"), "{error}");
}

#[test]
fn the_sum_of_an_interface_is_part_of_its_commands_only() {
    assert_eq!(first::SumClient::interface().codec.as_deref(), Some("postcard"));
    assert_ne!(first::SumClient::interface(), second::SumClient::interface());
}

mod flat {
    use pipeplug_service::data;

    #[data]
    #[derive(Debug)]
    pub(crate) struct Inner {
        pub(crate) value: u32,
    }

    /// Postcard does not know flattened types.
    #[data]
    #[derive(Debug)]
    pub(crate) struct Outer {
        #[serde(flatten)]
        pub(crate) inner: Inner,
    }

    #[pipeplug_service::service(version = 1, codec = "postcard")]
    pub(crate) trait Flat {
        /// Makes one more.
        fn next(&self) -> Outer;
    }
}

struct Flattened(Arc<AtomicUsize>);

impl flat::Flat for Flattened {
    fn next(&self) -> flat::Outer {
        self.0.fetch_add(1, Ordering::SeqCst);
        flat::Outer { inner: flat::Inner { value: 1 } }
    }
}

#[test]
fn a_method_whose_result_cannot_be_encoded_is_not_called_again() {
    let calls = Arc::new(AtomicUsize::new(0));
    let (pair, _) = pair(ServiceSet::new().with(flat::FlatServer::new(Flattened(calls.clone()))));
    let error = flat::FlatClient::new(pair.host.clone()).next().unwrap_err();
    assert!(error.to_string().contains("the result cannot be encoded as postcard"), "{error}");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}
