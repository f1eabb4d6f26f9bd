//! The async side.

#[expect(clippy::unwrap_used, reason = "the generator writes it so")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/tasks/mod.rs"));
}

use std::sync::Arc;

use anyhow::{Result, ensure};
use async_trait::async_trait;
use contract::process::{self, Plugin};
use contract::{Handler, Mode, Payload, tasks};
use tokio::sync::Semaphore;
use ttrpc::r#async::{self as ttrpc_async, ServerStream, ServerStreamReceiver, TtrpcContext};
use ttrpc::context;

use self::generated::echo::Chunk;
use self::generated::echo_ttrpc::{Echo, EchoClient, create_echo};
use self::generated::streams::Count;
use self::generated::streams_ttrpc::{Streams, StreamsClient, create_streams};
use crate::address;

struct Service(Handler);

#[async_trait]
impl Echo for Service {
    async fn call(&self, _: &TtrpcContext, chunk: Chunk) -> ttrpc::Result<Chunk> {
        self.0.run();
        Ok(chunk)
    }
}

#[async_trait]
impl Streams for Service {
    async fn stream(
        &self,
        _: &TtrpcContext,
        mut stream: ServerStream<Chunk, Chunk>,
    ) -> ttrpc::Result<()> {
        while let Some(chunk) = stream.recv().await? {
            self.0.run();
            stream.send(&chunk).await?;
        }
        Ok(())
    }

    async fn one_ways(
        &self,
        _: &TtrpcContext,
        mut stream: ServerStreamReceiver<Chunk>,
    ) -> ttrpc::Result<Count> {
        let mut count = Count::default();
        while stream.recv().await?.is_some() {
            self.0.run();
            count.chunks += 1;
        }
        Ok(count)
    }
}

pub(crate) fn serve(mode: &Mode, address: &str) -> Result<()> {
    let service = Arc::new(Service(Handler::from_env()?));
    let runtime = tasks::runtime(mode)?;
    let mut server = runtime.block_on(async {
        let server = ttrpc_async::Server::new().bind(address)?;
        anyhow::Ok(
            server
                .register_service(create_echo(service.clone()))
                .register_service(create_streams(service)),
        )
    })?;
    runtime.block_on(server.start())?;
    process::ready();
    process::until_host_is_gone()
}

pub(crate) async fn start(mode: &Mode) -> Result<(Plugin, Client)> {
    let (plugin, socket) = Plugin::over_socket(mode)?;
    let client = ttrpc_async::Client::connect(&address(&socket)).await?;
    Ok((
        plugin,
        Client { echo: EchoClient::new(client.clone()), streams: StreamsClient::new(client) },
    ))
}

#[derive(Clone)]
pub(crate) struct Client {
    echo: EchoClient,
    streams: StreamsClient,
}

impl tasks::Client for Client {
    type Payload = Chunk;
    const LIMIT: usize = crate::LIMIT;

    async fn call(&self, payload: &Chunk) -> Result<Chunk> {
        Ok(self.echo.call(context::Context::default(), payload).await?)
    }

    async fn stream(&self, window: usize, chunks: usize, payload: Chunk) -> Result<()> {
        let room = Arc::new(Semaphore::new(window));
        let stream = self.streams.stream(context::Context::default()).await?;
        let (sender, mut receiver) = stream.split();
        let sending = tokio::spawn({
            let (room, payload) = (room.clone(), payload.clone());
            async move {
                for _ in 0..chunks {
                    room.acquire().await?.forget();
                    sender.send(&payload).await?;
                }
                sender.close_send().await?;
                anyhow::Ok(())
            }
        });
        for _ in 0..chunks {
            payload.check(&receiver.recv().await?)?;
            room.add_permits(1);
        }
        sending.await?
    }

    async fn one_ways(&self, count: usize, payload: Chunk) -> Result<()> {
        let mut stream = self.streams.one_ways(context::Context::default()).await?;
        for _ in 0..count {
            stream.send(&payload).await?;
        }
        let arrived = stream.close_and_recv().await?.chunks;
        ensure!(arrived == count as u64, "{count} chunks were sent, but {arrived} arrived");
        Ok(())
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
