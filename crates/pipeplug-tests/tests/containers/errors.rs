//! Failed starts in a container, and their error messages.

use std::path::PathBuf;

use pipeplug_host::launcher::{Container, Engine};
use pipeplug_host::process::SpawnErrorKind;
use pipeplug_host::{Plugin, PluginBuilder, StartError, StartErrorKind};
use pipeplug_tests::{Containers, LONG};

use crate::CAPTIVE;

crate::with_each_engine! {
    a_missing_image_is_told,
    a_missing_program_is_told,
    what_is_no_program_is_told,
    a_program_for_another_machine_is_told,
    a_limit_that_the_engine_may_not_set_is_told,
    a_missing_source_of_a_mount_is_told,
    what_the_engine_refuses_is_told,
    an_unknown_user_is_told,
    a_directory_that_cannot_be_is_told,
    arguments_in_the_place_of_a_command_are_told,
    a_program_for_another_machine_behind_a_shell_is_told,
    an_argument_that_cuts_the_plugin_off_is_refused,
    a_registry_that_is_not_reached_is_told,
    a_limit_on_processes_is_told,
}

#[track_caller]
fn told(builder: PluginBuilder, text: &str) -> StartError {
    let error = builder.handshake_timeout(LONG).start().unwrap_err();
    assert!(matches!(error.kind(), StartErrorKind::Launcher { .. }), "{error:?}");
    assert!(error.to_string().contains(text), "{error}");
    error
}

fn placed(container: Container) -> PluginBuilder {
    Plugin::preinstalled("captive").launcher(container)
}

fn a_missing_image_is_told(containers: &Containers) {
    let builder = placed(containers.container_of("pipeplug-no-such-image"));
    let pull =
        format!("`{} pull pipeplug-no-such-image` downloads it", containers.engine.program());
    let error = told(builder, &pull);
    assert!(error.is_permanent());
    assert!(error.to_string().starts_with(
        "plugin \"captive\" did not start in a container of \"pipeplug-no-such-image\""
    ));
}

fn a_missing_program_is_told(containers: &Containers) {
    let builder = Plugin::builder("/no/such/program").launcher(containers.container());
    assert!(told(builder, "there is no such program in the image").is_permanent());
    let builder =
        Plugin::builder("/no/such/program").launcher(containers.container().without_init());
    assert!(told(builder, "there is no such program in the image").is_permanent());
}

fn what_is_no_program_is_told(containers: &Containers) {
    let builder = Plugin::builder("/proc").launcher(containers.container());
    assert!(told(builder, "may not be executed: it needs the mode 0755").is_permanent());
}

fn a_program_for_another_machine_is_told(containers: &Containers) {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("foreign");
    let mut program = std::fs::read(CAPTIVE).unwrap();
    // A machine type that does not exist: e_machine, elf(5).
    program[18..20].copy_from_slice(&[0xfe, 0xfe]);
    std::fs::write(&path, program).unwrap();
    std::fs::set_permissions(&path, std::fs::metadata(CAPTIVE).unwrap().permissions()).unwrap();
    let image = format!("pipeplug-foreign:{}", std::process::id());
    containers.make_image(&image, "", &[(path, "foreign")]);
    let builder = placed(containers.container_of(&image));
    let error = told(builder, "built for another machine");
    assert!(error.is_permanent());
    let error =
        told(placed(containers.container_of(&image).without_init()), "built for another machine");
    assert!(error.is_permanent());
    let _ = containers.output(&["rmi", "--force", &image]);
}

fn a_limit_that_the_engine_may_not_set_is_told(containers: &Containers) {
    // More than fs.nr_open allows.
    let builder =
        placed(containers.container().engine_arg("--ulimit=nofile=2000000000:2000000000"));
    assert!(told(builder, "--ulimit=nofile=1024:1024").is_permanent());
}

