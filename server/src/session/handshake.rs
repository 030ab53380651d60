//! What has to be true before a session may join a room.

use bytes::Bytes;

use super::{CloseReason, Join, PROTOCOL_VERSION, Token, identify};
use crate::{
    auth::{Access, Authenticator, Changes, Grant, Standing},
    ids::{DocumentId, Epoch, Principal, Sequence},
    room::{Rules, validate},
    time::{Duration, Instant},
};

/// A join in which everything is checked.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) document: DocumentId,
    pub(super) grant: Grant,
    /// The access that the client wants at most.
    pub(super) wanted: Option<Access>,
    /// When its credentials are good no longer.
    pub(super) expires: Option<Instant>,
    /// What its credentials can be judged by again.
    pub(super) standing: Option<Standing>,
    pub(super) changes: Option<Changes>,
    pub(super) state_vector: Bytes,
    pub(super) epoch: Option<Epoch>,
    pub(super) resume: Option<Sequence>,
    pub(super) awareness_client_id: Option<u64>,
    pub(super) rules: Rules,
}

/// Checks what a client says to open a session.
///
/// # Errors
///
/// Why the session is not opened.
///
/// # Cancellation
///
/// Nothing is lost.
pub(super) async fn accept(
    join: Join,
    authenticator: &Authenticator,
) -> Result<Accepted, CloseReason> {
    if join.protocol_version != PROTOCOL_VERSION {
        return Err(CloseReason::UnsupportedProtocolVersion(join.protocol_version));
    }
    let document = DocumentId::parse(&join.document)?;
    // Before the credentials are judged, so that no change is missed.
    let changes = authenticator.changes();
    let identity = identify(authenticator, &join.token).await?;
    let grant = limited(identity.grant(&document), join.access)?;
    if !join.state_vector.is_empty() {
        validate::state_vector(&join.state_vector).map_err(|malformed| {
            CloseReason::MalformedFrame(format!("state vector: {malformed}"))
        })?;
    }
    let epoch = match <[u8; 16]>::try_from(&join.epoch[..]) {
        Ok(epoch) => Some(Epoch(epoch)),
        Err(_) if join.epoch.is_empty() => None,
        Err(_) => return Err(CloseReason::MalformedFrame("an epoch has 16 bytes".to_owned())),
    };
    if join.awareness_client_id > validate::CLIENT_ID_MAX {
        return Err(CloseReason::MalformedFrame("a client id has 53 bits".to_owned()));
    }
    Ok(Accepted {
        document,
        grant,
        wanted: join.access,
        expires: identity.expires(),
        standing: identity.standing().cloned(),
        changes,
        state_vector: join.state_vector,
        epoch,
        resume: (join.resume_sequence > 0).then_some(Sequence(join.resume_sequence)),
        awareness_client_id: (join.awareness_client_id > 0).then_some(join.awareness_client_id),
        rules: join.rules,
    })
}

/// What a client gets that may have `grant` and wants at most `wanted`.
///
/// # Errors
///
/// It may have nothing. The same for a document that does not exist and for one that does.
fn limited(grant: Option<Grant>, wanted: Option<Access>) -> Result<Grant, CloseReason> {
    let mut grant = grant.ok_or(CloseReason::Forbidden)?;
    grant.access = wanted.map_or(grant.access, |wanted| wanted.min(grant.access));
    Ok(grant)
}

/// The credentials of a session that has joined.
#[derive(Debug)]
pub(super) struct Credentials {
    document: DocumentId,
    principal: Principal,
    wanted: Option<Access>,
    access: Access,
    expires: Option<Instant>,
    /// In a box: without tokens there is none, and a session has no room for it.
    standing: Option<Box<Standing>>,
    changes: Option<Changes>,
    /// When a new token is asked for; `None` where it was, or needs not be.
    asks: Option<Instant>,
}

/// A new token is asked for this long before the old one ends, or in the middle of what is left.
const ASK_BEFORE: Duration = Duration::from_secs(60);

fn asks(now: Instant, expires: Option<Instant>) -> Option<Instant> {
    let expires = expires?;
    let left = expires.saturating_duration_since(now);
    Some(expires - ASK_BEFORE.min(left / 2))
}

