//! Parts that only pipeplug-host, pipeplug-guest and their test kit use.
//!
//! None of it is for users, and all of it may change with any version. Hidden from the
//! documentation for that reason; methods of public types that are for these crates only are
//! hidden where they are.

pub use crate::connection::call_times::{CallTimesRead, Gauge, GaugeRead};
pub use crate::connection::cancel_handle::CancelWatch;
pub use crate::connection::handler::FAILED_ONE_WAYS;
pub use crate::connection::progress::channel as progress_channel;
pub use crate::event_loop::offload::Offloaded;
pub use crate::event_loop::watch::{Watch, Watcher};

/// Negotiation of features, for crates that exchange metadata themselves.
pub mod handshake {
    pub use crate::connection::handshake::{
        accept, accept_before_answer, accept_with_answer, name_feature, names_feature, offer,
    };
    pub use crate::protocol::interface_versions::{
        InterfaceVersions, KEY_INTERFACE_VERSIONS, Mismatch,
    };

    /// Key of the configuration in the metadata of a host. Its value is JSON text.
    pub const KEY_CONFIG: &str = "pipeplug.config";
    /// Feature of a guest that hands the configuration to the plugin.
    pub const FEATURE_CONFIG: &str = "config";
    /// Key of the level of the guest's log in the metadata of a host.
    pub const KEY_LOG_LEVEL: &str = "pipeplug.log_level";
    /// Feature of a guest whose host sets the level of its log.
    pub const FEATURE_LOG: &str = "log";
}

/// Gives a builder the settings of its connection, which it keeps in a field `options`. `$waits`
/// says what a thread that spins waits for, and `$kept` are the options that the builder sets.
#[macro_export]
#[doc(hidden)]
macro_rules! connection_settings {
    (
        impl[$($generics:tt)*] $builder:ty;
        $(#[$format_doc:meta])* format;
        waits_for $waits:literal;
        keeps $($kept:ident),+;
    ) => {
        impl<$($generics)*> $builder {
            $(#[$format_doc])*
            pub fn format(mut self, format: $crate::wire::Format) -> Self {
                self.options.format = ::std::option::Option::Some(format);
                self
            }

            /// The largest command and buffer to take in.
            pub fn limits(mut self, limits: $crate::wire::Limits) -> Self {
                self.options.limits = limits;
                self
            }

            #[doc = concat!(
                "Maximum spin time of a thread that waits for ", $waits,
                ", before it sleeps; 0 disables spinning. Default: [`Options::spin`]."
            )]
            ///
            /// [`Options::spin`]: pipeplug_net::Options::spin
            pub fn spin(mut self, spin: ::std::time::Duration) -> Self {
                self.options.spin = spin;
                self
            }

            /// Sets the clock of deadlines and timeouts, for tests; see
            /// [`Options::clock`](pipeplug_net::Options::clock).
            pub fn clock(mut self, clock: impl ::std::convert::Into<$crate::Clock>) -> Self {
                self.options.clock = clock.into();
                self
            }

            /// Handles all commands in order: one request or one-way at a time, in the order in
            /// which they were sent. Handlers run concurrently otherwise. See
            /// [`Order`](pipeplug_net::Order), also for what must not wait for what.
            pub fn in_order(mut self) -> Self {
                self.options.order = $crate::Order::InOrder;
                self
            }

            /// Handles these commands in order: one request or one-way at a time, in the order in
            /// which they were sent. Other commands run beside. With a second call, its commands
            /// are a sequence of their own. See [`Order`](pipeplug_net::Order).
            pub fn in_order_for(
                mut self,
                commands: impl ::std::iter::IntoIterator<
                    Item = impl ::std::convert::Into<::std::string::String>,
                >,
            ) -> Self {
                self.options.order.add_sequence(commands);
                self
            }

            #[doc = concat!(
                "Sets all options of the connection but those that this builder sets itself: ",
                $crate::connection_settings!(@list $($kept),+), " and `hold`."
            )]
            pub fn options(mut self, options: $crate::Options) -> Self {
                let ours = ::std::mem::replace(&mut self.options, options);
                $(self.options.$kept = ours.$kept;)+
                self
            }
        }
    };
    (@list $first:ident $(, $more:ident)*) => {
        concat!("`", stringify!($first), "`" $(, ", `", stringify!($more), "`")*)
    };
}

/// The awaited half of an `impl Caller`, for a type whose `connection()` makes the calls.
#[macro_export]
#[doc(hidden)]
macro_rules! awaited_by_connection {
    () => {
        type CallFuture<'a> = $crate::AwaitedCall<'a>;

        fn await_request<'a>(
            &'a self,
            request: $crate::OutgoingRequest<'a>,
        ) -> $crate::AwaitedCall<'a> {
            $crate::Caller::await_request(self.connection(), request)
        }

        async fn begin_request_async(
            &self,
            request: $crate::OutgoingRequest<'_>,
        ) -> ::std::result::Result<Self::Pending, Self::CallError> {
            $crate::Caller::begin_request_async(self.connection(), request).await
        }

        async fn open_stream_async(
            &self,
            request: $crate::OutgoingRequest<'_>,
            sides: $crate::StreamSides,
        ) -> ::std::result::Result<$crate::StreamCall, Self::CallError> {
            $crate::Caller::open_stream_async(self.connection(), request, sides).await
        }

        async fn send_one_way_async(
            &self,
            command: &str,
            payload: $crate::Payload<'_>,
        ) -> ::std::result::Result<(), Self::NotifyError> {
            $crate::Caller::send_one_way_async(self.connection(), command, payload).await
        }

        async fn open_one_way_stream_async(
            &self,
            command: &str,
            payload: $crate::Payload<'_>,
        ) -> ::std::result::Result<$crate::PartSender, Self::NotifyError> {
            $crate::Caller::open_one_way_stream_async(self.connection(), command, payload).await
        }
    };
}

/// Defines the trait of a call-back that answers the other side and gets this side's handle, of
/// type `$handle`.
#[macro_export]
#[doc(hidden)]
macro_rules! handler_trait {
    ($(#[$doc:meta])* pub trait $Handler:ident($handle:ident: $Handle:ty);) => {
        $(#[$doc])*
        pub trait $Handler: Send + Sync + 'static {
            /// Answers a request, or takes a one-way.
            ///
            /// # Errors
            /// Any error goes back to the caller with its message.
            fn handle(
                &self,
                $handle: &$Handle,
                request: &mut $crate::Request,
            ) -> ::std::result::Result<$crate::Reply, $crate::HandlerError>;
        }

        impl<F> $Handler for F
        where
            F: Fn(
                    &$Handle,
                    &mut $crate::Request,
                ) -> ::std::result::Result<$crate::Reply, $crate::HandlerError>
                + Send
                + Sync
                + 'static,
        {
            fn handle(
                &self,
                $handle: &$Handle,
                request: &mut $crate::Request,
            ) -> ::std::result::Result<$crate::Reply, $crate::HandlerError> {
                self($handle, request)
            }
        }

        /// Answers each request with an error.
        impl $Handler for () {
            fn handle(
                &self,
                _: &$Handle,
                request: &mut $crate::Request,
            ) -> ::std::result::Result<$crate::Reply, $crate::HandlerError> {
                request.unknown()
            }
        }
    };
}
