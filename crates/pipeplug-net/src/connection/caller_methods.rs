//! The methods of [`Caller`](crate::Caller) as methods of a type, and their documentation.

/// Documentation of the methods that [`Caller`](crate::Caller) provides, for the trait and for the types that have
/// them as their own ([`caller_methods!`]).
#[doc(hidden)]
#[macro_export]
macro_rules! caller_doc {
    (call) => {
        "
         Calls the other side and waits for its reply as text. `payload` is a string or bytes.

         # Errors
         The other side answered with an error or with bytes that are no UTF-8, the request was not
         sent, or the connection ended.

         # Blocking
         As for [`RequestBuilder::wait`](crate::RequestBuilder::wait)."
    };
    (call_bytes) => {
        "
         Calls the other side and waits for the bytes of its reply.

         # Errors
         As for [`call`](Self::call), except for text.

         # Blocking
         As for [`RequestBuilder::wait`](crate::RequestBuilder::wait)."
    };
    (call_chunk) => {
        "
         Sends the chunk's command and buffer as a request, and waits for the response chunk. The
         chunk's thread id and direction are not used: the connection chooses them.

         # Errors
         As for [`call_bytes`](Self::call_bytes).

         # Blocking
         As for [`RequestBuilder::wait`](crate::RequestBuilder::wait)."
    };
    (request) => {
        "
         Makes a request with options: a time-out, a call that may be repeated, one that must not
         block, or one that is awaited."
    };
    (notify) => {
        "
         Sends a one-way, which has no answer. `payload` is a string or bytes.

         One-ways arrive in the order in which they are sent. **Their handlers run concurrently**, and
         may overtake each other. If one has to be done before the next starts, make it a call, send
         parts of a stream (`notify_stream`), or have the other side handle the command in order
         (`in_order` and `in_order_for` of its builder).

         # Errors
         The connection has ended. Success says that the one-way was sent, not that it was handled.

         # Blocking
         While the other side is behind with what was sent."
    };
    (call_async) => {
        "
         Calls the other side as [`call`](Self::call) does, and awaits the reply.

         # Errors
         As for [`call`](Self::call).

         # Cancellation
         Dropping the future gives the call up."
    };
    (call_bytes_async) => {
        "
         Calls the other side as [`call_bytes`](Self::call_bytes) does, and awaits the reply.

         # Errors
         As for [`call_bytes`](Self::call_bytes).

         # Cancellation
         Dropping the future gives the call up."
    };
    (notify_async) => {
        "
         Sends a one-way as [`notify`](Self::notify) does, and awaits that it is sent.

         # Errors
         As for [`notify`](Self::notify).

         # Cancellation
         If the future is dropped before it is ready, the one-way was not sent."
    };
    (notify_stream_async) => {
        "
         Opens a one-way stream as [`notify_stream`](Self::notify_stream) does, and awaits that the
         one-way is sent.

         # Errors
         As for [`notify_stream`](Self::notify_stream).

         # Cancellation
         If the future is dropped before it is ready, the one-way was not sent."
    };
    (notify_stream) => {
        "
         Sends a one-way that parts follow. Its handler takes them with
         [`Request::parts`](crate::Request::parts).

         # Errors
         As for [`notify`](Self::notify), and if the other side has not negotiated `stream`.

         # Blocking
         As for [`notify`](Self::notify)."
    };
    (notify_chunk) => {
        "
         Sends the chunk's command and buffer as a one-way. Its thread id and direction are not used.

         # Errors
         As for [`notify`](Self::notify).

         # Blocking
         As for [`notify`](Self::notify)."
    };
}

/// Gives a type with an `impl Caller` the methods of that trait as its own.
#[doc(hidden)]
#[macro_export]
macro_rules! caller_methods {
    ($type:ty, $call_error:ty, $notify_error:ty) => {
        impl $type {
            #[doc = $crate::caller_doc!(call)]
            pub fn call<'a>(
                &self,
                command: &str,
                payload: impl Into<$crate::Payload<'a>>,
            ) -> Result<String, $call_error> {
                $crate::Caller::call(self, command, payload)
            }

            #[doc = $crate::caller_doc!(call_bytes)]
            pub fn call_bytes<'a>(
                &self,
                command: &str,
                payload: impl Into<$crate::Payload<'a>>,
            ) -> Result<Vec<u8>, $call_error> {
                $crate::Caller::call_bytes(self, command, payload)
            }

            #[doc = $crate::caller_doc!(call_chunk)]
            pub fn call_chunk(
                &self,
                chunk: $crate::wire::Chunk,
            ) -> Result<$crate::wire::Chunk, $call_error> {
                $crate::Caller::call_chunk(self, chunk)
            }

            #[doc = $crate::caller_doc!(request)]
            pub fn request<'a>(
                &'a self,
                command: &'a str,
                payload: impl Into<$crate::Payload<'a>>,
            ) -> $crate::RequestBuilder<'a, Self> {
                $crate::Caller::request(self, command, payload)
            }

            #[doc = $crate::caller_doc!(notify)]
            pub fn notify<'a>(
                &self,
                command: &str,
                payload: impl Into<$crate::Payload<'a>>,
            ) -> Result<(), $notify_error> {
                $crate::Caller::notify(self, command, payload)
            }

            #[doc = $crate::caller_doc!(notify_stream)]
            pub fn notify_stream<'a>(
                &self,
                command: &str,
                payload: impl Into<$crate::Payload<'a>>,
            ) -> Result<$crate::PartSender, $notify_error> {
                $crate::Caller::notify_stream(self, command, payload)
            }

            #[doc = $crate::caller_doc!(call_async)]
            pub fn call_async<'a>(
                &'a self,
                command: &'a str,
                payload: impl Into<$crate::Payload<'a>>,
            ) -> impl Future<Output = Result<String, $call_error>> + Send {
                $crate::Caller::call_async(self, command, payload)
            }

            #[doc = $crate::caller_doc!(call_bytes_async)]
            pub fn call_bytes_async<'a>(
                &'a self,
                command: &'a str,
                payload: impl Into<$crate::Payload<'a>>,
            ) -> impl Future<Output = Result<Vec<u8>, $call_error>> + Send {
                $crate::Caller::call_bytes_async(self, command, payload)
            }

            #[doc = $crate::caller_doc!(notify_async)]
            pub fn notify_async<'a>(
                &'a self,
                command: &'a str,
                payload: impl Into<$crate::Payload<'a>>,
            ) -> impl Future<Output = Result<(), $notify_error>> + Send {
                $crate::Caller::notify_async(self, command, payload)
            }

            #[doc = $crate::caller_doc!(notify_stream_async)]
            pub fn notify_stream_async<'a>(
                &'a self,
                command: &'a str,
                payload: impl Into<$crate::Payload<'a>>,
            ) -> impl Future<Output = Result<$crate::PartSender, $notify_error>> + Send {
                $crate::Caller::notify_stream_async(self, command, payload)
            }

            #[doc = $crate::caller_doc!(notify_chunk)]
            pub fn notify_chunk(&self, chunk: $crate::wire::Chunk) -> Result<(), $notify_error> {
                $crate::Caller::notify_chunk(self, chunk)
            }
        }
    };
}
