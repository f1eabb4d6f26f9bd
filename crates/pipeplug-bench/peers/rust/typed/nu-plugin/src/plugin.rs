//! The plugin.

use nu_plugin::{
    EngineInterface, EvaluatedCall, MsgPackSerializer, Plugin, PluginCommand, SimplePluginCommand,
    serve_plugin,
};
use nu_protocol::{IntoValue as _, LabeledError, Signature, SyntaxShape, Value};

struct KnownWords;

impl Plugin for KnownWords {
    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").into()
    }

    fn commands(&self) -> Vec<Box<dyn PluginCommand<Plugin = Self>>> {
        vec![Box::new(Add), Box::new(Suggest)]
    }
}

struct Add;

impl SimplePluginCommand for Add {
    type Plugin = KnownWords;

    fn name(&self) -> &str {
        "words add"
    }

    fn description(&self) -> &str {
        "The sum of two numbers."
    }

    fn signature(&self) -> Signature {
        Signature::build(SimplePluginCommand::name(self))
            .required("a", SyntaxShape::Int, "A number.")
            .required("b", SyntaxShape::Int, "A number.")
    }

    fn run(
        &self,
        _: &KnownWords,
        _: &EngineInterface,
        call: &EvaluatedCall,
        _: &Value,
    ) -> Result<Value, LabeledError> {
        let (a, b) = (call.req::<i64>(0)?, call.req::<i64>(1)?);
        Ok((a + b).into_value(call.head))
    }
}

struct Suggest;

impl SimplePluginCommand for Suggest {
    type Plugin = KnownWords;

    fn name(&self) -> &str {
        "words suggest"
    }

    fn description(&self) -> &str {
        "Suggestions for a word, best first."
    }

    fn signature(&self) -> Signature {
        Signature::build(SimplePluginCommand::name(self))
            .required("word", SyntaxShape::String, "The word.")
            .required("most", SyntaxShape::Int, "The number of suggestions.")
    }

    fn run(
        &self,
        _: &KnownWords,
        _: &EngineInterface,
        call: &EvaluatedCall,
        _: &Value,
    ) -> Result<Value, LabeledError> {
        let (word, most) = (call.req::<String>(0)?, call.req::<usize>(1)?);
        let known = ["ten", "the", "tree"].into_iter();
        let known = known.filter(|known| known.len() == word.len());
        let words: Vec<String> = known.take(most).map(String::from).collect();
        Ok(words.into_value(call.head))
    }
}

fn main() {
    serve_plugin(&KnownWords, MsgPackSerializer);
}
