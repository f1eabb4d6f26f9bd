//! The table of calls in flight, against a plain map.
//!
//! The first byte is the limit; each pair after it is an operation and which id it is for.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use pipeplug_wire::{Calls, Completion, OpenError, ThreadId};

fuzz_target!(|data: &[u8]| {
    let Some((&limit, operations)) = data.split_first() else { return };
    let limit = usize::from(limit);
    let mut calls = Calls::new(limit);
    let mut open = BTreeMap::new();
    let mut newest = 0_u64;
    for (waiter, pair) in operations.chunks_exact(2).enumerate() {
        let (operation, which) = (pair[0], u64::from(pair[1]));
        // An id near the newest one, given out or not.
        let id = (newest + 16).saturating_sub(which);
        match operation % 8 {
            0..=3 => match calls.open(waiter) {
                Ok(given) => {
                    assert!(given.as_u64() > newest && open.len() < limit && !calls.is_closed());
                    newest = given.as_u64();
                    open.insert(newest, waiter);
                }
                Err(OpenError::TooMany { limit: told, waiter: back }) => {
                    assert!(
                        (told, back, open.len()) == (limit, waiter, limit) && !calls.is_closed()
                    );
                }
                Err(OpenError::Closed { waiter: back }) => {
                    assert!(back == waiter && calls.is_closed())
                }
            },
            4 | 5 => {
                let expected = match open.remove(&id) {
                    Some(waiter) => Completion::Waiter(waiter),
                    None if id > 0 && id <= newest => Completion::Late,
                    None => Completion::Unknown,
                };
                assert_eq!(calls.complete(ThreadId::new(id)), expected);
            }
            6 => assert_eq!(calls.cancel(ThreadId::new(id)), open.remove(&id)),
            _ if which == 0xff => {
                let closed: Vec<_> =
                    calls.close().into_iter().map(|(id, waiter)| (id.as_u64(), waiter)).collect();
                assert_eq!(closed, std::mem::take(&mut open).into_iter().collect::<Vec<_>>());
            }
            _ => assert_eq!(calls.get(ThreadId::new(id)), open.get(&id)),
        }
        assert_eq!(calls.len(), open.len());
    }
    assert!(open.iter().all(|(&id, waiter)| calls.get(ThreadId::new(id)) == Some(waiter)));
    assert_eq!(calls.iter().count(), open.len());
});
