//! The plugin {{name}}.

use std::process::ExitCode;

use pipeplug_service::service;

/// Greets people.
#[service(version = 1)]
trait Greeter {
    /// Greets a person.
    fn hello(&self, name: String) -> String;
}

struct Plugin;

impl Greeter for Plugin {
    fn hello(&self, name: String) -> String {
        format!("hello, {name}")
    }
}

fn main() -> ExitCode {
    pipeplug_guest::serve(GreeterServer::new(Plugin))
}

#[cfg(test)]
mod tests {
    use pipeplug_service::ServiceSet;
    use pipeplug_testkit::{Pair, net::Refuse};

    use super::*;

    #[test]
    fn greets() {
        let services = ServiceSet::new().with(GreeterServer::new(Plugin));
        // A host and a plugin in this process, over real pipes.
        let pair = Pair::new(Refuse, services).unwrap();
        let greeter = GreeterClient::new(pair.host.clone());
        assert_eq!(greeter.hello("world".into()).unwrap(), "hello, world");
    }
}
