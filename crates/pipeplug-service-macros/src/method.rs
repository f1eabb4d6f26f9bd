//! Methods of a service.

use proc_macro2::Span;
use syn::{
    Attribute, FnArg, GenericArgument, Ident, Pat, PathArguments, PathSegment, ReturnType,
    Signature, TraitItemFn, Type,
};

use crate::attributes::{self, MethodAttributes};

/// A method.
pub(crate) struct Method {
    pub(crate) ident: Ident,
    /// Attributes `cfg`, which count for all that belongs to the method.
    pub(crate) cfgs: Vec<Attribute>,
    pub(crate) deprecated: Option<Attribute>,
    /// Doc comments.
    pub(crate) doc_attributes: Vec<Attribute>,
    pub(crate) docs: String,
    pub(crate) is_one_way: bool,
    pub(crate) is_idempotent: bool,
    /// Parameters after `self`, in order.
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) output: Output,
    /// The type of its error. `None` if it does not fail.
    pub(crate) error: Option<Type>,
}

/// A parameter of a method.
pub(crate) enum Parameter {
    /// The request, which the caller does not give.
    Request,
    /// An argument, with attributes of its field.
    Argument { ident: Ident, kind: Box<Type>, attributes: Vec<Attribute> },
    /// Items of this type.
    Items { ident: Ident, item: Box<Type> },
}

/// The result of a method.
pub(crate) enum Output {
    Nothing,
    Value(Box<Type>),
    /// Items of this type.
    Items(Box<Type>),
}

/// Methods that each client has.
const TAKEN: [&str; 4] = ["new", "over", "with", "channel"];

impl Method {
    /// Reads a method, and takes the attributes out of it that are for the macro.
    pub(crate) fn parse(function: &mut TraitItemFn) -> syn::Result<Self> {
        let own = MethodAttributes::take(&mut function.attrs)?;
        let doc_attributes: Vec<_> = attributes::doc_attributes(&function.attrs).cloned().collect();
        let docs = attributes::docs(&function.attrs);
        let named = |name| function.attrs.iter().filter(move |other| other.path().is_ident(name));
        let cfgs = named("cfg").cloned().collect();
        let deprecated = named("deprecated").next().cloned();
        let signature = &mut function.sig;
        check(signature)?;
        let parameters = parameters(signature)?;
        let (output, error) = output(&signature.output)?;
        if let Some(span) = own.one_way {
            if error.is_some() || !matches!(output, Output::Nothing) {
                let message = "a one-way has no answer: take `#[one_way]` away, or the result";
                return Err(syn::Error::new_spanned(&signature.output, message));
            }
            if own.idempotent.is_some() {
                let message = "a one-way is never sent twice: take `#[idempotent]` away";
                return Err(syn::Error::new(span, message));
            }
        }
        let has_items = parameters.iter().any(|other| matches!(other, Parameter::Items { .. }))
            || matches!(output, Output::Items(_));
        if let Some(span) = own.idempotent.filter(|_| has_items) {
            let message = "a call with a stream is never made twice: take `#[idempotent]` away";
            return Err(syn::Error::new(span, message));
        }
        Ok(Self {
            ident: signature.ident.clone(),
            cfgs,
            deprecated,
            doc_attributes,
            docs,
            is_one_way: own.one_way.is_some(),
            is_idempotent: own.idempotent.is_some(),
            parameters,
            output,
            error,
        })
    }

    /// Items that it takes.
    pub(crate) fn items_in(&self) -> Option<&Type> {
        self.parameters.iter().find_map(|parameter| match parameter {
            Parameter::Items { item, .. } => Some(&**item),
            _ => None,
        })
    }

    /// Names and types of its arguments, and attributes of their fields.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = (&Ident, &Type, &[Attribute])> {
        self.parameters.iter().filter_map(|parameter| match parameter {
            Parameter::Argument { ident, kind, attributes } => {
                Some((ident, &**kind, attributes.as_slice()))
            }
            _ => None,
        })
    }
}

fn check(signature: &Signature) -> syn::Result<()> {
    let wrong = |place: &dyn quote::ToTokens, message: &str| {
        Err(syn::Error::new_spanned(place.to_token_stream(), message))
    };
    if let Some(asyncness) = &signature.asyncness {
        return wrong(
            asyncness,
            "methods of a service are not async: handlers run on threads of their own and may block; callers have `…AsyncClient`",
        );
    }
    if let Some(unsafety) = &signature.unsafety {
        return wrong(unsafety, "methods of a service are not unsafe");
    }
    if !signature.generics.params.is_empty() {
        let message = "methods of a service have no type parameters or lifetimes: the other side does not know them";
        return wrong(&signature.generics, message);
    }
    if TAKEN.iter().any(|taken| signature.ident == taken) {
        let message = format!(
            "the client has a method `{}` of its own: choose another name",
            signature.ident
        );
        return wrong(&signature.ident, &message);
    }
    match signature.inputs.first() {
        Some(FnArg::Receiver(receiver))
            if receiver.reference.is_some() && receiver.mutability.is_none() =>
        {
            Ok(())
        }
        Some(FnArg::Receiver(receiver)) => wrong(
            receiver,
            "methods of a service take `&self`: they run on many threads at once; put what changes into a Mutex",
        ),
        _ => wrong(&signature.ident, "methods of a service take `&self`"),
    }
}

