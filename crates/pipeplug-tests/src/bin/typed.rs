//! A plugin with typed services, which calls one of its host.
//!
//! `typed older` has version 1 of the service, `typed none` has no service.

use std::process::ExitCode;
use std::sync::OnceLock;

use pipeplug_guest::{Guest, Main};
use pipeplug_service::{NoService, Request, ServiceError};
use pipeplug_tests::typed::{
    Host, HostClient, HostServer, OldWork, OldWorkServer, Work, WorkServer,
};

static MAIN: OnceLock<Main> = OnceLock::new();

struct Worker;

fn host<T>(call: impl FnOnce(HostClient) -> Result<T, ServiceError>) -> Result<T, String> {
    let main = MAIN.get().ok_or("not registered yet")?;
    let host: HostClient = main.client().map_err(|error: NoService| error.to_string())?;
    call(host).map_err(|error| error.to_string())
}

impl Work for Worker {
    fn pid(&self) -> u32 {
        std::process::id()
    }

    fn ask(&self, question: String) -> Result<String, String> {
        host(|host| host.answer(question))
    }

    fn crash_once(&self, marker: String) -> Result<u32, String> {
        if !std::path::Path::new(&marker).exists() {
            std::fs::write(&marker, "").map_err(|error| error.to_string())?;
            std::process::abort();
        }
        Ok(std::process::id())
    }

    fn deadline(&self, request: &Request) -> bool {
        request.deadline().is_some()
    }
}

impl OldWork for Worker {
    fn pid(&self) -> u32 {
        std::process::id()
    }
}

impl Host for Worker {
    fn answer(&self, question: String) -> String {
        question
    }
}

fn main() -> ExitCode {
    let guest = Guest::new().start(|main: &Main| {
        // Set once, here.
        let _ = MAIN.set(main.clone());
        Ok(())
    });
    let mode = std::env::args().next_back().unwrap_or_default();
    let guest = match mode.as_str() {
        "older" => guest.service(OldWorkServer::new(Worker)),
        "none" => guest,
        "other" => guest.service(HostServer::new(Worker)),
        _ => guest.service(WorkServer::new(Worker)).service(HostServer::new(Worker)),
    };
    guest.register().wait()
}
