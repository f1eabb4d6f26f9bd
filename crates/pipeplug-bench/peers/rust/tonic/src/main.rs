//! tonic: gRPC over HTTP/2 and a Unix socket.

mod generated {
    tonic::include_proto!("echo");
}

use std::iter;
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use contract::process::{self, Plugin};
use contract::{Handler, Mode, Payload, Role, role, tasks};
use futures::{StreamExt as _, stream};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::codegen::BoxStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use self::generated::echo_client::EchoClient;
use self::generated::echo_server::{Echo, EchoServer};
use self::generated::streams_client::StreamsClient;
use self::generated::streams_server::{Streams, StreamsServer};
use self::generated::{Chunk, Count};

/// The default refuses messages over 4 MiB.
const LIMIT: usize = 1 << 30;

/// Window of unread bytes. With the default of 1 MiB, HTTP/2 loses the connection when there
/// are 10,000 calls in flight.
const WINDOW: u32 = 64 << 20;

fn main() -> Result<()> {
    match role()? {
        Role::Host { mode } => tasks::host(&mode, start),
        Role::Plugin { mode, socket: Some(socket) } => {
            let service = Service(Handler::from_env()?);
            let runtime = tasks::runtime(&mode)?;
            runtime.block_on(async { serve(&socket, service) })?;
            process::until_host_is_gone()
        }
        Role::Plugin { socket: None, .. } => bail!("expected a socket"),
    }
}

#[derive(Clone)]
struct Service(Handler);

#[tonic::async_trait]
impl Echo for Service {
    async fn call(&self, request: Request<Chunk>) -> Result<Response<Chunk>, Status> {
        self.0.run();
        Ok(Response::new(request.into_inner()))
    }
}

#[tonic::async_trait]
impl Streams for Service {
    type StreamStream = BoxStream<Chunk>;

    async fn stream(
        &self,
        request: Request<Streaming<Chunk>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let handler = self.0;
        Ok(Response::new(Box::pin(request.into_inner().inspect(move |_| handler.run()))))
    }

    async fn one_ways(
        &self,
        request: Request<Streaming<Chunk>>,
    ) -> Result<Response<Count>, Status> {
        let mut stream = request.into_inner();
        let mut chunks = 0;
        while stream.message().await?.is_some() {
            self.0.run();
            chunks += 1;
        }
        Ok(Response::new(Count { chunks }))
    }
}

fn serve(socket: &str, service: Service) -> Result<()> {
    let listener = UnixListenerStream::new(UnixListener::bind(socket)?);
    let echo = EchoServer::new(service.clone()).max_decoding_message_size(LIMIT);
    let server = Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .add_service(echo.max_encoding_message_size(LIMIT))
        .add_service(StreamsServer::new(service));
    tokio::spawn(server.serve_with_incoming(listener));
    process::ready();
    Ok(())
}

async fn start(mode: &Mode) -> Result<(Plugin, Client)> {
    let (plugin, socket) = Plugin::over_socket(mode)?;
    let endpoint = Endpoint::try_from(format!("unix:{socket}"))?
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    let channel = endpoint.connect().await?;
    let echo = EchoClient::new(channel.clone()).max_decoding_message_size(LIMIT);
    let client = Client {
        echo: echo.max_encoding_message_size(LIMIT),
        streams: StreamsClient::new(channel),
    };
    Ok((plugin, client))
}

#[derive(Clone)]
struct Client {
    echo: EchoClient<Channel>,
    streams: StreamsClient<Channel>,
}

impl tasks::Client for Client {
    type Payload = Bytes;

    async fn call(&self, payload: &Bytes) -> Result<Bytes> {
        let chunk = Chunk { data: payload.clone() };
        Ok(self.echo.clone().call(chunk).await?.into_inner().data)
    }

    async fn stream(&self, window: usize, chunks: usize, payload: Bytes) -> Result<()> {
        let room = Arc::new(Semaphore::new(window));
        let sent = payload.clone();
        let sending = stream::iter(0..chunks).zip(stream::unfold(room.clone(), async |room| {
            room.acquire().await.ok()?.forget();
            Some(((), room))
        }));
        let sending = sending.map(move |_| Chunk { data: sent.clone() });
        let mut replies = self.streams.clone().stream(sending).await?.into_inner();
        let mut arrived = 0;
        while let Some(reply) = replies.message().await? {
            payload.check(&reply.data)?;
            room.add_permits(1);
            arrived += 1;
        }
        ensure!(arrived == chunks, "{chunks} chunks were sent, but {arrived} came back");
        Ok(())
    }

    async fn one_ways(&self, count: usize, payload: Bytes) -> Result<()> {
        let sending = stream::iter(iter::repeat_n(Chunk { data: payload }, count));
        let arrived = self.streams.clone().one_ways(sending).await?.into_inner().chunks;
        ensure!(arrived == count as u64, "{count} chunks were sent, but {arrived} arrived");
        Ok(())
    }
}
