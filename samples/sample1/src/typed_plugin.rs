//! The plugin, with typed services: asks the host for the Docker host when it starts, then answers
//! and calls back.

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use pipeplug_guest::{Guest, HandlerError, Main};
use sample1::{DeskAsyncClient, DeskClient, Work, WorkServer};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// Answers of the host at the start.
struct Told {
    docker_host: String,
    host: DeskAsyncClient,
}

struct Plugin {
    told: Arc<OnceLock<Told>>,
    runtime: Runtime,
}

impl Plugin {
    fn told(&self) -> &Told {
        self.told.get().expect("the start call-back runs before any method")
    }
}

impl Work for Plugin {
    fn echo(&self, text: String) -> String {
        text
    }

    fn start(&self, calls: usize) -> Result<(), String> {
        let host = &self.told().host;
        self.runtime.block_on(async {
            let mut open = JoinSet::new();
            for number in 0..calls {
                let host = host.clone();
                open.spawn(async move { host.repeat(format!("<{number}>")).await });
            }
            let mut replies = 0;
            while let Some(reply) = open.join_next().await {
                reply.expect("no task panics").map_err(|error| error.to_string())?;
                replies += 1;
            }
            host.done(replies).await.map_err(|error| error.to_string())
        })
    }

    fn docker_host(&self) -> String {
        self.told().docker_host.clone()
    }
}

fn main() -> ExitCode {
    let told = Arc::<OnceLock<Told>>::default();
    let runtime = Runtime::new().expect("the system gives threads");
    let plugin = Plugin { told: Arc::clone(&told), runtime };
    let start = move |main: &Main| -> Result<(), HandlerError> {
        let docker_host = main.client::<DeskClient>()?.docker_host()?;
        eprintln!("sample1-typed-plugin: the docker host is {docker_host}");
        // Set once, here.
        let _ = told.set(Told { docker_host, host: main.client()? });
        Ok(())
    };
    Guest::new().start(start).service(WorkServer::new(plugin)).register().wait()
}
