//! Why a session ends, an update is not taken, or a document cannot be joined.

use std::time::Duration;

use crate::{
    crdt::{Excess, Incomplete, validate::Malformed},
    ids::DocumentIdError,
};

/// Why a session ended or was not begun. What a client sees of it is in `transport/status.rs`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The text is not a document id.
    #[error(transparent)]
    BadDocumentId(#[from] DocumentIdError),
    /// A protocol version that is not spoken here.
    #[error("protocol version {0} is not spoken here, version 1 is")]
    UnsupportedProtocolVersion(u32),
    /// A frame came before Join.
    #[error("the first frame must be a join")]
    NotJoined,
    /// A second Join.
    #[error("the session has joined already")]
    AlreadyJoined,
    /// No Join came in time.
    #[error("no join came within {0:?}")]
    JoinTimeout(Duration),
    /// A frame that cannot be read.
    #[error("malformed frame: {0}")]
    MalformedFrame(String),
    /// A message above the limit.
    #[error("the message is larger than {0} bytes")]
    MessageTooLarge(usize),
    /// An update that cannot be read.
    #[error("malformed update: {0}")]
    MalformedUpdate(Malformed),
    /// An update that made the document fault.
    #[error("the update cannot be applied")]
    PoisonousUpdate,
    /// An update above the limit.
    #[error("the update has {bytes} bytes, more than {bytes_max}")]
    UpdateTooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// An update of more edits than are taken at once.
    #[error("the update has {parts} edits, more than {parts_max}")]
    UpdateTooLong {
        /// How many structs and ranges of deletions it has.
        parts: usize,
        /// The limit.
        parts_max: usize,
    },
    /// An update in a session that may only read, or of something else than comments in one that may
    /// only comment.
    #[error("the session may not write")]
    WriteDenied,
    /// The credentials are not valid.
    #[error("the credentials are not valid")]
    Unauthenticated,
    /// The credentials name a key of the issuer that cannot be had now.
    #[error("the keys that tokens are checked with cannot be had now, come back later")]
    KeysUnavailable,
    /// The credentials are valid, and give no access; which says nothing of the document.
    #[error("the credentials give no access to this document")]
    Forbidden,
    /// The credentials were good for a time, which is over.
    #[error("the token has expired")]
    TokenExpired,
    /// The credentials were taken back.
    #[error("the token was revoked")]
    TokenRevoked,
    /// A new token is somebody else's.
    #[error("the new token is for another subject than the session")]
    SubjectChanged,
    /// The client's state belongs to another history.
    #[error("the document has another history than the client's copy")]
    EpochMismatch,
    /// An update that depends on others that are not there.
    #[error(transparent)]
    IncompleteUpdate(#[from] Incomplete),
    /// An update with edits under a Yjs client id that is somebody else's.
    #[error("the Yjs client id {0} belongs to somebody else in this document")]
    ClientIdTaken(u64),
    /// The client sends more than it may, for longer than it can be slowed down.
    #[error("more was sent than this session may send")]
    RateLimited,
    /// Nothing was heard from the client.
    #[error("nothing was heard from the client for {0:?}")]
    HeartbeatTimeout(Duration),
    /// The client did not read.
    #[error("the client did not read for {0:?}")]
    TooSlow(Duration),
    /// The document has as many sessions as it may have.
    #[error("the document has {0} sessions, as many as it may have")]
    TooManySessions(usize),
    /// Somebody has as many sessions as he may have.
    #[error("this subject has {0} sessions, as many as it may have")]
    TooManySessionsOfPrincipal(usize),
    /// The server has as many rooms as it may have.
    #[error("the server has {0} documents open, as many as it may have")]
    TooManyRooms(usize),
    /// The server has no memory left for more.
    #[error("the server has no memory to spare, come back later")]
    Overloaded,
    /// The room does not keep up.
    #[error("the server is busy with this document")]
    Busy,
    /// The server shuts down.
    #[error("the server is shutting down")]
    Draining,
    /// The log could not be written.
    #[error("the log could not be written")]
    LogUnavailable,
    /// The disk is full, and the document does not exist yet.
    #[error("the disk of the server is full")]
    LogFull,
    /// What is stored is damaged.
    #[error("the stored document is damaged")]
    DocumentCorrupt,
    /// The room was closed after a fault.
    #[error("the document was closed after a fault and is loaded anew")]
    RoomRestarted,
    /// The document faults whenever it is loaded.
    #[error("the document cannot be loaded without a fault")]
    Quarantined,
}

impl CloseReason {
    /// The name of the reason in metrics: that of the wire, in lower case.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::BadDocumentId(_) => "bad_document_id",
            Self::UnsupportedProtocolVersion(_) => "unsupported_protocol_version",
            Self::NotJoined => "not_joined",
            Self::AlreadyJoined => "already_joined",
            Self::JoinTimeout(_) => "join_timeout",
            Self::MalformedFrame(_) => "malformed_frame",
            Self::MessageTooLarge(_) => "message_too_large",
            Self::MalformedUpdate(_) | Self::PoisonousUpdate => "malformed_update",
            Self::UpdateTooLarge { .. } | Self::UpdateTooLong { .. } => "update_too_large",
            Self::WriteDenied => "write_denied",
            Self::Unauthenticated => "unauthenticated",
            Self::KeysUnavailable => "keys_unavailable",
            Self::Forbidden => "forbidden",
            Self::TokenExpired => "token_expired",
            Self::TokenRevoked => "token_revoked",
            Self::SubjectChanged => "subject_changed",
            Self::EpochMismatch => "epoch_mismatch",
            Self::IncompleteUpdate(_) => "incomplete_update",
            Self::ClientIdTaken(_) => "client_id_taken",
            Self::RateLimited => "rate_limited",
            Self::HeartbeatTimeout(_) => "heartbeat_timeout",
            Self::TooSlow(_) => "too_slow",
            Self::TooManySessions(_) | Self::TooManySessionsOfPrincipal(_) => "too_many_sessions",
            Self::TooManyRooms(_) => "too_many_rooms",
            Self::Overloaded => "overloaded",
            Self::Busy => "busy",
            Self::Draining => "draining",
            Self::LogUnavailable => "log_unavailable",
            Self::LogFull => "log_full",
            Self::DocumentCorrupt => "document_corrupt",
            Self::RoomRestarted => "room_restarted",
            Self::Quarantined => "document_quarantined",
        }
    }

    /// What a client can do about it, which is what every door says in its own words.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::JoinTimeout(_)
            | Self::IncompleteUpdate(_)
            | Self::RateLimited
            | Self::HeartbeatTimeout(_)
            | Self::TooSlow(_)
            | Self::TooManySessions(_)
            | Self::TooManySessionsOfPrincipal(_)
            | Self::TooManyRooms(_)
            | Self::KeysUnavailable
            | Self::Overloaded
            | Self::Busy
            | Self::LogUnavailable
            | Self::LogFull
            | Self::RoomRestarted => Remedy::ComeBack,
            Self::Draining => Remedy::ComeBackElsewhere,
            Self::TokenExpired | Self::TokenRevoked => Remedy::NewToken,
            Self::BadDocumentId(_) | Self::UnsupportedProtocolVersion(_) => Remedy::AskOtherwise,
            Self::NotJoined
            | Self::AlreadyJoined
            | Self::MalformedFrame(_)
            | Self::MalformedUpdate(_)
            | Self::PoisonousUpdate => Remedy::MendClient,
            Self::MessageTooLarge(_) | Self::UpdateTooLarge { .. } | Self::UpdateTooLong { .. } => {
                Remedy::SendLess
            }
            Self::Unauthenticated => Remedy::Authenticate,
            Self::WriteDenied | Self::Forbidden | Self::SubjectChanged | Self::ClientIdTaken(_) => {
                Remedy::GetPermission
            }
            Self::EpochMismatch => Remedy::Fork,
            Self::DocumentCorrupt | Self::Quarantined => Remedy::AskOperator,
        }
    }
}

