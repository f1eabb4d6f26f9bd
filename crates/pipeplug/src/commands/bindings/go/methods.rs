//! The client and the server.

use std::fmt::Write as _;

use super::super::model::{Method, Type};
use super::super::names::{Scope, pascal, quoted_wide};
use super::{Go, Written, docs};

/// Names of a method, and of its types: `pipeplug.None` for one that it does not have.
pub(super) struct Signature {
    name: String,
    wire: String,
    arguments: String,
    items_in: String,
    items_out: String,
    result: String,
    /// Result of a server, in which no list is nil, if that is not `result` itself.
    filled: Option<String>,
    error: Option<String>,
}

const NONE: &str = "pipeplug.None";

impl Go<'_> {
    /// Names the methods, and writes the types that they alone have.
    pub(super) fn signatures(&mut self) -> Written<Vec<Signature>> {
        let mut scope = Scope::default();
        let service = self.service;
        let signature = |method| self.signature(method, &mut scope);
        service.methods.iter().map(signature).collect()
    }

    fn signature(&mut self, method: &Method, scope: &mut Scope) -> Written<Signature> {
        let place = format!("the method {:?}", method.name);
        let base = pascal(&method.name);
        let wire = quoted_wide(&method.name);
        let mut arguments = NONE.to_owned();
        if !method.arguments.is_empty() {
            arguments = self.scope.take_numbered(&format!("{base}Arguments"));
            let docs = format!("{arguments} are the arguments of the method {wire}.");
            self.structure(&arguments, &place, &docs, &method.arguments, true)?;
        }
        let items_in = self.items(method.items_in.as_ref(), &format!("{base}Item"), &place)?;
        let items_out =
            self.items(method.items_out.as_ref(), &format!("{base}ResultItem"), &place)?;
        let (mut result, mut filled) = (NONE.to_owned(), None);
        if let Some(kind) = &method.result {
            result = self.kind(kind, &place)?;
            filled = self.filled(kind, "result", 2, &place)?;
        }
        let error = match &method.error {
            Some(Type::Named(index)) => Some(self.service.types[*index].name.clone()),
            _ => None,
        };
        let name = scope.take(&base);
        Ok(Signature { name, wire, arguments, items_in, items_out, result, filled, error })
    }

    /// Type of items. A list or a map has a name, so that it is not sent as null.
    fn items(&mut self, kind: Option<&Type>, name: &str, place: &str) -> Written<String> {
        let Some(kind) = kind else { return Ok(NONE.into()) };
        if self.filled(kind, "", 0, place)?.is_none() {
            return self.kind(kind, place);
        }
        let name = self.scope.take_numbered(name);
        self.comment(&format!("{name} is an item of {place}."));
        self.alias(&name, kind, place)?;
        Ok(name)
    }

    pub(super) fn client(&mut self, own: &str, signatures: &[Signature]) -> Written {
        let _ = write!(
            self.text,
            "// {own}Client calls the methods of the service.\ntype {own}Client struct{{ client *pipeplug.Client \
             }}\n\n// New{own}Client checks that the other side has the service, in a version that serves this \
             one.\nfunc New{own}Client(conn *pipeplug.Conn) (*{own}Client, error) {{\n\tclient, err := \
             pipeplug.NewClient(conn, Name, Version)\n\tif err != nil {{\n\t\treturn nil, err\n\t}}\n\treturn \
             &{own}Client{{client}}, nil\n}}\n\n"
        );
        for (method, signature) in self.service.methods.iter().zip(signatures) {
            let Signature { name, wire, arguments, items_in, items_out, result, error, .. } =
                signature;
            let mut docs = format!("{name} calls the method {wire}.");
            if let Some(error) = error {
                let _ = write!(docs, " Its error may be a *{error}, which errors.As finds.");
            }
            let _ = write!(docs, "\n\n{}", method.docs);
            self.comment(&docs);
            let err =
                error.as_ref().map_or_else(|| "err".into(), |error| format!("as{error}(err)"));
            let (parameter, args) = if method.arguments.is_empty() {
                (String::new(), "nil")
            } else {
                (format!(", args {arguments}"), "args")
            };
            let function = format!("func (c *{own}Client) {name}(ctx context.Context{parameter}");
            let options = "options ...pipeplug.CallOption";
            if has_items(method) {
                if method.one_way {
                    return Err(format!(
                        "the method {wire} is a one-way with items, which the library for Go cannot call"
                    ));
                }
                let stream = format!("[{items_in}, {items_out}, {result}]");
                let errors = error.as_ref().map(|error| format!(".Errors(as{error})"));
                let _ = write!(
                    self.text,
                    "{function}, {options}) (*pipeplug.MethodStream{stream}, error) {{\n\tstream, err := \
                     pipeplug.InvokeStream{stream}(ctx, c.client, {wire}, {args}, options...)\n\tif err != nil \
                     {{\n\t\treturn nil, {err}\n\t}}\n\treturn stream{}, nil\n}}\n\n",
                    errors.unwrap_or_default()
                );
            } else if method.one_way {
                let _ = write!(
                    self.text,
                    "{function}) error {{\n\treturn c.client.Notify(ctx, {wire}, {args})\n}}\n\n"
                );
            } else {
                let (returns, variable, returned) = match &method.result {
                    Some(_) => (format!("({result}, error)"), "result", "result, "),
                    None => ("error".into(), "_", ""),
                };
                let _ = write!(
                    self.text,
                    "{function}, {options}) {returns} {{\n\t{variable}, err := pipeplug.Invoke[{result}](ctx, \
                     c.client, {wire}, {args}, options...)\n\treturn {returned}{err}\n}}\n\n"
                );
            }
        }
        Ok(())
    }

    pub(super) fn server(&mut self, own: &str, signatures: &[Signature]) {
        let (mut methods, mut entries) = (String::new(), String::new());
        for (method, signature) in self.service.methods.iter().zip(signatures) {
            let Signature { name, wire, arguments, items_in, items_out, result, filled, error } =
                signature;
            for line in docs::inner(&method.docs, "\t") {
                let _ = writeln!(methods, "{line}");
            }
            let reader = format!("*pipeplug.ItemReader[{items_in}]");
            let writer = format!("*pipeplug.ItemWriter[{items_out}]");
            // Parameters of the method, of which the server has those that there are.
            let all = [
                ("args", arguments.as_str(), !method.arguments.is_empty(), true),
                ("in", &reader, method.items_in.is_some(), has_items(method)),
                ("out", &writer, method.items_out.is_some(), has_items(method)),
            ];
            let (mut own, mut passed, mut taken) = (String::new(), String::new(), String::new());
            for (parameter, kind, is_used, is_there) in all {
                if is_used {
                    let _ = write!(own, ", {parameter} {kind}");
                    let _ = write!(passed, ", {parameter}");
                }
                if is_there {
                    let _ = write!(taken, ", {} {kind}", if is_used { parameter } else { "_" });
                }
            }
            let has_result = method.result.is_some();
            let returns =
                if has_result { format!("({result}, error)") } else { "error".to_owned() };
            let _ = writeln!(methods, "\t{name}(ctx context.Context{own}) {returns}");
            let call = format!("server.{name}(ctx{passed})");
            let body = match filled {
                Some(filled) => {
                    format!("\t\tresult, err := {call}\n\t\treturn {filled}, err\n")
                }
                None if has_result => format!("\t\treturn {call}\n"),
                None => format!("\t\treturn pipeplug.None{{}}, {call}\n"),
            };
            let mut chain = String::new();
            if method.one_way {
                chain.push_str(".OneWay()");
            }
            if method.idempotent {
                chain.push_str(".Idempotent()");
            }
            if let Some(error) = error {
                let _ = write!(chain, ".Fails(&{error}{{}})");
            }
            let add = if has_items(method) { "AddStream" } else { "AddMethod" };
            let _ = write!(
                entries,
                "\tpipeplug.{add}(s, {wire}, func(ctx context.Context{taken}) ({result}, error) \
                 {{\n{body}\t}}){chain}\n"
            );
        }
        let oldest = self.service.oldest;
        let methods =
            if methods.is_empty() { "{}".to_owned() } else { format!(" {{\n{methods}}}") };
        let _ = write!(
            self.text,
            "// {own}Server has the methods of the service, to be implemented.\ntype {own}Server interface{methods}\n\n\
             // New{own}Service returns the service, for Guest.Services or \
             Host.Services.\nfunc New{own}Service(server {own}Server) *pipeplug.Service {{\n\ts := \
             pipeplug.NewService(Name, Version).Oldest({oldest}).Description(json.RawMessage(description))\n{entries}\treturn s\n}}\n\n"
        );
    }
}

fn has_items(method: &Method) -> bool {
    method.items_in.is_some() || method.items_out.is_some()
}
