//! Logs of plugins, in the log of the host: in a process of their own, which has a subscriber.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, Once};

use pipeplug_host::{
    Format, LogLevel, LogLevelError, Plugin, PluginBuilder, Pool, Stdout, Supervisor,
};
use pipeplug_tests::{Script, eventually};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// An event of a plugin.
#[derive(Debug, Clone)]
struct Logged {
    level: Level,
    fields: BTreeMap<&'static str, String>,
}

static EVENTS: Mutex<Vec<Logged>> = Mutex::new(Vec::new());
static SUBSCRIBED: Once = Once::new();

/// Keeps the events of all plugins.
struct Keep;

impl<S: Subscriber> Layer<S> for Keep {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        if ["pipeplug::stderr", "pipeplug::stdout"].contains(&metadata.target()) {
            let mut fields = Fields(BTreeMap::from([("of", metadata.target().to_owned())]));
            event.record(&mut fields);
            EVENTS.lock().unwrap().push(Logged { level: *metadata.level(), fields: fields.0 });
        }
    }
}

struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

fn subscribe() {
    SUBSCRIBED.call_once(|| tracing_subscriber::registry().with(Keep).init());
}

/// Events of the plugin of that name so far.
fn of(name: &str) -> Vec<(Level, String, String, String)> {
    let events = EVENTS.lock().unwrap();
    let of_plugin = events.iter().filter(|event| event.fields["plugin"] == name);
    let text = |event: &Logged, key| event.fields.get(key).cloned().unwrap_or_default();
    of_plugin
        .map(|it| (it.level, text(it, "message"), text(it, "log.target"), text(it, "log.fields")))
        .collect()
}

fn messages(name: &str) -> Vec<String> {
    of(name).into_iter().map(|(_, message, ..)| message).collect()
}

fn misbehave(how: &str) -> PluginBuilder {
    subscribe();
    Plugin::builder(env!("CARGO_BIN_EXE_misbehave")).arg(how)
}

