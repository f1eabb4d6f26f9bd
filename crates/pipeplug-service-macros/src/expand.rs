//! The items that the attribute adds to a trait.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::{Ident, parse_quote};

use crate::attributes;
use crate::method::{Method, Output, Parameter, arguments_ident};
use crate::parse::Service;

/// Writes the trait, the types of arguments, the server and the clients.
pub(crate) fn expand(service: &Service) -> TokenStream {
    let mut item = service.item.clone();
    item.supertraits.extend::<[syn::TypeParamBound; 3]>([
        parse_quote!(::core::marker::Send),
        parse_quote!(::core::marker::Sync),
        parse_quote!('static),
    ]);
    item.colon_token.get_or_insert_with(Default::default);
    let arguments = service.methods.iter().map(|method| arguments(service, method));
    let others = [server(service), client(service, false), client(service, true)];
    quote! {
        #item
        #(#arguments)*
        #(#others)*
    }
}

/// The type with the arguments of a method.
fn arguments(service: &Service, method: &Method) -> TokenStream {
    let visibility = &service.item.vis;
    let ident = arguments_ident(&service.item.ident, &method.ident);
    let doc = format!("Arguments of [`{}::{}`].", service.item.ident, method.ident);
    let fields = method.arguments().map(|(name, kind, attributes)| {
        let has_docs = attributes::doc_attributes(attributes).next().is_some();
        let doc = (!has_docs).then(|| {
            let doc = format!("The argument `{name}`.");
            quote!(#[doc = #doc] #[schemars(description = "")])
        });
        quote!(#doc #(#attributes)* #visibility #name: #kind)
    });
    let cfgs = &method.cfgs;
    quote! {
        #(#cfgs)*
        #[doc = #doc]
        #[derive(
            ::pipeplug_service::serde::Serialize,
            ::pipeplug_service::serde::Deserialize,
            ::pipeplug_service::schemars::JsonSchema,
        )]
        #[serde(crate = "::pipeplug_service::serde")]
        #[schemars(crate = "::pipeplug_service::schemars", inline, description = "")]
        #visibility struct #ident {
            #(#fields,)*
        }
    }
}

fn codec(service: &Service) -> TokenStream {
    match &service.arguments.codec {
        Some(codec) => quote!(::pipeplug_service::#codec),
        None => quote!(::pipeplug_service::Json),
    }
}

fn server(service: &Service) -> TokenStream {
    let visibility = &service.item.vis;
    let ident = &service.item.ident;
    let server = format_ident!("{ident}Server");
    let client = format_ident!("{ident}Client");
    let doc = format!("Serves an implementation of [`{ident}`].");
    let routes = service.methods.iter().map(|method| route(service, method));
    let has_deprecated = service.methods.iter().any(|method| method.deprecated.is_some());
    let allows_deprecated = has_deprecated.then(|| quote!(#[allow(deprecated)]));
    quote! {
        #[doc = #doc]
        #[derive(::core::fmt::Debug, ::core::clone::Clone)]
        #visibility struct #server<T>(T);

        impl<T: #ident> #server<T> {
            /// Makes a service of an implementation.
            #visibility fn new(implementation: T) -> Self {
                Self(implementation)
            }
        }

        impl<T: #ident> ::pipeplug_service::Service for #server<T> {
            fn interface(&self) -> &'static ::pipeplug_service::Interface {
                <#client as ::pipeplug_service::Client>::interface()
            }

            #allows_deprecated
            fn add_to(self, routes: &mut ::pipeplug_service::Routes<'_>) {
                let implementation = ::std::sync::Arc::new(self.0);
                #(#routes)*
            }
        }
    }
}

