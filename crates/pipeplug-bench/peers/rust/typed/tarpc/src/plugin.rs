//! The plugin.

use anyhow::Result;
use futures::StreamExt as _;
use tarpc::context::Context;
use tarpc::serde_transport;
use tarpc::server::{BaseChannel, Channel as _};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::tokio_util::codec::LengthDelimitedCodec;
use tokio::io::{join, stdin, stdout};

use crate::shared::Words;

#[derive(Clone)]
struct KnownWords;

impl Words for KnownWords {
    async fn add(self, _: Context, a: i64, b: i64) -> i64 {
        a + b
    }

    async fn suggest(self, _: Context, word: String, most: u32) -> Vec<String> {
        let known = ["ten", "the", "tree"].into_iter();
        let known = known.filter(|known| known.len() == word.len());
        known.take(most as usize).map(String::from).collect()
    }
}

#[tokio::main]
pub async fn main() -> Result<()> {
    let framed = LengthDelimitedCodec::builder().new_framed(join(stdin(), stdout()));
    let transport = serde_transport::new(framed, Bincode::default());
    let answers = BaseChannel::with_defaults(transport).execute(KnownWords.serve());
    answers.for_each(async |answer| drop(tokio::spawn(answer))).await;
    Ok(())
}
