//! The attributes of pipeplug-service, which documents them.

mod attributes;
mod expand;
mod method;
mod parse;

use proc_macro::TokenStream;
use quote::quote;

#[expect(missing_docs, reason = "documented where it is exported, in pipeplug-service")]
#[proc_macro_attribute]
pub fn service(arguments: TokenStream, item: TokenStream) -> TokenStream {
    parse::service(arguments.into(), item.into())
        .map_or_else(syn::Error::into_compile_error, |service| expand::expand(&service))
        .into()
}

#[expect(missing_docs, reason = "documented where it is exported, in pipeplug-service")]
#[proc_macro_attribute]
pub fn data(arguments: TokenStream, item: TokenStream) -> TokenStream {
    if let Some(argument) = arguments.into_iter().next() {
        let message = "`data` takes no arguments: write `#[data]`";
        return syn::Error::new(argument.span().into(), message).into_compile_error().into();
    }
    let item = syn::parse_macro_input!(item as syn::DeriveInput);
    quote! {
        #[derive(
            ::pipeplug_service::serde::Serialize,
            ::pipeplug_service::serde::Deserialize,
            ::pipeplug_service::schemars::JsonSchema,
        )]
        #[serde(crate = "::pipeplug_service::serde")]
        #[schemars(crate = "::pipeplug_service::schemars")]
        #item
    }
    .into()
}
