//! The blocking side.

#[expect(clippy::unwrap_used, reason = "the generator writes it so")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/blocking/mod.rs"));
}

use std::sync::Arc;

use anyhow::Result;
use contract::process::{self, Plugin};
use contract::{Handler, Mode, Payload, threads};
use ttrpc::{TtrpcContext, context};

use self::generated::echo::Chunk;
use self::generated::echo_ttrpc::{Echo, EchoClient, create_echo};
use crate::address;

struct Service(Handler);

impl Echo for Service {
    fn call(&self, _: &TtrpcContext, chunk: Chunk) -> ttrpc::Result<Chunk> {
        self.0.run();
        Ok(chunk)
    }
}

pub(crate) fn serve(address: &str) -> Result<()> {
    let service = create_echo(Arc::new(Service(Handler::from_env()?)));
    let mut server = ttrpc::Server::new().bind(address)?.register_service(service);
    server.start()?;
    process::ready();
    process::until_host_is_gone()
}

pub(crate) fn start(mode: &Mode) -> Result<(Plugin, Client)> {
    let (plugin, socket) = Plugin::over_socket(mode)?;
    let client = ttrpc::Client::connect(&address(&socket))?;
    Ok((plugin, Client(EchoClient::new(client))))
}

pub(crate) struct Client(EchoClient);

impl threads::Client for Client {
    type Payload = Chunk;
    const LIMIT: usize = crate::LIMIT;

    fn call(&self, payload: &Chunk) -> Result<Chunk> {
        Ok(self.0.call(context::Context::default(), payload)?)
    }
}

impl Payload for Chunk {
    fn of(size: usize) -> Self {
        Self { data: vec![b'x'; size], ..Self::default() }
    }

    fn size(&self) -> usize {
        self.data.len()
    }
}
