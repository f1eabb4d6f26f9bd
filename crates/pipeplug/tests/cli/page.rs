//! The page of `bench --html`, in a browser.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::common::{MIRROR, Place, has_tool, pipeplug};

/// Looks at the page from inside, and leaves the result in an element of its own: which pictures there
/// are, what lies outside of them, labels that touch, and what was loaded.
const LOOKS: &str = r#"
<script>
const result = { charts: {}, outside: [], touching: [], empty: [] };
for (const svg of document.querySelectorAll('svg')) {
    const box = svg.getBoundingClientRect();
    result.charts[svg.id] = {
        lines: svg.querySelectorAll('.line').length, bars: svg.querySelectorAll('.bar').length,
        points: svg.querySelectorAll('.hover').length, width: box.width, height: box.height,
    };
    for (const part of svg.querySelectorAll('text, .line, .bar, .dot')) {
        const at = part.getBoundingClientRect();
        if (at.left < box.left - 1 || at.right > box.right + 1 || at.top < box.top - 1 || at.bottom > box.bottom + 1)
            result.outside.push(svg.id + ': ' + part.outerHTML.slice(0, 80));
    }
    for (const line of svg.querySelectorAll('.line'))
        if (!(line.getTotalLength() > 100)) result.empty.push(svg.id);
    const labels = [...svg.querySelectorAll('text')].map(label => label.getBoundingClientRect());
    labels.forEach((a, i) => labels.slice(i + 1).forEach(b => {
        if (a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom) result.touching.push(svg.id);
    }));
}
result.wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
result.rows = [...document.querySelectorAll('#figures tr')].map(row => [...row.cells].map(cell => cell.innerText));
result.loaded = performance.getEntriesByType('resource').map(entry => entry.name);
result.background = getComputedStyle(document.body).backgroundColor;
const seen = document.createElement('pre');
seen.id = 'result';
seen.textContent = JSON.stringify(result);
document.body.append(seen);
</script>
"#;

/// State of the page in a browser.
fn look(place: &Place, page: &Path, width: u32) -> Value {
    let html = fs::read_to_string(page).unwrap();
    for remote in ["http:", "https:", "//cdn", "<script", "<link", "@import", "url("] {
        assert!(!html.contains(remote), "{remote} in the page");
    }
    let test = place.file("test.html", format!("{html}{LOOKS}").as_bytes());
    let profile = place.path().join("profile");
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"])
        .arg(format!("--window-size={width},1200"))
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("file://{}", test.display()))
        .env("HOME", place.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout);
    let (_, result) = dom.split_once("<pre id=\"result\">").unwrap_or_else(|| panic!("{output:?}"));
    let result = result.split_once("</pre>").unwrap().0;
    let result = result.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(&result).unwrap()
}

#[test]
fn a_browser_shows_all_charts() {
    if !has_tool("chromium", "chromium") {
        return;
    }
    let place = Place::new();
    let page = place.path().join("page.html");
    let file = page.to_str().unwrap();
    let other = place.standard("<b>&other", MIRROR);
    let other = other.to_str().unwrap();
    let common = ["bench", "@echo", "--call", "echo", "x", "--duration", "1s", "--html", file];
    let versus = ["--vs", other, "--rounds", "2"];
    for (more, plugins) in [(&[][..], 1), (&["--rate", "300"], 1), (&versus, 2)] {
        let ran = pipeplug([&common[..], more].concat()).run();
        assert_eq!(ran.code, Some(0), "{ran:?}");
        for width in [1000, 500] {
            let seen = look(&place, &page, width);
            let all = ["percentiles", "histogram", "rate", "timeline"];
            for id in all.into_iter().chain((plugins == 2).then_some("timeline-2")) {
                let chart = &seen["charts"][id];
                assert!(chart["width"].as_f64() > Some(300.0), "{id}: {seen}");
                assert!(chart["height"].as_f64() > Some(80.0), "{id}: {seen}");
                let (lines, bars) = match id {
                    "histogram" => (0, true),
                    "percentiles" | "rate" => (plugins, false),
                    _ => (3, false),
                };
                assert_eq!(chart["lines"], lines, "{id}: {seen}");
                assert_eq!(chart["bars"].as_u64() > Some(1), bars, "{id}: {seen}");
            }
            for wrong in ["outside", "touching", "empty", "loaded"] {
                assert_eq!(
                    seen[wrong],
                    Value::Array(Vec::new()),
                    "{wrong}, {more:?}, {width}: {seen}"
                );
            }
            assert_eq!(seen["wide"], false, "no scrolling to the side: {seen}");
            let rows = seen["rows"].as_array().unwrap();
            assert_eq!(rows[0][1], "echo", "{seen}");
            assert!(rows.iter().any(|row| row[0] == "p99.9"), "{seen}");
            if plugins == 2 {
                assert_eq!(rows[0][2], "<b>&other", "a name is no markup: {seen}");
            }
        }
    }
}

#[test]
fn a_page_without_calls_has_the_errors() {
    let place = Place::new();
    let page = place.path().join("page.html");
    let args = ["bench", "@echo", "--call", "fail", "<i>no</i>", "--duration", "100ms", "--html"];
    let ran = pipeplug([&args[..], &[page.to_str().unwrap()]].concat()).run();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let html = fs::read_to_string(&page).unwrap();
    assert!(
        html.contains("such as: fail: &lt;i&gt;no&lt;/i&gt;") && !html.contains("<svg"),
        "{html}"
    );
    // A page that cannot be written is an error before anything is measured.
    let args =
        ["bench", "@echo", "--call", "echo", "--duration", "600s", "--html", "/nonexistent/x"];
    let ran = pipeplug(args).run();
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("cannot write the page /nonexistent/x: "), "{ran:?}");
}
