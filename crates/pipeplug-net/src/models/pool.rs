//! The pool by itself: who starts a thread, who wakes one, and who goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::check;
use crate::event_loop::thread_pool::{BlockedOn, ThreadPool, Work, while_blocked};
use crate::sync::lock::lock;
use crate::sync::{Condvar, Mutex, thread};

/// Threads that may be.
const LIMIT: usize = 3;

#[derive(Default)]
struct Ran {
    /// Jobs that are at work now, and were at most.
    now: AtomicUsize,
    most: AtomicUsize,
    done: Mutex<usize>,
    changed: Condvar,
}

impl Ran {
    fn begins(&self) {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
    }

    fn ends(&self) {
        self.now.fetch_sub(1, Ordering::SeqCst);
        *lock(&self.done) += 1;
        self.changed.notify_all();
    }

    fn wait(&self, count: usize) {
        let mut done = lock(&self.done);
        while *done < count {
            done = self.changed.wait(done).unwrap();
        }
    }
}

#[test]
fn each_job_is_run_once_by_as_many_threads_as_may_be() {
    check(|| {
        let pool = ThreadPool::new(LIMIT);
        let ran = Arc::new(Ran::default());
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..3 {
                        let ran = Arc::clone(&ran);
                        let job = move || {
                            ran.begins();
                            thread::yield_now();
                            ran.ends();
                        };
                        pool.submit(Work::Once(Box::new(job))).unwrap();
                    }
                });
            }
        });
        ran.wait(6);
        pool.stop();
        assert_eq!(*lock(&ran.done), 6);
        assert!(ran.most.load(Ordering::SeqCst) <= LIMIT);
    });
}

#[test]
fn jobs_that_wait_for_others_leave_these_a_thread() {
    check(|| {
        let pool = ThreadPool::new(LIMIT);
        let (waiting, ran) = (Arc::new(Ran::default()), Arc::new(Ran::default()));
        // A thread that may be idle by now is there, too.
        let first = Arc::new(Ran::default());
        let job = Arc::clone(&first);
        pool.submit(Work::Once(Box::new(move || job.ends()))).unwrap();
        first.wait(1);
        thread::scope(|scope| {
            // One thread less than may be waits for what comes after it.
            for _ in 1..LIMIT {
                scope.spawn(|| {
                    let (waiting, ran) = (Arc::clone(&waiting), Arc::clone(&ran));
                    let job = move || {
                        waiting.begins();
                        while_blocked(BlockedOn::Peer, || ran.wait(2));
                        waiting.ends();
                    };
                    pool.submit(Work::Once(Box::new(job))).unwrap();
                });
            }
            scope.spawn(|| {
                for _ in 0..2 {
                    let ran = Arc::clone(&ran);
                    pool.submit(Work::Once(Box::new(move || ran.ends()))).unwrap();
                }
            });
        });
        waiting.wait(LIMIT - 1);
        pool.stop();
        assert!(waiting.most.load(Ordering::SeqCst) < LIMIT);
    });
}
