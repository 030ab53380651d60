//! The only place where a reason becomes a gRPC status.

use std::time::Duration;

use cowrite_proto::{ERROR_DOMAIN, v1::ErrorReason};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::session::{CloseReason, RefuseReason};

/// When to try again an update that did not fit on the disk.
const DISK_RETRY: Duration = Duration::from_secs(5);

/// The reason on the wire.
#[must_use]
pub(super) fn reason(reason: &CloseReason) -> ErrorReason {
    match reason {
        CloseReason::BadDocumentId(_) => ErrorReason::BadDocumentId,
        CloseReason::UnsupportedProtocolVersion(_) => ErrorReason::UnsupportedProtocolVersion,
        CloseReason::NotJoined => ErrorReason::NotJoined,
        CloseReason::AlreadyJoined => ErrorReason::AlreadyJoined,
        CloseReason::JoinTimeout(_) => ErrorReason::JoinTimeout,
        CloseReason::MalformedFrame(_) => ErrorReason::MalformedFrame,
        CloseReason::MessageTooLarge(_) => ErrorReason::MessageTooLarge,
        CloseReason::MalformedUpdate(_) | CloseReason::PoisonousUpdate => {
            ErrorReason::MalformedUpdate
        }
        CloseReason::UpdateTooLarge { .. } | CloseReason::UpdateTooLong { .. } => {
            ErrorReason::UpdateTooLarge
        }
        CloseReason::WriteDenied => ErrorReason::WriteDenied,
        CloseReason::Unauthenticated => ErrorReason::Unauthenticated,
        CloseReason::KeysUnavailable => ErrorReason::KeysUnavailable,
        CloseReason::Forbidden => ErrorReason::Forbidden,
        CloseReason::TokenExpired => ErrorReason::TokenExpired,
        CloseReason::TokenRevoked => ErrorReason::TokenRevoked,
        CloseReason::SubjectChanged => ErrorReason::SubjectChanged,
        CloseReason::EpochMismatch => ErrorReason::EpochMismatch,
        CloseReason::IncompleteUpdate(_) => ErrorReason::IncompleteUpdate,
        CloseReason::ClientIdTaken(_) => ErrorReason::ClientIdTaken,
        CloseReason::RateLimited => ErrorReason::RateLimited,
        CloseReason::HeartbeatTimeout(_) => ErrorReason::HeartbeatTimeout,
        CloseReason::TooSlow(_) => ErrorReason::TooSlow,
        CloseReason::TooManySessions(_) | CloseReason::TooManySessionsOfPrincipal(_) => {
            ErrorReason::TooManySessions
        }
        CloseReason::TooManyRooms(_) => ErrorReason::TooManyRooms,
        CloseReason::Overloaded => ErrorReason::Overloaded,
        CloseReason::Busy => ErrorReason::Busy,
        CloseReason::Draining => ErrorReason::Draining,
        CloseReason::LogUnavailable => ErrorReason::LogUnavailable,
        CloseReason::LogFull => ErrorReason::LogFull,
        CloseReason::DocumentCorrupt => ErrorReason::DocumentCorrupt,
        CloseReason::RoomRestarted => ErrorReason::RoomRestarted,
        CloseReason::Quarantined => ErrorReason::DocumentQuarantined,
    }
}

/// The reason on the wire of an update that was not taken, and when to try it again.
#[must_use]
pub(super) fn refusal(reason: RefuseReason) -> (ErrorReason, Option<Duration>) {
    match reason {
        RefuseReason::DocumentTooLarge(_) | RefuseReason::Excess(_) => {
            (ErrorReason::DocumentTooLarge, None)
        }
        RefuseReason::LogFull => (ErrorReason::LogFull, Some(DISK_RETRY)),
        RefuseReason::WriteDenied => (ErrorReason::WriteDenied, None),
    }
}

fn code(reason: ErrorReason) -> Code {
    match reason {
        ErrorReason::Unspecified => Code::Unknown,
        ErrorReason::BadDocumentId
        | ErrorReason::UnsupportedProtocolVersion
        | ErrorReason::NotJoined
        | ErrorReason::AlreadyJoined
        | ErrorReason::MalformedFrame
        | ErrorReason::MalformedUpdate => Code::InvalidArgument,
        ErrorReason::MessageTooLarge => Code::OutOfRange,
        ErrorReason::UpdateTooLarge
        | ErrorReason::DocumentTooLarge
        | ErrorReason::TooSlow
        | ErrorReason::TooManySessions
        | ErrorReason::TooManyRooms
        | ErrorReason::Busy
        | ErrorReason::RateLimited
        | ErrorReason::Overloaded
        | ErrorReason::LogFull => Code::ResourceExhausted,
        ErrorReason::WriteDenied
        | ErrorReason::Forbidden
        | ErrorReason::SubjectChanged
        | ErrorReason::ClientIdTaken => Code::PermissionDenied,
        ErrorReason::Unauthenticated | ErrorReason::TokenExpired | ErrorReason::TokenRevoked => {
            Code::Unauthenticated
        }
        ErrorReason::EpochMismatch | ErrorReason::DocumentQuarantined => Code::FailedPrecondition,
        ErrorReason::IncompleteUpdate => Code::Aborted,
        ErrorReason::UnknownSession | ErrorReason::DocumentDeleted => Code::NotFound,
        ErrorReason::HeartbeatTimeout | ErrorReason::JoinTimeout => Code::DeadlineExceeded,
        ErrorReason::Draining
        | ErrorReason::LogUnavailable
        | ErrorReason::KeysUnavailable
        | ErrorReason::RoomRestarted => Code::Unavailable,
        ErrorReason::DocumentCorrupt => Code::DataLoss,
    }
}

/// The status of a session that ended.
#[must_use]
pub(super) fn closed(why: &CloseReason, retry_after: Option<Duration>) -> Status {
    with_reason(reason(why), &why.to_string(), retry_after)
}

/// The status of a Publish to a session that is not there, or with a secret that is not its.
#[must_use]
pub(super) fn unknown_session() -> Status {
    with_reason(ErrorReason::UnknownSession, "no such session, or the secret is not its", None)
}

/// The status of a message that prost cannot decode.
#[must_use]
pub(super) fn malformed_message(error: &prost::DecodeError) -> Status {
    with_reason(ErrorReason::MalformedFrame, &format!("malformed message: {error}"), None)
}

fn with_reason(reason: ErrorReason, message: &str, retry_after: Option<Duration>) -> Status {
    let name = reason.as_str_name();
    let name = name.strip_prefix("ERROR_REASON_").unwrap_or(name);
    let mut details = ErrorDetails::new();
    details.set_error_info(name, ERROR_DOMAIN, std::collections::HashMap::new());
    if let Some(retry_after) = retry_after {
        details.set_retry_info(Some(retry_after));
    }
    Status::with_error_details(code(reason), message, details)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_carries_reason_domain_and_delay() {
        let status = closed(&CloseReason::Draining, Some(Duration::from_secs(3)));
        assert_eq!(status.code(), Code::Unavailable);
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("DRAINING", "cowrite"));
        let retry = status.get_details_retry_info().unwrap();
        assert_eq!(retry.retry_delay, Some(Duration::from_secs(3)));
    }
}
