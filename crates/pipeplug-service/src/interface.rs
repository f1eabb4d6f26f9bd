//! Descriptions of services.

use std::fmt;
use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::codec::{Codec, Json};

/// Description of a service: its methods with their arguments, results, errors and docs, as JSON
/// Schema (draft 2020-12).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Interface {
    /// Name of the service: lowercase letters, digits and `_`.
    pub name: String,
    /// Version of the interface.
    pub version: u32,
    /// The oldest version whose callers it serves.
    pub oldest: u32,
    /// Documentation, in Markdown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub docs: String,
    /// Encoding that calls may use instead of JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec: Option<String>,
    /// The methods.
    pub methods: Vec<Method>,
    /// Schemas that those of the methods refer to, as `#/$defs/NAME`.
    #[serde(rename = "$defs", default, skip_serializing_if = "Map::is_empty")]
    pub definitions: Map<String, Value>,
    #[serde(skip)]
    suffix: OnceLock<Option<String>>,
}

/// Description of a method.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Method {
    /// Name of the method.
    pub name: String,
    /// Command that calls it.
    pub command: String,
    /// Documentation, in Markdown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub docs: String,
    /// True if it is called by a one-way, and has no answer.
    #[serde(default, skip_serializing_if = "is_false")]
    pub one_way: bool,
    /// True if it does no harm when it is called twice.
    #[serde(default, skip_serializing_if = "is_false")]
    pub idempotent: bool,
    /// Schema of the arguments: an object. `None` if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Value>,
    /// Schema of each item that follows the arguments, as a part of a stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items_in: Option<Value>,
    /// Schema of the result. `None` if it is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Schema of each item of the result, as a part of a stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items_out: Option<Value>,
    /// Schema of the method's own error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Value>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is that of serde")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Reply to [`GET_SERVICES`](crate::GET_SERVICES).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Description {
    /// The services.
    pub services: Vec<Interface>,
}

impl Interface {
    /// Describes a service. `describe` adds its methods.
    #[must_use]
    pub fn new(name: &str, version: u32, describe: impl FnOnce(&mut InterfaceBuilder)) -> Self {
        let interface = Self { name: name.into(), version, oldest: version, ..Self::default() };
        let schemas = SchemaSettings::draft2020_12().into_generator();
        let mut builder = InterfaceBuilder { interface, schemas };
        describe(&mut builder);
        let InterfaceBuilder { mut interface, mut schemas } = builder;
        interface.definitions = schemas.take_definitions(true);
        interface
    }

    /// Finds a method by its name.
    #[must_use]
    pub fn method(&self, name: &str) -> Option<&Method> {
        self.methods.iter().find(|method| method.name == name)
    }

    /// Completes a schema of the interface with what it refers to.
    #[must_use]
    pub fn complete(&self, schema: &Value) -> Value {
        let mut schema = schema.clone();
        if let Some(schema) = schema.as_object_mut()
            && !self.definitions.is_empty()
        {
            schema.insert("$defs".into(), Value::Object(self.definitions.clone()));
        }
        schema
    }

    /// End of the commands of calls that use [`codec`](Self::codec): its name, and a sum of the
    /// interface without its docs.
    pub(crate) fn suffix(&self) -> Option<&str> {
        let codec = self.codec.as_deref().filter(|codec| *codec != Json::NAME)?;
        let suffix = self.suffix.get_or_init(|| {
            let mut sum = Fnv::default();
            let interface = serde_json::to_value(self).unwrap_or_default();
            sum.add_schema(&interface);
            Some(format!("@{codec}:{:016x}", sum.0))
        });
        suffix.as_deref()
    }

    /// The service's name and versions, for metadata.
    #[must_use]
    pub fn service_name(&self) -> ServiceName {
        let Self { name, version, oldest, .. } = self;
        ServiceName { name: name.clone(), version: *version, oldest: *oldest }
    }
}

impl PartialEq for Interface {
    fn eq(&self, other: &Self) -> bool {
        let Self { name, version, oldest, docs, codec, methods, definitions, suffix: _ } = self;
        (name, version, oldest, docs, codec)
            == (&other.name, &other.version, &other.oldest, &other.docs, &other.codec)
            && (methods, definitions) == (&other.methods, &other.definitions)
    }
}

/// Describes a service; see [`Interface::new`].
#[derive(Debug)]
pub struct InterfaceBuilder {
    interface: Interface,
    schemas: SchemaGenerator,
}

impl InterfaceBuilder {
    /// Sets the documentation.
    pub fn docs(&mut self, docs: &str) -> &mut Self {
        docs.clone_into(&mut self.interface.docs);
        self
    }

    /// Sets the oldest version whose callers the service serves. Default: its own.
    pub fn oldest(&mut self, oldest: u32) -> &mut Self {
        self.interface.oldest = oldest;
        self
    }

    /// Sets the encoding that calls may use instead of JSON.
    pub fn codec<C: Codec>(&mut self) -> &mut Self {
        self.interface.codec = Some(C::NAME.into());
        self
    }

