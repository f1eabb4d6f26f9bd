//! TypeScript, on top of the library in sdk/node.

use std::fmt::Write as _;

use serde_json::Value;

use super::HEADER;
use super::model::{Body, Field, Method, Named, Service, Type, Variant, VariantKind};
use super::names::{Scope, ascii, camel, lines, pascal, quoted, wrapped};

/// Names that types cannot have.
pub(super) const TYPES: &[&str] = &[
    "Array",
    "AsyncIterable",
    "CallError",
    "CallOptions",
    "Caller",
    "ItemCall",
    "ItemSender",
    "MethodError",
    "Omit",
    "Plugin",
    "Partial",
    "Pick",
    "Promise",
    "Record",
    "Required",
    "Service",
    "ServiceDescription",
    "ServiceRequest",
    "TypeError",
];

/// Names that functions cannot have: keywords, and names that the code uses.
const WORDS: &[&str] = &[
    "arguments",
    "await",
    "break",
    "case",
    "catch",
    "class",
    "const",
    "constructor",
    "continue",
    "debugger",
    "default",
    "delete",
    "description",
    "do",
    "else",
    "enum",
    "eval",
    "export",
    "extends",
    "false",
    "finally",
    "for",
    "function",
    "if",
    "implements",
    "import",
    "in",
    "instanceof",
    "interface",
    "let",
    "new",
    "null",
    "package",
    "private",
    "protected",
    "public",
    "return",
    "service",
    "static",
    "super",
    "switch",
    "then",
    "this",
    "throw",
    "true",
    "try",
    "typeof",
    "undefined",
    "var",
    "void",
    "while",
    "with",
    "yield",
    "prototype",
    "toString",
    "valueOf",
    "hasOwnProperty",
];

/// Characters of a line of docs.
const WIDTH: usize = 100;

struct TypeScript<'a> {
    service: &'a Service,
    text: String,
    /// Names of functions of the module.
    scope: Scope,
}

/// Writes the code of a service, which imports the library as `module`.
pub(super) fn generate(service: &Service, module: &str) -> Result<String, String> {
    let mut script = TypeScript { service, text: String::new(), scope: Scope::without(WORDS) };
    for named in &service.types {
        script.named(named);
    }
    let mut arguments = Vec::new();
    let taken: Vec<&str> =
        service.types.iter().map(|it| it.name.as_str()).chain(TYPES.iter().copied()).collect();
    let mut types = Scope::without(&taken);
    for method in &service.methods {
        let name = types.take_numbered(&format!("{}Arguments", pascal(&method.name)));
        if !method.arguments.is_empty() {
            let docs = format!("Arguments of `{}`.", method.name);
            script.interface(&name, &docs, &method.arguments);
        }
        arguments.push(name);
    }
    for named in service.types.iter().filter(|named| named.is_error) {
        script.error(named);
    }
    script.description();
    script.client(&arguments);
    script.server(&arguments);
    let body = script.text;
    Ok(format!("{}{body}", head(&body, module)).trim_end().to_owned() + "\n")
}

fn head(body: &str, module: &str) -> String {
    let uses = |name: &str| {
        body.match_indices(name).any(|(at, _)| {
            let is_part = |c: char| c.is_alphanumeric() || c == '_';
            !body[..at].ends_with(is_part) && !body[at + name.len()..].starts_with(is_part)
        })
    };
    let mut names = Vec::new();
    for name in [
        "CallError",
        "type CallOptions",
        "type Caller",
        "client",
        "type ItemCall",
        "MethodError",
        "Plugin",
        "type Service",
        "type ServiceDescription",
        "type ServiceRequest",
        "service",
    ] {
        if uses(name.trim_start_matches("type ")) {
            names.push(name);
        }
    }
    let (names, module) = (names.join(",\n  "), quoted(module));
    format!("// {HEADER}\n\nimport {{\n  {names},\n}} from {module};\n\n")
}

