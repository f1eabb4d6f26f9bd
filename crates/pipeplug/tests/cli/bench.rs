//! `pipeplug bench`.

use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::common::{MIRROR, Place, Ran, pipeplug};

/// Stalls for half a second at the 50th call of its own.
const STALLS: &str = r#"
n=0
while recv; do
    case $cmd in
    cmd.stop) exit 0 ;;
    GetMetadata) send 3 "$cmd" '{}' ;;
    *) n=$((n + 1)); if ((n == 50)); then sleep 0.5; fi; send 3 "$cmd" "$data" ;;
    esac
done
"#;

/// Answers the first calls, and then dies.
const DIES: &str = r#"
n=0
while recv; do
    case $cmd in
    cmd.stop) exit 0 ;;
    GetMetadata) send 3 "$cmd" '{}' ;;
    *) n=$((n + 1)); if ((n == 50)); then exit 7; fi; send 3 "$cmd" "$data" ;;
    esac
done
"#;

fn json(ran: &Ran) -> Value {
    serde_json::from_slice(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

fn bench(plugin: &str, args: &[&str]) -> Ran {
    pipeplug([&["bench", plugin], args].concat()).run()
}

fn seconds(ran: &Ran, name: &str) -> f64 {
    json(ran)["plugins"][0]["latency_seconds"][name].as_f64().unwrap()
}

#[test]
fn a_table_shows_what_was_measured() {
    for pace in [&["--concurrency", "1"][..], &["--concurrency", "20"], &["--rate", "500"]] {
        let args = [&["--call", "echo", "--size", "1K", "--duration", "300ms"], pace].concat();
        let ran = bench("@echo", &args);
        let table = String::from_utf8(ran.stdout).unwrap();
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{table}");
        assert!(table.starts_with("echo: echo with 1024 B, "), "{table}");
        for row in ["calls", "errors", "rate", "data", "min", "p50", "p99.9", "max"] {
            let line = table.lines().find(|line| line.trim_start().starts_with(row));
            assert!(line.is_some_and(|line| line.chars().count() <= 80), "{row}: {table}");
        }
    }
}

#[test]
fn all_calls_are_counted() {
    // As many as the plugin has handled, with those of the warm-up.
    let place = Place::new();
    let counts = place.path().join("counts");
    let plugin = place.standard(
        "counts",
        &format!(
            "n=0; while recv; do case $cmd in cmd.stop) echo $n >{}; exit 0 ;; GetMetadata) send 3 \
             \"$cmd\" '{{}}' ;; *) n=$((n + 1)); send 3 \"$cmd\" \"$data\" ;; esac; done",
            counts.display()
        ),
    );
    let args = ["--call", "x", "abc", "--rate", "100", "--duration", "1s", "--warmup", "200ms"];
    let ran = bench(plugin.to_str().unwrap(), &[&args[..], &["--json"]].concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let json = json(&ran);
    assert_eq!(json["plugins"][0]["calls"], 100, "{json}");
    assert_eq!((&json["size"], &json["rate"]), (&3.into(), &100.0.into()));
    let handled: u64 = std::fs::read_to_string(counts).unwrap().trim().parse().unwrap();
    assert_eq!(handled, 120, "20 of them warm it up");
}

#[test]
fn a_stall_makes_all_calls_slow_that_were_due() {
    let place = Place::new();
    let plugin = place.standard("stalls", STALLS);
    let plugin = plugin.to_str().unwrap();
    let common = ["--call", "x", "--json", "--duration", "1500ms", "--warmup", "1ms"];
    // 50 of the 150 calls were due during the stall, half of them at least 250 ms before its end.
    let ran = bench(plugin, &[&common[..], &["--rate", "100"]].concat());
    assert!(seconds(&ran, "p90") > 0.2, "{ran:?}");
    assert_eq!(json(&ran)["plugins"][0]["calls"], 150, "{ran:?}");
    // Of a closed loop only one call is slow, among many.
    let ran = bench(plugin, &common);
    assert!(seconds(&ran, "max") > 0.4 && seconds(&ran, "p90") < 0.2, "{ran:?}");
    // A limit of calls in flight hides nothing.
    let ran = bench(plugin, &[&common[..], &["--rate", "100", "--concurrency", "1"]].concat());
    assert!(seconds(&ran, "p90") > 0.2, "{ran:?}");
}

#[test]
fn errors_are_counted_by_code() {
    let ran = bench("@echo", &["--call", "nonsense", "--duration", "200ms", "--json"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let json = json(&ran);
    let plugin = &json["plugins"][0];
    assert_eq!(plugin["calls"], 0);
    let [errors] = plugin["errors"].as_array().unwrap().as_slice() else { panic!("{json}") };
    assert_eq!((&errors["code"], &errors["count"]), (&"unknown_command".into(), &plugin["failed"]));
    assert!(errors["count"].as_u64() > Some(0));
    let table = bench("@echo", &["--call", "nonsense", "--duration", "200ms"]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("unknown_command, such as: nonsense: "), "{table}");
}

#[test]
fn calls_without_a_reply_are_errors() {
    let sleeps = ["--call", "sleep", "60000", "--duration", "200ms", "--json"];
    for more in [&["--timeout", "400ms"][..], &["--timeout", "400ms", "--concurrency", "3"]] {
        let ran = bench("@echo", &[&sleeps[..], more].concat());
        assert_eq!(ran.code, Some(1), "{ran:?}");
        let failed = json(&ran)["plugins"][0]["failed"].as_u64().unwrap();
        assert!(failed >= 1, "{ran:?}");
    }
    // A plugin that never answers does not hold it up, without a time-out either.
    let ran = bench("@echo", &[&sleeps[..], &["--concurrency", "3"]].concat());
    assert_eq!(json(&ran)["plugins"][0]["errors"][0]["code"], "unanswered", "{ran:?}");
    assert_eq!(json(&ran)["plugins"][0]["failed"], 3, "{ran:?}");
}

#[test]
fn more_than_it_can_do_is_said() {
    let args = ["--call", "sleep", "100", "--rate", "1000", "--concurrency", "2", "--json"];
    let ran = bench("@echo", &[&args[..], &["--duration", "500ms", "--timeout", "1s"]].concat());
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let json = json(&ran);
    let errors = json["plugins"][0]["errors"].as_array().unwrap();
    let unsent = errors.iter().find(|errors| errors["code"] == "unsent").unwrap();
    let (unsent, failed) = (unsent["count"].as_u64(), json["plugins"][0]["failed"].as_u64());
    let all = failed.unwrap() + json["plugins"][0]["calls"].as_u64().unwrap();
    assert_eq!(all, 500, "every call that was due is accounted for: {json}");
    assert!(unsent > Some(400), "{json}");
}

#[test]
fn the_end_of_the_plugin_ends_it() {
    let place = Place::new();
    let plugin = place.standard("dies", DIES);
    for pace in [&["--concurrency", "1"][..], &["--concurrency", "5"], &["--rate", "200"]] {
        let args = [&["--call", "x", "--warmup", "1ms", "--duration", "60s"], pace].concat();
        let ran = bench(plugin.to_str().unwrap(), &args);
        assert_eq!(ran.code, Some(5), "{ran:?}");
        assert!(ran.stderr.contains("exit status 7"), "{ran:?}");
        let table = String::from_utf8(ran.stdout).unwrap();
        assert!(table.contains("p99"), "what was measured is shown: {table}");
    }
}

#[test]
fn an_interrupt_shows_what_was_measured() {
    for pace in [&["--concurrency", "1"][..], &["--concurrency", "5"], &["--rate", "1"]] {
        let args = ["bench", "@echo", "--call", "echo", "x", "--json", "--warmup", "1ms"];
        let mut run = pipeplug([&args[..], &["--duration", "600s"], pace].concat());
        run.command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let child = run.command.spawn().unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        // The time of a measurement, which the interrupt ends.
        thread::sleep(Duration::from_millis(1500));
        kill(pid, Signal::SIGINT).unwrap();
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{stderr}");
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&json["interrupted"], &json["plugins"][0]["failed"]),
            (&true.into(), &0.into())
        );
        assert!(json["plugins"][0]["calls"].as_u64() >= Some(1), "{json}");
        assert!(json["plugins"][0]["seconds"].as_f64() < Some(60.0), "{json}");
    }
}

#[test]
fn two_plugins_are_compared() {
    let place = Place::new();
    let slow = place.standard("slow", MIRROR);
    let slow = slow.to_str().unwrap();
    let args = ["--call", "echo", "x", "--duration", "600ms", "--rounds", "3"];
    let ran = bench("@echo", &[&args[..], &["--vs", slow, "--json"]].concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let json = json(&ran);
    let names: Vec<_> =
        json["plugins"].as_array().unwrap().iter().map(|it| it["plugin"].clone()).collect();
    assert_eq!((names, &json["rounds"]), (vec!["echo".into(), "slow".into()], &3.into()));
    let ratio = &json["ratio"]["rate"];
    let of = |name: &str| ratio[name].as_f64().unwrap();
    assert!(of("least") <= of("median") && of("median") <= of("greatest"), "{json}");
    assert!(of("median") > 1.0, "a plugin in bash is slower: {json}");
    let ran = bench("@echo", &[&args[..], &["--vs", slow]].concat());
    let table = String::from_utf8(ran.stdout).unwrap();
    assert!(table.contains("ratio: echo to slow, median of 3 rounds"), "{table}");
    // Two builds of the same plugin.
    let same = bench("@echo", &["--call", "echo", "--vs", "@echo", "--duration", "100ms"]);
    let same = String::from_utf8(same.stdout).unwrap();
    assert!(same.contains("ratio: @echo (1) to @echo (2), median of 5 rounds"), "{same}");
    assert!(same.lines().all(|line| line.chars().count() <= 80), "{same}");
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
}

#[test]
fn data_of_a_literal_has_its_size() {
    let ran = bench("@echo", &["--call", "echo", "grüße", "--duration", "100ms", "--json"]);
    assert_eq!(json(&ran)["size"], 7, "{ran:?}");
}

#[test]
fn what_cannot_be_measured_is_an_error() {
    let cases: [(&[&str], &str); 8] = [
        (&[], "--call"),
        (&["--call", "x", "data", "--size", "5"], "--size takes the place of DATA"),
        (&["--call", "cmd.stop"], "command of the protocol"),
        (&["--call", "x", "--rate", "0"], "from 0.001"),
        (&["--call", "x", "--concurrency", "0"], "from 1 to"),
        (&["--call", "x", "--size", "2G"], "write at most 1G"),
        (&["--call", "x", "--rounds", "3"], "--vs"),
        (&["--call", "x", "@/nonexistent"], "cannot read the data file"),
    ];
    for (args, told) in cases {
        let ran = bench("@echo", args);
        assert_eq!(ran.code, Some(2), "{args:?}: {ran:?}");
        assert!(ran.stderr.contains(told), "{args:?}: {ran:?}");
    }
    let ran = bench("@echo", &["--call", "x", "--vs", "@nonsense"]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
}
