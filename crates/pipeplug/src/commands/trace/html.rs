//! Page with a sequence diagram.

use serde_json::{Value, json};

use super::Trace;
use super::json as json_form;
use crate::trace::lines;
use crate::trace::spans::Item;

/// The page, without its data.
const PAGE: &str = include_str!("page.html");
/// Place of the data in it.
const DATA: &str = "{\"title\":\"\",\"items\":[]}";

/// Formats the page, which needs no other file and no network.
pub(crate) fn page(trace: &Trace, title: &str) -> String {
    let items = trace.items.iter().map(|item| {
        let mut value = json_form::value(item);
        let time = item.time().saturating_sub(trace.first).as_secs_f64();
        value["at"] = time.into();
        if let Item::Span(span) = item {
            value["depth"] = span.depth.into();
            value["failed"] = span.has_failed().into();
        }
        value
    });
    let items: Vec<Value> = items.collect();
    let (first, cut) = (lines::utc(trace.first), trace.is_cut);
    let data = json!({ "title": title, "first": first, "cut": cut, "items": items });
    // A `<` in it could end the script.
    let data = data.to_string().replace('<', "\\u003c");
    PAGE.replacen(DATA, &data, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_cannot_end_the_script() {
        assert_eq!(PAGE.matches(DATA).count(), 1);
        let trace = Trace { items: Vec::new(), first: Default::default(), is_cut: false };
        let page = page(&trace, "</script><script>alert(1)</script>");
        assert!(!page.contains("alert(1)</script>"), "{page}");
    }
}
