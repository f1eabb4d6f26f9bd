//! `pipeplug conform`: every check catches its fault, and plugins without faults pass.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{Place, Ran, pipeplug};

/// Faults of faulty.py, each with the check that is meant for it. The limit is far above what a plugin
/// without the fault takes.
const FAULTS: &[(&str, &str)] = &[
    ("metadata-list", "start/metadata"),
    ("metadata-of-numbers", "start/metadata"),
    ("odd-window", "start/protocol-keys"),
    ("needs-offer", "start/empty-buffer"),
    ("needs-known-keys", "start/unknown-keys"),
    ("failures-always", "start/base-only"),
    ("garbage-on-start", "start/silent-before-metadata"),
    ("takes-one-chunk-per-read", "start/at-once"),
    ("stdio-only", "start/descriptors"),
    ("stdio-only", "start/other-descriptors"),
    ("takes-one-digit", "start/two-digit-descriptors"),
    ("prints-to-stdout", "start/stdio"),
    ("never-answers-ping", "call/ping"),
    ("pongs", "call/ping"),
    ("swaps-fields", "call/ping"),
    ("wrong-direction", "call/ping"),
    ("no-answer-to-unknown", "call/unknown-request"),
    ("echoes-unknown", "call/unknown-request"),
    ("errors-not-utf8", "call/unknown-request"),
    ("nul-in-header", "call/unknown-request"),
    ("answers-one-ways", "call/unknown-one-way"),
    ("answers-one-ways", "call/one-way"),
    ("ids-of-31-bits", "call/thread-ids"),
    ("needs-text", "call/any-bytes"),
    ("dies-of-large-buffers", "call/large-buffer"),
    ("dies-of-huge-buffers", "call/huge-buffer"),
    ("drops-odd-commands", "call/odd-commands"),
    ("echoes-reserved", "call/reserved-request"),
    ("answers-reserved-one-ways", "call/reserved-one-way"),
    ("stops-at-request", "call/stop-as-request"),
    ("wrong-id", "call/answer"),
    ("answers-twice", "call/one-response"),
    ("dies-of-unasked-responses", "call/unasked-response"),
    ("takes-one-chunk-per-read", "load/many-at-once"),
    ("loses-some-under-load", "load/in-flight"),
    ("works-while-reading", "load/ping-while-busy"),
    ("blocks-on-writes", "load/reads-while-stuck"),
    ("needs-whole-fields", "format/byte-by-byte"),
    ("needs-whole-fields", "format/pauses"),
    ("answers-in-classic", "format/standard"),
    ("answers-in-standard", "format/classic"),
    ("needs-metadata-first", "format/noop-first"),
    ("divides-classic-writes", "format/classic-writes"),
    ("asks-with-one-id", "format/own-requests"),
    ("tells-with-ids", "format/own-requests"),
    ("wrong-direction", "format/own-directions"),
    ("answers-unknown-directions", "format/directions"),
    ("checks-what-it-skips", "format/direction-not-utf8"),
    ("ends-at-limits", "limit/command"),
    ("answers-long-one-ways", "limit/one-way"),
    ("allocates-what-is-announced", "limit/announced"),
    ("takes-empty-numbers", "broken/no-digits"),
    ("takes-nul-in-cmd", "broken/nul-in-cmd"),
    ("takes-signs", "broken/sign"),
    ("takes-leading-zeros", "broken/leading-zero"),
    ("takes-any-number", "broken/too-large"),
    ("forgets-nul", "broken/no-nul"),
    ("takes-any-cmd", "broken/not-utf8"),
    ("answers-garbage", "broken/not-a-digit"),
    ("goes-on-after-garbage", "broken/not-a-digit"),
    ("answers-half-chunks", "broken/end-in-chunk"),
    ("ignores-stop", "end/stop"),
    ("exits-1-at-stop", "end/stop"),
    ("exits-1-at-stop", "end/stop-then-close"),
    ("forgets-to-flush", "end/stop-answers"),
    ("drops-open-at-stop", "end/stop-answers-slow"),
    ("stays-at-end", "end/eof"),
    ("stays-at-end", "end/eof-at-once"),
    ("stays-without-reader", "end/reader-gone"),
    ("ignores-sigterm", "end/sigterm"),
    ("leaves-a-child", "end/nothing-left"),
    ("drops-credit", "flow/credit-comes"),
    ("credits-too-much", "flow/credit-comes"),
    ("credits-inexactly", "flow/credit-sum"),
    ("forgets-credit-of-skipped", "flow/over-limit-counts"),
    ("dies-of-odd-credits", "flow/odd-credits"),
    ("ignores-the-window", "flow/keeps-to-window"),
    ("credits-always", "flow/not-agreed"),
    ("misreads-deadlines", "context/deadline"),
    ("answers-after-deadlines", "context/passed-deadline"),
    ("dies-of-odd-contexts", "context/odd-values"),
    ("keeps-contexts", "context/dropped"),
    ("context-always", "context/not-agreed"),
    ("no-answer-to-cancelled", "cancel/answered"),
    ("answers-late-cancels", "cancel/unknown-and-late"),
    ("odd-progress", "progress/reports"),
    ("late-progress", "progress/reports"),
    ("progress-always", "progress/not-asked"),
    ("failure-without-message", "failure/object"),
    ("failures-always", "failure/not-agreed"),
    ("drops-config", "config/taken"),
    ("config-in-metadata", "config/kept-secret"),
    ("logs-config", "config/kept-secret"),
    ("dies-of-odd-levels", "log/level"),
    ("needs-known-levels", "log/at-start"),
    ("no-answer-to-streams", "stream/answered"),
    ("drops-part-credit", "stream/credit"),
    ("credits-too-many-parts", "stream/credit"),
    ("ignores-stream-window", "stream/window"),
    ("waits-after-enough", "stream/enough"),
    ("sends-parts-after-cancel", "stream/cancel"),
    ("waits-after-errors", "stream/end-with-error"),
    ("answers-late-parts", "stream/late-chunks"),
    ("describes-no-services", "services/without"),
    ("service-of-another-version", "services/described"),
    ("service-without-commands", "services/methods"),
    ("service-of-odd-types", "services/schemas"),
    ("service-takes-anything", "services/odd-arguments"),
];

