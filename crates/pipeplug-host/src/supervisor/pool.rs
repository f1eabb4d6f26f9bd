//! Several processes of one plugin.

use std::mem;
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use pipeplug_net::internal::Offloaded;

use super::Supervisor;
use super::builder::SupervisorBuilder;
use super::calls::{Leases, Patience, supervised_caller};
use super::error::Unavailable;
use super::instance::Lease;
use super::state::Load;
use crate::plugin::{PluginBuilder, StartError, StopError};

/// Several processes of one plugin, each with a supervisor of its own; a call goes to the one with
/// the fewest open calls, the first among equals, and so does a one-way, in turn among equals.
///
/// A process that does not run gets no calls as long as another one does. So calls go on while a
/// failed process restarts, and the others share the calls of a process that was given up. If a
/// call finds all running processes busy, another one is started for later calls. A call waits for
/// a start only if no process runs.
///
/// A handle: cloning it is cheap, and dropping the last one stops them all, as [`stop`](Pool::stop)
/// does. That blocks or goes on in the background by the rule of [`Plugin`](crate::Plugin): in the
/// background if anything of it was ever awaited, or with [`PluginBuilder::stop_in_background`]. They are called by the plugin's name and a number: `echo#0`, `echo#1`, and so on.
///
/// ```no_run
/// use std::num::NonZeroUsize;
/// use pipeplug_host::{Plugin, Pool, Supervisor};
///
/// let four = NonZeroUsize::new(4).unwrap();
/// let pool = Pool::new(Supervisor::builder(Plugin::builder("./target/debug/echo")), four)?;
/// assert_eq!(pool.call("echo", "hello")?, "hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Pool(Arc<Members>);

#[derive(Debug)]
struct Members {
    all: Box<[Supervisor]>,
    /// Index at which the next one-way begins to search.
    next: AtomicUsize,
}

impl Pool {
    /// A pool of `size` processes at most, which calls start, or [`start`](Pool::start). The
    /// builder's hook is called with the events of each.
    ///
    /// # Errors
    /// As [`SupervisorBuilder::build`].
    pub fn new(supervisor: SupervisorBuilder, size: NonZeroUsize) -> Result<Self, StartError> {
        let member = |number| {
            let mut supervisor = supervisor.clone();
            supervisor.plugin = numbered(supervisor.plugin, number);
            supervisor.build()
        };
        let all = (0..size.get()).map(member).collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Members { all, next: AtomicUsize::new(0) })))
    }

    /// Starts all of them at the same time, as [`Supervisor::start`] does.
    ///
    /// # Errors
    /// The first one's that did not start; the others go on.
    ///
    /// # Blocking
    /// Until all have started or failed.
    pub fn start(&self) -> Result<(), Unavailable> {
        self.0.at_once(Supervisor::start).into_iter().collect()
    }

    /// [Replaces](Supervisor::replace) one after the other, so that no call is lost, up to the
    /// first that fails.
    ///
    /// # Errors
    /// As [`Supervisor::replace`]; the processes after it are not replaced.
    ///
    /// # Blocking
    /// As [`Supervisor::replace`], for each.
    pub fn replace(&self, plugin: &PluginBuilder) -> Result<(), Unavailable> {
        let one = |(number, member): (usize, &Supervisor)| {
            member.replace(numbered(plugin.clone(), number))
        };
        self.members().iter().enumerate().try_for_each(one)
    }

    /// Like [`replace`](Pool::replace), by other processes of the same plugin.
    ///
    /// # Errors
    /// As [`replace`](Pool::replace).
    ///
    /// # Blocking
    /// As [`replace`](Pool::replace).
    pub fn restart(&self) -> Result<(), Unavailable> {
        self.members().iter().try_for_each(Supervisor::restart)
    }

    /// [Resets](Supervisor::reset) each.
    pub fn reset(&self) {
        self.members().iter().for_each(Supervisor::reset);
    }

    /// Stops all at the same time, as [`Supervisor::stop`] does.
    ///
    /// # Errors
    /// The first one's that could not be stopped; the others are.
    ///
    /// # Blocking
    /// As [`Plugin::stop`](crate::Plugin::stop).
    pub fn stop(&self) -> Result<(), StopError> {
        self.0.at_once(|member| member.stop().map(drop)).into_iter().collect()
    }

    /// Each by itself, in the order of their numbers.
    #[must_use]
    pub fn members(&self) -> &[Supervisor] {
        &self.0.all
    }

    /// Starts all of them as [`start`](Pool::start) does, and awaits that they run.
    ///
    /// # Errors
    /// As for [`start`](Pool::start).
    ///
    /// # Cancellation
    /// The starts go on if the future is dropped.
    pub async fn start_async(&self) -> Result<(), Unavailable> {
        self.offload(Self::start).await
    }

    /// Replaces them as [`replace`](Pool::replace) does, and awaits that.
    ///
    /// # Errors
    /// As for [`replace`](Pool::replace).
    ///
    /// # Cancellation
    /// The replacement goes on if the future is dropped.
    pub async fn replace_async(&self, plugin: PluginBuilder) -> Result<(), Unavailable> {
        self.offload(move |pool| pool.replace(&plugin)).await
    }

    /// Restarts them as [`restart`](Pool::restart) does, and awaits that.
    ///
    /// # Errors
    /// As for [`restart`](Pool::restart).
    ///
    /// # Cancellation
    /// The restart goes on if the future is dropped.
    pub async fn restart_async(&self) -> Result<(), Unavailable> {
        self.offload(Self::restart).await
    }

    /// Stops all as [`stop`](Pool::stop) does, and awaits their end.
    ///
    /// # Errors
    /// As for [`stop`](Pool::stop).
    ///
    /// # Cancellation
    /// The stop goes on if the future is dropped.
    pub async fn stop_async(&self) -> Result<(), StopError> {
        self.offload(Self::stop).await
    }

    /// Runs a method that blocks on a thread of the event loop.
    fn offload<T: Send + 'static>(
        &self,
        run: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Offloaded<T> {
        self.note_awaited();
        let pool = self.clone();
        self.members()[0].shared().events.offload(move || run(&pool))
    }

    fn note_awaited(&self) {
        // One is enough: a pool is dropped as a whole.
        self.members()[0].shared().note_awaited();
    }

    /// Index of the next member to begin with for a one-way.
    fn next_first(&self) -> usize {
        // Relaxed: it only spreads one-ways, and orders nothing.
        self.0.next.fetch_add(1, Ordering::Relaxed) % self.members().len()
    }

    fn acquire_from(&self, first: usize, patience: Patience<'_>) -> Result<Lease, Unavailable> {
        self.choose(first).unwrap_or_else(|member| member.shared().acquire(patience))
    }

    async fn acquire_from_async(
        &self,
        first: usize,
        patience: Patience<'_>,
    ) -> Result<Lease, Unavailable> {
        match self.choose(first) {
            Ok(leased) => leased,
            Err(member) => member.shared().acquire_async(patience).await,
        }
    }

    /// Leases the running process with the fewest open calls. If none runs, returns the member to
    /// wait for.
    fn choose(&self, first: usize) -> Result<Result<Lease, Unavailable>, &Supervisor> {
        let (behind, ahead) = self.members().split_at(first);
        let members = || ahead.iter().chain(behind);
        loop {
            // Each load is looked at under the lock of its member alone, so the loads are not of
            // one moment. `try_acquire` below looks again, under the lock of the member that was
            // chosen, and fails if more calls are open there than were seen.
            let mut best = None;
            for member in members() {
                let load = member.shared().load();
                if best.is_none_or(|(least, _)| load < least) {
                    best = Some((load, member));
                }
                if load == Load::Open(0) {
                    break;
                }
            }
            let Some((load, best)) = best else { unreachable!("a pool has one member at least") };
            let Load::Open(open) = load else { return Err(best) };
            if open > 0
                && let Some(down) = members().find(|member| member.shared().load() == Load::Down)
            {
                down.shared().start_soon();
            }
            // It may have ended by now, or other threads have called it: then another member may be
            // better, and all are looked at again.
            if let Some(lease) = best.shared().try_acquire(open) {
                return Ok(Ok(lease));
            }
        }
    }
}