impl TypeScript<'_> {
    fn comment(&mut self, docs: &str, more: &[String], indent: &str) {
        let mut all = wrapped(docs, WIDTH);
        all.extend(more.iter().cloned());
        // The text cannot end the comment.
        let all: Vec<_> = all.iter().map(|line| line.replace("*/", "*\\/")).collect();
        match all.as_slice() {
            [] => {}
            [one] => {
                let _ = writeln!(self.text, "{indent}/** {one} */");
            }
            all => {
                let _ = writeln!(self.text, "{indent}/**");
                for line in all {
                    let _ = writeln!(self.text, "{}", format!("{indent} * {line}").trim_end());
                }
                let _ = writeln!(self.text, "{indent} */");
            }
        }
    }

    fn kind(&self, kind: &Type) -> String {
        match kind {
            Type::Any => "unknown".into(),
            Type::Null => "null".into(),
            Type::Bool => "boolean".into(),
            Type::Integer(_) | Type::Float => "number".into(),
            Type::String => "string".into(),
            Type::Constants(values) => values.iter().map(literal).collect::<Vec<_>>().join(" | "),
            Type::List(item) => format!("Array<{}>", self.kind(item)),
            Type::Tuple(items) => {
                format!(
                    "[{}]",
                    items.iter().map(|item| self.kind(item)).collect::<Vec<_>>().join(", ")
                )
            }
            Type::Map(value) => format!("{{ [key: string]: {} }}", self.kind(value)),
            Type::Nullable(inner) => format!("{} | null", self.kind(inner)),
            Type::Named(index) => self.service.types[*index].name.clone(),
        }
    }

    fn named(&mut self, named: &Named) {
        let name = &named.name;
        match &named.body {
            Body::Struct(fields) => self.interface(name, &named.docs, fields),
            Body::Alias(kind) => {
                self.comment(&named.docs, &[], "");
                let _ = write!(self.text, "export type {name} = {};\n\n", self.kind(kind));
            }
            Body::Enum(values) => {
                let variants = values.iter().map(|(value, docs)| (docs.clone(), quoted(value)));
                self.union(name, &named.docs, variants.collect());
            }
            Body::Union(variants) => {
                let variants = variants.iter().map(|it| (it.docs.clone(), self.variant(it)));
                let variants = variants.collect();
                self.union(name, &named.docs, variants);
            }
        }
    }

    fn variant(&self, variant: &Variant) -> String {
        match &variant.kind {
            VariantKind::Constant(value) => literal(value),
            VariantKind::Tagged(tag, kind) => {
                format!("{{ {}: {} }}", property(tag), self.kind(kind))
            }
            VariantKind::Internal(name, value, kind) => {
                format!("({{ {}: {} }} & {})", property(name), quoted(value), self.kind(kind))
            }
            VariantKind::Other(kind) => self.kind(kind),
        }
    }

    fn union(&mut self, name: &str, docs: &str, variants: Vec<(String, String)>) {
        self.comment(docs, &[], "");
        let _ = writeln!(self.text, "export type {name} =");
        for (docs, kind) in variants {
            self.comment(&docs, &[], "  ");
            let _ = writeln!(self.text, "  | {kind}");
        }
        let end = self.text.trim_end().len();
        self.text.truncate(end);
        self.text.push_str(";\n\n");
    }

    fn interface(&mut self, name: &str, docs: &str, fields: &[Field]) {
        self.comment(docs, &[], "");
        let _ = writeln!(self.text, "export interface {name} {{");
        for field in fields {
            let more = field.default.as_ref().filter(|it| !it.is_null());
            let more: Vec<_> = more
                .map(|it| format!("Default: `{}`", ascii(it).replace('`', "'")))
                .into_iter()
                .collect();
            self.comment(&field.docs, &more, "  ");
            let mark = if field.required { "" } else { "?" };
            let _ = writeln!(
                self.text,
                "  {}{mark}: {};",
                property(&field.name),
                self.kind(&field.kind)
            );
        }
        self.text.push_str("}\n\n");
    }

    /// Functions that make an error of the service, and find it.
    fn error(&mut self, named: &Named) {
        let name = &named.name;
        let make = self.scope.take(&format!("new{name}"));
        let find = self.scope.take(&format!("as{name}"));
        let _ = write!(
            self.text,
            "/** Makes an error to throw in a method. Its caller has the message and the data. */\n\
             export function {make}(message: string, error: {name}): MethodError {{\n  return new \
             MethodError(message, error);\n}}\n\n/** Returns the data if a call has failed with \
             such an error. */\nexport function {find}(error: unknown): {name} | undefined {{\n  if \
             (!(error instanceof CallError) || error.code !== \"method_error\") return \
             undefined;\n  return error.data as {name};\n}}\n\n"
        );
    }

    fn description(&mut self) {
        let text = self.service.description.clone();
        let _ = write!(
            self.text,
            "/** Description of the service, as others see it. */\nexport const description: \
             ServiceDescription = {};\n\n",
            pretty(&text, 0)
        );
    }

    /// Signature of a method: its arguments and what it returns to a caller.
    fn call(&self, method: &Method, arguments: &str) -> (String, String) {
        let has_some = !method.arguments.is_empty();
        let optional = method.arguments.iter().all(|field| !field.required);
        let parameter = match (has_some, optional) {
            (false, _) => String::new(),
            (true, true) => format!("args?: {arguments}, "),
            (true, false) => format!("args: {arguments}, "),
        };
        let result = method.result.as_ref().map_or_else(|| "void".into(), |kind| self.kind(kind));
        let item =
            |kind: &Option<Type>| kind.as_ref().map_or_else(|| "never".into(), |it| self.kind(it));
        let returns = match (&method.items_in, &method.items_out) {
            (None, None) => format!("Promise<{result}>"),
            (Some(items), None) if method.one_way => {
                format!("Pick<ItemCall<{}, never, never>, \"send\" | \"finish\">", self.kind(items))
            }
            (items_in, items_out) => {
                format!("ItemCall<{}, {}, {result}>", item(items_in), item(items_out))
            }
        };
        (format!("{parameter}options?: CallOptions"), returns)
    }

    fn client(&mut self, arguments: &[String]) {
        let name = pascal(&self.service.name);
        let docs = format!("Calls the service `{}`.", self.service.name);
        self.comment(&docs, &lines(&self.service.docs), "");
        let _ = write!(
            self.text,
            "export class {name}Client {{\n  readonly #methods: Record<string, (args?: object, \
             options?: CallOptions) => unknown>;\n\n  /** Takes the other side: a `Plugin`, which is \
             asked for the service, or the host that `register` returns. */\n  \
             constructor(caller: Caller) {{\n    this.#methods = caller instanceof Plugin ? \
             caller.client(description) : client(caller, description);\n  }}\n"
        );
        let mut scope = Scope::without(WORDS);
        for (method, arguments) in self.service.methods.iter().zip(arguments) {
            let own = scope.take(&camel(&method.name));
            let (parameters, returns) = self.call(method, arguments);
            let args = if method.arguments.is_empty() { "undefined" } else { "args" };
            self.text.push('\n');
            self.comment(&method.docs, &[], "  ");
            let _ = write!(
                self.text,
                "  {own}({parameters}): {returns} {{\n    return this.#call({}, {args}, options) as {returns};\n  }}\n",
                quoted(&method.name)
            );
        }
        self.text.push_str(
            "\n  #call(name: string, args?: object, options?: CallOptions): unknown {\n    const \
             method = this.#methods[name];\n    if (method === undefined) throw new \
             TypeError(`there is no method ${name}`);\n    return method(args, options);\n  }\n}\n\n",
        );
    }

    fn server(&mut self, arguments: &[String]) {
        let name = pascal(&self.service.name);
        let docs = format!("Methods of the service `{}`, to be implemented.", self.service.name);
        self.comment(&docs, &lines(&self.service.docs), "");
        let _ = writeln!(self.text, "export interface {name}Server {{");
        let mut scope = Scope::without(WORDS);
        let mut entries = Vec::new();
        for (method, arguments) in self.service.methods.iter().zip(arguments) {
            let own = scope.take(&camel(&method.name));
            self.comment(&method.docs, &[], "  ");
            // Arguments that were left out have their defaults.
            let defaults: Vec<_> = method
                .arguments
                .iter()
                .filter(|it| !it.required && it.default.is_some())
                .map(|it| quoted(&it.name))
                .collect();
            let args = match (method.arguments.is_empty(), defaults.is_empty()) {
                (true, _) => "args: object".into(),
                (false, true) => format!("args: {arguments}"),
                (false, false) => format!(
                    "args: {arguments} & Required<Pick<{arguments}, {}>>",
                    defaults.join(" | ")
                ),
            };
            let returns = match (&method.items_out, &method.result) {
                (Some(items), _) => format!("AsyncIterable<{}>", self.kind(items)),
                (None, Some(result)) => {
                    let result = self.kind(result);
                    format!("{result} | Promise<{result}>")
                }
                (None, None) => "void | Promise<void>".into(),
            };
            let note = method.items_in.as_ref().map(|items| {
                format!(
                    "The items are `request.items<{}>()`.",
                    self.kind(items).replace("*/", "*\\/")
                )
            });
            if let Some(note) = note {
                let _ = writeln!(self.text, "  // {note}");
            }
            let _ = writeln!(self.text, "  {own}({args}, request: ServiceRequest): {returns};");
            entries.push((method.name.clone(), own));
        }
        let entries: Vec<_> = entries
            .iter()
            .map(|(wire, own)| {
                format!(
                    "    [{}]: (args: never, request: ServiceRequest) => server.{own}(args, request),\n",
                    quoted(wire)
                )
            })
            .collect();
        let _ = write!(
            self.text,
            "}}\n\n/** The service, for the option `services` of `register` and `Plugin.start`. */\nexport \
             function serve{name}(server: {name}Server): Service {{\n  return service(description, {{\n{}  }});\n}}\n",
            entries.concat()
        );
    }
}

