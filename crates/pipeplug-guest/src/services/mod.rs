//! Typed services: those of the plugin, and clients of those of the host.

use std::process::ExitCode;

use pipeplug_net::{HandlerError, Reply, Request};
use pipeplug_service::{
    Channel, Client, Description, GET_SERVICES, Json, KEY_SERVICES, NoService, Service, ServiceSet,
};

use crate::guest::{Guest, Start};
use crate::main_handle::{Handler, Main};

/// Services of the plugin.
#[derive(Debug, Default)]
pub(crate) struct Services(ServiceSet);

impl Services {
    /// Answers a request if it is for one of the services.
    pub(crate) fn handle(&self, request: &mut Request) -> Option<Result<Reply, HandlerError>> {
        if self.0.is_empty() { None } else { self.0.handle(request) }
    }

    /// Key and value of the list of services in the metadata.
    pub(crate) fn metadata(&self) -> Option<(&'static str, String)> {
        self.0.metadata().map(|value| (KEY_SERVICES, value))
    }
}

/// Registers this process as a plugin with one service, and waits for the end. Returns the result of
/// `main`.
///
/// Short for [`Guest::service`]; a plugin with several services, a start call-back or metadata
/// needs that.
///
/// ```no_run
/// # use pipeplug_service::service;
/// #[service(version = 1)]
/// pub trait Greet {
///     /// Greets.
///     fn greet(&self, name: String) -> String;
/// }
///
/// struct English;
///
/// impl Greet for English {
///     fn greet(&self, name: String) -> String {
///         format!("hello, {name}")
///     }
/// }
///
/// fn main() -> std::process::ExitCode {
///     pipeplug_guest::serve(GreetServer::new(English))
/// }
/// ```
///
/// # Blocking
/// Until the host says stop or is gone; see [`Main::wait`].
#[must_use = "return it from main"]
pub fn serve(service: impl Service) -> ExitCode {
    Guest::new().service(service).register().wait()
}

impl<S: Start, R: Handler> Guest<S, R> {
    /// Adds a typed service. Requests for its methods do not come to the request call-back.
    ///
    /// # Panics
    /// There is one of that name.
    pub fn service(mut self, service: impl Service) -> Self {
        self.own.services.0.add(service);
        self
    }
}

impl Main {
    /// Makes a client of a service of the host (`PluginBuilder::service` of `pipeplug-host`).
    ///
    /// # Errors
    /// The host does not have the service, or in a version that does not serve this client.
    ///
    /// # Blocking
    /// As [`config`](Self::config). If the versions do not fit, also until the host has described
    /// its services, so that the error names what differs; not within a start call-back.
    pub fn client<T: Client>(&self) -> Result<T, NoService> {
        let host = self.host();
        let offered = host.get(KEY_SERVICES).map(String::as_str);
        let channel = Channel::new(self.clone());
        NoService::check("the host", T::interface(), offered, || {
            channel.call::<Description, _>(GET_SERVICES, Json(())).ok()
        })?;
        Ok(T::over(channel))
    }
}
