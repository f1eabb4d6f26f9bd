//! tarpc over a Unix socket (`unix`) or the plugin's stdin and stdout (`pipes`), with bincode.

use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use contract::process::{self, Plugin};
use contract::{Handler, Mode, Role, role, tasks};
use futures::StreamExt as _;
use tarpc::server::{self, Channel as _};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::tokio_util::codec::{Framed, LengthDelimitedCodec};
use tarpc::{client, context, serde_transport};
use tokio::io::{AsyncRead, AsyncWrite, join};
use tokio::net::unix::pipe;
use tokio::net::{UnixListener, UnixStream};

/// More than there are calls in flight in any measurement: the default of 1,000 would hold them
/// back.
const IN_FLIGHT: usize = 20_000;

#[tarpc::service]
trait Echo {
    async fn call(payload: Bytes) -> Bytes;
}

fn main() -> Result<()> {
    match role()? {
        Role::Host { mode } => tasks::host(&mode, start),
        Role::Plugin { mode, socket } => {
            let handler = Handler::from_env()?;
            let runtime = tasks::runtime(&mode)?;
            // As a task: on the main thread, each wake-up would cross threads.
            runtime.block_on(async { tokio::spawn(answer(socket, handler)).await? })
        }
    }
}

async fn answer(socket: Option<String>, handler: Handler) -> Result<()> {
    match socket {
        Some(path) => {
            let listener = UnixListener::bind(path)?;
            process::ready();
            serve(listener.accept().await?.0, handler).await;
        }
        None => {
            let stdin = pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
            let stdout = pipe::Sender::from_owned_fd(io::stdout().as_fd().try_clone_to_owned()?)?;
            serve(join(stdin, stdout), handler).await;
        }
    }
    Ok(())
}

async fn start(mode: &Mode) -> Result<(Plugin, Client)> {
    match mode.name() {
        "unix" => {
            let (plugin, socket) = Plugin::over_socket(mode)?;
            let stream =
                UnixStream::connect(socket.path()).await.context("cannot connect to the plugin")?;
            Ok((plugin, Client::over(stream)))
        }
        "pipes" => {
            let (plugin, stdin, stdout) = Plugin::over_pipes(mode)?;
            let stdin = pipe::Sender::from_owned_fd(stdin.into())?;
            let stdout = pipe::Receiver::from_owned_fd(stdout.into())?;
            Ok((plugin, Client::over(join(stdout, stdin))))
        }
        other => bail!("expected mode unix or pipes, got `{other}`"),
    }
}

/// Cuts a stream into frames of any length: the default refuses those over 8 MiB.
fn framed<T: AsyncRead + AsyncWrite>(stream: T) -> Framed<T, LengthDelimitedCodec> {
    LengthDelimitedCodec::builder().max_frame_length(1 << 30).new_framed(stream)
}

#[derive(Clone)]
struct Server(Handler);

impl Echo for Server {
    async fn call(self, _: context::Context, payload: Bytes) -> Bytes {
        self.0.run();
        payload
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Send + 'static, handler: Handler) {
    let transport = serde_transport::new(framed(stream), Bincode::default());
    let config = server::Config { pending_response_buffer: IN_FLIGHT };
    let answers = server::BaseChannel::new(config, transport).execute(Server(handler).serve());
    answers.for_each(async |answer| drop(tokio::spawn(answer))).await;
}

#[derive(Clone)]
struct Client(EchoClient);

impl Client {
    fn over(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        let transport = serde_transport::new(framed(stream), Bincode::default());
        let mut config = client::Config::default();
        config.max_in_flight_requests = IN_FLIGHT;
        config.pending_request_buffer = IN_FLIGHT;
        Self(EchoClient::new(config, transport).spawn())
    }
}

impl tasks::Client for Client {
    type Payload = Bytes;

    async fn call(&self, payload: &Bytes) -> Result<Bytes> {
        let mut context = context::current();
        // Slow handlers with many calls before them take longer than the default of 10 s.
        context.deadline = Instant::now() + Duration::from_secs(600);
        Ok(self.0.call(context, payload.clone()).await?)
    }
}
