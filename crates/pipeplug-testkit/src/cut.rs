//! A conversation with a wire cut at each byte.

use std::fmt;

use pipeplug_guest::Main;
use pipeplug_net::Connection;

use crate::LONG;
use crate::pair::{Pair, PairError};
use crate::wire::Wire;

/// Place at which [`cut_at_every_byte`] cuts a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cut {
    /// The wire to the guest, after this number of bytes of the conversation.
    ToGuest(u64),
    /// The wire to the host, after this number of bytes of the conversation.
    ToHost(u64),
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ToGuest(bytes) => write!(f, "the wire to the guest is cut after {bytes} bytes"),
            Self::ToHost(bytes) => write!(f, "the wire to the host is cut after {bytes} bytes"),
        }
    }
}

/// Guest of a [`Pair`]: a connection, or a registered plugin.
pub trait GuestSide {
    /// The connection to the host.
    fn connection(&self) -> &Connection;
}

impl GuestSide for Connection {
    fn connection(&self) -> &Connection {
        self
    }
}

impl GuestSide for Main {
    fn connection(&self) -> &Connection {
        Self::connection(self)
    }
}

/// Runs a conversation once whole, and once for each byte of each direction, with the wire cut after
/// that byte. Returns the number of runs.
///
/// `pair` makes a new pair for each run. The conversation gets the place of the cut, `None` in the
/// whole run. It asserts what has to hold there: that each call ends, and with what. After each run
/// the host closes, and both connections have to end.
///
/// ```
/// use pipeplug_net::{CallError, Connection, Refuse, Request};
/// use pipeplug_testkit::{Pair, cut_at_every_byte};
///
/// let echo = |request: &mut Request| Ok(request.take_buffer().into());
/// let runs = cut_at_every_byte(
///     || Pair::new(Refuse, echo),
///     |pair: &Pair<Connection>, cut| match pair.host.call("echo", "hello") {
///         Ok(reply) => assert_eq!(reply, "hello"),
///         Err(CallError::Closed { .. }) => assert!(cut.is_some()),
///         Err(error) => panic!("{error}"),
///     },
/// )?;
/// assert!(runs > 20);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// A pair cannot be made.
///
/// # Panics
/// With the conversation, whose cut is printed then, and if a connection has not ended after
/// [`LONG`](crate::LONG).
///
/// # Blocking
/// For as long as all runs take.
pub fn cut_at_every_byte<G: GuestSide>(
    mut pair: impl FnMut() -> Result<Pair<G>, PairError>,
    mut conversation: impl FnMut(&Pair<G>, Option<Cut>),
) -> Result<usize, PairError> {
    let mut run = |cut: Option<Cut>| {
        let pair = pair()?;
        let before = [&pair.to_guest, &pair.to_host].map(Wire::passed);
        match cut {
            None => {}
            Some(Cut::ToGuest(bytes)) => pair.to_guest.cut_after(bytes),
            Some(Cut::ToHost(bytes)) => pair.to_host.cut_after(bytes),
        }
        let shown = PrintOnPanic(cut);
        conversation(&pair, cut);
        pair.host.close();
        for connection in [&pair.host, pair.guest.connection()] {
            assert!(connection.wait_closed(LONG).is_some(), "not ended: {connection:?}");
        }
        drop(shown);
        let after = [&pair.to_guest, &pair.to_host].map(Wire::passed);
        Ok::<_, PairError>([after[0] - before[0], after[1] - before[1]])
    };
    let [to_guest, to_host] = run(None)?;
    let cuts = (0..to_guest).map(Cut::ToGuest).chain((0..to_host).map(Cut::ToHost));
    let mut runs = 1;
    for cut in cuts {
        run(Some(cut))?;
        runs += 1;
    }
    Ok(runs)
}

/// Says at which cut a test has failed.
struct PrintOnPanic(Option<Cut>);

impl Drop for PrintOnPanic {
    fn drop(&mut self) {
        if let Some(cut) = self.0
            && std::thread::panicking()
        {
            eprintln!("while {cut}");
        }
    }
}
