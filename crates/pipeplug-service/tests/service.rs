//! A service with every kind of method, from its trait to its callers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pipeplug_net::Refuse;
use pipeplug_service::{
    CallOptions, CancelHandle, Channel, Client, Description, GET_SERVICES, INVALID_ARGUMENT, Json,
    METHOD_ERROR, NoService, NoServiceKind, Request, SendError, ServiceError, ServiceSet, StreamIn,
    StreamOut, data, service,
};
use pipeplug_testkit::{Pair, eventually};

/// Spelling.
#[service(version = 3, oldest = 2)]
pub trait Spell {
    /// Suggestions for a word, best first.
    ///
    /// At most `most` of them.
    #[idempotent]
    fn suggest(
        &self,
        /// The word as it was written.
        word: String,
        #[serde(default = "three")] most: u32,
    ) -> Result<Vec<String>, SpellError>;
    /// Mistakes of a text.
    fn check(&self, text: StreamIn<Line>) -> StreamOut<Typo>;
    /// Number of words.
    fn count(&self, text: StreamIn<String>) -> usize;
    /// All words of the dictionary.
    fn words(&self, prefix: String) -> Result<StreamOut<String>, SpellError>;
    /// Takes a word into the dictionary.
    #[one_way]
    fn learn(&self, word: String);
    /// Takes many.
    #[one_way]
    fn learn_all(&self, words: StreamIn<String>);
    /// User of the call.
    fn user(&self, request: &mut Request) -> Option<String>;
    /// Reports its progress, and waits for the end of the call if it is to.
    fn index(&self, request: &Request, wait: bool) -> u64;
    /// Does nothing.
    fn nothing(&self);
}

fn three() -> u32 {
    3
}

/// Error of [`Spell`].
#[data]
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SpellError {
    /// Not in the dictionary.
    #[error("there is no word {word:?}")]
    Unknown {
        /// The word.
        word: String,
    },
    /// No words at all.
    #[error("the dictionary is empty")]
    Empty,
}

/// A line of a text.
#[data]
#[derive(Debug)]
pub struct Line {
    number: u32,
    text: String,
}

/// A mistake.
#[data]
#[derive(Debug, PartialEq)]
pub struct Typo {
    line: u32,
    word: String,
}

#[derive(Default, Clone)]
struct Dictionary(Arc<Mutex<Vec<String>>>);

impl Spell for Dictionary {
    fn suggest(&self, word: String, most: u32) -> Result<Vec<String>, SpellError> {
        match word.as_str() {
            "" => Err(SpellError::Empty),
            "xyz" => Err(SpellError::Unknown { word }),
            _ => Ok((0..most).map(|n| format!("{word}{n}")).collect()),
        }
    }

    fn check(&self, text: StreamIn<Line>) -> StreamOut<Typo> {
        StreamOut::new(text.filter_map(|line| match line {
            Ok(line) if line.text.contains("teh") => {
                Some(Ok(Typo { line: line.number, word: "teh".into() }))
            }
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        }))
    }

    fn count(&self, text: StreamIn<String>) -> usize {
        text.map_while(Result::ok).map(|text| text.split_whitespace().count()).sum()
    }

    fn words(&self, prefix: String) -> Result<StreamOut<String>, SpellError> {
        if prefix.is_empty() {
            return Err(SpellError::Empty);
        }
        Ok(StreamOut::of((0..1000).map(move |n| format!("{prefix}{n}"))))
    }

    fn learn(&self, word: String) {
        self.0.lock().expect("no test panics").push(word);
    }

    fn learn_all(&self, words: StreamIn<String>) {
        for word in words.map_while(Result::ok) {
            self.learn(word);
        }
    }

    fn user(&self, request: &mut Request) -> Option<String> {
        request.context("user").map(Into::into)
    }

    fn index(&self, request: &Request, wait: bool) -> u64 {
        for done in 1..=3 {
            request.progress(done, Some(3), "indexing");
        }
        if wait {
            // The caller gives the call up.
            let _ = request.cancellation().wait_timeout(Duration::from_secs(60));
        }
        3
    }

    fn nothing(&self) {}
}

fn pair() -> (Pair, SpellClient, Dictionary) {
    let dictionary = Dictionary::default();
    let services = ServiceSet::new().with(SpellServer::new(dictionary.clone()));
    let pair = Pair::new(Refuse, services).expect("the system gives pipes");
    let client = SpellClient::new(pair.host.clone());
    (pair, client, dictionary)
}

#[test]
fn a_method_is_called_and_answers() {
    let (_pair, spell, _) = pair();
    assert_eq!(spell.suggest("teh".into(), 2).unwrap(), ["teh0", "teh1"]);
    spell.nothing().unwrap();
}