/// Faults of faulty_host.py, each with the check that is meant for it.
const HOST_FAULTS: &[(&str, &str)] = &[
    ("offers-lists", "start/get-metadata"),
    ("offers-odd-windows", "start/protocol-keys"),
    ("answers-after-the-start", "start/calls-before-metadata"),
    ("needs-metadata", "start/metadata-error"),
    ("needs-descriptions", "start/metadata-empty"),
    ("needs-strings", "start/metadata-other-types"),
    ("needs-its-cmd", "start/metadata-other-cmd"),
    ("takes-lists", "start/metadata-list"),
    ("needs-known-keys", "start/unknown-keys"),
    ("contexts-always", "start/base-only"),
    ("pongs", "call/ping"),
    ("drops-requests", "call/unknown-request"),
    ("answers-one-ways", "call/unknown-one-way"),
    ("echoes-reserved", "call/reserved-request"),
    ("answers-reserved-one-ways", "call/reserved-one-way"),
    ("ids-of-31-bits", "call/thread-ids"),
    ("dies-of-unasked-responses", "call/unasked-response"),
    ("loses-some-under-load", "call/in-flight"),
    ("asks-with-one-id", "call/own-requests"),
    ("needs-whole-fields", "format/byte-by-byte"),
    ("answers-unknown-directions", "format/directions"),
    ("ends-at-limits", "limit/command"),
    ("goes-on-after-garbage", "broken/not-a-digit"),
    ("takes-signs", "broken/sign"),
    ("takes-leading-zeros", "broken/leading-zero"),
    ("takes-any-number", "broken/too-large"),
    ("forgets-nul", "broken/no-nul"),
    ("takes-any-cmd", "broken/not-utf8"),
    ("drops-credit", "flow/credit-comes"),
    ("ignores-the-window", "flow/keeps-to-window"),
    ("dies-of-odd-credits", "flow/odd-credits"),
    ("sends-contexts-apart", "context/own"),
    ("dies-of-cancels", "cancel/unknown"),
    ("dies-of-progress", "progress/unasked"),
    ("dies-of-stream-chunks", "stream/unknown"),
    ("dies-of-failures", "failure/taken"),
    ("closes-without-stop", "end/stop"),
    ("stays-at-end", "end/guest-gone"),
];

