//! What can go wrong, by what the caller can do about it.

use std::{sync::Arc, time::Duration};

use cowrite_proto::{ERROR_DOMAIN, v1::ErrorReason};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Why something did not work.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address of the server is not a URL that can be connected to.
    #[error("the server address {url:?} cannot be used")]
    Address {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        #[source]
        source: Arc<tonic::transport::Error>,
    },
    /// The connection or the session was lost, or could not be had: coming back may help. A
    /// [`Document`](crate::Document) does that by itself.
    #[error(transparent)]
    Lost(#[from] Loss),
    /// The server does not want this session: coming back the same way cannot help.
    #[error("the server refused the session: {}", status.message())]
    Rejected {
        /// The server's reason, [`ErrorReason::Unspecified`] where it gave none.
        reason: ErrorReason,
        /// The status as received.
        #[source]
        status: Box<Status>,
    },
    /// The document on the server has another history than the local copy: merging would
    /// duplicate content. The local copy is kept and can still be read.
    #[error("the document has another history on the server; the local copy was not merged")]
    EpochMismatch,
    /// The server sent something that the protocol does not allow.
    #[error("the server broke the protocol: {what}")]
    Protocol {
        /// What it did.
        what: &'static str,
    },
    /// The server did not take an edit, and trying again does not help. The edit is in the local
    /// copy alone.
    #[error(transparent)]
    NotSaved(#[from] Refusal),
    /// An awareness state is larger than the server takes.
    #[error("the awareness state has {bytes} bytes, the server takes {bytes_max}")]
    AwarenessTooLarge {
        /// The size of the state as JSON.
        bytes: u64,
        /// The largest one that the server takes.
        bytes_max: u64,
    },
    /// The token has characters that no token has.
    #[error("the token has characters that no token has")]
    Token,
    /// The session or the document was closed by this side.
    #[error("the document is closed")]
    Closed,
}

/// A session that was lost, or that could not be opened for the time being.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the session was lost: {message}")]
pub struct Loss {
    /// The server's reason, [`ErrorReason::Unspecified`] where the network or the server's host was
    /// the cause.
    pub reason: ErrorReason,
    /// How long the server asks to stay away.
    pub retry_after: Option<Duration>,
    /// For people.
    pub message: String,
    /// The status as received; none where the stream just ended.
    #[source]
    pub status: Option<Box<Status>>,
}

/// An edit that the server did not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an edit was not saved: {message}")]
pub struct Refusal {
    /// Why.
    pub reason: ErrorReason,
    /// For people: a sentence in English.
    pub message: String,
}

impl Error {
    /// Coming back may help.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Lost(_))
    }

    /// The server's reason, [`ErrorReason::Unspecified`] where it gave none.
    #[must_use]
    pub fn reason(&self) -> ErrorReason {
        match self {
            Self::Lost(loss) => loss.reason,
            Self::Rejected { reason, .. } => *reason,
            Self::EpochMismatch => ErrorReason::EpochMismatch,
            Self::NotSaved(refusal) => refusal.reason,
            Self::Address { .. }
            | Self::Protocol { .. }
            | Self::AwarenessTooLarge { .. }
            | Self::Token
            | Self::Closed => ErrorReason::Unspecified,
        }
    }

    pub(crate) fn lost(message: &str) -> Self {
        Self::Lost(Loss {
            reason: ErrorReason::Unspecified,
            retry_after: None,
            message: message.to_owned(),
            status: None,
        })
    }

    /// Decides what the end of a stream with `status` means. `closing` is what a `Closing` frame
    /// announced before: it counts where the status itself says nothing.
    pub(crate) fn from_status(status: Status, closing: Option<&Closing>) -> Self {
        let details = status.get_error_details();
        let reason = details
            .error_info()
            .filter(|info| info.domain == ERROR_DOMAIN)
            .and_then(|info| ErrorReason::from_str_name(&format!("ERROR_REASON_{}", info.reason)))
            .or(closing.map(|closing| closing.reason))
            .unwrap_or_default();
        let retry_after = details
            .retry_info()
            .and_then(|info| info.retry_delay)
            .or(closing.and_then(|closing| closing.retry_after));
        if reason == ErrorReason::EpochMismatch {
            return Self::EpochMismatch;
        }
        if comes_back(status.code(), reason) {
            let message = status.message().to_owned();
            return Self::Lost(Loss {
                reason,
                retry_after,
                message,
                status: Some(Box::new(status)),
            });
        }
        Self::Rejected { reason, status: Box::new(status) }
    }
}

