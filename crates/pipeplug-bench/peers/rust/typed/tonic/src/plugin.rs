//! The plugin.

use std::env;

use anyhow::{Context as _, Result};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::shared::words_server::{Words, WordsServer};
use crate::shared::{AddReply, AddRequest, SuggestReply, SuggestRequest};

struct KnownWords;

#[tonic::async_trait]
impl Words for KnownWords {
    async fn add(&self, request: Request<AddRequest>) -> Result<Response<AddReply>, Status> {
        let AddRequest { a, b } = request.into_inner();
        Ok(Response::new(AddReply { sum: a + b }))
    }

    async fn suggest(
        &self,
        request: Request<SuggestRequest>,
    ) -> Result<Response<SuggestReply>, Status> {
        let SuggestRequest { word, most } = request.into_inner();
        let known = ["ten", "the", "tree"].into_iter();
        let known = known.filter(|known| known.len() == word.len());
        let words = known.take(most as usize).map(String::from).collect();
        Ok(Response::new(SuggestReply { words }))
    }
}

#[tokio::main]
pub async fn main() -> Result<()> {
    let socket = env::args().nth(2).context("expected a socket")?;
    let listener = UnixListenerStream::new(UnixListener::bind(socket)?);
    println!("ready");
    let server = Server::builder().add_service(WordsServer::new(KnownWords));
    Ok(server.serve_with_incoming(listener).await?)
}