fn faulty() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/conform/faulty.py")
}

fn faulty_host() -> PathBuf {
    faulty().with_file_name("faulty_host.py")
}

fn has_python() -> bool {
    let found = std::process::Command::new("python3").arg("--version").output().is_ok();
    assert!(found || std::env::var_os("CI").is_none(), "python3 is missing");
    found
}

/// Results by the name of the check.
fn results(ran: &Ran) -> Vec<(String, String)> {
    let of = |object: &Value| {
        let text = |key: &str| object[key].as_str().map(str::to_owned);
        Some((text("check")?, text("result")?))
    };
    ran.json().iter().filter_map(of).collect()
}

#[test]
fn a_plugin_written_from_the_page_alone_passes() {
    if !has_python() {
        return;
    }
    let path = faulty();
    // In parts: a run of all checks may take longer than the time limit of the tests.
    let groups = [
        "start call",
        "load format limit",
        "broken",
        "end flow",
        "context cancel progress failure",
        "config log stream services",
    ];
    let of_group = |group: &&str| {
        let args = ["conform", path.to_str().unwrap(), "--json", "--timeout", "60s"];
        let checks = group.split(' ').flat_map(|group| ["--check", group]);
        let ran = pipeplug(args.into_iter().chain(checks).chain(["--", "none"])).run().exits(0);
        results(&ran)
    };
    let results: Vec<_> = groups.iter().flat_map(of_group).collect();
    assert!(results.len() > 90, "{results:?}");
    let not_applicable: Vec<_> = results
        .iter()
        .filter(|(_, result)| result != "pass")
        .map(|(check, _)| check.as_str())
        .collect();
    let expected = [
        "format/own-requests",
        "broken/nul-in-cmd",
        "flow/keeps-to-window",
        "services/described",
        "services/methods",
        "services/schemas",
        "services/odd-arguments",
    ];
    assert_eq!(not_applicable, expected);
}

