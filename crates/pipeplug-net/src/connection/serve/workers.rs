//! Workers of a connection: the threads that run its handlers, and how many of them there are.

use std::sync::Arc;
use std::time::Duration;

use super::job::Job;
use super::queue::{HandlerProgress, SLOW, ServeQueue};
use crate::connection::Connection;
use crate::connection::cancellation::WorkerSlot;
use crate::connection::handler::Request;
use crate::connection::read::leader::{Leader, ReaderRole};
use crate::connection::shared::{DeferredGuard, Shared};
use crate::escape::Escaped;
use crate::event_loop::thread_pool::{BlockedOn, Exhausted, Serve, Work};
use crate::protocol::context::RequestContext;
use crate::sync::Instant;
use crate::sync::lock::lock;
use crate::writer::Flush;

/// Time without a handler that returns, while others wait, after which one more worker is started.
const STALL: Duration = Duration::from_millis(1);
/// Number of handlers that are timed together: reading the clock takes longer than many a handler.
const SAMPLE: u32 = 32;
/// Number of jobs that a worker does before it lets other connections have their turn.
const TURN: usize = 64;

impl Serve for Shared {
    fn serve(self: Arc<Self>) {
        self.run_jobs(false);
    }

    fn worker_blocked(self: Arc<Self>, on: BlockedOn) {
        // First of all: what this handler waits for may have to be read, and no thread reads while
        // the role is vacant, before the tick finds it.
        self.return_role_of_handler();
        let mut queue = lock(&self.serve_queue);
        queue.worker_blocked(on);
        let another = self.claim_worker(&mut queue);
        let exhausted = self.share_is_blocked(&queue);
        drop(queue);
        if another {
            self.start_worker();
        }
        if let Some(exhausted) = exhausted {
            self.refuse_queued(exhausted);
        }
    }

    fn worker_resumed(&self, on: BlockedOn) {
        lock(&self.serve_queue).worker_resumed(on);
    }

    fn worker_waits_for_room(self: Arc<Self>) {
        self.return_role_of_handler();
    }

    fn refuse_waiting(self: Arc<Self>, exhausted: Exhausted) {
        self.refuse_queued(exhausted);
    }
}

impl Shared {
    /// Runs handlers on the dedicated reader's thread, for what it has read. Returns true if it is
    /// the leader still.
    pub(crate) fn serve_on_reader(self: &Arc<Self>, is_leader: bool) -> bool {
        let pool = self.events.handlers();
        let served = pool.as_worker(|| {
            if self.claim_reader_as_worker() {
                let owner: Arc<dyn Serve> = Arc::<Self>::clone(self);
                pool.serving(Some(owner), || self.run_jobs(is_leader))
            } else {
                is_leader
            }
        });
        served.unwrap_or_else(|| {
            self.leave_to_others();
            is_leader
        })
    }

    /// Counts the dedicated reader as a worker, unless as many workers run as may: those take what
    /// is queued.
    fn claim_reader_as_worker(&self) -> bool {
        let mut queue = lock(&self.serve_queue);
        let may = queue.has_work() && queue.running < self.options.handlers.get();
        if may {
            queue.running += 1;
        }
        may
    }

    /// Leaves what is queued to other threads.
    fn leave_to_others(self: &Arc<Self>) {
        let mut queue = lock(&self.serve_queue);
        queue.jobs_mut().for_each(Job::own);
        let another = self.claim_worker(&mut queue);
        let watch = if queue.has_work() { queue.begin_watch() } else { None };
        drop(queue);
        if another {
            self.start_worker();
        }
        if let Some(progress) = watch {
            self.watch_for_stall(progress);
        }
    }

