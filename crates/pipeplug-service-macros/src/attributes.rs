//! Arguments of the attribute `service`, and attributes inside the trait.

use proc_macro2::{Span, TokenStream};
use syn::parse::Parser;
use syn::spanned::Spanned;
use syn::{Attribute, Expr, Ident, Lit, LitInt, LitStr, Meta};

/// Arguments of `#[service(…)]`.
pub(crate) struct ServiceArguments {
    pub(crate) version: LitInt,
    pub(crate) oldest: Option<LitInt>,
    pub(crate) name: Option<LitStr>,
    pub(crate) codec: Option<Ident>,
}

const EXAMPLE: &str = "write `#[service(version = 1)]`; others are `oldest`, `name` and `codec`";

impl ServiceArguments {
    pub(crate) fn parse(arguments: TokenStream) -> syn::Result<Self> {
        let (mut version, mut oldest, mut name, mut codec) = (None, None, None, None);
        let parser = syn::meta::parser(|meta| {
            let key = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
            let is_twice = match key.as_str() {
                "version" => version.replace(meta.value()?.parse::<LitInt>()?).is_some(),
                "oldest" => oldest.replace(meta.value()?.parse::<LitInt>()?).is_some(),
                "name" => name.replace(service_name(meta.value()?.parse()?)?).is_some(),
                "codec" => codec.replace(self::codec(&meta.value()?.parse()?)?).is_some(),
                _ => return Err(meta.error(format!("unknown argument `{key}`: {EXAMPLE}"))),
            };
            if is_twice {
                return Err(meta.error(format!("`{key}` is given twice")));
            }
            Ok(())
        });
        parser.parse2(arguments)?;
        let Some(version) = version else {
            let message = format!(
                "a service has a version, so that both sides can tell which they were built with: {EXAMPLE}"
            );
            return Err(syn::Error::new(Span::call_site(), message));
        };
        let number = version.base10_parse::<u32>()?;
        if let Some(oldest) = &oldest
            && oldest.base10_parse::<u32>()? > number
        {
            let message = format!(
                "`oldest` is the oldest version whose callers are served: at most {number}, the version itself"
            );
            return Err(syn::Error::new(oldest.span(), message));
        }
        Ok(Self { version, oldest, name, codec })
    }
}

/// Returns true if a service may have that name.
pub(crate) fn is_service_name(value: &str) -> bool {
    // The protocol's own commands begin with `cmd`.
    value != "cmd"
        && value.starts_with(|c: char| c.is_ascii_lowercase())
        && value.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn service_name(name: LitStr) -> syn::Result<LitStr> {
    if !is_service_name(&name.value()) {
        let message = "a name of a service is lowercase letters, digits and `_`, begins with a letter, and is not `cmd`";
        return Err(syn::Error::new(name.span(), message));
    }
    Ok(name)
}

fn codec(name: &LitStr) -> syn::Result<Ident> {
    let codec = match name.value().as_str() {
        "json" => "Json",
        "postcard" => "Postcard",
        "msgpack" => "MsgPack",
        _ => {
            let message = "unknown codec: write \"json\", \"postcard\" or \"msgpack\"; the latter two are features of pipeplug-service";
            return Err(syn::Error::new(name.span(), message));
        }
    };
    Ok(Ident::new(codec, name.span()))
}

/// Attributes of a method that are for the macro.
#[derive(Default)]
pub(crate) struct MethodAttributes {
    pub(crate) one_way: Option<Span>,
    pub(crate) idempotent: Option<Span>,
}

impl MethodAttributes {
    /// Takes them out of `attributes`.
    pub(crate) fn take(attributes: &mut Vec<Attribute>) -> syn::Result<Self> {
        let mut own = Self::default();
        let mut error = None;
        attributes.retain(|attribute| {
            let place = if attribute.path().is_ident("one_way") {
                &mut own.one_way
            } else if attribute.path().is_ident("idempotent") {
                &mut own.idempotent
            } else {
                return true;
            };
            *place = Some(attribute.path().span());
            if let Err(wrong) = attribute.meta.require_path_only() {
                error = Some(wrong);
            }
            false
        });
        error.map_or(Ok(own), Err)
    }
}

/// Takes the attributes of an argument, which are those of a field.
pub(crate) fn take_of_argument(attributes: &mut Vec<Attribute>) -> syn::Result<Vec<Attribute>> {
    let taken = std::mem::take(attributes);
    for attribute in &taken {
        let path = attribute.path();
        if !["doc", "serde", "schemars"].iter().any(|known| path.is_ident(known)) {
            let message = "an argument has attributes of serde and schemars, such as `#[serde(default)]`, and docs";
            return Err(syn::Error::new(path.span(), message));
        }
    }
    Ok(taken)
}

/// Text of the doc comments.
pub(crate) fn docs(attributes: &[Attribute]) -> String {
    let lines: Vec<_> = attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("doc"))
        .filter_map(|attribute| match &attribute.meta {
            Meta::NameValue(pair) => match &pair.value {
                Expr::Lit(literal) => match &literal.lit {
                    Lit::Str(text) => Some(text.value()),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        })
        .collect();
    let lines: Vec<_> = lines
        .iter()
        .flat_map(|text| text.split('\n'))
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect();
    lines.join("\n").trim().to_owned()
}

/// The doc comments themselves.
pub(crate) fn doc_attributes(attributes: &[Attribute]) -> impl Iterator<Item = &Attribute> {
    attributes.iter().filter(|attribute| attribute.path().is_ident("doc"))
}