/// Runs each fault against its check, and returns those that were not caught.
fn missed(faults: &[(&str, &str)], arguments: fn(&str, &str) -> Vec<String>) -> Vec<String> {
    let not_caught = |(fault, check): &(&str, &str)| {
        let ran = pipeplug(arguments(fault, check)).run();
        let is_caught =
            ran.code == Some(1) && results(&ran) == [(check.to_string(), "fail".into())];
        (!is_caught).then(|| format!("{fault} by {check}: {}", ran.text()))
    };
    // They mostly wait.
    std::thread::scope(|scope| {
        let quarters: Vec<_> = faults
            .chunks(faults.len().div_ceil(4))
            .map(|some| scope.spawn(move || some.iter().filter_map(not_caught).collect::<Vec<_>>()))
            .collect();
        quarters.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn each_fault_of_a_plugin_is_caught_by_its_check() {
    if !has_python() {
        return;
    }
    let missed = missed(FAULTS, |fault, check| {
        let path = faulty();
        // Only one of the formats has a space behind the cmd.
        let format = if check == "broken/nul-in-cmd" { "classic" } else { "standard" };
        let args = ["conform", path.to_str().unwrap(), "--json", "--timeout", "4s"];
        let args = [&args[..], &["--format", format, "--check", check, "--", fault]].concat();
        args.into_iter().map(str::to_owned).collect()
    });
    assert!(missed.is_empty(), "not caught:\n{}", missed.join("\n"));
}

#[test]
fn each_fault_of_a_host_is_caught_by_its_check() {
    if !has_python() {
        return;
    }
    let missed = missed(HOST_FAULTS, |fault, check| {
        let path = faulty_host();
        let args = ["conform", "--as", "host", "--json", "--timeout", "4s", "--check", check, "--"];
        let host = ["python3", path.to_str().unwrap(), "{plugin}", fault];
        args.into_iter().chain(host).map(str::to_owned).collect()
    });
    assert!(missed.is_empty(), "not caught:\n{}", missed.join("\n"));
}

#[test]
fn a_host_without_a_fault_passes() {
    if !has_python() {
        return;
    }
    let path = faulty_host();
    let args = ["conform", "--as", "host", "--json", "--timeout", "60s", "--", "python3"];
    let host = [path.to_str().unwrap(), "{plugin}", "none"];
    let ran = pipeplug(args.into_iter().chain(host)).run().exits(0);
    let not_passed: Vec<_> = results(&ran).into_iter().filter(|(_, it)| it != "pass").collect();
    assert!(not_passed.is_empty(), "{not_passed:?}");
}

#[test]
fn a_plugin_with_a_service_passes() {
    if !has_python() {
        return;
    }
    let path = faulty();
    let args = ["conform", path.to_str().unwrap(), "--json", "--timeout", "60s"];
    let ran = pipeplug(args.into_iter().chain(["--check", "services", "--", "service"])).run();
    let expected = ["not-applicable", "pass", "pass", "pass", "pass"];
    let results: Vec<_> = results(&ran.exits(0)).into_iter().map(|(_, result)| result).collect();
    assert_eq!(results, expected);
}

/// Names of checks for which there is no fault, out of those that `--list` shows.
fn without_a_fault(list: &[&str], faults: &[(&str, &str)]) -> Vec<String> {
    let list = pipeplug(["conform", "--list"].into_iter().chain(list.iter().copied())).run();
    let ran = list.exits(0);
    let text = ran.text();
    let checks = text.lines().filter(|line| !line.starts_with(' ') && line.contains('/'));
    let names: Vec<_> = checks.map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert!(names.len() > 30, "{names:?}");
    names.into_iter().filter(|name| !faults.iter().any(|(_, check)| check == name)).collect()
}

#[test]
fn a_check_that_sends_much_names_what_helps_on_a_slow_machine() {
    let place = Place::new();
    // It answers one call, and reads no more: as slow as can be.
    let body = r#"
while recv; do
    send 3 "$cmd" '{}'
    case $cmd in cmd.stop) exit 0 ;; echo) kill -STOP $$ ;; esac
done"#;
    let path = place.standard("slow", body);
    let stdout_of = |check: &str| {
        let args =
            ["conform", path.to_str().unwrap(), "--stdio", "--timeout", "1s", "--check", check];
        place.pipeplug(args).run().exits(1).text().to_owned()
    };
    for check in ["call/huge-buffer", "call/large-buffer"] {
        let text = stdout_of(check).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("a slow machine needs a longer --timeout, or --jobs 1"), "{text}");
    }
    let text = stdout_of("call/one-response");
    assert!(!text.contains("--jobs"), "{text}");
}

#[test]
fn every_check_has_a_fault() {
    assert_eq!(without_a_fault(&[], FAULTS), [""; 0]);
    assert_eq!(without_a_fault(&["--as", "host"], HOST_FAULTS), [""; 0]);
}

#[test]
fn every_fault_is_in_the_table() {
    let named_in = |path: &Path| -> Vec<String> {
        let source = std::fs::read_to_string(path).unwrap();
        source
            .lines()
            .filter(|line| line.contains("FAULT"))
            .flat_map(|line| line.split('"').skip(1).step_by(2))
            .filter(|word| word.contains('-') && word.len() > 1 || *word == "pongs")
            .map(str::to_owned)
            .collect()
    };
    for (mut named, faults) in
        [(named_in(&faulty()), FAULTS), (named_in(&faulty_host()), HOST_FAULTS)]
    {
        // Both read with the same code.
        let shared = named_in(&faulty());
        named.extend(
            faults
                .iter()
                .map(|(fault, _)| (*fault).to_owned())
                .filter(|fault| shared.contains(fault)),
        );
        let mut tried: Vec<_> = faults.iter().map(|(fault, _)| (*fault).to_owned()).collect();
        for list in [&mut named, &mut tried] {
            list.sort_unstable();
            list.dedup();
        }
        assert_eq!(named, tried);
    }
}

#[test]
fn the_built_in_plugin_passes() {
    let ran =
        pipeplug(["conform", "@echo", "--timeout", "60s", "--slow", "steps=30"]).run().exits(0);
    assert!(ran.text().contains("pass  progress/reports\n"), "{}", ran.text());
    assert!(ran.text().contains(" passed, 0 failed, "), "{}", ran.text());
}

