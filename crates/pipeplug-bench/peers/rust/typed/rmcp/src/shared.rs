//! The interface: a type of arguments for each tool.

use rmcp::schemars::{self, JsonSchema};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Add {
    pub a: i64,
    pub b: i64,
}

#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Suggest {
    pub word: String,
    pub most: u32,
}
