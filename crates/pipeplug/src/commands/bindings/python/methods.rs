//! The class of the service.

use std::fmt::Write as _;

use super::super::model::{Field, Method, Service};
use super::super::names::{Scope, lines, quoted_wide, snake, upper, wrapped};
use super::{PIECE, Python, WORDS};

impl Python<'_> {
    /// The class of the service.
    pub(super) fn interface(&mut self, name: &str, is_async: bool) -> Result<(), String> {
        let Service { name: wire, version, oldest, .. } = self.service;
        let oldest = if oldest == version { String::new() } else { format!(", oldest={oldest}") };
        let _ = writeln!(
            self.text,
            "@service(version={version}{oldest}, name={}, description=_DESCRIPTION)\nclass {name}:",
            quoted_wide(wire)
        );
        let docs =
            if lines(&self.service.docs).is_empty() { "A service." } else { &self.service.docs };
        let way = if is_async {
            "Methods are coroutines: for `AsyncPlugin.client`, and to serve with asyncio."
        } else {
            ""
        };
        let way: Vec<_> = way.split('\n').filter(|it| !it.is_empty()).map(str::to_owned).collect();
        self.docstring(docs, &way, "    ");
        let mut scope = Scope::without(WORDS);
        for method in &self.service.methods {
            self.method(method, &scope.take(&snake(&method.name)), is_async)
                .map_err(|problem| format!("the method {:?} has {problem}", method.name))?;
        }
        self.text.push_str("\n\n");
        Ok(())
    }

    pub(super) fn method(
        &mut self,
        method: &Method,
        own: &str,
        is_async: bool,
    ) -> Result<(), String> {
        let mut marks = Vec::new();
        let mut parameters = Vec::new();
        let mut docs = Vec::new();
        let mut renamed = Vec::new();
        let mut omitted = Vec::new();
        let iterator = if is_async { "AsyncIterator" } else { "Iterator" };
        let mut scope = Scope::without(WORDS);
        let mut describe = |own: &str, text: &str| {
            let text = lines(text).join(" ");
            if !text.is_empty() {
                let mut parts = wrapped(&format!("{own}: {text}"), PIECE).into_iter();
                docs.extend(parts.next().map(|it| format!("    {it}")));
                docs.extend(parts.map(|it| format!("        {it}")));
            }
        };
        let mut ordered: Vec<_> = method.arguments.iter().collect();
        ordered.sort_by_key(|field| !field.required);
        let required = ordered.iter().filter(|it| it.required).count();
        for (index, field) in ordered.iter().enumerate() {
            let own = scope.take(&snake(&field.name));
            if own != field.name {
                renamed.push(format!("{}: {}", quoted_wide(&own), quoted_wide(&field.name)));
            }
            let mut notes = Vec::new();
            let (kind, default) = self.optional(field, self.kind(&field.kind)?, &mut notes)?;
            if !notes.is_empty() {
                omitted.push(quoted_wide(&own));
            }
            describe(&own, &field.docs);
            let default = match default {
                None => String::new(),
                Some(value) if value.contains(['(', '[', '{']) && !value.starts_with('"') => {
                    format!(" = {}", self.default_name(method, field, &kind, &value))
                }
                Some(value) => format!(" = {value}"),
            };
            if index == required {
                self.items(method, iterator, &mut scope, &mut parameters)?;
            }
            parameters.push(format!("{own}: {kind}{default}"));
        }
        if required == ordered.len() {
            self.items(method, iterator, &mut scope, &mut parameters)?;
        }
        if let Some(error) = &method.error {
            marks.push(format!("error={}", self.kind(error)?));
        }
        if method.one_way {
            marks.push("one_way=True".into());
        }
        if method.idempotent {
            marks.push("idempotent=True".into());
        }
        if own != method.name {
            marks.push(format!("name={}", quoted_wide(&method.name)));
        }
        if !renamed.is_empty() {
            marks.push(format!("arguments={{{}}}", renamed.join(", ")));
        }
        if !omitted.is_empty() {
            marks.push(format!("omit=({},)", omitted.join(", ")));
        }
        let result = match (&method.items_out, &method.result) {
            (Some(items), _) => format!("{iterator}[{}]", self.kind(items)?),
            (None, Some(result)) => self.kind(result)?,
            (None, None) => "None".into(),
        };
        self.text.push('\n');
        if !marks.is_empty() {
            let _ = writeln!(self.text, "    @method({})", marks.join(", "));
        }
        // A function that gives an asynchronous iterator is none that is awaited.
        let keyword = if is_async && method.items_out.is_none() { "async def" } else { "def" };
        if parameters.is_empty() {
            let _ = writeln!(self.text, "    {keyword} {own}(self) -> {result}:");
        } else {
            let _ = writeln!(self.text, "    {keyword} {own}(\n        self,");
            for parameter in parameters {
                let _ = writeln!(self.text, "        {parameter},");
            }
            let _ = writeln!(self.text, "    ) -> {result}:");
        }
        if !docs.is_empty() {
            docs.insert(0, "Args:".into());
        }
        self.docstring(&method.docs, &docs, "        ");
        self.text.push_str("        raise NotImplementedError\n");
        Ok(())
    }

    /// Name of a default that is evaluated once. Nothing changes it: a list is for reading.
    fn default_name(&mut self, method: &Method, field: &Field, kind: &str, value: &str) -> String {
        let key = (method.name.clone(), field.name.clone());
        // The class of coroutines has the same ones.
        if let Some(name) = self.default_names.get(&key) {
            return name.clone();
        }
        let name = upper(&format!("{} {}", method.name, field.name));
        let name = self.scope.take_numbered(&format!("_{name}"));
        let _ = write!(self.defaults, "{name}: {kind} = {value}\n\n\n");
        self.default_names.insert(key, name.clone());
        name
    }

    pub(super) fn items(
        &self,
        method: &Method,
        iterator: &str,
        scope: &mut Scope,
        parameters: &mut Vec<String>,
    ) -> Result<(), String> {
        if let Some(items) = &method.items_in {
            parameters.push(format!("{}: {iterator}[{}]", scope.take("items"), self.kind(items)?));
        }
        Ok(())
    }
}
