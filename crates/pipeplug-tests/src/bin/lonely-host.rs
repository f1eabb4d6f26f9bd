//! A host for tests, which can be killed: `lonely-host <plugin> [its arguments…]` starts the plugin, has it work on a
//! request that never ends, prints its process id, and waits to be killed.

use std::process::ExitCode;
use std::thread;

use pipeplug_host::Plugin;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let Some(path) = args.next() else {
        eprintln!("lonely-host: which plugin?");
        return ExitCode::from(2);
    };
    let plugin = match Plugin::builder(path).args(args).start() {
        Ok(plugin) => plugin,
        Err(error) => {
            eprintln!("lonely-host: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("{}", plugin.pid());
    loop {
        thread::park();
    }
}
