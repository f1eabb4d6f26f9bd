//! The plugin.

use anyhow::Result;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::transport::stdio;
use rmcp::{Json, ServiceExt as _, tool, tool_router};

use crate::shared::{Add, Suggest};

#[derive(Clone)]
struct KnownWords;

#[tool_router(server_handler)]
impl KnownWords {
    /// The sum of two numbers.
    #[tool]
    fn add(&self, Parameters(Add { a, b }): Parameters<Add>) -> Json<i64> {
        Json(a + b)
    }

    /// Suggestions for a word, best first.
    #[tool]
    fn suggest(
        &self,
        Parameters(Suggest { word, most }): Parameters<Suggest>,
    ) -> Json<Vec<String>> {
        let known = ["ten", "the", "tree"].into_iter();
        let known = known.filter(|known| known.len() == word.len());
        Json(known.take(most as usize).map(String::from).collect())
    }
}

#[tokio::main]
pub async fn main() -> Result<()> {
    KnownWords.serve(stdio()).await?.waiting().await?;
    Ok(())
}