/// Name of a property.
fn property(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name != "__proto__";
    if is_plain { name.to_owned() } else { quoted(name) }
}

fn literal(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}

/// JSON as an expression.
fn pretty(value: &Value, depth: usize) -> String {
    let indent = "  ".repeat(depth + 1);
    let end = "  ".repeat(depth);
    match value {
        Value::Object(entries) if entries.is_empty() => "{}".into(),
        Value::Object(entries) => {
            let entries: Vec<_> = entries
                .iter()
                .map(|(key, value)| {
                    // As a computed name it is a property, whatever it is.
                    let key =
                        if key == "__proto__" { "[\"__proto__\"]".into() } else { property(key) };
                    format!("{indent}{key}: {},\n", pretty(value, depth + 1))
                })
                .collect();
            format!("{{\n{}{end}}}", entries.concat())
        }
        Value::Array(values) if values.iter().all(|it| !it.is_object() && !it.is_array()) => {
            format!("[{}]", values.iter().map(literal).collect::<Vec<_>>().join(", "))
        }
        Value::Array(values) => {
            let values: Vec<_> = values
                .iter()
                .map(|value| format!("{indent}{},\n", pretty(value, depth + 1)))
                .collect();
            format!("[\n{}{end}]", values.concat())
        }
        other => literal(other),
    }
}