    /// Runs handlers until the queue is empty, on a thread that was counted as a worker. Returns
    /// true if it is the leader still, if it was.
    fn run_jobs(self: &Arc<Self>, mut is_leader: bool) -> bool {
        // True while the reader role is vacant from one handler to the next, unless another thread
        // has taken it.
        let mut is_vacated = false;
        let mut since = Instant::now();
        let mut done = 0;
        // The first samples are short: they show soon whether handlers are slow.
        let mut sample = 1;
        // True while responses are queued for the end of the batch.
        let mut is_corked = false;
        let mut connection = None;
        let mut slot = None;
        for turn in 1.. {
            let mut queue = lock(&self.serve_queue);
            let slot = *slot.get_or_insert_with(|| queue.active.claim_slot());
            queue.returned(slot);
            // Another thread has taken the role meanwhile, such as the tick for the loop.
            // `retake_after_handler` clears this thread's mark, and fails unless the role is vacant
            // again by now.
            if is_vacated && !self.leader.is(ReaderRole::Vacant) {
                is_vacated = false;
                is_leader = self.leader.retake_after_handler();
            }
            // After a blocked worker has resumed, one more than the limit may run.
            let is_surplus = !is_leader && queue.running > self.options.handlers.get();
            let is_empty = is_surplus || !queue.has_work();
            if done > 0 && (is_empty || done >= sample || queue.usual > SLOW) {
                let now = Instant::now();
                queue.took((now - since) / done);
                (since, done) = (now, 0);
                sample = (sample * 2).min(SAMPLE);
            }
            let job = if is_surplus { None } else { queue.pop(slot) };
            let Some(mut job) = job else {
                // Under the lock under which the queue was found empty. A job that is admitted
                // after this sees one worker less, and gets one; a job that was admitted before was
                // seen above. None is left without a worker.
                queue.running -= 1;
                queue.active.leave(slot);
                drop(queue);
                if is_corked {
                    self.flush();
                }
                if is_vacated {
                    is_leader = self.leader.retake_after_handler();
                }
                self.finish_if_idle();
                return is_leader;
            };
            let context = queue.take_context(&job);
            let deferred = queue.deferred;
            let credit = queue.credit_due();
            let has_room = !queue.is_full();
            let another = (!is_leader || queue.usual > SLOW) && self.claim_worker(&mut queue);
            let has_more = queue.has_work();
            let comes_often = is_leader && turn == 1 && queue.comes_often(since);
            let watch = if has_more || comes_often { queue.begin_watch() } else { None };
            // The role may be left vacant only while the event loop ticks: the tick takes it from a
            // slow handler.
            let leaves_vacant = is_leader && queue.is_watched && queue.usual <= SLOW;
            if leaves_vacant && !is_vacated {
                // Under the lock under which the tick looks at the role.
                queue.note_vacancy();
                self.leader.leave_for_handler();
                is_vacated = true;
            }
            drop(queue);
            if another {
                self.start_worker();
            }
            if let Some(progress) = watch {
                self.watch_for_stall(progress);
            }
            self.send_credits(credit);
            if has_room {
                self.resume_reading();
            }
            if leaves_vacant {
                // The last response of a batch takes the others along.
                let flush = if has_more { Flush::Later } else { Flush::Now };
                is_corked |= has_more;
                if !self.refused_for_deferred(&job, deferred, flush) {
                    self.run_handler(&mut connection, job, slot, context, flush);
                }
            } else {
                if std::mem::take(&mut is_corked) {
                    self.flush();
                }
                if std::mem::take(&mut is_vacated) {
                    is_leader = self.leader.retake_after_handler();
                }
                if is_leader {
                    self.return_role_to_loop();
                }
                // The handler may take long: the job must not keep the whole input.
                job.own();
                if !self.refused_for_deferred(&job, deferred, Flush::Now) {
                    self.run_handler(&mut connection, job, slot, context, Flush::Now);
                }
                // Fails if another thread reads: a caller, or the loop for a chunk that came
                // meanwhile. This thread is a worker like any other then.
                is_leader = is_leader && self.leader.take_from_event_loop();
            }
            done += 1;
            if turn % TURN == 0 {
                connection = None; // the user may have dropped it
            }
            if turn % TURN == 0 && self.events.handlers().has_waiting() {
                // The slot is given back, since another thread may go on; it claims its own.
                let mut queue = lock(&self.serve_queue);
                queue.returned(slot);
                queue.active.leave(slot);
                drop(queue);
                // The worker stays counted, and goes to the end of the pool's queue.
                self.start_worker();
                if is_corked {
                    self.flush();
                }
                return if is_vacated { self.leader.retake_after_handler() } else { is_leader };
            }
        }
        unreachable!("the turns end when the queue is empty")
    }

    /// Runs a handler. `connection` is kept from one handler to the next.
    fn run_handler(
        self: &Arc<Self>,
        connection: &mut Option<Connection>,
        job: Job,
        slot: WorkerSlot,
        context: RequestContext,
        flush: Flush,
    ) {
        match connection.take().or_else(|| self.connection()) {
            Some(found) => {
                let incoming = Request::new(found, job, slot, context);
                *connection = Some(incoming.run(&*self.handler, flush));
            }
            None => {
                tracing::debug!(peer = %self.options.name, command = %Escaped(&job.command),
                "dropped: the connection was given up")
            }
        }
    }

