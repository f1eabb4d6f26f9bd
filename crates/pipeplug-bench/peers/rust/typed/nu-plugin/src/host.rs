//! The host: Nushell's own side of its plugins, without Nushell.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use nu_plugin_engine::{PersistentPlugin, PluginExecutionCommandContext, PluginInterface};
use nu_plugin_protocol::{CallInfo, EvaluatedCall};
use nu_protocol::engine::{Call, EngineState, Stack};
use nu_protocol::{
    FromValue, IntoValue as _, PipelineData, PluginGcConfig, PluginIdentity, Span, Value, ast,
};

/// Client of the plugin.
#[derive(Clone)]
pub struct WordsClient {
    identity: Arc<PluginIdentity>,
    plugin: PluginInterface,
    engine: Arc<EngineState>,
}

/// Starts the plugin.
pub fn start(program: &Path) -> Result<(Arc<PersistentPlugin>, WordsClient)> {
    let identity = PluginIdentity::new(program, None).map_err(|error| anyhow!("{error:?}"))?;
    let plugin = Arc::new(PersistentPlugin::new(identity.clone(), PluginGcConfig::default()));
    let interface = plugin.clone().get(|| Ok(HashMap::new()))?;
    let engine = Arc::new(EngineState::new());
    Ok((plugin, WordsClient { identity: Arc::new(identity), plugin: interface, engine }))
}

impl WordsClient {
    pub fn add(&self, a: i64, b: i64) -> Result<i64> {
        let span = Span::unknown();
        self.call("words add", vec![a.into_value(span), b.into_value(span)])
    }

    pub fn suggest(&self, word: String, most: u32) -> Result<Vec<String>> {
        let span = Span::unknown();
        let most = i64::from(most);
        self.call("words suggest", vec![word.into_value(span), most.into_value(span)])
    }

    fn call<T: FromValue>(&self, name: &str, positional: Vec<Value>) -> Result<T> {
        let span = Span::unknown();
        let call = EvaluatedCall { head: span, positional, named: Vec::new() };
        let call = CallInfo { name: name.into(), call, input: PipelineData::empty() };
        let (ast, mut stack) = (ast::Call::new(span), Stack::new());
        let evaluated = Call::from(&ast);
        let mut context = PluginExecutionCommandContext::new(
            Arc::clone(&self.identity),
            &self.engine,
            &mut stack,
            &evaluated,
        );
        Ok(T::from_value(self.plugin.run(call, &mut context)?.into_value(span)?)?)
    }
}