fn a_missing_source_of_a_mount_is_told(containers: &Containers) {
    let builder = placed(containers.container().mount("/no/such/source", "/data"));
    assert!(told(builder, "does not exist where the engine runs").is_permanent());
}

fn what_the_engine_refuses_is_told(containers: &Containers) {
    let builder = placed(containers.container().engine_arg("--no-such-option"));
    assert!(!told(builder, "refuses: unknown flag: --no-such-option").is_permanent());
}

fn an_unknown_user_is_told(containers: &Containers) {
    for user in ["nosuch", "0:nosuch"] {
        let error =
            told(placed(containers.container().user(user)), "the image knows no user or group");
        assert!(error.is_permanent());
    }
}

fn a_directory_that_cannot_be_is_told(containers: &Containers) {
    let builder = |dir| placed(containers.container()).current_dir(dir);
    assert!(told(builder("/captive"), "\"/captive\" is no directory in the image").is_permanent());
    match containers.engine {
        // It makes one that is missing.
        Engine::Docker => {
            let plugin = builder("/no/such").handshake_timeout(LONG).start().unwrap();
            assert_eq!(plugin.call("cwd", "").unwrap(), "/no/such");
        }
        _ => assert!(told(builder("/no/such"), "\"/no/such\" is not in the image").is_permanent()),
    }
}

fn arguments_in_the_place_of_a_command_are_told(containers: &Containers) {
    let image = format!("pipeplug-command:{}", std::process::id());
    containers.make_image_with(
        &image,
        "CMD [\"/captive\"]",
        &[(PathBuf::from(CAPTIVE), "captive")],
    );
    let container = || containers.container_of(&image);
    let step =
        format!("`pipeplug run --{} {image} /path/in/it -- ARGUMENT`", containers.engine.program());
    for container in [container(), container().without_init()] {
        assert!(told(placed(container).arg("--fast"), &step).is_permanent());
    }
    let _ = containers.output(&["rmi", "--force", &image]);
}

fn a_program_for_another_machine_behind_a_shell_is_told(containers: &Containers) {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::metadata(CAPTIVE).unwrap().permissions()).unwrap();
        path
    };
    let mut foreign = std::fs::read(CAPTIVE).unwrap();
    foreign[18..20].copy_from_slice(&[0xfe, 0xfe]);
    let foreign = file("foreign", &foreign);
    let wrapper = file("wrapper", b"#!/bin/sh\n/foreign \"$@\"\nexit $?\n");
    let image = format!("pipeplug-shell:{}", std::process::id());
    let files = [("/bin/sh".into(), "bin/sh"), (foreign, "foreign"), (wrapper, "wrapper")];
    containers.make_image_with(&image, "CMD [\"/wrapper\"]", &files);
    let builder = Plugin::builder("/wrapper").launcher(containers.container_of(&image));
    assert!(told(builder, "built for another machine than this").is_permanent());
    let _ = containers.output(&["rmi", "--force", &image]);
}

fn an_argument_that_cuts_the_plugin_off_is_refused(containers: &Containers) {
    for (arg, reason) in [
        ("-it", "a terminal between"),
        ("--tty", "a terminal between"),
        ("-d", "in the background"),
    ] {
        let error = placed(containers.container().engine_arg(arg)).start().unwrap_err();
        assert!(
            matches!(error.kind(), StartErrorKind::Spawn(SpawnErrorKind::BadArgument { .. })),
            "{error:?}"
        );
        assert!(error.to_string().contains(reason), "{error}");
    }
}

fn a_registry_that_is_not_reached_is_told(containers: &Containers) {
    // A port that nothing listens at: it was ours, and is given up.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let container = containers.container_of(&format!("{address}/image:1")).pull_missing();
    let error = told(placed(container), "the registry of");
    assert!(!error.is_permanent());
}

fn a_limit_on_processes_is_told(containers: &Containers) {
    told(placed(containers.container().pids(1)), "the limit of 1, which counts the engine's init");
}
