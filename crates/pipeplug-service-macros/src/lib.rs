//! The attribute `service` of pipeplug-service, which documents it.

mod attributes;
mod expand;
mod method;
mod parse;

use proc_macro::TokenStream;

/// Makes a service of a trait; see the crate pipeplug-service.
#[proc_macro_attribute]
pub fn service(arguments: TokenStream, item: TokenStream) -> TokenStream {
    parse::service(arguments.into(), item.into())
        .map_or_else(syn::Error::into_compile_error, |service| expand::expand(&service))
        .into()
}