    /// Adds a method.
    pub fn method(&mut self, name: &str) -> MethodBuilder<'_> {
        let command = format!("{}.{name}", self.interface.name);
        self.interface.methods.push(Method { name: name.into(), command, ..Method::default() });
        MethodBuilder(self)
    }
}

/// Describes a method; see [`InterfaceBuilder::method`].
#[derive(Debug)]
pub struct MethodBuilder<'a>(&'a mut InterfaceBuilder);

macro_rules! schema {
    ($($(#[$doc:meta])* $field:ident),*) => {$(
        $(#[$doc])*
        pub fn $field<T: JsonSchema>(self) -> Self {
            let schema = self.0.schemas.subschema_for::<T>().to_value();
            self.set(|method| method.$field = Some(schema))
        }
    )*};
}

impl MethodBuilder<'_> {
    schema! {
        /// Sets the type of the arguments.
        arguments,
        /// Sets the type of the items that follow the arguments.
        items_in,
        /// Sets the type of the result.
        result,
        /// Sets the type of the items of the result.
        items_out,
        /// Sets the type of the method's own error.
        error
    }

    /// Sets the documentation.
    pub fn docs(self, docs: &str) -> Self {
        self.set(|method| docs.clone_into(&mut method.docs))
    }

    /// Declares that it is called by a one-way.
    pub fn one_way(self) -> Self {
        self.set(|method| method.one_way = true)
    }

    /// Declares that it does no harm when it is called twice.
    pub fn idempotent(self) -> Self {
        self.set(|method| method.idempotent = true)
    }

    fn set(self, set: impl FnOnce(&mut Method)) -> Self {
        if let Some(method) = self.0.interface.methods.last_mut() {
            set(method);
        }
        self
    }
}

/// Name of a service and its versions, as in metadata: `spell/2`, or `spell/1-2` if it serves
/// callers of version 1 too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceName {
    /// Name of the service.
    pub name: String,
    /// Version of the interface.
    pub version: u32,
    /// The oldest version whose callers it serves.
    pub oldest: u32,
}

impl ServiceName {
    /// Reads the value of [`KEY_SERVICES`](crate::KEY_SERVICES). Words that are no service are left
    /// out.
    pub fn list(value: &str) -> impl Iterator<Item = Self> {
        value.split_ascii_whitespace().filter_map(|word| {
            let (name, versions) = word.rsplit_once('/')?;
            let (oldest, version) = versions.split_once('-').unwrap_or((versions, versions));
            let (oldest, version) = (oldest.parse().ok()?, version.parse().ok()?);
            Some(Self { name: name.into(), version, oldest })
        })
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, version, oldest } = self;
        if oldest == version {
            write!(f, "{name}/{version}")
        } else {
            write!(f, "{name}/{oldest}-{version}")
        }
    }
}

/// The hash FNV-1a of 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>).
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Adds a schema without what is for people only. The order of keys does not count.
    fn add_schema(&mut self, schema: &Value) {
        match schema {
            Value::Object(object) => {
                let mut entries: Vec<_> = object
                    .iter()
                    .filter(|(key, value)| {
                        // A property may have such a name, and is an object then.
                        !matches!(key.as_str(), "docs" | "description" | "title")
                            || !value.is_string()
                    })
                    .collect();
                entries.sort_unstable_by_key(|(key, _)| *key);
                self.add(b"{");
                for (key, value) in entries {
                    self.add(key.as_bytes());
                    self.add(b":");
                    self.add_schema(value);
                }
                self.add(b"}");
            }
            Value::Array(values) => {
                self.add(b"[");
                for value in values {
                    self.add_schema(value);
                }
                self.add(b"]");
            }
            other => self.add(other.to_string().as_bytes()),
        }
        self.add(b",");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_written() {
        let names = ["spell/2", "greet/1-3", "a/b/0"];
        let read: Vec<_> = ServiceName::list(&names.join("  ")).collect();
        assert_eq!(read.iter().map(ToString::to_string).collect::<Vec<_>>(), names);
        assert_eq!(read[2].name, "a/b");
        assert_eq!(ServiceName::list("spell spell/ spell/x /-1 spell/1-").count(), 0);
    }

    #[test]
    fn the_sum_leaves_out_docs_and_nothing_else() {
        let described = |docs: &str, version| {
            Interface::new("spell", version, |interface| {
                interface.docs(docs).codec::<Other>().method("suggest").docs(docs).result::<u32>();
            })
        };
        let sum = |interface: &Interface| interface.suffix().map(str::to_owned);
        assert_eq!(sum(&described("a", 1)), sum(&described("b", 1)));
        assert_ne!(sum(&described("a", 1)), sum(&described("a", 2)));
        assert!(sum(&described("a", 1)).is_some_and(|sum| sum.starts_with("@other:")));
        let json = Interface::new("spell", 1, |interface| {
            interface.codec::<Json>();
        });
        assert_eq!(sum(&json), None);
    }

    struct Other;

    impl Codec for Other {
        const NAME: &'static str = "other";

        fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, crate::EncodeError> {
            Json::encode(value)
        }

        fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, crate::DecodeError> {
            Json::decode(bytes)
        }
    }
}
