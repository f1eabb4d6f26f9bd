//! The table of calls in flight, against a plain map.

#![cfg(feature = "alloc")]

use std::collections::{BTreeMap, BTreeSet};

use pipeplug_wire::{Calls, Completion, OpenError, ThreadId};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

#[derive(Clone, Debug)]
enum Operation {
    Open,
    /// One of the open calls.
    Complete(Index),
    Cancel(Index),
    /// Any number around those that were given out.
    CompleteAny(Index),
    CancelAny(Index),
    Close,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        600 => Just(Operation::Open),
        300 => any::<Index>().prop_map(Operation::Complete),
        150 => any::<Index>().prop_map(Operation::Cancel),
        30 => any::<Index>().prop_map(Operation::CompleteAny),
        30 => any::<Index>().prop_map(Operation::CancelAny),
        1 => Just(Operation::Close),
    ]
}

/// Model of [`Calls`], as simple as possible.
#[derive(Default)]
struct Model {
    open: BTreeMap<u64, u32>,
    given: BTreeSet<u64>,
    late: u64,
    unknown: u64,
    closed: bool,
}

impl Model {
    fn newest(&self) -> u64 {
        self.given.last().copied().unwrap_or(0)
    }

    fn pick(&self, index: Index) -> Option<u64> {
        let open: Vec<_> = self.open.keys().copied().collect();
        (!open.is_empty()).then(|| *index.get(&open))
    }
}

fn run(limit: usize, operations: Vec<Operation>) {
    let mut calls = Calls::new(limit);
    let mut model = Model::default();
    for (waiter, operation) in (0..).zip(operations) {
        match operation {
            Operation::Open => match calls.open(waiter) {
                Ok(id) => {
                    assert!(!model.closed && model.open.len() < limit);
                    assert!(id.as_u64() > model.newest(), "ids rise");
                    model.given.insert(id.as_u64());
                    model.open.insert(id.as_u64(), waiter);
                }
                Err(OpenError::Closed { waiter: back }) => {
                    assert!(model.closed);
                    assert_eq!(back, waiter);
                }
                Err(OpenError::TooMany { limit: told, waiter: back }) => {
                    assert!(!model.closed && model.open.len() == limit);
                    assert_eq!((told, back), (limit, waiter));
                }
            },
            Operation::Complete(index) => {
                if let Some(id) = model.pick(index) {
                    let expected = model.open.remove(&id).expect("it was picked from there");
                    assert_eq!(calls.complete(ThreadId::new(id)), Completion::Waiter(expected));
                }
            }
            Operation::Cancel(index) => {
                if let Some(id) = model.pick(index) {
                    assert_eq!(calls.cancel(ThreadId::new(id)), model.open.remove(&id));
                }
            }
            Operation::CompleteAny(index) => {
                let id = index.index(model.newest() as usize + 5) as u64;
                match calls.complete(ThreadId::new(id)) {
                    Completion::Waiter(waiter) => assert_eq!(model.open.remove(&id), Some(waiter)),
                    Completion::Late => {
                        assert!(
                            (1..=model.newest()).contains(&id) && !model.open.contains_key(&id)
                        );
                        model.late += 1;
                    }
                    Completion::Unknown => {
                        assert!(id == 0 || id > model.newest());
                        model.unknown += 1;
                    }
                }
            }
            Operation::CancelAny(index) => {
                let id = index.index(model.newest() as usize + 5) as u64;
                assert_eq!(calls.cancel(ThreadId::new(id)), model.open.remove(&id));
            }
            Operation::Close => {
                let closed: Vec<_> =
                    calls.close().into_iter().map(|(id, waiter)| (id.as_u64(), waiter)).collect();
                assert_eq!(closed, std::mem::take(&mut model.open).into_iter().collect::<Vec<_>>());
                model.closed = true;
            }
        }
        assert_eq!((calls.len(), calls.is_empty()), (model.open.len(), model.open.is_empty()));
        assert_eq!(
            (calls.late(), calls.unknown(), calls.is_closed()),
            (model.late, model.unknown, model.closed)
        );
        let open: BTreeMap<_, _> =
            calls.iter().map(|(id, waiter)| (id.as_u64(), *waiter)).collect();
        assert_eq!(open, model.open);
    }
    for id in 0..model.newest() + 5 {
        assert_eq!(calls.get(ThreadId::new(id)), model.open.get(&id));
    }
}