#[test]
fn a_failed_check_says_what_came() {
    let place = Place::new();
    let path = place.standard(
        "rude",
        r#"while recv; do case $cmd in cmd.stop) exit 3 ;; *) send 3 "$cmd" '{}' ;; esac; done"#,
    );
    let xml = place.path().join("report.xml");
    let args = ["conform", path.to_str().unwrap(), "--basic", "--check", "end/stop"];
    let args = args.into_iter().chain(["--check", "call/ping", "--check", "flow/credit-sum"]);
    let ran = pipeplug(args.chain(["--junit", xml.to_str().unwrap()])).run().exits(1);
    let text = "\
FAIL  call/ping
      sent      the request cmd.ping
      expected  a response with the threadID of the request and an empty buffer
      came      response 2 \"cmd.ping\" b\"{}\"
      section   docs/protocol.md, \"Reserved commands\"
FAIL  end/stop
      sent      cmd.stop, and keeps the connection open
      expected  the end of the plugin with the exit status 0
      came      it ended with exit status 3
      section   docs/protocol.md, \"The end\"
n/a   flow/credit-sum: the plugin does not name `flow`

0 passed, 2 failed, 1 not applicable, in ";
    assert!(ran.text().starts_with(text), "{}", ran.text());
    let xml = std::fs::read_to_string(xml).unwrap();
    for part in [
        "tests=\"3\" failures=\"2\" errors=\"0\" skipped=\"1\"",
        "<testcase classname=\"end\" name=\"stop\"",
        "<failure message=\"it ended with exit status 3\">",
        "<skipped message=\"the plugin does not name `flow`\"/>",
    ] {
        assert!(xml.contains(part), "{part} in {xml}");
    }
}

#[test]
fn mistakes_have_a_next_step() {
    let conform =
        |args: &[&str]| pipeplug(["conform"].into_iter().chain(args.iter().copied())).run();
    conform(&["@echo", "--check", "call/pign"]).exits(2).says("did you mean \"call/ping\"?");
    conform(&["./nowhere"]).exits(3).says("no plugin at").prints("");
    conform(&["nowhere"]).exits(3).says("no plugin");
    conform(&["--as", "host"]).exits(2).says("conform --as host -- ./myhost {plugin}");
    conform(&["--as", "host", "--", "true"]).exits(2).says("{plugin}");
    conform(&[]).exits(2).says("PLUGIN");
    conform(&["@echo", "--jobs", "0"]).exits(2).says("not a number from 1 on");
    conform(&["@echo", "--call", "cmd.ping"]).exits(2).says("a command of the protocol");
    let list = conform(&["--list"]).exits(0);
    assert!(list.text().contains("call/ping\n      sends     "), "{}", list.text());
}

#[test]
fn this_program_passes_as_a_host() {
    let program = env!("CARGO_BIN_EXE_pipeplug");
    let command = [program, "run", "{plugin}", "--call", "echo", "hi", "--call", "upper", "x"];
    let args = ["conform", "--as", "host", "--timeout", "60s", "--"].into_iter().chain(command);
    let ran = pipeplug(args).run().exits(0);
    assert!(ran.text().contains("pass  flow/credit-comes\n"), "{}", ran.text());
    assert!(ran.text().contains("pass  end/stop\n"), "{}", ran.text());
}

#[test]
fn a_host_that_does_not_answer_fails() {
    let place = Place::new();
    // Asks for the metadata, answers nothing, and does not end the connection.
    let host = place.executable(
        "host",
        "#!/bin/sh\n{ printf '1\\0002\\00011\\000GetMetadata\\0000\\000'; exec sleep 5; } | \"$1\" >/dev/null\n",
    );
    let checks = ["start/get-metadata", "call/ping", "broken/sign", "end/stop"];
    let args = ["conform", "--as", "host", "--json", "--timeout", "1s"];
    let args = args.into_iter().chain(checks.iter().flat_map(|check| ["--check", check]));
    let ran = pipeplug(args.chain(["--", host.to_str().unwrap(), "{plugin}"])).run().exits(1);
    let failed = |check: &str| (check.to_owned(), "fail".to_owned());
    let expected = [
        ("start/get-metadata".to_owned(), "pass".to_owned()),
        failed("call/ping"),
        failed("broken/sign"),
        ("end/stop".to_owned(), "not-applicable".to_owned()),
    ];
    assert_eq!(results(&ran), expected);
}

