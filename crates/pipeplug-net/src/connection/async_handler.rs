//! Handlers that are futures, which a runtime of the user runs.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use super::handler::{HandlerError, Reply, Request, RequestPlace, log_failed_one_way, log_panic};
use super::responder::Responder;
use super::shared::Shared;
use crate::protocol::context::InheritValues;
use crate::protocol::deadline::Inherit;
use crate::protocol::failure::Failure;

/// Future of an async handler, which answers its request; see [`Request::spawn`].
///
/// Dropping it before it is ready answers the request with an error.
pub type HandlerFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Request {
    /// Has a task handle the request: `spawn` gets a future that calls `handler` with the request
    /// and answers with its result. No thread waits meanwhile.
    ///
    /// The request keeps its streams, context, deadline and cancellation. Calls that the future
    /// awaits inherit the deadline and the context. A panic of `handler` becomes an error reply, and
    /// so does a future that is dropped. A future is not dropped when its caller gives the call up:
    /// await [`cancellation`](Request::cancellation) for that.
    ///
    /// Of requests that are handled in order, the next one starts when the task is done.
    ///
    /// Up to [`Options::deferred`](crate::Options::deferred) requests and one-ways may be handled by
    /// tasks.
    ///
    /// ```
    /// use pipeplug_net::{HandlerError, Reply, Request};
    ///
    /// fn handle(runtime: &tokio::runtime::Handle, request: &mut Request) -> Result<Reply, HandlerError> {
    ///     match request.command() {
    ///         "find" => request.spawn(|future| runtime.spawn(future), find),
    ///         _ => request.unknown(),
    ///     }
    /// }
    ///
    /// async fn find(request: Request) -> Result<Reply, HandlerError> {
    ///     let word = request.text()?.to_owned();
    ///     tokio::select! {
    ///         found = look_up(word) => Ok(found.into()),
    ///         () = request.cancellation() => Err("given up".into()),
    ///     }
    /// }
    /// # async fn look_up(word: String) -> String { word }
    /// ```
    ///
    /// # Errors
    /// Too many one-ways are handled by tasks.
    pub fn spawn<T, F>(
        &mut self,
        spawn: impl FnOnce(HandlerFuture) -> T,
        handler: impl FnOnce(Self) -> F + Send + 'static,
    ) -> Result<Reply, HandlerError>
    where
        F: Future<Output = Result<Reply, HandlerError>> + Send + 'static,
    {
        // One that is handled in order keeps its turn until the task is done.
        let turn = self.keep_turn();
        let (place, responder, one_way) = match self.responder() {
            Some(responder) => (RequestPlace::Later, Some(responder), None),
            None => {
                let RequestPlace::Worker(slot) = *self.place() else {
                    return Err("a task handles it already".into());
                };
                let shared = Arc::clone(self.connection().shared());
                let (number, token) = shared.detach_one_way(slot)?;
                (RequestPlace::OneWay(token), None, Some(DetachedOneWay { shared, number }))
            }
        };
        let request = self.detach(place);
        let answered = answer(request, responder, one_way, handler);
        spawn(Box::pin(async move {
            answered.await;
            drop(turn);
        }));
        Ok(Reply::empty())
    }
}

/// Counts a one-way as handled when it is dropped.
struct DetachedOneWay {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for DetachedOneWay {
    fn drop(&mut self) {
        self.shared.one_way_done(self.number);
    }
}

/// Runs a handler and sends its answer.
async fn answer<F>(
    request: Request,
    responder: Option<Responder>,
    one_way: Option<DetachedOneWay>,
    handler: impl FnOnce(Request) -> F,
) where
    F: Future<Output = Result<Reply, HandlerError>>,
{
    let connection = request.connection().clone();
    let command = request.command().to_owned();
    let context = request.request_context().clone();
    let id = request.chunk().thread_id;
    let mut future = pin!(async move { handler(request).await });
    let result = poll_fn(|task| {
        // On whichever thread it is polled.
        let _deadline = context.deadline.map(Inherit::from);
        let _values = context.values.clone().map(InheritValues::from);
        let tap = connection.shared().writer.tap.as_ref();
        let _handled = tap.map(|tap| tap.handles(id));
        let polled = catch_unwind(AssertUnwindSafe(|| {
            // Inside, since the error's `Display` is code of the user too.
            future.as_mut().poll(task).map_err(|error| Failure::of(&*error))
        }));
        polled
            .unwrap_or_else(|panic| Poll::Ready(Err(log_panic(connection.name(), &command, panic))))
    })
    .await;
    match (result, responder) {
        (Ok(reply), Some(responder)) => responder.answer_async(reply).await,
        (Err(failure), Some(responder)) => responder.fail_with_async(&failure).await,
        (Err(failure), None) => {
            log_failed_one_way(connection.shared(), &command, &failure.message);
        }
        (Ok(_), None) => {}
    }
    drop(one_way);
}