supervised_caller!(Pool);

impl Leases for Pool {
    /// Leases the first of the processes with the fewest open calls. A process that was called a
    /// moment ago answers sooner than one that has to be woken, and the processes that only peaks
    /// need can become idle.
    fn acquire(&self, patience: Patience<'_>) -> Result<Lease, Unavailable> {
        self.acquire_from(0, patience)
    }

    /// Leases the processes with the fewest open calls in turn: how many one-ways a process still
    /// has to handle is not known.
    fn acquire_for_one_way(&self) -> Result<Lease, Unavailable> {
        self.acquire_from(self.next_first(), Patience::default())
    }

    async fn acquire_async(&self, patience: Patience<'_>) -> Result<Lease, Unavailable> {
        self.note_awaited();
        self.acquire_from_async(0, patience).await
    }

    async fn acquire_for_one_way_async(&self) -> Result<Lease, Unavailable> {
        self.note_awaited();
        self.acquire_from_async(self.next_first(), Patience::default()).await
    }

    fn retries(&self) -> u32 {
        self.members()[0].retries()
    }
}

impl Members {
    fn at_once<T: Send>(&self, each: impl Fn(&Supervisor) -> T + Sync) -> Vec<T> {
        at_once(&self.all, each)
    }
}

fn at_once<T: Send>(all: &[Supervisor], each: impl Fn(&Supervisor) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let each = &each;
        let begin = |member| {
            // If the system gives no thread, this thread does it after it has started the
            // others.
            thread::Builder::new().spawn_scoped(scope, move || each(member)).map_err(|_| member)
        };
        let running: Vec<_> = all.iter().map(begin).collect();
        let end = |one: Result<thread::ScopedJoinHandle<'_, T>, _>| match one {
            // A call-back of the host may panic.
            Ok(running) => running.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(member) => each(member),
        };
        running.into_iter().map(end).collect()
    })
}

impl Drop for Members {
    fn drop(&mut self) {
        // Before the supervisors are dropped, each of which would be stopped after the other.
        let is_awaited = self.all.iter().any(|member| member.shared().stops_in_background());
        let all = mem::take(&mut self.all);
        let events = all[0].shared().events.clone();
        let stop = move || {
            for stopped in at_once(&all, Supervisor::stop) {
                if let Err(error) = stopped {
                    tracing::error!(%error, "a plugin of a pool could not be stopped");
                }
            }
        };
        // The thread may be one of a runtime, which must not wait.
        if is_awaited { events.spawn(stop) } else { stop() }
    }
}

fn numbered(mut plugin: PluginBuilder, number: usize) -> PluginBuilder {
    plugin.options.name = format!("{}#{number}", plugin.options.name);
    plugin
}
