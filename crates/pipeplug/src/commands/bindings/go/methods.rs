//! The client and the server.

use std::fmt::Write as _;

use super::super::model::{Method, Type};
use super::super::names::{Scope, pascal, quoted};
use super::{Go, Written, comment};

impl Go<'_> {
    /// Type of an optional part of a method.
    pub(super) fn part(&self, kind: Option<&Type>, place: &str) -> Written<String> {
        kind.map_or_else(|| Ok("pipeplug.None".into()), |kind| self.kind(kind, place))
    }

    pub(super) fn client(&mut self, own: &str, arguments: &[String]) -> Written {
        let _ = write!(
            self.text,
            "// {own}Client calls the methods of the service.\ntype {own}Client struct{{ client *pipeplug.Client \
             }}\n\n// New{own}Client checks that the other side has the service, in a version that serves this \
             one.\nfunc New{own}Client(conn *pipeplug.Conn) (*{own}Client, error) {{\n\tclient, err := \
             pipeplug.NewClient(conn, Name, Version)\n\tif err != nil {{\n\t\treturn nil, err\n\t}}\n\treturn \
             &{own}Client{{client}}, nil\n}}\n\n"
        );
        let mut scope = Scope::default();
        for (method, arguments) in self.service.methods.iter().zip(arguments) {
            let name = scope.take(&pascal(&method.name));
            let place = format!("the method {:?}", method.name);
            let wire = quoted(&method.name);
            let (parameter, args) = parameter(method, arguments, ", ");
            let mut docs = format!("{name} calls the method {wire}.");
            if let Some(Type::Named(index)) = &method.error {
                let error = &self.service.types[*index].name;
                let _ = write!(docs, " Its error may be a *{error}, which errors.As finds.");
            }
            let _ = write!(docs, "\n\n{}", method.docs);
            self.comment(&docs, "");
            let fails = |line: &str| match &method.error {
                Some(Type::Named(index)) => {
                    let error = &self.service.types[*index].name;
                    format!(
                        "\tif own, ok := pipeplug.MethodError[{error}](err); ok {{\n\t\town.Message = err.Error()\n\t\treturn {line}&own\n\t}}\n"
                    )
                }
                _ => String::new(),
            };
            let result = self.part(method.result.as_ref(), &place)?;
            if method.items_in.is_some() || method.items_out.is_some() {
                if method.one_way {
                    return Err(format!(
                        "{place} is a one-way with items, which the library for Go cannot call"
                    ));
                }
                let items_in = self.part(method.items_in.as_ref(), &place)?;
                let items_out = self.part(method.items_out.as_ref(), &place)?;
                let stream = format!("{items_in}, {items_out}, {result}");
                let _ = write!(
                    self.text,
                    "func (c *{own}Client) {name}(ctx context.Context{parameter}, options ...pipeplug.CallOption) \
                     (*pipeplug.MethodStream[{stream}], error) {{\n\treturn pipeplug.InvokeStream[{stream}](ctx, \
                     c.client, {wire}, {args}, options...)\n}}\n\n"
                );
            } else if method.one_way {
                let _ = write!(
                    self.text,
                    "func (c *{own}Client) {name}(ctx context.Context{parameter}) error {{\n\treturn \
                     c.client.Notify(ctx, {wire}, {args})\n}}\n\n"
                );
            } else if method.result.is_some() {
                let _ = write!(
                    self.text,
                    "func (c *{own}Client) {name}(ctx context.Context{parameter}, options ...pipeplug.CallOption) \
                     ({result}, error) {{\n\tresult, err := pipeplug.Invoke[{result}](ctx, c.client, {wire}, {args}, \
                     options...)\n{}\treturn result, err\n}}\n\n",
                    fails("result, ")
                );
            } else {
                let _ = write!(
                    self.text,
                    "func (c *{own}Client) {name}(ctx context.Context{parameter}, options ...pipeplug.CallOption) \
                     error {{\n\t_, err := pipeplug.Invoke[pipeplug.None](ctx, c.client, {wire}, {args}, \
                     options...)\n{}\treturn err\n}}\n\n",
                    fails("")
                );
            }
        }
        Ok(())
    }

    pub(super) fn server(&mut self, own: &str, arguments: &[String]) -> Written {
        let mut scope = Scope::default();
        let (mut methods, mut entries) = (String::new(), String::new());
        for (method, arguments) in self.service.methods.iter().zip(arguments) {
            let name = scope.take(&pascal(&method.name));
            let place = format!("the method {:?}", method.name);
            let wire = quoted(&method.name);
            for line in comment(&method.docs, "\t", "") {
                let _ = writeln!(methods, "{line}");
            }
            let (parameter, _) = parameter(method, arguments, ", ");
            let kind = if method.arguments.is_empty() { "pipeplug.None" } else { arguments };
            let args = if method.arguments.is_empty() { "" } else { ", args" };
            let result = self.part(method.result.as_ref(), &place)?;
            let (returns, has_result) = match &method.result {
                Some(_) => (format!("({result}, error)"), true),
                None => ("error".to_owned(), false),
            };
            let (mut more, mut passed) = (String::new(), String::new());
            if let Some(items) = &method.items_in {
                let _ = write!(more, ", in *pipeplug.ItemReader[{}]", self.kind(items, &place)?);
                passed.push_str(", in");
            }
            if let Some(items) = &method.items_out {
                let _ = write!(more, ", out *pipeplug.ItemWriter[{}]", self.kind(items, &place)?);
                passed.push_str(", out");
            }
            let _ = writeln!(methods, "\t{name}(ctx context.Context{parameter}{more}) {returns}");
            let call = format!("server.{name}(ctx{args}{passed})");
            let nil = match (method.result.as_ref().map(|it| self.service.resolved(it)), has_result)
            {
                (Some(Type::List(_) | Type::Map(_)), _) => format!(
                    "\t\tresult, err := {call}\n\t\tif result == nil {{\n\t\t\tresult = {result}{{}}\n\t\t}}\n\t\treturn result, err\n"
                ),
                (_, true) => format!("\t\treturn {call}\n"),
                (_, false) => format!("\t\treturn pipeplug.None{{}}, {call}\n"),
            };
            let mut chain = String::new();
            if method.one_way {
                chain.push_str(".OneWay()");
            }
            if method.idempotent {
                chain.push_str(".Idempotent()");
            }
            if let Some(Type::Named(index)) = &method.error {
                let _ = write!(chain, ".Fails(&{}{{}})", self.service.types[*index].name);
            }
            let is_stream = method.items_in.is_some() || method.items_out.is_some();
            let args = if method.arguments.is_empty() { "_" } else { "args" };
            if is_stream {
                let items_in = self.part(method.items_in.as_ref(), &place)?;
                let items_out = self.part(method.items_out.as_ref(), &place)?;
                let name_of = |is_used, name: &'static str| if is_used { name } else { "_" };
                let _ = write!(
                    entries,
                    "\tpipeplug.AddStream(s, {wire}, func(ctx context.Context, {args} {kind}, {} \
                     *pipeplug.ItemReader[{items_in}], {} *pipeplug.ItemWriter[{items_out}]) ({result}, error) \
                     {{\n{nil}\t}}){chain}\n",
                    name_of(method.items_in.is_some(), "in"),
                    name_of(method.items_out.is_some(), "out"),
                );
            } else {
                let _ = write!(
                    entries,
                    "\tpipeplug.AddMethod(s, {wire}, func(ctx context.Context, {args} {kind}) ({result}, error) \
                     {{\n{nil}\t}}){chain}\n"
                );
            }
        }
        let oldest = self.service.oldest;
        let _ = write!(
            self.text,
            "// {own}Server has the methods of the service, to be implemented.\ntype {own}Server interface \
             {{\n{methods}}}\n\n// New{own}Service returns the service, for Guest.Services or \
             Host.Services.\nfunc New{own}Service(server {own}Server) *pipeplug.Service {{\n\ts := \
             pipeplug.NewService(Name, Version).Oldest({oldest}).Description(json.RawMessage(description))\n{entries}\treturn s\n}}\n\n"
        );
        Ok(())
    }
}

/// Parameter with the arguments, and the value that is sent.
fn parameter(method: &Method, arguments: &str, before: &str) -> (String, &'static str) {
    if method.arguments.is_empty() {
        (String::new(), "nil")
    } else {
        (format!("{before}args {arguments}"), "args")
    }
}
