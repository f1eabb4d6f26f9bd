//! The interface, as it is generated.

tonic::include_proto!("words");