#[test]
fn a_method_s_own_error_comes_as_its_type() {
    let (pair, spell, _) = pair();
    let error = spell.suggest("xyz".into(), 2).unwrap_err();
    assert_eq!(error.to_string(), "there is no word \"xyz\"");
    assert_eq!(error.into_method_error().unwrap(), SpellError::Unknown { word: "xyz".into() });
    // Everyone else sees message, code and data.
    let error = pair.host.call("spell.suggest", r#"{"word":""}"#).unwrap_err();
    assert_eq!(error.code(), Some(METHOD_ERROR));
    assert_eq!(error.data(), Some(&"Empty".into()));
    assert_eq!(error.to_string(), "spell.suggest: the dictionary is empty");
}

#[test]
fn another_failure_is_not_the_method_s_own() {
    let (pair, spell, _) = pair();
    pair.host.close();
    let error = spell.suggest("teh".into(), 1).unwrap_err();
    let ServiceError::Call(failed) = &error else { panic!("{error:?}") };
    assert_eq!(failed.code(), Some("closed"));
    assert!(error.into_method_error().is_err());
}

#[test]
fn plain_json_calls_a_method() {
    let (pair, _, _) = pair();
    let call =
        |json: &str| pair.host.call("spell.suggest", json).map_err(|error| error.to_string());
    assert_eq!(call(r#"{"word":"a","most":1}"#).unwrap(), r#"["a0"]"#);
    // A default, and an argument that is not known here.
    assert_eq!(call(r#"{"word":"a","language":"en"}"#).unwrap(), r#"["a0","a1","a2"]"#);
    assert_eq!(
        call(r#"{"word":"a","most":-1}"#).unwrap_err(),
        "spell.suggest: most: invalid value: integer `-1`, expected u32 at line 1 column 21, \
         near {\"word\":\"a\",\"most\":-1}"
    );
    assert_eq!(
        call("").unwrap_err(),
        "spell.suggest: missing field `word` at line 1 column 2, near {}"
    );
    let error = pair.host.call("spell.suggest", r#"{"word":1}"#).unwrap_err();
    assert_eq!(error.code(), Some(INVALID_ARGUMENT));
    assert_eq!(error.data(), Some(&serde_json::json!({ "field": "word" })));
    assert_eq!(pair.host.call("spell.nothing", "").unwrap(), "");
}

#[test]
fn an_unknown_method_is_answered_with_the_nearest_name() {
    let (pair, _, _) = pair();
    let error = pair.host.call("spell.sugest", "{}").unwrap_err();
    assert_eq!(error.code(), Some("unknown_command"));
    assert_eq!(
        error.to_string(),
        "spell.sugest: unknown command \"spell.sugest\"; did you mean \"spell.suggest\"?"
    );
}

#[test]
fn items_go_both_ways() {
    let (_pair, spell, _) = pair();
    let (mut lines, typos) = spell.check().unwrap();
    for number in 0..300 {
        let text = if number % 3 == 0 { "teh end" } else { "the end" };
        lines.send(&Line { number, text: text.into() }).unwrap();
    }
    lines.finish().unwrap();
    let typos: Vec<_> = typos.map(|typo| typo.unwrap().line).collect();
    assert_eq!(typos, (0..300).step_by(3).collect::<Vec<_>>());
}

#[test]
fn an_item_that_does_not_fit_ends_the_call() {
    let (pair, _, _) = pair();
    let (mut lines, typos) = pair.host.request("spell.check", "").stream().unwrap().split();
    lines.send(r#"{"number":"one"}"#).unwrap();
    let error = typos.reply().unwrap_err();
    assert_eq!(error.code(), Some(INVALID_ARGUMENT), "{error}");
    assert!(error.to_string().contains("number: invalid type: string"), "{error}");
}

/// `?` takes errors of this kind.
fn error_of_any_kind(error: impl std::error::Error + Send + Sync + 'static) -> String {
    error.to_string()
}

#[test]
fn items_are_taken_and_given() {
    let (_pair, spell, dictionary) = pair();
    let (mut text, count) = spell.count().unwrap();
    text.send(&"one two".into()).unwrap();
    // An error that `?` turns into that of any crate.
    text.send(&"three".into()).map_err(|error: SendError| error_of_any_kind(error)).unwrap();
    text.finish().unwrap();
    assert_eq!(count.wait().unwrap(), 3);

    let words: Result<Vec<_>, _> = spell.words("w".into()).unwrap().collect();
    assert_eq!(words.unwrap().len(), 1000);
    assert_eq!(spell.words("w".into()).unwrap().next().unwrap().unwrap(), "w0");
    let error = spell.words(String::new()).unwrap().next().unwrap().unwrap_err();
    assert_eq!(error.into_method_error().unwrap(), SpellError::Empty);

    spell.learn("one".into()).unwrap();
    let mut words = spell.learn_all().unwrap();
    words.send(&"two".into()).unwrap();
    words.finish().unwrap();
    eventually("the words are learned", || {
        let mut words = dictionary.0.lock().unwrap().clone();
        words.sort();
        words == ["one", "two"]
    });
}

#[test]
fn a_method_reads_the_context_and_options_give_it() {
    let (_pair, spell, _) = pair();
    assert_eq!(spell.user().unwrap(), None);
    let options = CallOptions::new().context("user", "ann").timeout(Duration::from_secs(60));
    assert_eq!(spell.with(options).user().unwrap().as_deref(), Some("ann"));
}

#[test]
fn options_ask_for_progress_and_give_calls_up() {
    let (_pair, spell, _) = pair();
    let (options, reports) = CallOptions::new().progress();
    assert_eq!(spell.with(options).index(false).unwrap(), 3);
    let last = reports.last().unwrap();
    assert_eq!((last.done, last.total, last.message.as_str()), (3, Some(3), "indexing"));

    let handle = CancelHandle::new();
    let (options, mut reports) = CallOptions::new().cancel_by(&handle).progress();
    let waiting = spell.with(options);
    let call = std::thread::spawn(move || waiting.index(true).unwrap_err());
    assert!(reports.next().is_some());
    handle.cancel();
    let error = call.join().unwrap();
    let ServiceError::Call(failed) = &error else { panic!("{error:?}") };
    assert_eq!(failed.code(), Some("cancelled"), "{error}");
}

#[test]
fn the_async_client_awaits() {
    let (pair, _, _) = pair();
    let spell = SpellAsyncClient::new(pair.host.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        assert_eq!(spell.suggest("teh".into(), 1).await.unwrap(), ["teh0"]);
        let error = spell.suggest(String::new(), 1).await.unwrap_err();
        assert_eq!(error.into_method_error().unwrap(), SpellError::Empty);
        let (mut lines, mut typos) = spell.check().await.unwrap();
        lines.send_async(Line { number: 7, text: "teh".into() }).await.unwrap();
        let typo = typos.next_async().await.unwrap().unwrap();
        assert_eq!(typo, Typo { line: 7, word: "teh".into() });
        lines.finish().unwrap();
        assert!(typos.next_async().await.is_none());
        let (mut text, count) = spell.count().await.unwrap();
        text.send_async("one".into()).await.unwrap();
        text.finish().unwrap();
        assert_eq!(count.wait_async().await.unwrap(), 1);
        spell.learn("word".into()).await.unwrap();
    });
}

#[test]
fn a_service_describes_itself() {
    let (pair, _, _) = pair();
    let channel = Channel::new(pair.host.clone());
    let Description { services } = channel.call(GET_SERVICES, Json(())).unwrap();
    let [spell] = services.as_slice() else { panic!("{services:?}") };
    assert_eq!(spell, SpellClient::interface());
    assert_eq!((spell.name.as_str(), spell.version, spell.oldest), ("spell", 3, 2));
    assert_eq!(spell.docs, "Spelling.");
    let suggest = spell.method("suggest").unwrap();
    assert_eq!(suggest.docs, "Suggestions for a word, best first.\n\nAt most `most` of them.");
    assert!(suggest.idempotent);
    assert_eq!(
        suggest.arguments,
        Some(serde_json::json!({
            "type": "object",
            "properties": {
                "word": { "type": "string", "description": "The word as it was written." },
                "most": { "type": "integer", "format": "uint32", "minimum": 0, "default": 3 },
            },
            "required": ["word"],
        }))
    );
    assert!(spell.method("learn").unwrap().one_way);
    assert!(spell.method("check").unwrap().items_in.is_some());
}

#[test]
fn a_peer_is_checked_for_the_service() {
    let check = |offered| {
        NoService::check("spell.so", SpellClient::interface(), offered, || {
            let mut older = SpellClient::interface().clone();
            older.version = 1;
            older.methods.retain(|method| method.name != "words");
            Some(Description { services: vec![older] })
        })
    };
    for served in ["spell/3", "spell/1-9", "a/1 spell/3 b/2"] {
        check(Some(served)).unwrap();
    }
    let error = check(Some("spell/1")).unwrap_err();
    assert!(matches!(error.kind(), NoServiceKind::Version { theirs: (1, 1), ours: 3, .. }));
    assert_eq!(
        error.to_string(),
        "spell.so has version 1 of the service \"spell\", and this side needs version 3: spell.so \
         is older, so update spell.so; from version 1 to 3: words: the method is new"
    );
    // A newer peer: the methods that it has no more.
    let newer = NoService::check("spell.so", SpellClient::interface(), Some("spell/5"), || {
        let mut newer = SpellClient::interface().clone();
        (newer.version, newer.oldest) = (5, 5);
        newer.methods.truncate(1);
        Some(Description { services: vec![newer] })
    });
    assert_eq!(
        newer.unwrap_err().to_string(),
        "spell.so has version 5 of the service \"spell\", and this side needs version 3: this side \
         is older, so update this side; from version 3 to 5: check: the method is gone; count: the \
         method is gone; words: the method is gone; learn: the method is gone; learn_all: the \
         method is gone; user: the method is gone; and 2 more"
    );
    let error = check(Some("spell/4-5")).unwrap_err();
    assert!(error.to_string().contains("this side is older, so update this side"), "{error}");
    assert_eq!(
        check(None).unwrap_err().to_string(),
        "spell.so has no service \"spell\"; it has none at all"
    );
    assert_eq!(
        check(Some("greet/1 add/2")).unwrap_err().to_string(),
        "spell.so has no service \"spell\"; it has greet, add"
    );
}
