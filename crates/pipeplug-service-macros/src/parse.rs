//! The trait, as a service.

use proc_macro2::TokenStream;
use syn::spanned::Spanned;
use syn::{Ident, ItemTrait, TraitItem};

use crate::attributes::{self, ServiceArguments};
use crate::method::Method;

/// A service.
pub(crate) struct Service {
    pub(crate) arguments: ServiceArguments,
    /// The trait, without the attributes that are for the macro.
    pub(crate) item: ItemTrait,
    pub(crate) name: String,
    pub(crate) methods: Vec<Method>,
}

/// Reads the attribute and its trait.
pub(crate) fn service(arguments: TokenStream, item: TokenStream) -> syn::Result<Service> {
    let mut item: ItemTrait = syn::parse2(item).map_err(|error| {
        let message = "a service is a trait: write `pub trait Spell { … }` below `#[service(…)]`";
        syn::Error::new(error.span(), message)
    })?;
    let mut errors = Errors::default();
    let arguments = errors.take(ServiceArguments::parse(arguments));
    if !item.generics.params.is_empty() || item.generics.where_clause.is_some() {
        errors
            .add(&item.generics, "a service has no type parameters: its callers do not know them");
    }
    if let Some(unsafety) = &item.unsafety {
        errors.add(unsafety, "a service is not unsafe");
    }
    let mut methods = Vec::new();
    for member in &mut item.items {
        match member {
            TraitItem::Fn(function) => {
                methods.extend(errors.take(Method::parse(function)));
            }
            other => errors.add(other, "a service has methods only: a caller cannot see this"),
        }
    }
    if methods.is_empty() && errors.0.is_none() {
        errors.add(&item.ident, "a service has at least one method");
    }
    if let Some(error) = errors.0 {
        return Err(error);
    }
    let Some(arguments) = arguments else {
        return Err(syn::Error::new(item.span(), "the arguments cannot be read"));
    };
    let name = arguments.name.as_ref().map_or_else(|| snake_case(&item.ident), syn::LitStr::value);
    if !attributes::is_service_name(&name) {
        let message = format!(
            "the service would have the name {name:?}, and a name is lowercase letters, digits and `_`, begins with a letter, and is not `cmd`: write `#[service(…, name = \"…\")]`"
        );
        return Err(syn::Error::new(item.ident.span(), message));
    }
    Ok(Service { arguments, item, name, methods })
}

/// Errors, which are reported together.
#[derive(Default)]
struct Errors(Option<syn::Error>);

impl Errors {
    fn add(&mut self, place: &impl quote::ToTokens, message: &str) {
        self.join(syn::Error::new_spanned(place, message));
    }

    fn take<T>(&mut self, result: syn::Result<T>) -> Option<T> {
        result.map_err(|error| self.join(error)).ok()
    }

    fn join(&mut self, error: syn::Error) {
        match &mut self.0 {
            Some(earlier) => earlier.combine(error),
            None => self.0 = Some(error),
        }
    }
}

/// The name of a trait as that of a service: `SpellCheck` is `spell_check`.
fn snake_case(ident: &Ident) -> String {
    let mut name = String::new();
    let ident = ident.to_string();
    let mut previous_is_lower = false;
    let mut letters = ident.trim_start_matches("r#").chars().peekable();
    while let Some(letter) = letters.next() {
        let next_is_lower = letters.peek().is_some_and(|next| next.is_lowercase());
        if letter.is_uppercase() && !name.is_empty() && (previous_is_lower || next_is_lower) {
            name.push('_');
        }
        previous_is_lower = !letter.is_uppercase();
        name.extend(letter.to_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_services_are_in_snake_case() {
        for (ident, name) in [
            ("Spell", "spell"),
            ("SpellCheck", "spell_check"),
            ("HTTPServer", "http_server"),
            ("V2Api", "v2_api"),
        ] {
            assert_eq!(snake_case(&Ident::new(ident, proc_macro2::Span::call_site())), name);
        }
    }
}