/// The handler of a method.
fn route(service: &Service, method: &Method) -> TokenStream {
    let name = method.ident.to_string();
    let name = name.trim_start_matches("r#");
    let (ident, codec) = (&method.ident, codec(service));
    let arguments = arguments_ident(&service.item.ident, ident);
    let names = method.arguments().map(|(name, ..)| name);
    // An argument may have the same name.
    let [implementation, request] =
        ["implementation", "request"].map(|name| Ident::new(name, Span::mixed_site()));
    let mut takes_request = false;
    let mut values = Vec::new();
    let mut items = None;
    for parameter in &method.parameters {
        match parameter {
            Parameter::Request => {
                takes_request = true;
                values.push(quote!(#request));
            }
            Parameter::Argument { ident, .. } => values.push(quote!(#ident)),
            Parameter::Items { ident, .. } => {
                takes_request = true;
                items = Some(quote!(let #ident = ::pipeplug_service::StreamIn::of(#request);));
                values.push(quote!(#ident));
            }
        }
    }
    let request = if takes_request { quote!(#request) } else { quote!(_) };
    // By the type, since an `Arc` has methods of its own, such as `clone`.
    let mut result = quote!(T::#ident(&#implementation, #(#values),*));
    if method.error.is_none() && !method.is_one_way {
        result = quote!(::core::result::Result::Ok::<_, ::pipeplug_service::Never>(#result));
    }
    let body = match items {
        Some(items) => quote!({ #items #result }),
        None => result,
    };
    let adds = match (method.is_one_way, &method.output, method.items_in()) {
        (true, ..) => quote!(one_way),
        (false, Output::Items(_), _) => quote!(items),
        (false, _, Some(_)) => quote!(takes_items),
        (false, _, None) => quote!(call::<#codec, _, _, _, _>),
    };
    let cfgs = &method.cfgs;
    quote! {
        #(#cfgs)*
        routes.#adds(#name, {
            let #implementation = ::std::sync::Arc::clone(&implementation);
            move |#request, #arguments { #(#names),* }| #body
        });
    }
}

fn client(service: &Service, is_async: bool) -> TokenStream {
    let visibility = &service.item.vis;
    let ident = &service.item.ident;
    let suffix = if is_async { "AsyncClient" } else { "Client" };
    let client = format_ident!("{ident}{suffix}");
    let doc = if is_async {
        format!("Calls the service [`{ident}`], and awaits the results.")
    } else {
        format!("Calls the service [`{ident}`], and waits for the results.")
    };
    let trait_docs = attributes::doc_attributes(&service.item.attrs);
    let methods = service.methods.iter().map(|method| client_method(service, method, is_async));
    let interface = if is_async {
        let blocking = format_ident!("{ident}Client");
        quote!(<#blocking as ::pipeplug_service::Client>::interface())
    } else {
        interface(service)
    };
    let caller = if service.arguments.codec.is_some() {
        quote!(::pipeplug_service::MethodCaller::new(
            channel,
            <Self as ::pipeplug_service::Client>::interface(),
        ))
    } else {
        quote!(::pipeplug_service::MethodCaller::json(channel))
    };
    quote! {
        #[doc = #doc]
        #[doc = ""]
        #(#trait_docs)*
        #[derive(::core::fmt::Debug, ::core::clone::Clone)]
        #visibility struct #client(::pipeplug_service::MethodCaller);

        impl #client {
            /// Makes a client over a plugin, the host, a supervisor, a pool or a connection. It does
            /// not ask whether the other side has the service.
            #visibility fn new(
                caller: impl ::pipeplug_service::Caller
                + ::core::marker::Send
                + ::core::marker::Sync
                + 'static,
            ) -> Self {
                ::pipeplug_service::Client::over(::pipeplug_service::Channel::new(caller))
            }

            /// Returns the client with these options instead of its own.
            #[must_use]
            #visibility fn with(&self, options: ::pipeplug_service::CallOptions) -> Self {
                Self(self.0.with(options))
            }

            #(#methods)*
        }

        impl ::pipeplug_service::Client for #client {
            fn interface() -> &'static ::pipeplug_service::Interface {
                #interface
            }

            fn over(channel: ::pipeplug_service::Channel) -> Self {
                Self(#caller)
            }
        }
    }
}

fn client_method(service: &Service, method: &Method, is_async: bool) -> TokenStream {
    let Method { ident, cfgs, doc_attributes: docs, deprecated, .. } = method;
    let visibility = &service.item.vis;
    let command = format!("{}.{}", service.name, ident.to_string().trim_start_matches("r#"));
    let arguments = arguments_ident(&service.item.ident, ident);
    let (names, kinds): (Vec<_>, Vec<_>) =
        method.arguments().map(|(name, kind, _)| (name, kind)).unzip();
    let error = match &method.error {
        Some(error) => quote!(#error),
        None => quote!(::pipeplug_service::Never),
    };
    let value = match &method.output {
        Output::Nothing => quote!(()),
        Output::Value(value) | Output::Items(value) => quote!(#value),
    };
    let sender = method.items_in().map(|item| quote!(::pipeplug_service::StreamSender<#item>));
    let items = quote!(::pipeplug_service::StreamItems<#value, #error>);
    let codec = codec(service);
    let (call, success) = match (method.is_one_way, &method.output, sender) {
        (true, _, None) => (quote!(notify), quote!(())),
        (true, _, Some(sender)) => (quote!(notify_items), sender),
        (false, Output::Items(_), Some(sender)) => {
            (quote!(exchange_items), quote!((#sender, #items)))
        }
        (false, Output::Items(_), None) => (quote!(receive_items), items),
        (false, _, Some(sender)) => (
            quote!(send_items),
            quote!((#sender, ::pipeplug_service::PendingResult<#value, #error>)),
        ),
        (false, _, None) => (quote!(call), value),
    };
    let plain_call = matches!(&method.output, Output::Nothing | Output::Value(_))
        && method.items_in().is_none()
        && !method.is_one_way;
    let generics = plain_call.then(|| quote!(::<#codec, _, _, _>));
    let caller = if method.is_idempotent { quote!(self.0.idempotent()) } else { quote!(self.0) };
    let (asyncness, call, awaits) = if is_async {
        let call = format_ident!("{}_async", call.to_string());
        (Some(quote!(async)), quote!(#call), Some(quote!(.await)))
    } else {
        (None, call, None)
    };
    quote! {
        #(#cfgs)*
        #(#docs)*
        #deprecated
        #visibility #asyncness fn #ident(
            &self,
            #(#names: #kinds),*
        ) -> ::core::result::Result<#success, ::pipeplug_service::ServiceError<#error>> {
            #caller.#call #generics (#command, #arguments { #(#names),* }) #awaits
        }
    }
}

/// The description of the service.
fn interface(service: &Service) -> TokenStream {
    let Service { arguments, item, name, methods } = service;
    let version = &arguments.version;
    let docs = attributes::docs(&item.attrs);
    let docs = (!docs.is_empty()).then(|| quote!(interface.docs(#docs);));
    let oldest = arguments.oldest.as_ref().map(|oldest| quote!(interface.oldest(#oldest);));
    let codec = arguments.codec.as_ref().map(|_| {
        let codec = codec(service);
        quote!(interface.codec::<#codec>();)
    });
    let methods = methods.iter().map(|method| describe(&item.ident, method));
    quote! {
        static INTERFACE: ::std::sync::OnceLock<::pipeplug_service::Interface> =
            ::std::sync::OnceLock::new();
        INTERFACE.get_or_init(|| {
            ::pipeplug_service::Interface::new(#name, #version, |interface| {
                #docs
                #oldest
                #codec
                #(#methods)*
            })
        })
    }
}

fn describe(service: &Ident, method: &Method) -> TokenStream {
    let name = method.ident.to_string();
    let name = name.trim_start_matches("r#");
    let mut calls = Vec::new();
    if !method.docs.is_empty() {
        let docs = &method.docs;
        calls.push(quote!(.docs(#docs)));
    }
    if method.arguments().next().is_some() {
        let arguments = arguments_ident(service, &method.ident);
        calls.push(quote!(.arguments::<#arguments>()));
    }
    if let Some(item) = method.items_in() {
        calls.push(quote!(.items_in::<#item>()));
    }
    match &method.output {
        Output::Nothing => {}
        Output::Value(value) => calls.push(quote!(.result::<#value>())),
        Output::Items(item) => calls.push(quote!(.items_out::<#item>())),
    }
    if let Some(error) = &method.error {
        calls.push(quote!(.error::<#error>()));
    }
    if method.is_one_way {
        calls.push(quote!(.one_way()));
    }
    if method.is_idempotent {
        calls.push(quote!(.idempotent()));
    }
    let cfgs = &method.cfgs;
    quote!(#(#cfgs)* interface.method(#name)#(#calls)*;)
}