/// What a client whose session has ended can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Come back after a while.
    ComeBack,
    /// Come back: this server goes away.
    ComeBackElsewhere,
    /// Come back with a new token.
    NewToken,
    /// Nothing but asking for something else.
    AskOtherwise,
    /// Nothing: it made a mistake.
    MendClient,
    /// Nothing: what it sent is too large.
    SendLess,
    /// Come with credentials that are valid.
    Authenticate,
    /// Nothing: it may not.
    GetPermission,
    /// Keep its copy apart.
    Fork,
    /// Nothing: an operator has to look at the document.
    AskOperator,
}

/// Why an update was not taken, though the session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefuseReason {
    /// The document would grow beyond its limit.
    #[error("the document would grow beyond {0} bytes")]
    DocumentTooLarge(usize),
    /// The document would have too much of something.
    #[error(transparent)]
    Excess(Excess),
    /// The disk is full.
    #[error("the disk of the server is full")]
    LogFull,
    /// The session may not write this.
    #[error("the session may not write")]
    WriteDenied,
}

impl RefuseReason {
    /// The name of the reason in metrics: that of the wire, in lower case.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::DocumentTooLarge(_) | Self::Excess(_) => "document_too_large",
            Self::LogFull => "log_full",
            Self::WriteDenied => "write_denied",
        }
    }
}
