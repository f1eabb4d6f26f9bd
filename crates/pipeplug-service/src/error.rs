//! Errors of typed calls.

use pipeplug_net::Escaped;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::codec::{DecodeError, EncodeError};
use crate::transport::CallFailed;

/// Error of a method that has none.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error,
)]
pub enum Never {}

/// Error of a call of a service's method.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError<E = Never> {
    /// The method's own error.
    #[error("{0}")]
    Method(E),
    /// The call has failed: it was not sent or not answered, or the answer is an error that is not
    /// the method's own.
    #[error(transparent)]
    Call(CallFailed),
    /// The arguments could not be encoded. Nothing was sent.
    #[error("{}: the arguments cannot be encoded: {error}", Escaped(command))]
    Encode {
        /// Command that was called.
        command: String,
        /// Reason.
        error: EncodeError,
    },
    /// The answer does not fit the type. The call may have had its effects.
    #[error("{}: the answer does not fit: {error}", Escaped(command))]
    Decode {
        /// Command that was called.
        command: String,
        /// Reason.
        error: DecodeError,
    },
}

impl<E> ServiceError<E> {
    /// The method's own error.
    ///
    /// # Errors
    /// The call has failed in another way.
    pub fn into_method_error(self) -> Result<E, ServiceError> {
        match self {
            Self::Method(error) => Ok(error),
            Self::Call(error) => Err(ServiceError::Call(error)),
            Self::Encode { command, error } => Err(ServiceError::Encode { command, error }),
            Self::Decode { command, error } => Err(ServiceError::Decode { command, error }),
        }
    }
}
