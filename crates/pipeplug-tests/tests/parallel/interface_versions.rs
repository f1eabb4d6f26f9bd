//! Versions of the application's interface.

use pipeplug_host::{Format, Plugin, StartErrorKind, Supervisor};
use pipeplug_tests::{Script, eventually};

use crate::misbehave;

fn version_there(plugin: &Plugin) -> String {
    plugin.call("version", "").unwrap()
}

#[test]
fn both_sides_choose_the_highest_common_one() {
    for format in [Format::Standard, Format::Classic] {
        let builder = misbehave(&["speaks", "1", "2", "3"]).format(format);
        let plugin = builder.interface_versions([4, 3, 2]).start().unwrap();
        assert_eq!(plugin.interface_version(), Some(3));
        assert_eq!(version_there(&plugin), "Some(3)");
    }
}

#[test]
fn one_side_without_versions_negotiates_nothing() {
    let plugin = misbehave(&["speaks", "1"]).start().unwrap();
    assert_eq!((plugin.interface_version(), version_there(&plugin).as_str()), (None, "None"));
    let plugin = misbehave(&["plain"]).interface_versions([1]).start().unwrap();
    assert_eq!((plugin.interface_version(), version_there(&plugin).as_str()), (None, "None"));
    // A plugin of the base protocol.
    let base = Script::answering("cat <&3 >/dev/null");
    let plugin = base.builder().interface_versions([1]).start().unwrap();
    assert_eq!(plugin.interface_version(), None);
    plugin.kill().unwrap();
}

#[test]
fn without_a_common_one_the_start_fails_and_says_who_is_older() {
    for (of_plugin, of_host, older) in [
        (["1", "2"], [3, 4], "the plugin is older: upgrade the plugin"),
        (["5", "6"], [3, 4], "the host is older: upgrade the host"),
    ] {
        let args = [&["speaks"][..], &of_plugin].concat();
        let builder = misbehave(&args).interface_versions(of_host);
        let error = builder.start().unwrap_err();
        assert!(matches!(error.kind(), StartErrorKind::InterfaceVersions { .. }), "{error:?}");
        assert!(error.is_permanent());
        let message = error.to_string();
        let lists = format!(
            "the plugin speaks versions {} of the interface, the host versions 3, 4; {older}",
            of_plugin.join(", ")
        );
        assert!(message.contains(&lists), "{message}");
        // A supervisor does not try again.
        let supervisor = Supervisor::builder(builder).build().unwrap();
        let error = supervisor.call("echo", "").unwrap_err().to_string();
        assert!(error.contains(older), "{error}");
    }
}

#[test]
fn a_plugin_refuses_a_host_that_does_not_compare_the_versions() {
    // The host names its versions as plain metadata, and looks at nothing.
    let builder = misbehave(&["speaks", "1"]).metadata("pipeplug.interface_versions", "2 3");
    let plugin = builder.start().unwrap();
    plugin.call("echo", "").unwrap_err();
    let stderr = || plugin.stderr_tail().join("\n");
    eventually("the plugin says why", || {
        stderr().contains("the plugin speaks version 1 of the interface, the host versions 2, 3")
    });
    let stderr = stderr();
    assert!(!stderr.contains("the start call-back runs"), "{stderr}");
}
