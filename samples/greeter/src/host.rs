//! The host: has its plugin greet in each of its languages.
//!
//! ```text
//! greeter-host NAME
//! ```

use std::env;

use anyhow::Context as _;
use greeter::{GreetError, GreeterClient};
use pipeplug_host::Plugin;
use pipeplug_service::ServiceError;

fn main() -> anyhow::Result<()> {
    let name = env::args().nth(1).context("usage: greeter-host NAME")?;
    let plugin = Plugin::start(env::current_exe()?.with_file_name("greeter-plugin"))?;
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
