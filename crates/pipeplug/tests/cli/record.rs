//! `--record`, `--trace`, `pipeplug trace` and `pipeplug replay`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::common::{Place, has_tool, pipeplug};

fn text(path: &std::path::Path) -> &str {
    path.to_str().unwrap()
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// A recording of a call, one that fails, one that the plugin makes, and a one-way.
fn recorded(place: &Place) -> PathBuf {
    let file = place.path().join("a.rec");
    let args = ["run", "@echo", "--answer", "greet=hi", "--record", text(&file)];
    let calls =
        ["--call", "echo", "hello", "--call", "fail", "no luck", "--call", "ask", "greet you"];
    pipeplug(args.iter().chain(&calls).chain(&["--notify", "log", "x"])).run().exits(1);
    file
}

#[test]
fn a_trace_shows_the_calls_of_both_sides() {
    let place = Place::new();
    let file = recorded(&place);
    let trace = pipeplug(["trace", text(&file)]).run().exits(0);
    let ends: Vec<_> =
        trace.text().lines().filter_map(|line| line.get(41..)).map(str::to_owned).collect();
    for line in ["→ GetMetadata", "→ echo", "→ fail: no luck", "→ ask", "← greet", "→ log"]
    {
        assert!(ends.iter().any(|end| end.ends_with(line)), "{line}: {}", trace.text());
    }
    let calls = pipeplug(["trace", text(&file), "--json", "--command", "greet"]).run().exits(0);
    let calls = calls.json();
    let call = calls.iter().find(|it| it["event"] == "call").unwrap();
    assert_eq!((&call["from"], &call["outcome"]), (&json!("plugin"), &json!("reply")));
    assert_eq!(call["request"], json!({ "bytes": 3, "data": "you" }));
    assert_eq!(call["reply"], json!({ "bytes": 2, "data": "hi" }));
    let failed = pipeplug(["trace", text(&file), "--failed"]).run().exits(0);
    assert!(!failed.text().contains("→ echo") && failed.text().contains("fail: no luck"));
    pipeplug(["trace", text(&file), "--since", "1h"]).run().exits(0);
    let data = pipeplug(["trace", text(&file), "--data"]).run().exits(0);
    assert!(data.text().contains("sent  hello"), "{}", data.text());
    pipeplug(["trace", text(&file), "--command", "nothing"])
        .run()
        .exits(0)
        .prints_part("no call of the recording fits");
}

#[test]
fn a_live_trace_has_the_same_lines() {
    pipeplug(["run", "@echo", "--trace", "--call", "echo", "hello", "--call", "fail", "no"])
        .run()
        .exits(1)
        .prints("hello")
        .says("→ echo\n")
        .says("→ fail: no\n");
}

#[test]
fn redacted_data_is_nowhere_in_the_file() {
    let place = Place::new();
    let file = place.path().join("a.rec");
    let args = ["run", "@echo", "--record", text(&file), "--redact", "reverse"];
    let calls = ["--call", "reverse", "geheim", "--call", "echo", "known"];
    pipeplug(args.iter().chain(&calls).chain(&["--config", r#"{"key":"tresor"}"#])).run().exits(0);
    let bytes = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
    for secret in ["geheim", "mieheg", "tresor"] {
        assert!(!bytes.contains(secret), "{secret}");
    }
    assert!(bytes.contains("known"));
    let replayed = pipeplug(["replay", text(&file), "--as", "host", "@echo"]).run();
    replayed.exits(0).prints_part("1 call or one-way whose data is redacted left out");
}

#[test]
fn a_killed_host_leaves_a_file_that_tells_what_was_open() {
    let place = Place::new();
    let file = place.path().join("a.rec");
    let calls = ["--call", "echo", "hello", "--call", "sleep", "60000"];
    let args = ["run", "@echo", "--json", "--record", text(&file)];
    let mut host = pipeplug(args.iter().chain(&calls)).watch();
    host.event("reply");
    // The second call is in the file soon after it was made.
    let is_there = |command: &str| {
        let trace = pipeplug(["trace", text(&file), "--json", "--failed"]).run().exits(0);
        trace.json().iter().any(|it| it["command"] == command && it["outcome"] == "open")
    };
    while !is_there("sleep") {
        std::thread::yield_now();
    }
    host.signal(Signal::SIGKILL);
    host.code();
    let trace = pipeplug(["trace", text(&file)]).run().exits(0);
    let lines: Vec<_> = trace.text().lines().collect();
    assert!(lines.iter().any(|line| line.ends_with("→ echo")), "{lines:?}");
    let open = lines.last().unwrap();
    assert!(open.contains("open") && open.ends_with("→ sleep: no response in the recording"));
    // The next host keeps it.
    pipeplug(["run", "@echo", "--record", text(&file), "--call", "echo", "again"]).run().exits(0);
    let kept = format!("{}.1", text(&file));
    pipeplug(["trace", &kept]).run().exits(0).prints_part("→ sleep");
}

#[test]
fn other_files_are_refused() {
    let place = Place::new();
    let diary = place.file("diary", b"dear diary, today nothing happened at all");
    pipeplug(["run", "@echo", "--record", text(&diary), "--call", "echo", "x"])
        .run()
        .exits(4)
        .says("exists and is no recording: name another file");
    pipeplug(["trace", text(&diary)]).run().exits(2).says("is no recording");
    let missing = place.path().join("missing");
    pipeplug(["trace", text(&missing)]).run().exits(2).says("No such file");
    pipeplug(["run", "@echo", "--redact", "x"]).run().exits(2).says("--record");
}

#[test]
fn a_crash_names_the_recording() {
    let place = Place::new();
    let file = place.path().join("a.rec");
    pipeplug(["run", "@echo", "--record", text(&file), "--call", "crash"])
        .run()
        .exits(5)
        .says(&format!("recorded in {:?}", file));
    pipeplug(["trace", text(&file)])
        .run()
        .exits(0)
        .prints_part("→ crash: no response: echo has ended");
}

#[test]
fn perfetto_gets_slices_and_flows() {
    let place = Place::new();
    let (file, out) = (recorded(&place), place.path().join("a.json"));
    pipeplug(["trace", text(&file), "--perfetto", text(&out)]).run().exits(0).prints("");
    let document: Value = serde_json::from_slice(&fs::read(&out).unwrap()).unwrap();
    let events = document["traceEvents"].as_array().unwrap();
    let of = |phase: &str| events.iter().filter(|it| it["ph"] == phase).collect::<Vec<_>>();
    let (begins, ends) = (of("b"), of("e"));
    assert_eq!((begins.len(), ends.len()), (5, 5), "GetMetadata and four calls");
    for begin in &begins {
        let end = ends.iter().find(|end| end["id"] == begin["id"]).unwrap();
        assert!(end["ts"].as_f64() > begin["ts"].as_f64());
        assert_eq!((&end["pid"], &end["cat"]), (&begin["pid"], &begin["cat"]));
    }
    // Each flow begins and ends in a slice of the other process.
    let (slices, starts, finishes) = (of("X"), of("s"), of("f"));
    assert_eq!((starts.len(), slices.len()), (11, 22), "five calls and a one-way");
    for start in starts {
        let finish = finishes.iter().find(|it| it["id"] == start["id"]).unwrap();
        assert_ne!(finish["pid"], start["pid"]);
        for end in [start, *finish] {
            let is_in = |slice: &&&Value| slice["pid"] == end["pid"] && slice["ts"] == end["ts"];
            assert!(slices.iter().any(|slice| is_in(&slice)), "{end}");
        }
    }
}

#[test]
fn the_page_shows_searches_filters_and_decodes() {
    let place = Place::new();
    let file = place.path().join("a.rec");
    let args = ["run", "@echo", "--record", text(&file), "--call", "echo"];
    let calls =
        [r#"{"words":["</script>",2]}"#, "--call", "upper", "abc", "--call", "fail", "oh no"];
    pipeplug(args.iter().chain(&calls)).run().exits(1);
    let page = place.path().join("a.html");
    pipeplug(["trace", text(&file), "--html", text(&page)]).run().exits(0).prints("");
    let chrome = ["google-chrome", "chromium-browser"].into_iter().find(|name| is_installed(name));
    let chrome = chrome.unwrap_or("chromium");
    if !is_installed(chrome) && !has_tool("chromium", "chromium") {
        return;
    }
    let dom = |hash: &str| {
        let home = place.path().join("chromium");
        let output = Command::new(chrome)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"])
            .arg(format!("--user-data-dir={}", text(&home)))
            .args(["--window-size=1200,800", "--virtual-time-budget=3000"])
            .arg(format!("file://{}#{hash}", text(&page)))
            .env("HOME", place.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let has = |dom: &str, part: &str| {
        let svg = dom.split("<svg").nth(1).and_then(|rest| rest.split("</svg>").next());
        svg.unwrap().contains(part)
    };
    let all = dom("");
    assert!(all.contains(">4 of 4 calls and one-ways</output>"), "{all}");
    for part in ["echo  25 B", "upper ✓  3 B", "oh no  5 B"] {
        assert!(has(&all, part), "{part}: {all}");
    }
    let found = dom("q=WORDS");
    assert!(found.contains(">1 of 4 calls"), "{found}");
    assert!(has(&found, "echo  25 B") && !has(&found, "upper"));
    let failed = dom("failed=true");
    assert!(failed.contains(">1 of 4 calls") && has(&failed, "fail  5 B"), "{failed}");
    assert!(dom("dir=plugin").contains(">0 of 4 calls"));
    assert!(dom("slow=60000").contains(">0 of 4 calls"));
    // Zoomed out, rows are close and have no labels.
    let far = dom("zoom=0");
    assert!(far.contains(">4 of 4 calls") && !has(&far, "<text"), "{far}");
    // The call that was picked, decoded. Its index is behind the begin and GetMetadata.
    let picked = dom("pick=2");
    let detail = picked.split("<aside").nth(1).unwrap();
    assert!(detail.contains(r#"<span class="key">"words"</span>"#), "{detail}");
    assert!(detail.contains("&lt;/script&gt;") && detail.contains(r#"<span class="num">2</span>"#));
}

/// A plugin whose answers can be changed: a counter, a call to the host, and JSON.
fn changing(place: &Place, name: &str, count: &str, asks: &str) -> PathBuf {
    place.standard(
        name,
        &format!(
            r#"
while recv; do
    case $cmd in
    cmd.stop) exit 0 ;;
    GetMetadata) send 3 "$cmd" '{{"Description":"it changes"}}' ;;
    count) send 3 "$cmd" '{{"count": {count}, "pid": '$$'}}' ;;
    fail) send 3 cmd.error 'not today' ;;
    ask) asked=$id id=77; send 2 name '{asks}'; recv; id=$asked; send 3 ask "<$data>" ;;
    *) send 3 "$cmd" "<$data>" ;;
    esac
done
"#
        ),
    )
}

#[test]
fn a_replay_finds_what_has_changed_and_nothing_else() {
    let place = Place::new();
    let (file, old) = (place.path().join("a.rec"), changing(&place, "plugin", "12", "who"));
    let args = ["run", text(&old), "--answer", "name=me", "--record", text(&file)];
    let calls = ["--call", "count", "--call", "ask", "--call", "fail", "--call", "echo", "a"];
    pipeplug(args.iter().chain(&calls)).run().exits(1);

    let replay = |plugin: &std::path::Path, more: &[&str]| {
        let file = file.clone();
        let args = ["replay", text(&file), "--as", "host", text(plugin)];
        pipeplug(args.iter().chain(more)).run()
    };
    replay(&old, &["--ignore", "/pid"])
        .exits(0)
        .prints("4 sent, 1 expected from the other side: no differences\n");
    let differs = replay(&old, &[]).exits(1);
    assert!(
        differs.text().contains("the host's call 1, count: the response differs\n  /pid: was ")
    );

    let new = changing(&place, "new", "13", "what");
    let differs = replay(&new, &["--ignore", "/pid"]).exits(1);
    assert_eq!(
        differs.text(),
        "the host's call 1, count: the response differs\n  /count: was 12, is 13\n\
         the plugin's call 1, name: the data differs\n  recorded \"who\"\n  now      \"what\"\n\
         4 sent, 1 expected from the other side: 2 differences\n"
    );

    let mirror = place.standard("mirror", crate::common::MIRROR);
    let differs = replay(&mirror, &["--ignore", "/pid", "--timeout", "1s"]).exits(1);
    for part in [
        "the metadata differs\n  /Description: was \"it changes\", is \"a mirror\"\n",
        "the plugin's call 1, name did not come\n  recorded \"who\"\n",
        "recorded the error \"not today\"\n  now      a reply",
    ] {
        assert!(differs.text().contains(part), "{part}: {}", differs.text());
    }

    let dead = place.standard("dead", "recv; send 3 \"$cmd\" '{}'; recv; exit 3");
    let differs = replay(&dead, &[]).exits(1);
    assert!(differs.text().contains("count: no reply, "), "{}", differs.text());
}

#[test]
fn a_replay_needs_calls_with_their_data() {
    let place = Place::new();
    let file = place.path().join("a.rec");
    pipeplug(["run", "@echo", "--record", text(&file), "--notify", "log", "x"]).run().exits(0);
    pipeplug(["replay", text(&file), "--as", "host", "@echo"])
        .run()
        .exits(0)
        .prints("1 sent, 0 expected from the other side: no differences\n");
    pipeplug(["replay", text(&file), "--as", "host", "@echo", "--connection", "7"])
        .run()
        .exits(2)
        .says("connection 7 has no calls to replay");
    pipeplug(["replay", text(&file), "--as", "host", "@echo", "--ignore", "a"])
        .run()
        .exits(2)
        .says("write /a");
}

#[test]
fn an_exported_test_compiles_and_passes() {
    let place = Place::new();
    let file = recorded(&place);
    let test = place.path().join("recorded.rs");
    pipeplug(["replay", text(&file), "--export-test", text(&test), "--ignore", "/a\"b"])
        .run()
        .exits(0)
        .prints("");
    let exported = fs::read_to_string(&test).unwrap();
    assert!(exported.contains(r#"(b"echo""#) || exported.contains(r#"("echo", b"hello""#));
    // The same file is a test of pipeplug-tests, so that it is compiled.
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/../pipeplug-tests/tests/parallel/exported.rs");
    let without_first_line = |text: &str| text.split_once('\n').unwrap().1.to_owned();
    if std::env::var_os("UPDATE_EXPORTED").is_some() {
        fs::write(ours, &exported).unwrap();
    }
    let ours = fs::read_to_string(ours).unwrap();
    assert_eq!(
        without_first_line(&exported),
        without_first_line(&ours),
        "set UPDATE_EXPORTED to write the file anew"
    );
}

#[test]
fn a_recorded_plugin_plays_against_a_host() {
    let place = Place::new();
    let (file, program) = (place.path().join("a.rec"), env!("CARGO_BIN_EXE_pipeplug"));
    let args = ["run", "@echo", "--answer", "greet=hi", "--record", text(&file)];
    let calls = ["--call", "echo", "hello", "--call", "ask", "greet you", "--notify", "log", "x"];
    pipeplug(args.iter().chain(&calls)).run().exits(0);
    let replay = |host: &[&str]| {
        let args = ["replay", text(&file), "--as", "guest", "--timeout", "2s", "--"];
        pipeplug(args.iter().chain(host)).run()
    };
    let same = [program, "run", "{}", "--answer", "greet=hi"];
    let same = replay(&[&same[..], &calls].concat()).exits(0);
    assert_eq!(
        same.text(),
        "hellohi1 sent, 3 expected from the other side: no differences\n",
        "{}",
        same.stderr
    );
    let other = [program, "run", "{}", "--stdio", "--answer", "greet=ho"];
    let calls = ["--call", "echo", "hallo", "--call", "ask", "greet you", "--call", "more"];
    let other = replay(&[&other[..], &calls].concat()).exits(1);
    for part in [
        "the host's call 1, echo: the data differs\n  recorded \"hello\"\n  now      \"hallo\"\n",
        "the plugin's call 1, greet: the response differs\n  recorded \"hi\"\n  now      \"ho\"\n",
        "more came, which the recording does not have\n",
        "the host's one-way 3, log did not come\n",
        ": 4 differences\n",
    ] {
        assert!(other.text().contains(part), "{part}: {}", other.text());
    }
    replay(&[program, "run", "./plugin"]).exits(2).says("has no {}");
    replay(&["/no/such/host", "{}"]).exits(3).says("cannot start the host");
    replay(&["true", "{}"]).exits(1).says("has not talked to its plugin");
}
