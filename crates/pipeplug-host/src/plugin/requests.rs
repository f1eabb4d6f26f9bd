//! Requests of a plugin, and the end of its connection, handed to the host's call-backs.

use std::error::Error;
use std::sync::{Arc, OnceLock, Weak};

use pipeplug_net::wire::command;
use pipeplug_net::{CloseReason, Failure, HandlerError, Reply, Request, failure_code};

use super::allow_list::AllowList;
use super::builder::{Handler, OnEnd};
use super::{Inner, Plugin, handshake};
use crate::services::Services;

/// Call-backs of the connection.
pub(super) struct PluginRequests {
    pub(super) inner: Arc<OnceLock<Weak<Inner>>>,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) services: Services,
    pub(super) allow_list: Option<AllowList>,
    pub(super) on_end: Option<OnEnd>,
}

impl pipeplug_net::Handler for PluginRequests {
    fn handle(&self, request: &mut Request) -> Result<Reply, HandlerError> {
        match self.inner.get().and_then(Weak::upgrade) {
            Some(inner) => {
                // Dropped behind `plugin`, also where the handler panics.
                let _lent = Lent(Some(Arc::clone(&inner)));
                if inner.metadata.get().is_none() && request.command() == command::GET_METADATA {
                    handshake::is_echo(request.connection());
                    // It is the host's own question, which is none for its handler.
                    return Err(handshake::ECHO.into());
                }
                let plugin = Plugin(inner);
                if let Some(allow_list) = &self.allow_list
                    && !allow_list.allows(request.command())
                {
                    return allow_list.refuse(&plugin, request);
                }
                (self.services.handle(request))
                    .unwrap_or_else(|| self.handler.handle(&plugin, request))
            }
            None => Err(Failure::new(failure_code::REFUSED, "the host gives the plugin up").into()),
        }
    }

    fn explain(&self) -> Option<Arc<dyn Error + Send + Sync>> {
        let inner = self.inner.get()?.upgrade()?;
        let crash = inner.crash();
        Inner::let_go(inner);
        Some(Arc::new(crash))
    }

    fn ended(&self, _reason: &Arc<CloseReason>) {
        if let Some(on_end) = &self.on_end {
            on_end();
        }
    }
}

/// Keeps the last handle to a plugin from being dropped by who must not wait.
struct Lent(Option<Arc<Inner>>);

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(inner) = self.0.take() {
            Inner::let_go(inner);
        }
    }
}