fn parameters(signature: &mut Signature) -> syn::Result<Vec<Parameter>> {
    let mut parameters = Vec::new();
    for input in signature.inputs.iter_mut().skip(1) {
        let FnArg::Typed(typed) = input else { continue };
        let attributes = attributes::take_of_argument(&mut typed.attrs)?;
        if let Type::Reference(reference) = &*typed.ty {
            if last_segment(&reference.elem).is_some_and(|segment| segment.ident == "Request") {
                if !parameters.is_empty() {
                    let message = "the request comes before the arguments";
                    return Err(syn::Error::new_spanned(&typed.ty, message));
                }
                parameters.push(Parameter::Request);
                continue;
            }
            let owned = match last_segment(&reference.elem) {
                Some(segment) if segment.ident == "str" => "`String`",
                _ if matches!(&*reference.elem, Type::Slice(_)) => "`Vec<…>`",
                _ => "the type without `&`",
            };
            let message = format!(
                "arguments are owned, since they come from another process: write {owned}. The only reference is the request, `&Request` or `&mut Request`"
            );
            return Err(syn::Error::new_spanned(&typed.ty, message));
        }
        if let Type::ImplTrait(_) = &*typed.ty {
            let message = "the type of an argument has a name, since both sides need the same one";
            return Err(syn::Error::new_spanned(&typed.ty, message));
        }
        let Pat::Ident(pattern) = &*typed.pat else {
            let message = "an argument has a name, which is sent with it";
            return Err(syn::Error::new_spanned(&typed.pat, message));
        };
        let ident = pattern.ident.clone();
        parameters.push(match type_argument(&typed.ty, "StreamIn") {
            Some(item) => {
                if parameters.iter().any(|other| matches!(other, Parameter::Items { .. })) {
                    let message = "a method takes one stream: make one of an enum of both items";
                    return Err(syn::Error::new_spanned(&typed.ty, message));
                }
                Parameter::Items { ident, item: Box::new(item.clone()) }
            }
            None => Parameter::Argument { ident, kind: typed.ty.clone(), attributes },
        });
    }
    Ok(parameters)
}

/// The result and the error of a method.
fn output(output: &ReturnType) -> syn::Result<(Output, Option<Type>)> {
    let ReturnType::Type(_, output) = output else { return Ok((Output::Nothing, None)) };
    let Some(segment) = last_segment(output).filter(|segment| segment.ident == "Result") else {
        return Ok((value(output)?, None));
    };
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else {
        return Err(no_error_type(output));
    };
    let mut types = arguments.args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(kind) => Some(kind),
        _ => None,
    });
    match (types.next(), types.next()) {
        (Some(success), Some(error)) => Ok((value(success)?, Some(error.clone()))),
        _ => Err(no_error_type(output)),
    }
}

fn no_error_type(output: &Type) -> syn::Error {
    let message = "the error of a method is a type of yours that serde and schemars know: write `Result<T, E>` with both types";
    syn::Error::new_spanned(output, message)
}

fn value(kind: &Type) -> syn::Result<Output> {
    match kind {
        Type::Tuple(tuple) if tuple.elems.is_empty() => Ok(Output::Nothing),
        Type::Reference(_) => {
            let message = "results are owned, since they go to another process";
            Err(syn::Error::new_spanned(kind, message))
        }
        Type::ImplTrait(_) => {
            let message = "the type of a result has a name: write `StreamOut<…>` for items, and `StreamOut::new(iterator)` in the method";
            Err(syn::Error::new_spanned(kind, message))
        }
        _ => Ok(match type_argument(kind, "StreamOut") {
            Some(item) => Output::Items(Box::new(item.clone())),
            None => Output::Value(Box::new(kind.clone())),
        }),
    }
}

fn last_segment(kind: &Type) -> Option<&PathSegment> {
    match kind {
        Type::Path(path) => path.path.segments.last(),
        _ => None,
    }
}

/// `T` of `Name<T>`.
fn type_argument<'a>(kind: &'a Type, name: &str) -> Option<&'a Type> {
    let segment = last_segment(kind).filter(|segment| segment.ident == name)?;
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(kind) => Some(kind),
        _ => None,
    })
}

/// Name of the type with the arguments of a method: `SpellSuggestArguments`.
pub(crate) fn arguments_ident(service: &Ident, method: &Ident) -> Ident {
    let method = method.to_string();
    let camel: String = method
        .trim_start_matches("r#")
        .split('_')
        .map(|word| {
            let mut letters = word.chars();
            letters
                .next()
                .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
        })
        .collect();
    Ident::new(&format!("{service}{camel}Arguments"), Span::call_site())
}