    /// Counts one more worker if it pays. The caller starts it with
    /// [`start_worker`](Shared::start_worker).
    pub(super) fn claim_worker(&self, queue: &mut ServeQueue) -> bool {
        let pool = self.events.handlers();
        // If no thread is free, one place in the pool's queue is enough: other connections are
        // behind it.
        let pays = queue.wants_worker(self.options.handlers.get())
            && queue.workers() < pool.share()
            && (queue.running == 0 || !pool.is_saturated());
        if pays {
            queue.running += 1;
        }
        pays
    }

    /// Has a thread of the pool work for this connection. It was counted before.
    pub(super) fn start_worker(self: &Arc<Self>) {
        let owner: Arc<dyn Serve> = Arc::<Self>::clone(self);
        if let Err(exhausted) = self.events.handlers().submit(Work::Serve(owner)) {
            self.refuse_queued(exhausted);
        }
    }

    /// Runs one handler without queueing it and without counting a worker.
    pub(super) fn run_unqueued(self: &Arc<Self>, job: Job, context: RequestContext) {
        self.defer();
        let shared = Arc::clone(self);
        let run = move || {
            let done = DeferredGuard(shared);
            let slot = {
                let mut queue = lock(&done.0.serve_queue);
                let slot = queue.active.claim_slot();
                queue.active.begin(slot, job.request_id());
                slot
            };
            done.0.run_handler(&mut None, job, slot, context, Flush::Now);
            lock(&done.0.serve_queue).active.leave(slot);
        };
        if let Err(exhausted) = self.events.handlers().submit(Work::Once(Box::new(run))) {
            tracing::warn!("a request has to wait for a thread: {exhausted}");
        }
    }

    /// Notes that a call of this side has ended. Returns true if the next one is likely to come
    /// soon.
    pub(crate) fn calls_often(&self) -> bool {
        lock(&self.serve_queue).calls_often(Instant::now())
    }

    /// Has the event loop tick until the reader role, which a caller has left vacant, is taken
    /// again.
    pub(crate) fn watch_vacancy(self: &Arc<Self>) {
        self.watch_vacancy_of(|_| {});
    }

    /// Does the same with a role that `leave` leaves vacant, under the lock under which the tick
    /// looks at the role.
    pub(crate) fn watch_vacancy_of(self: &Arc<Self>, leave: impl FnOnce(&Leader)) {
        let mut queue = lock(&self.serve_queue);
        // The role was left vacant before this lock was taken. A tick that runs first either sees
        // the vacancy and ticks on, or stops and clears `is_watched`, and then `begin_watch` starts
        // the ticks again.
        queue.note_vacancy();
        leave(&self.leader);
        let watch = queue.begin_watch();
        drop(queue);
        if let Some(progress) = watch {
            self.watch_for_stall(progress);
        }
    }

    /// Has the event loop look after [`STALL`] whether handlers have returned and the vacant role
    /// was taken since `last`. Ticks until it finds nothing to watch.
    pub(super) fn watch_for_stall(self: &Arc<Self>, last: HandlerProgress) {
        let shared = Arc::clone(self);
        self.events.after(STALL, move || {
            let mut queue = lock(&shared.serve_queue);
            let limit = shared.options.handlers.get();
            let is_vacant = shared.leader.is(ReaderRole::Vacant);
            let progress = queue.progress();
            // Under the lock under which `begin_watch` looks at the flag: a thread that needs the
            // ticks is either seen here or starts them anew.
            if !queue.has_work() && !is_vacant && progress == last {
                queue.is_watched = false;
                return;
            }
            // Vacant for a whole tick without a handler that began or a vacancy that followed. A
            // role that was left vacant a moment ago, and is not noted yet, may count as overdue:
            // it is returned early, which costs an epoll_ctl(2).
            let is_overdue = is_vacant && progress == last;
            let stands = progress.begun == last.begun;
            let pool = shared.events.handlers();
            let exhausted =
                pool.exhausted().or_else(|| shared.share_is_blocked(&queue)).filter(|_| stands);
            let is_stalled = stands && exhausted.is_none() && !pool.is_saturated();
            // As many again as there are, so that a thousand sleeping handlers are served within
            // some ticks.
            let more = if is_stalled {
                queue.running.max(1).min(limit - limit.min(queue.running))
            } else {
                0
            };
            let share = pool.share();
            let more = more.min(queue.ready()).min(share - share.min(queue.workers()));
            queue.running += more;
            drop(queue);
            if is_overdue {
                shared.return_vacant_role();
            }
            for _ in 0..more {
                shared.start_worker();
            }
            if let Some(exhausted) = exhausted {
                // These came while a place in the pool's queue was taken that no thread comes to.
                shared.refuse_queued(exhausted);
            }
            shared.watch_for_stall(progress);
        });
    }
}
