//! Plugins in containers of real engines: what they are kept from, and that nothing is left of
//! them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod errors;
mod isolation;
mod lifecycle;

/// The plugin that tries what it is kept from.
const CAPTIVE: &str = env!("CARGO_BIN_EXE_captive");

/// Each of these functions as a test with Docker and as one with Podman.
macro_rules! with_each_engine {
    ($($test:ident),+ $(,)?) => {
        mod docker {
            $(#[test] fn $test() { crate::with(pipeplug_host::launcher::Engine::Docker, super::$test); })+
        }
        mod podman {
            $(#[test] fn $test() { crate::with(pipeplug_host::launcher::Engine::Podman, super::$test); })+
        }
    };
}
pub(crate) use with_each_engine;

fn with(engine: pipeplug_host::launcher::Engine, test: fn(&pipeplug_tests::Containers)) {
    // Podman's monitor leaves a file `oom` where its client was started, when the memory limit ends
    // a container.
    std::env::set_current_dir(std::env::temp_dir()).unwrap();
    if let Some(containers) = pipeplug_tests::Containers::of(engine, CAPTIVE) {
        test(&containers);
        containers.assert_gone();
    }
}
