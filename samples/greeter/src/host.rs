//! The host: has its plugin greet in each of its languages.
//!
//! ```text
//! greeter-host [--stdio] [--classic] [PLUGIN] NAME
//! ```

use std::env;
use std::path::PathBuf;

use anyhow::bail;
use greeter::{GreetError, GreeterClient};
use pipeplug_host::{Format, Plugin};
use pipeplug_service::ServiceError;

fn main() -> anyhow::Result<()> {
    let (options, arguments): (Vec<_>, Vec<_>) =
        env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let (path, name) = match &arguments[..] {
        [name] => (env::current_exe()?.with_file_name("greeter-plugin"), name.clone()),
        [plugin, name] => (PathBuf::from(plugin), name.clone()),
        _ => bail!("usage: greeter-host [--stdio] [--classic] [PLUGIN] NAME"),
    };
    let mut builder = Plugin::builder(path);
    for option in options {
        builder = match option.as_str() {
            "--stdio" => builder.stdio(),
            "--classic" => builder.format(Format::Classic),
            _ => bail!("there is no option {option}"),
        };
    }
    let plugin = builder.start()?;
    let greeter: GreeterClient = plugin.client()?;
    for language in greeter.languages()? {
        println!("{}", greeter.greet(name.clone(), language)?);
    }
    // The plugin's own errors have their type here.
    match greeter.greet(name, "tlh".into()) {
        Err(ServiceError::Method(GreetError::UnknownLanguage { language })) => {
            println!("not in {language}");
        }
        other => println!("{}", other?),
    }
    plugin.stop()?;
    Ok(())
}
