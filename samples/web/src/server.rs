//! An axum server that answers with a pool of plugins: `GET /COMMAND/TEXT`.
//!
//! `web-server ADDRESS` serves; `web-server --check` serves itself, and shows what becomes of a
//! client that asks for too much, waits too long, or leaves.

mod check;

use std::env;
use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use pipeplug_host::{Options, Plugin, Pool, SupervisedCallError, Supervisor, failure_code};
use tokio::net::TcpListener;

/// Time that a client waits at most. The plugin knows it too.
const TIMEOUT: Duration = Duration::from_millis(500);
/// Processes of the plugin.
const PROCESSES: NonZeroUsize = NonZeroUsize::new(2).unwrap();
/// Open calls of each. Past it the server is overloaded.
const CALLS: usize = 50;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let argument = env::args().nth(1).unwrap_or_default();
    let plugin = env::current_exe()?.with_file_name("web-plugin");
    let mut options = Options::default();
    options.calls = CALLS;
    let supervisor = Supervisor::builder(Plugin::builder(plugin).options(options));
    let pool = Pool::new(supervisor, PROCESSES)?;
    pool.start_async().await?;
    let router = Router::new()
        // Without the plugin, to compare.
        .route("/", get(|| async { "HELLO" }))
        .route("/{command}/", get(|state, Path(command)| ask(state, command, String::new())))
        .route("/{command}/{text}", get(|state, Path((command, text))| ask(state, command, text)))
        .with_state(pool.clone());
    let result = match argument.as_str() {
        "--check" => {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let address = listener.local_addr()?;
            tokio::select! {
                served = axum::serve(listener, router) => served.context("the server ended"),
                checked = check::run(address, &pool) => checked,
            }
        }
        "" => bail!("usage: web-server ADDRESS | --check"),
        address => {
            let listener = TcpListener::bind(address).await?;
            axum::serve(listener, router).await.context("the server ended")
        }
    };
    pool.stop_async().await?;
    result
}

/// Answers a client. If it disconnects, this future is dropped: that cancels the plugin's work.
async fn ask(State(pool): State<Pool>, command: String, text: String) -> Response {
    match pool.request(&command, &text).timeout(TIMEOUT).await {
        Ok(reply) => reply.into_bytes().into_response(),
        Err(error) => (status_of(&error), format!("{error}\n")).into_response(),
    }
}

fn status_of(error: &SupervisedCallError) -> StatusCode {
    match error.code() {
        Some(failure_code::DEADLINE) => StatusCode::GATEWAY_TIMEOUT,
        Some(failure_code::OVERLOADED | failure_code::UNAVAILABLE) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        // Of the plugin's own errors, these are the client's.
        Some(failure_code::UNKNOWN_COMMAND) => StatusCode::NOT_FOUND,
        Some("invalid_text") => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::BAD_GATEWAY,
    }
}
