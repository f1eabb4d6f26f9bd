//! Services whose names, attributes and surroundings could get in the way of what the macro writes.

#![deny(warnings, missing_docs, unused, unreachable_pub, clippy::pedantic)]

use pipeplug_net::Refuse;
use pipeplug_service::{Client, Request, ServiceSet, StreamIn, StreamOut, service};
use pipeplug_testkit::Pair;

/// Names of what the macro writes itself, and of methods of `Arc` and of traits of the prelude.
#[service(version = 1)]
pub trait Names {
    /// Names of the macro's own variables.
    fn mixed(&self, request: &Request, routes: u32, implementation: u32, interface: u32) -> u32;
    /// An argument that is not the call itself.
    fn shadows(&self, call: &Request, request: u32) -> u32;
    /// Items, and an argument of that name.
    fn items(&self, request: u32, items: StreamIn<u32>) -> u32;
    /// A keyword.
    fn r#type(&self, r#fn: u32, r#struct: Option<u32>) -> u32;
    /// `Arc` has one of its own.
    fn clone(&self) -> u32;
    /// The prelude has one.
    fn as_ref(&self, value: u32) -> u32;
    /// The prelude has one.
    fn into(&self) -> u32;
    /// `Any` has one.
    fn type_id(&self) -> u32;
    /// The server has one.
    fn interface(&self) -> u32;
    /// Items both ways.
    fn both(&self, items: StreamIn<u32>) -> StreamOut<u32>;
    /// Has a body.
    fn provided(&self, mut value: u32) -> u32 {
        value += 1;
        value
    }
    /// Not in this build.
    #[cfg(any())]
    fn absent(&self, missing: NoSuchType) -> NoSuchType;
    /// In this build.
    #[cfg(not(any()))]
    fn present(&self) -> u32;
    /// Old.
    #[deprecated = "there is `present`"]
    fn old(&self) -> u32;
}

struct Numbers;

impl Names for Numbers {
    fn mixed(&self, _: &Request, routes: u32, implementation: u32, interface: u32) -> u32 {
        routes + implementation + interface
    }
    fn shadows(&self, _: &Request, request: u32) -> u32 {
        request
    }
    fn items(&self, request: u32, items: StreamIn<u32>) -> u32 {
        request + items.map_while(Result::ok).sum::<u32>()
    }
    fn r#type(&self, r#fn: u32, r#struct: Option<u32>) -> u32 {
        r#fn + r#struct.unwrap_or(10)
    }
    fn clone(&self) -> u32 {
        1
    }
    fn as_ref(&self, value: u32) -> u32 {
        value
    }
    fn into(&self) -> u32 {
        2
    }
    fn type_id(&self) -> u32 {
        3
    }
    fn interface(&self) -> u32 {
        4
    }
    fn both(&self, items: StreamIn<u32>) -> StreamOut<u32> {
        StreamOut::new(items)
    }
    fn present(&self) -> u32 {
        5
    }
    fn old(&self) -> u32 {
        6
    }
}

#[test]
fn names_do_not_get_in_the_way() {
    let services = ServiceSet::new().with(NamesServer::new(Numbers));
    let pair = Pair::new(Refuse, services).expect("the system gives pipes");
    let names = NamesClient::new(pair.host.clone());
    assert_eq!(names.mixed(1, 2, 3).unwrap(), 6);
    assert_eq!(names.shadows(7).unwrap(), 7);
    let (mut sender, sum) = names.items(3).unwrap();
    sender.send(&4).unwrap();
    sender.finish().unwrap();
    assert_eq!(sum.wait().unwrap(), 7);
    assert_eq!(names.r#type(1, None).unwrap(), 11);
    assert_eq!(names.clone().unwrap(), 1);
    assert_eq!(names.as_ref(2).unwrap(), 2);
    assert_eq!(NamesClient::into(&names).unwrap(), 2);
    assert_eq!(names.type_id().unwrap(), 3);
    assert_eq!(names.interface().unwrap(), 4);
    assert_eq!(names.provided(1).unwrap(), 2);
    assert_eq!(names.present().unwrap(), 5);
    assert_eq!(pair.host.call("names.type", r#"{"fn":1,"struct":2}"#).unwrap(), "3");
    let described: Vec<_> = <NamesClient as Client>::interface()
        .methods
        .iter()
        .map(|method| method.name.as_str())
        .collect();
    assert!(described.contains(&"present") && !described.contains(&"absent"), "{described:?}");
}

mod private {
    use pipeplug_service::{data, service};

    type Result<T> = std::io::Result<T>;

    #[data]
    #[derive(Debug)]
    pub(super) struct Secret {
        pub(super) value: u8,
    }

    /// A trait that is not public, with a type that is not.
    #[service(version = 1)]
    pub(super) trait Hidden {
        /// A secret.
        fn secret(&self) -> std::result::Result<Secret, String>;
    }

    pub(super) struct Safe;

    impl Hidden for Safe {
        fn secret(&self) -> std::result::Result<Secret, String> {
            let value: Result<String> = std::fs::read_to_string("no such file");
            Ok(Secret { value: value.map_or(7, |_| 0) })
        }
    }
}

#[test]
fn a_service_is_as_private_as_its_trait() {
    let services = ServiceSet::new().with(private::HiddenServer::new(private::Safe));
    let pair = Pair::new(Refuse, services).expect("the system gives pipes");
    let hidden = private::HiddenClient::new(pair.host.clone());
    assert_eq!(hidden.secret().unwrap().value, 7);
}

#[test]
fn a_service_is_local_to_a_function() {
    struct Local(u32);

    #[service(version = 1)]
    trait Inner {
        fn get(&self) -> u32;
    }

    impl Inner for Local {
        fn get(&self) -> u32 {
            self.0
        }
    }

    let services = ServiceSet::new().with(InnerServer::new(Local(9)));
    let pair = Pair::new(Refuse, services).expect("the system gives pipes");
    assert_eq!(InnerClient::new(pair.host.clone()).get().unwrap(), 9);
}
