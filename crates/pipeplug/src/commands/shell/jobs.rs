//! Calls in the background.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use pipeplug_host::CancelHandle;

use super::calls::{Caller, Ready};
use crate::exit::{CommandError, ExitReason};
use crate::output::text;
use crate::session::shutdown::Shutdown;

/// Calls in the background at one time: each has a thread.
const MOST: usize = 256;

/// Calls in the background.
#[derive(Default)]
pub(super) struct Jobs {
    last: u32,
    running: BTreeMap<u32, Job>,
}

struct Job {
    text: String,
    begun: Instant,
    cancel: CancelHandle,
    /// Set before the thread of the shell is woken.
    is_done: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), CommandError>>,
}

impl Jobs {
    /// Begins a job. `show` gets its error on the job's thread, and returns what is left of it for the
    /// shell.
    ///
    /// # Errors
    /// There are too many, or no thread can be started.
    pub(super) fn begin(
        &mut self,
        text: &str,
        caller: Caller,
        ready: Ready,
        show: impl FnOnce(u32, CommandError) -> Result<(), CommandError> + Send + 'static,
    ) -> Result<u32, CommandError> {
        if self.running.len() >= MOST {
            let message =
                format!("{MOST} calls run in the background, and more cannot: `wait` for them");
            return Err(CommandError::message(ExitReason::Failed, message));
        }
        let number = self.last + 1;
        let ready = Ready { job: Some((number, text.to_owned())), ..ready };
        let (cancel, is_done) = (caller.cancel.clone(), Arc::new(AtomicBool::new(false)));
        let (done, shell) = (Arc::clone(&is_done), thread::current());
        let running = caller.counts.clone();
        running.running.fetch_add(1, Ordering::SeqCst);
        let spawned = thread::Builder::new().name(format!("job {number}")).spawn(move || {
            let result = caller.make(&ready).or_else(|failure| show(number, failure));
            caller.counts.running.fetch_sub(1, Ordering::SeqCst);
            done.store(true, Ordering::Release);
            shell.unpark();
            result
        });
        let thread = spawned.map_err(|error| {
            running.running.fetch_sub(1, Ordering::SeqCst);
            let message = format!("cannot start a thread for the call: {error}");
            CommandError::message(ExitReason::Failed, message)
        })?;
        self.last = number;
        let job = Job { text: text.to_owned(), begun: Instant::now(), cancel, is_done, thread };
        self.running.insert(number, job);
        Ok(number)
    }

    /// Takes those that have ended. Returns the first error.
    pub(super) fn reap(&mut self) -> Result<(), CommandError> {
        let is_done = |job: &Job| job.is_done.load(Ordering::Acquire);
        let done: Vec<_> = self
            .running
            .iter()
            .filter(|(_, job)| is_done(job))
            .map(|(number, _)| *number)
            .collect();
        let ended = done.into_iter().filter_map(|number| self.running.remove(&number));
        // A panic of the thread has been reported by it.
        let results: Vec<_> = ended.map(|job| job.thread.join().unwrap_or(Ok(()))).collect();
        results.into_iter().collect()
    }

    /// Waits for one job, or for all. False if that was given up.
    ///
    /// # Errors
    /// There is no such job.
    pub(super) fn wait(
        &self,
        number: Option<u32>,
        cancel: &CancelHandle,
        shutdown: &Shutdown,
    ) -> Result<bool, CommandError> {
        let jobs: Vec<_> = match number {
            Some(number) => vec![self.job("wait", number)?],
            None => self.running.values().collect(),
        };
        // The threads of the jobs and of Ctrl-C wake this one.
        let waited = shutdown.wait_for(std::future::poll_fn(|_| {
            if cancel.is_cancelled() {
                Poll::Ready(false)
            } else if jobs.iter().all(|job| job.is_done.load(Ordering::Acquire)) {
                Poll::Ready(true)
            } else {
                Poll::Pending
            }
        }));
        Ok(waited.unwrap_or(false))
    }

    /// Gives a job up.
    ///
    /// # Errors
    /// There is no such job.
    pub(super) fn cancel(&self, number: u32) -> Result<(), CommandError> {
        let job = self.job("cancel", number)?;
        job.cancel.cancel();
        job.thread.thread().unpark();
        Ok(())
    }

    /// Gives all up.
    pub(super) fn cancel_all(&self) {
        for job in self.running.values() {
            job.cancel.cancel();
            job.thread.thread().unpark();
        }
    }

    fn job(&self, verb: &str, number: u32) -> Result<&Job, CommandError> {
        self.running.get(&number).ok_or_else(|| {
            let why = if number > self.last || number == 0 {
                "there is no call"
            } else {
                "it has ended:"
            };
            let message = format!("{verb} {number}: {why} [{number}]; `jobs` lists those that run");
            let message = message.replace("it has ended: [", "it has ended [");
            CommandError::message(ExitReason::Usage, message)
        })
    }

    pub(super) fn numbers(&self) -> Vec<u32> {
        self.running.keys().copied().collect()
    }

    /// One line for each, with its number and its time.
    pub(super) fn list(&self) -> String {
        let line = |(number, job): (&u32, &Job)| {
            let (time, text) = (text::took(job.begun.elapsed()), text::Escaped(&job.text));
            format!("[{number}] {time:>9}  {text}\n")
        };
        self.running.iter().map(line).collect()
    }
}