impl Credentials {
    /// Those of a session that begins.
    pub(super) fn new(now: Instant, accepted: &Accepted) -> Self {
        let Accepted { document, grant, wanted, expires, standing, changes, .. } = accepted;
        let Grant { principal, access } = grant.clone();
        Self {
            document: document.clone(),
            principal,
            wanted: *wanted,
            access,
            expires: *expires,
            standing: standing.clone().map(Box::new),
            changes: changes.clone(),
            asks: asks(now, *expires),
        }
    }

    /// What the session may do.
    pub(super) fn access(&self) -> Access {
        self.access
    }

    /// When the session has to end; `None` for never.
    pub(super) fn expires(&self) -> Option<Instant> {
        self.expires
    }

    /// When [`Self::asks_now`] is worth asking.
    pub(super) fn asks(&self) -> Option<Instant> {
        self.asks
    }

    /// It is time for a new token. Once for each token.
    pub(super) fn asks_now(&mut self, now: Instant) -> bool {
        self.asks.take_if(|asks| *asks <= now).is_some()
    }

    /// They are good no longer.
    pub(super) fn expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// Tells when [`Self::still_stand`] is worth asking; `None` for never.
    pub(super) fn changes(&self) -> Option<Changes> {
        self.changes.clone()
    }

    /// They were not taken back. Costs the load of a number unless something has changed.
    pub(super) fn still_stand(&mut self, authenticator: &Authenticator) -> bool {
        let has_changed = self.changes.as_mut().is_some_and(Changes::take);
        !has_changed || authenticator.stands(&self.principal, self.standing.as_deref())
    }

    /// Takes those of `token` in their place, and returns the access if it is another one.
    ///
    /// # Errors
    ///
    /// The token is not valid, somebody else's, or gives no access any more.
    ///
    /// # Cancellation
    ///
    /// The ones before stay.
    pub(super) async fn refresh(
        &mut self,
        now: Instant,
        token: &Token,
        authenticator: &Authenticator,
    ) -> Result<Option<Access>, CloseReason> {
        let identity = identify(authenticator, token).await?;
        if *identity.principal() != self.principal {
            return Err(CloseReason::SubjectChanged);
        }
        let access = limited(identity.grant(&self.document), self.wanted)?.access;
        self.expires = identity.expires();
        // Judged by what is now or was a moment ago: of a change since then `changes` tells.
        self.standing = identity.standing().cloned().map(Box::new);
        self.asks = asks(now, self.expires);
        let before = std::mem::replace(&mut self.access, access);
        Ok((before != access).then_some(access))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{auth, ids::DocumentIdError, metrics::Metrics};

    fn join() -> Join {
        let document = "notes/7".to_owned();
        Join { protocol_version: PROTOCOL_VERSION, document, ..Join::default() }
    }

    async fn accept(join: Join) -> Result<Accepted, CloseReason> {
        let authenticator = Authenticator::new(&auth::Config::default(), Metrics::new().auth);
        super::accept(join, &authenticator.unwrap()).await
    }

    #[tokio::test]
    async fn a_plain_join_gets_all_access_and_a_wish_for_less_is_granted() {
        assert_eq!(accept(join()).await.unwrap().grant.access, Access::Write);
        for wish in [Access::Read, Access::Comment] {
            let less = Join { access: Some(wish), ..join() };
            assert_eq!(accept(less).await.unwrap().grant.access, wish);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_right_is_refused() {
        let malformed = |what: &str| CloseReason::MalformedFrame(what.to_owned());
        let cases = [
            (Join { protocol_version: 2, ..join() }, CloseReason::UnsupportedProtocolVersion(2)),
            (
                Join { document: String::new(), ..join() },
                CloseReason::BadDocumentId(DocumentIdError::Empty),
            ),
            (
                Join { state_vector: Bytes::from_static(&[0xff, 0xff, 0xff, 0x7f]), ..join() },
                malformed("state vector: more clients than bytes at byte 4"),
            ),
            (
                Join { epoch: Bytes::from_static(&[1]), ..join() },
                malformed("an epoch has 16 bytes"),
            ),
            (Join { awareness_client_id: 1 << 53, ..join() }, malformed("a client id has 53 bits")),
        ];
        for (join, reason) in cases {
            assert_eq!(accept(join).await.unwrap_err(), reason);
        }
    }
}
