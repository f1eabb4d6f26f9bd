//! Flow control of requests and one-ways: how much a side may send before a handler takes it. No
//! I/O, no clock.
//!
//! Both sides count from the first chunk of the connection. When either learns that the other
//! counts too does therefore not matter (docs/protocol.md, "Flow control").

/// Weight of a chunk in addition to its command and buffer, in bytes. It bounds the number of
/// chunks too.
const CHUNK_WEIGHT: u64 = 64;

/// Name of the feature in `pipeplug.features`.
pub(crate) const FEATURE: &str = "flow";

/// Window of a peer that names the feature and no window, in bytes.
pub(crate) const DEFAULT_WINDOW: u64 = 4 << 20;

/// Parses a number of the protocol: digits, without a sign or a leading zero.
pub(crate) fn number(text: &str) -> Option<u64> {
    let is_plain =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if is_plain { text.parse().ok() } else { None }
}

/// Window of a peer that names the feature. A window that is no number counts as left out.
pub(crate) fn window(offered: Option<&str>) -> u64 {
    offered.and_then(number).unwrap_or(DEFAULT_WINDOW)
}

/// Window of a stream of a peer that names the feature and no window, in bytes.
pub(crate) const DEFAULT_STREAM_WINDOW: u64 = 1 << 20;

/// Window of a stream of a peer that names the feature. A window that is no number counts as left
/// out.
pub(crate) fn stream_window(offered: Option<&str>) -> u64 {
    offered.and_then(number).unwrap_or(DEFAULT_STREAM_WINDOW)
}

/// Weight of a request or one-way, in bytes.
pub(crate) fn weight(command_len: usize, buffer_len: usize) -> u64 {
    weight_of(command_len as u64, buffer_len as u64)
}

/// Weight for lengths that were only declared.
pub(crate) fn weight_of(command_len: u64, buffer_len: u64) -> u64 {
    CHUNK_WEIGHT.saturating_add(command_len).saturating_add(buffer_len)
}

/// Flow control of the sender.
#[derive(Debug, Default)]
pub(crate) struct SendWindow {
    sent: u64,
    credited: u64,
    /// The peer's window, once it has negotiated `flow`.
    window: Option<u64>,
}

impl SendWindow {
    /// Returns true if one more chunk may be sent. The last one may overshoot the window.
    pub(crate) fn is_open(&self) -> bool {
        self.window.is_none_or(|window| self.sent.saturating_sub(self.credited) < window.max(1))
    }

    /// The missing credit, if no chunk may be sent.
    pub(crate) fn missing(&self) -> Option<Credit> {
        let window = self.window.filter(|_| !self.is_open())?;
        Some(Credit { sent: self.sent, credited: self.credited, window })
    }

    pub(crate) fn sent(&mut self, weight: u64) {
        self.sent = self.sent.saturating_add(weight);
    }

    pub(crate) fn negotiated(&mut self, window: u64) {
        self.window = Some(window);
    }

    /// Notes that the peer has taken `total` bytes in all. Returns false for a total that
    /// decreases, or exceeds what was sent.
    pub(crate) fn credit(&mut self, total: u64) -> bool {
        let valid = (self.credited..=self.sent).contains(&total);
        if valid {
            self.credited = total;
        }
        valid
    }
}

/// Credit that a sender waits for (docs/protocol.md, "Flow").
///
/// `Display` writes what is missing, and what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credit {
    /// Weight that was sent, in bytes.
    pub sent: u64,
    /// Weight that the other side has taken by its last `cmd.credit`, in bytes.
    pub credited: u64,
    /// The other side's window, in bytes.
    pub window: u64,
}

impl std::fmt::Display for Credit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { sent, credited, window } = self;
        write!(
            f,
            "the other side has given credit for {credited} of {sent} bytes, and its window is {window}: "
        )?;
        if *credited == 0 {
            f.write_str(
                "either its handlers have taken nothing yet, or it names the feature flow in pipeplug.features and \
                 never sends cmd.credit, which it then has to",
            )
        } else {
            f.write_str("its handlers are behind, or it has stopped sending cmd.credit")
        }
    }
}

