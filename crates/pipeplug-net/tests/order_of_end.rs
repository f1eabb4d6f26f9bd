//! In which order the end of a connection is told.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use common::{Gate, LONG, raw, watchdog};
use pipeplug_net::wire::Direction;
use pipeplug_net::{CloseReason, Connection, Handler, HandlerError, Options, Reply, Request};

/// Tells what it is told, and answers once its gate is open.
struct Tells {
    gate: Gate,
    told: Sender<&'static str>,
}

impl Handler for Tells {
    fn handle(&self, _incoming: &mut Request) -> Result<Reply, HandlerError> {
        self.told.send("asked")?;
        self.gate.pass();
        Ok(Reply::empty())
    }

    fn ended(&self, _reason: &Arc<CloseReason>) {
        self.told.send("ended").unwrap();
    }

    fn closed(&self, _reason: &Arc<CloseReason>, _connection: Option<&Connection>) {
        self.told.send("closed").unwrap();
    }
}

/// Lets the handler return, and leaves it the time to do so on the thread that ends the calls.
struct LetsReturn {
    gate: Gate,
    told: Mutex<Receiver<&'static str>>,
    early: Sender<&'static str>,
}

impl Wake for LetsReturn {
    fn wake(self: Arc<Self>) {
        self.gate.open();
        if let Ok(early) = self.told.lock().unwrap().recv_timeout(Duration::from_millis(100)) {
            self.early.send(early).unwrap();
        }
    }
}

#[test]
fn a_handler_that_returns_while_the_connection_ends_does_not_have_closed_told_ahead_of_ended() {
    let _watchdog = watchdog();
    let (gate, (told, heard), (early, heard_early)) = (Gate::default(), channel(), channel());
    let (connection, mut raw) = raw(&Options::default(), Tells { gate: gate.clone(), told });
    raw.send(1, Direction::Request, "wait", b"");
    assert_eq!(heard.recv_timeout(LONG), Ok("asked"));
    let waker = Arc::new(LetsReturn { gate, told: Mutex::new(heard), early });
    let mut call = pin!(connection.request("never", "").begin().unwrap());
    let polled = call.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(&waker))));
    assert!(polled.is_pending());
    drop(raw.output);
    assert!(connection.wait_closed(LONG).is_some());
    let order: Vec<_> =
        heard_early.try_iter().chain(waker.told.lock().unwrap().try_iter()).collect();
    assert_eq!(order, ["ended", "closed"]);
}