#[test]
fn a_line_in_a_usual_shape_is_one_event_with_its_level_target_and_fields() {
    let name = "shapes";
    let lines = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&lines);
    let plugin = misbehave("plain")
        .name(name)
        .on_line(move |_, line| seen.lock().unwrap().push(line.to_owned()))
        .start()
        .unwrap();
    let hclog = r#"{"@level":"warn","@message":"odd","@module":"words","n":1}"#;
    plugin.call("err-bytes", format!("{hclog}\nERROR broken\nplain\n{{\"a\":1}}\n")).unwrap();
    plugin.stop().unwrap();
    let event = |level, message: &str, target: &str, fields: &str| {
        (level, message.to_owned(), target.to_owned(), fields.to_owned())
    };
    assert_eq!(
        of(name),
        [
            event(Level::WARN, "odd", "words", r#"{"n":1}"#),
            event(Level::ERROR, "broken", "", ""),
            event(Level::INFO, "plain", "", ""),
            event(Level::INFO, r#"{"a":1}"#, "", ""),
        ]
    );
    // The host's own handler has the lines as they are, and so do errors.
    let raw = [hclog, "ERROR broken", "plain", r#"{"a":1}"#];
    assert_eq!(*lines.lock().unwrap(), raw);
    assert_eq!(plugin.stderr_tail(), raw);
}

#[test]
fn a_line_of_standard_output_has_its_level_too() {
    let name = "stdout";
    subscribe();
    let script = Script::answering("echo 'level=debug msg=printed' ; cat <&3 >/dev/null");
    let plugin = script.builder().name(name).stdout(Stdout::Log).start().unwrap();
    eventually("the line came", || messages(name) == ["printed"]);
    plugin.kill().unwrap();
    let events = EVENTS.lock().unwrap();
    let event = events.iter().find(|event| event.fields["plugin"] == name).unwrap();
    assert_eq!((event.level, event.fields["of"].as_str()), (Level::DEBUG, "pipeplug::stdout"));
}

#[test]
fn logging_keeps_level_target_and_fields() {
    let name = "logging";
    let plugin = misbehave("logging").name(name).log_level(LogLevel::Trace).start().unwrap();
    assert_eq!(plugin.metadata().value("Refused"), Some("true"), "there is one subscriber");
    plugin.call("log-events", "two\nlines").unwrap();
    plugin.stop().unwrap();
    let own: Vec<_> = of(name).into_iter().filter(|(_, _, target, _)| target == "words").collect();
    let levels: Vec<_> = own.iter().map(|(level, ..)| *level).collect();
    assert_eq!(levels, [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE]);
    let (_, message, _, fields) = &own[1];
    assert_eq!(message, "a warning");
    let fields: serde_json::Value = serde_json::from_str(fields).unwrap();
    assert_eq!((&fields["count"], &fields["text"]), (&2.into(), &"two\nlines".into()));
    assert_eq!(fields["span"]["by"], "test");
}

#[test]
fn the_host_sets_the_level_at_the_start_and_while_the_plugin_runs() {
    for (name, format) in [("level", Format::Standard), ("level-classic", Format::Classic)] {
        let plugin = misbehave("logging").name(name).format(format).start().unwrap();
        assert!(plugin.takes_log_level());
        let logged = |level: Option<LogLevel>| {
            if let Some(level) = level {
                plugin.set_log_level(level).unwrap();
            }
            let before = of(name).len();
            plugin.call("log-events", "").unwrap();
            // Behind the last event of the call, whatever their number is.
            plugin.call("err-bytes", "end\n").unwrap();
            let new = || of(name).split_off(before);
            eventually("all came", || new().iter().any(|(_, message, ..)| message == "end"));
            let new = new();
            new.iter().filter(|(_, _, target, _)| target == "words").count()
        };
        let counts = [
            None,
            Some(LogLevel::Trace),
            Some(LogLevel::Off),
            Some(LogLevel::Debug),
            Some(LogLevel::Error),
        ]
        .map(logged);
        assert_eq!(counts, [3, 5, 0, 4, 1], "{name}");
        plugin.stop().unwrap();
    }
}

#[test]
fn the_level_of_the_builder_is_that_of_each_restart() {
    let name = "restarts";
    let builder = misbehave("logging").name(name).log_level(LogLevel::Error);
    let supervisor = Supervisor::builder(builder).build().unwrap();
    for round in 1..3 {
        supervisor.request("log-events", "").idempotent().wait_text().unwrap();
        supervisor.call("exit", "3").unwrap_err();
        eventually("it was logged", || messages(name).len() == round);
    }
    assert_eq!(messages(name), ["an error"; 2]);
}

#[test]
fn the_level_of_a_supervisor_is_that_of_its_plugin_and_of_each_later_start() {
    let name = "supervised";
    let builder = || misbehave("logging").name(name).log_level(LogLevel::Error);
    let supervisor = Supervisor::builder(builder()).build().unwrap();
    let logged = || {
        let before = of(name).len();
        supervisor.request("log-events", "").idempotent().wait_text().unwrap();
        supervisor.call("err-bytes", "end\n").unwrap();
        let new = || of(name).split_off(before);
        eventually("all came", || new().iter().any(|(_, message, ..)| message == "end"));
        new().iter().filter(|(_, _, target, _)| target == "words").count()
    };
    // Before the first start, while it runs, after a crash, and for a replacement.
    supervisor.set_log_level(LogLevel::Trace).unwrap();
    assert_eq!(logged(), 5);
    supervisor.set_log_level(LogLevel::Debug).unwrap();
    assert_eq!(logged(), 4);
    supervisor.call("exit", "3").unwrap_err();
    assert_eq!(logged(), 4);
    supervisor.replace(builder()).unwrap();
    assert_eq!(logged(), 4);
    supervisor.stop().unwrap();
    supervisor.set_log_level(LogLevel::Warn).unwrap();
    supervisor.start().unwrap();
    assert_eq!(logged(), 2);
    supervisor.stop().unwrap();
}

#[test]
fn a_level_that_is_set_while_a_plugin_starts_is_not_lost() {
    let name = "set-meanwhile";
    let place = Arc::new(Mutex::new(None::<Supervisor>));
    let supervisor = Arc::clone(&place);
    let builder = misbehave("logging").name(name).on_ready(move |_| {
        let supervisor = supervisor.lock().unwrap().clone().unwrap();
        supervisor.set_log_level(LogLevel::Trace)?;
        Ok(())
    });
    let supervisor = Supervisor::builder(builder).build().unwrap();
    *place.lock().unwrap() = Some(supervisor.clone());
    eventually("it has the level", || {
        let before = of(name).len();
        supervisor.call("log-events", "").unwrap();
        supervisor.call("err-bytes", "end\n").unwrap();
        let new = || of(name).split_off(before);
        eventually("all came", || new().iter().any(|(_, message, ..)| message == "end"));
        new().iter().filter(|(_, _, target, _)| target == "words").count() == 5
    });
    supervisor.stop().unwrap();
    *place.lock().unwrap() = None;
}

#[test]
fn the_level_of_a_pool_is_that_of_each_process() {
    let two = NonZeroUsize::new(2).unwrap();
    let builder = misbehave("logging").name("pooled");
    let pool = Pool::new(Supervisor::builder(builder), two).unwrap();
    pool.start().unwrap();
    pool.set_log_level(LogLevel::Off).unwrap();
    for member in pool.members() {
        let name = member.name();
        member.call("log-events", "").unwrap();
        member.call("err-bytes", "end\n").unwrap();
        eventually("all came", || messages(&name).contains(&"end".to_owned()));
        assert_eq!(messages(&name), ["end"]);
    }
    pool.stop().unwrap();
    let plain = Pool::new(Supervisor::builder(misbehave("plain")), two).unwrap();
    plain.set_log_level(LogLevel::Off).unwrap();
    plain.start().unwrap();
    let error = plain.set_log_level(LogLevel::Off).unwrap_err();
    assert!(matches!(error, LogLevelError::Unsupported { .. }), "{error:?}");
    plain.stop().unwrap();
}

#[test]
fn a_plugin_that_sets_its_level_by_itself_says_so() {
    let base = Script::answering("cat <&3 >/dev/null");
    for builder in [misbehave("plain"), misbehave("logs"), base.builder()] {
        let plugin = builder.log_level(LogLevel::Debug).start().unwrap();
        assert!(!plugin.takes_log_level());
        let error = plugin.set_log_level(LogLevel::Trace).unwrap_err();
        assert!(matches!(error, LogLevelError::Unsupported { .. }), "{error:?}");
        assert!(error.to_string().contains("does not name the feature `log`"), "{error}");
        plugin.kill().unwrap();
    }
}

#[test]
fn a_level_that_is_unknown_leaves_the_log_as_it_is() {
    let name = "unknown";
    let builder = misbehave("logging").name(name).metadata("pipeplug.log_level", "loud");
    let plugin = builder.start().unwrap();
    for level in ["", "INFO", "loud", "\u{0}"] {
        plugin.connection().notify_by_protocol("cmd.log_level", level.into()).unwrap();
    }
    plugin.connection().notify_by_protocol("cmd.log_level", [0xff].into()).unwrap();
    plugin.call("log-events", "").unwrap();
    plugin.stop().unwrap();
    let own = of(name).into_iter().filter(|(_, _, target, _)| target == "words").count();
    assert_eq!(own, 3);
    let warned = of(name).into_iter().filter(|(level, ..)| *level == Level::WARN).count();
    assert!(warned > 1, "the guest logs what it ignores: {:?}", of(name));
}