/// Flow control of the receiver.
#[derive(Debug)]
pub(crate) struct ReceiveWindow {
    taken: u64,
    reported: u64,
    window: u64,
    active: bool,
}

impl ReceiveWindow {
    pub(crate) fn new(window: usize) -> Self {
        Self { taken: 0, reported: 0, window: window as u64, active: false }
    }

    pub(crate) fn negotiated(&mut self) {
        self.active = true;
    }

    /// Returns true if the sender counts too.
    pub(crate) fn is_negotiated(&self) -> bool {
        self.active
    }

    /// Notes that a handler has taken a chunk.
    pub(crate) fn taken(&mut self, weight: u64) {
        self.taken = self.taken.saturating_add(weight);
    }

    /// Total to report to the peer. Due at each half window.
    pub(crate) fn report(&mut self) -> Option<u64> {
        let due = self.active && self.taken - self.reported >= (self.window / 2).max(1);
        due.then(|| {
            self.reported = self.taken;
            self.taken
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_that_is_no_number_counts_as_left_out() {
        for odd in
            ["", "+1", "-1", " 1", "1 ", "01", "00", "1e3", "0x10", "18446744073709551616", "1.0"]
        {
            assert_eq!((odd, number(odd)), (odd, None));
            assert_eq!(window(Some(odd)), DEFAULT_WINDOW);
        }
        assert_eq!(window(None), DEFAULT_WINDOW);
        assert_eq!([window(Some("0")), window(Some("100"))], [0, 100]);
        assert_eq!(number("18446744073709551615"), Some(u64::MAX));
    }

    #[test]
    fn a_window_of_0_counts_as_1() {
        let mut window = SendWindow::default();
        window.negotiated(0);
        assert!(window.is_open());
        window.sent(64);
        assert!(!window.is_open());
        assert!(window.credit(64) && window.is_open());
    }

    #[test]
    fn without_negotiation_nothing_is_held_back() {
        let mut window = SendWindow::default();
        window.sent(u64::MAX);
        assert!(window.is_open());
    }

    #[test]
    fn a_full_window_opens_with_credit() {
        let mut window = SendWindow::default();
        window.sent(weight(4, 100));
        window.negotiated(200);
        assert!(window.is_open());
        window.sent(weight(4, 100));
        assert!(!window.is_open());
        assert!(window.credit(168));
        assert!(window.is_open());
    }

    #[test]
    fn a_credit_that_cannot_be_is_refused() {
        let mut window = SendWindow::default();
        window.sent(100);
        assert!(!window.credit(101));
        assert!(window.credit(60));
        assert!(!window.credit(59));
    }

    #[test]
    fn what_was_taken_before_the_negotiation_is_reported_too() {
        let mut window = ReceiveWindow::new(100);
        window.taken(70);
        assert_eq!(window.report(), None);
        window.negotiated();
        assert_eq!(window.report(), Some(70));
        assert_eq!(window.report(), None);
        window.taken(49);
        assert_eq!(window.report(), None);
        window.taken(1);
        assert_eq!(window.report(), Some(120));
    }

    /// A sender and a receiver in memory, with windows of any size: they never stand still for
    /// good.
    #[test]
    fn two_sides_never_stand_still() {
        for window in [0, 1, 2, 63, 64, 65, 1000] {
            let (mut send, mut receive) = (SendWindow::default(), ReceiveWindow::new(window));
            send.negotiated(window as u64);
            receive.negotiated();
            for len in 0..1000 {
                let weight = weight(4, len % 7 * 50);
                assert!(send.is_open(), "window {window}, chunk {len}");
                send.sent(weight);
                receive.taken(weight);
                if let Some(total) = receive.report() {
                    assert!(send.credit(total));
                }
            }
        }
    }
}