#[test]
fn a_host_that_starts_nothing_fails() {
    let ran =
        pipeplug(["conform", "--as", "host", "--check", "call/ping", "--", "false", "{plugin}"]);
    ran.run()
        .exits(1)
        .prints_part("the host ended with exit status 1 and had not started {plugin}");
}

/// The same would be said of each check.
#[test]
fn what_does_not_start_is_told_once() {
    let place = Place::new();
    let lost = place.executable("lost", "#!/nowhere/sh\n");
    let mute = place.executable("mute", "#!/bin/sh\necho no licence >&2\nexit 7\n");
    let (lost, mute) = (lost.to_str().unwrap(), mute.to_str().unwrap());
    let ran = pipeplug(["conform", lost]).run().exits(1).prints("");
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    ran.says("needs the interpreter \"/nowhere/sh\"").says("`pipeplug doctor` looks for the cause");
    let xml = place.path().join("report.xml");
    let args = ["conform", mute, "--json", "--junit", xml.to_str().unwrap(), "--check", "call"];
    let ran = pipeplug(args).run().exits(1);
    let said = "it ended with exit status 7; its stderr ends with: no licence";
    let [sums] = ran.json().try_into().unwrap();
    // It may end before the request is sent or after that.
    let error = sums["error"].as_str().unwrap();
    assert!(error.starts_with("the plugin says nothing: ") && error.contains(said), "{sums}");
    assert_eq!((&sums["failed"], &sums["not_run"]), (&0.into(), &15.into()), "{sums}");
    ran.says(said);
    let xml = std::fs::read_to_string(xml).unwrap();
    for part in [
        "tests=\"16\" failures=\"0\" errors=\"1\" skipped=\"15\"",
        "<error message=\"the plugin says nothing: ",
        "<testcase classname=\"call\" name=\"ping\" time=\"0.000\">\n      <skipped message=\"not run\"/>",
    ] {
        assert!(xml.contains(part), "{part} in {xml}");
    }
    let ran =
        pipeplug(["conform", "--as", "host", "--", "/nowhere/host", "{plugin}"]).run().exits(1);
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    ran.prints("").says("not found");
}

/// A wrong command would leave out what needs it.
#[test]
fn a_command_that_the_plugin_does_not_have_is_an_error() {
    let conform = |args: &[&str]| pipeplug([&["conform", "@echo"], args].concat()).run().exits(2);
    conform(&["--call", "ecoh=x"])
        .prints("")
        .says("--call ecoh: the plugin answers with an error: unknown command \"ecoh\"; did you mean \"echo\"?");
    conform(&["--slow", "nosuch", "--check", "load"])
        .says("--slow nosuch: ")
        .says("it knows echo, grep");
    conform(&["--slow", "fail=no"])
        .says("--slow fail: the plugin answers with an error: no; name a command");
    // What a command answers is the business of the checks.
    pipeplug(["conform", "@echo", "--call", "fail=no", "--check", "start/metadata"]).run().exits(0);
    conform(&["--slow", "echo=x"])
        .says("--slow echo: the plugin answers at once, with response 2 \"echo\"");
    let place = Place::new();
    let plain = place.standard("plain", "while recv; do send 3 cmd.error 'unknown command'; done");
    pipeplug(["conform", plain.to_str().unwrap(), "--call", "x"])
        .run()
        .exits(2)
        .says("--call x: the plugin answers with an error: unknown command");
}

/// Node's pipes of a child are sockets, which cannot be opened by their names.
#[test]
fn a_host_may_talk_over_sockets() {
    if !has_python() {
        return;
    }
    let path = faulty_host();
    for kind in ["sockets", "one-socket"] {
        let checks = ["start", "call/ping", "broken/sign", "end/guest-gone"];
        let args = ["conform", "--as", "host", "--timeout", "60s"].into_iter();
        let args = args.chain(checks.iter().flat_map(|check| ["--check", check]));
        let host = ["--", "python3", path.to_str().unwrap(), "{plugin}", kind, "none"];
        let ran = pipeplug(args.chain(host)).run().exits(0);
        assert!(ran.text().contains("13 passed, 0 failed, 0 not"), "{kind}: {}", ran.text());
    }
}
