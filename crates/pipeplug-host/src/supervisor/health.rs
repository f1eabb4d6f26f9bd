//! The timers of a process that calls go to: whether it is idle, and whether it hangs.
//!
//! A timer holds no process: only weak references, and a ping that waits for its answer holds the
//! connection. Once calls no longer go to the process, the next of its timers finds that and sets
//! no further one.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use pipeplug_net::wire::command;
use pipeplug_net::{CallError, OutgoingRequest, Payload, PendingCall};

use super::event::{EndCause, Event};
use super::instance::Instance;
use super::settings::HealthCheck;
use super::state::Shared;

impl Shared {
    /// Sets the timers of a process that calls go to from here on.
    pub(super) fn watch(self: &Arc<Self>, instance: &Arc<Instance>) {
        if let Some(timeout) = self.settings.idle_timeout {
            self.look_at_idleness_after(timeout, instance);
        }
        if let Some(check) = self.settings.health_check {
            self.ping_after(check, check.interval, instance);
        }
    }

    /// Called when the last open call has ended, if that was awaited.
    pub(super) fn idle_begins(self: &Arc<Self>, instance: &Arc<Instance>) {
        self.last_call_ended();
        if let Some(timeout) = self.settings.idle_timeout {
            self.look_at_idleness_after(timeout, instance);
        }
    }

    fn look_at_idleness_after(self: &Arc<Self>, time: Duration, instance: &Arc<Instance>) {
        let look = self.later(instance, |shared, instance| shared.look_at_idleness(&instance));
        self.events.after(time, look);
    }

    /// Calls set no timer. The timer sets itself again for the rest of the time, or, if it finds
    /// open calls, the end of the last one sets it. Never both, or the number of timers would grow.
    fn look_at_idleness(self: &Arc<Self>, instance: &Arc<Instance>) {
        let Some(timeout) = self.settings.idle_timeout else { return };
        let mut left = None;
        self.end_if(instance, || {
            // Under the lock of the state, under which calls begin: the process leaves its state
            // before another call can begin on it.
            let idle = instance.idle_or_await()?;
            left = Some(timeout.saturating_sub(idle)).filter(|left| !left.is_zero());
            let pid = instance.plugin.pid();
            left.is_none().then_some((EndCause::Idle, Event::IdleStop { pid, idle }))
        });
        if let Some(left) = left {
            self.look_at_idleness_after(left, instance);
        }
    }

    fn ping_after(self: &Arc<Self>, check: HealthCheck, time: Duration, instance: &Arc<Instance>) {
        let ping = self.later(instance, move |shared, instance| shared.ping(check, &instance));
        // Heartbeats go by the clock of the connection, which may be a test's.
        let connection = instance.plugin.connection();
        connection.clock().after(connection.events(), time, ping);
    }

    fn ping(self: &Arc<Self>, check: HealthCheck, instance: &Arc<Instance>) {
        if !self.is_calling(instance) {
            return;
        }
        let mut ping = OutgoingRequest::new(command::PING, Payload::from([]));
        ping.is_nonblocking = true;
        let ping = match instance.plugin.connection().begin_by_protocol(ping) {
            Ok(ping) => ping,
            // The end of the connection is reported by `on_end`.
            Err(CallError::Closed { .. }) => return,
            // The ping was not sent, for example because too much waits for the host's own handlers
            // (`CallError::Overrun`). That says nothing about the plugin.
            Err(_) => return self.ping_after(check, check.interval, instance),
        };
        let look = self.later(instance, move |shared, instance| {
            shared.take_answer(check, ping, &instance);
        });
        let connection = instance.plugin.connection();
        connection.clock().after(connection.events(), check.timeout, look);
    }

    fn take_answer(
        self: &Arc<Self>,
        check: HealthCheck,
        mut ping: PendingCall,
        instance: &Arc<Instance>,
    ) {
        let HealthCheck { interval, timeout } = check;
        // An error is a sign of life too, or the end of the connection. Without a waker: this is
        // the only look at the ping.
        if Pin::new(&mut ping).poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return self.ping_after(check, interval.saturating_sub(timeout), instance);
        }
        self.end_if(instance, || {
            let pid = instance.plugin.pid();
            Some((EndCause::Unhealthy { timeout }, Event::HealthFailure { pid, timeout }))
        });
    }

    /// Call-back of a timer: does nothing once the supervisor or the process is gone.
    fn later(
        self: &Arc<Self>,
        instance: &Arc<Instance>,
        run: impl FnOnce(Arc<Self>, Arc<Instance>) + Send + 'static,
    ) -> impl FnOnce() + Send + 'static {
        let (shared, instance) = (Arc::downgrade(self), Arc::downgrade(instance));
        move || {
            let both = shared.upgrade().zip(Weak::upgrade(&instance));
            if let Some((shared, instance)) = both {
                run(shared, instance);
            }
        }
    }
}