/// What a `Closing` frame announced.
#[derive(Debug, Clone)]
pub(crate) struct Closing {
    pub(crate) reason: ErrorReason,
    pub(crate) retry_after: Option<Duration>,
}

/// A new session can be better off than one that ended this way.
fn comes_back(code: Code, reason: ErrorReason) -> bool {
    match code {
        // `Unknown` and `Internal` are how a connection that was cut is reported, `Cancelled` comes
        // from a connection that was going away when the call was made.
        Code::Ok
        | Code::Unavailable
        | Code::Unknown
        | Code::Internal
        | Code::Cancelled
        | Code::Aborted
        | Code::DeadlineExceeded => true,
        // With a new token, where there is one.
        Code::Unauthenticated => {
            matches!(reason, ErrorReason::TokenExpired | ErrorReason::TokenRevoked)
        }
        // Without a reason of the server's own it is HTTP/2 that ran out of something.
        Code::ResourceExhausted => !matches!(
            reason,
            ErrorReason::UpdateTooLarge
                | ErrorReason::DocumentTooLarge
                | ErrorReason::MessageTooLarge
        ),
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    fn status(code: Code, reason: &str, retry: Option<Duration>) -> Status {
        let mut details = ErrorDetails::new();
        details.set_error_info(reason, ERROR_DOMAIN, [("a".to_owned(), "b".to_owned())]);
        details.set_retry_info(retry);
        Status::with_error_details(code, "why", details)
    }

    #[test]
    fn a_draining_server_is_worth_coming_back_to_after_its_delay() {
        let delay = Some(Duration::from_secs(3));
        let error = Error::from_status(status(Code::Unavailable, "DRAINING", delay), None);
        let Error::Lost(loss) = error else { panic!("{error:?}") };
        assert_eq!((loss.reason, loss.retry_after), (ErrorReason::Draining, delay));
    }

    #[test]
    fn a_closing_frame_gives_the_delay_that_the_status_lacks() {
        let closing =
            Closing { reason: ErrorReason::Draining, retry_after: Some(Duration::from_secs(7)) };
        let error = Error::from_status(Status::unavailable("gone"), Some(&closing));
        let Error::Lost(loss) = error else { panic!("{error:?}") };
        assert_eq!(loss.retry_after, closing.retry_after);
        assert_eq!(loss.reason, ErrorReason::Draining);
    }

    #[test]
    fn a_busy_server_is_lost_and_a_document_that_is_full_is_final() {
        let busy = status(Code::ResourceExhausted, "BUSY", None);
        assert!(Error::from_status(busy, None).is_lost());
        let full = status(Code::ResourceExhausted, "DOCUMENT_TOO_LARGE", None);
        assert!(!Error::from_status(full, None).is_lost());
    }

    #[test]
    fn a_token_that_expired_is_worth_a_new_one_and_one_that_is_not_valid_is_final() {
        for reason in ["TOKEN_EXPIRED", "TOKEN_REVOKED"] {
            let expired = status(Code::Unauthenticated, reason, None);
            assert!(Error::from_status(expired, None).is_lost());
        }
        let invalid = status(Code::Unauthenticated, "UNAUTHENTICATED", None);
        assert!(!Error::from_status(invalid, None).is_lost());
        let forbidden = status(Code::PermissionDenied, "FORBIDDEN", None);
        assert_eq!(Error::from_status(forbidden, None).reason(), ErrorReason::Forbidden);
    }

    #[test]
    fn another_epoch_is_an_error_of_its_own() {
        let status = status(Code::FailedPrecondition, "EPOCH_MISMATCH", None);
        assert!(matches!(Error::from_status(status, None), Error::EpochMismatch));
    }
}