proptest! {
    #[test]
    fn it_does_what_a_map_does(limit in 0_usize..70, operations in vec(operation(), 0..300)) {
        run(limit, operations);
    }
}

#[test]
fn ids_begin_at_one() {
    let mut calls = Calls::new(2);
    assert_eq!(calls.open("a").unwrap().as_u64(), 1);
    assert_eq!(calls.open("b").unwrap().as_u64(), 2);
    let error = calls.open("c").unwrap_err();
    assert_eq!(error.to_string(), "2 calls are in flight, the limit is 2");
    assert_eq!(error.into_waiter(), "c");
    assert_eq!(calls.get(ThreadId::new(1)), Some(&"a"));
    assert_eq!(calls.complete(ThreadId::new(1)), Completion::Waiter("a"));
    assert_eq!(calls.complete(ThreadId::new(1)), Completion::Late);
    assert_eq!(calls.complete(ThreadId::new(0)), Completion::Unknown);
    assert_eq!(calls.complete(ThreadId::new(u64::MAX)), Completion::Unknown);
    assert_eq!((calls.late(), calls.unknown()), (1, 2));
}

#[test]
fn a_cancelled_call_answers_late() {
    let mut calls = Calls::new(1);
    let id = calls.open(()).unwrap();
    assert_eq!(calls.cancel(id), Some(()));
    assert_eq!(calls.cancel(id), None);
    assert_eq!(calls.complete(id), Completion::Late);
    assert_eq!(calls.late(), 1);
}

#[test]
fn closing_gives_all_back_oldest_first() {
    let mut calls = Calls::new(100);
    let ids: Vec<_> = (0..50).map(|waiter| calls.open(waiter).unwrap()).collect();
    assert_eq!(calls.close(), ids.iter().copied().zip(0..50).collect::<Vec<_>>());
    assert!(calls.is_closed() && calls.is_empty());
    let error = calls.open(50).unwrap_err();
    assert_eq!(error, OpenError::Closed { waiter: 50 });
    assert_eq!(error.to_string(), "the connection takes no more calls");
    assert_eq!(calls.complete(ids[3]), Completion::Late);
    assert_eq!(calls.complete(ThreadId::new(51)), Completion::Unknown);
    assert_eq!(calls.close(), []);
}

/// One call that never ends is in the way of one id in each round, and of nothing else.
#[test]
fn a_slow_call_is_passed_over() {
    let mut calls = Calls::new(8);
    let slow = calls.open(0).unwrap();
    let mut given = vec![slow.as_u64()];
    for waiter in 1..100 {
        let id = calls.open(waiter).unwrap();
        given.push(id.as_u64());
        assert_eq!(calls.complete(id), Completion::Waiter(waiter));
    }
    assert!(given.is_sorted_by(|a, b| a < b));
    assert!(given.last() > Some(&100), "some numbers were passed over");
    assert!(given.last() < Some(&130), "but not many: {given:?}");
    assert_eq!(calls.complete(slow), Completion::Waiter(0));
}

/// At least half of the table is free, so at most every other number is passed over.
#[test]
fn slow_calls_leave_room() {
    for held in 1..70 {
        let mut calls = Calls::new(100);
        for waiter in 0..held {
            calls.open(waiter).unwrap();
        }
        for waiter in 0..1000 {
            let id = calls.open(waiter).unwrap();
            assert_eq!(calls.complete(id), Completion::Waiter(waiter));
        }
        let newest = calls.open(0).unwrap().as_u64();
        assert!(newest <= 2 * (1000 + 1) + 256, "{newest} with {held} slow calls");
    }
}

/// The error of a waiter that cannot be shown can be shown.
#[test]
fn an_error_needs_nothing_of_the_waiter() {
    struct Waiter;
    let mut calls = Calls::new(0);
    let Err(error) = calls.open(Waiter) else { panic!("the limit is 0") };
    assert_eq!(
        format!("{error} / {error:?}"),
        "0 calls are in flight, the limit is 0 / TooMany { limit: 0, .. }"
    );
}
