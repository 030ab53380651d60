//! Local edits that are not known to be durable: what to send, and when.
//!
//! An edit is kept as an update only while it is on its way. When the window is full, when a session
//! is lost and while there is none, nothing is kept but the state that the server is known to have:
//! the document has the edits, and the difference to that state is one update with all of them.

use std::collections::VecDeque;

use bytes::Bytes;
use cowrite_proto::v1::ErrorReason;
use tokio::time::Instant;
use yrs::StateVector;

use crate::error::Refusal;

/// Updates on their way at most: half of what waits for a stream, so that there is always room for
/// other frames.
const UPDATES_MAX: usize = crate::connection::QUEUE_FRAMES_MAX / 2;
/// Bytes on their way at most, 1 MiB. One update may go beyond it.
const BYTES_MAX: usize = 1 << 20;

/// The edits of one document, over all its sessions.
#[derive(Debug, Default)]
pub(crate) struct Unconfirmed {
    session: Option<Session>,
    /// Edits that no update on its way contains.
    waiting_edits: u64,
    /// What the server would have if everything on its way arrives. The waiting edits are the
    /// difference from this to the document; `None` when nothing waits.
    waiting_since: Option<StateVector>,
}

/// What belongs to one session.
#[derive(Debug)]
struct Session {
    /// What the server had at the start.
    base: StateVector,
    update_bytes_max: u64,
    next_id: u64,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: usize,
    /// The tail of `in_flight`, not handed to the stream yet.
    ready: VecDeque<(u64, Bytes)>,
    hold: Option<Hold>,
}

#[derive(Debug)]
struct InFlight {
    id: u64,
    bytes: usize,
    edits: u64,
}

/// Why nothing is sent.
#[derive(Debug, Clone)]
enum Hold {
    /// The server asked to wait.
    Until(Instant),
    /// The server will not take it. The next session tries again.
    Final(Refusal),
}

impl Unconfirmed {
    /// A session has begun on a server that has `base`.
    pub(crate) fn session_began(&mut self, base: StateVector, update_bytes_max: u64) {
        if self.waiting_edits > 0 {
            self.waiting_since = Some(base.clone());
        }
        self.session = Some(Session {
            base,
            update_bytes_max,
            next_id: 1,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            ready: VecDeque::new(),
            hold: None,
        });
    }

    /// The session has ended: what was on its way may have arrived or not.
    pub(crate) fn session_ended(&mut self) {
        if let Some(session) = self.session.take() {
            self.waiting_edits += session.in_flight.iter().map(|update| update.edits).sum::<u64>();
        }
        self.waiting_since = None;
    }

    /// A local edit was made: `update` is it, `before` is the document's state before it.
    pub(crate) fn edited(&mut self, update: &[u8], before: &StateVector) {
        if let Some(session) = &mut self.session
            && self.waiting_edits == 0
            && session.hold.is_none()
            && session.has_room()
            && update.len() as u64 <= session.update_bytes_max
        {
            session.push(Bytes::copy_from_slice(update), 1);
            return;
        }
        if self.waiting_edits == 0 && self.session.is_some() {
            self.waiting_since = Some(before.clone());
        }
        self.waiting_edits += 1;
    }

    /// The state to which the difference is wanted now, for [`Self::difference`]. `None` while
    /// nothing waits, nothing may be sent, or too much is on its way.
    pub(crate) fn wants_difference(&self, now: Instant) -> Option<&StateVector> {
        let session = self.session.as_ref()?;
        let open = match &session.hold {
            None => true,
            Some(Hold::Until(at)) => *at <= now,
            Some(Hold::Final(_)) => false,
        };
        // Half a window, so that a difference is worth its while: it repeats all deletions.
        let room =
            session.in_flight.len() <= UPDATES_MAX / 2 && session.in_flight_bytes <= BYTES_MAX / 2;
        if open && room { self.waiting_since.as_ref() } else { None }
    }

    /// Takes the update that [`Self::wants_difference`] asked for: it contains all waiting edits.
    pub(crate) fn difference(&mut self, update: Vec<u8>) {
        let Some(session) = &mut self.session else { return };
        if update.len() as u64 > session.update_bytes_max {
            session.hold = Some(Hold::Final(Refusal {
                reason: ErrorReason::UpdateTooLarge,
                message: format!(
                    "the edits have {} bytes, the server takes {} at once",
                    update.len(),
                    session.update_bytes_max
                ),
            }));
            return;
        }
        session.hold = None;
        session.push(update.into(), self.waiting_edits);
        self.waiting_edits = 0;
        self.waiting_since = None;
    }

    /// The next update to hand to the stream.
    pub(crate) fn next_ready(&mut self) -> Option<(u64, Bytes)> {
        self.session.as_mut()?.ready.pop_front()
    }

    /// Everything up to `id` is durable.
    pub(crate) fn acknowledged(&mut self, id: u64) {
        let Some(session) = &mut self.session else { return };
        while session.in_flight.front().is_some_and(|update| update.id <= id) {
            if let Some(update) = session.in_flight.pop_front() {
                session.in_flight_bytes -= update.bytes;
            }
        }
    }

    /// The update `id` was not taken. With `retry_at` its edits are sent again then.
    pub(crate) fn refused(&mut self, id: u64, refusal: Refusal, retry_at: Option<Instant>) {
        let Some(session) = &mut self.session else { return };
        if let Some(at) = session.in_flight.iter().position(|update| update.id == id)
            && let Some(update) = session.in_flight.remove(at)
        {
            session.in_flight_bytes -= update.bytes;
            self.waiting_edits += update.edits;
        }
        // What was sent after it may depend on it. The difference has to be to a state that the
        // server has for certain.
        self.waiting_since = Some(session.base.clone());
        session.hold = Some(retry_at.map_or(Hold::Final(refusal), Hold::Until));
    }

    /// The session may write from now on, or may not.
    pub(crate) fn may_write(&mut self, may: bool) {
        let Some(session) = &mut self.session else { return };
        let denied = matches!(
            &session.hold,
            Some(Hold::Final(refusal)) if refusal.reason == ErrorReason::WriteDenied
        );
        if may && denied {
            session.hold = None;
        } else if !may && !denied {
            session.hold = Some(Hold::Final(Refusal {
                reason: ErrorReason::WriteDenied,
                message: "this session may only read".to_owned(),
            }));
        }
    }

    /// When [`Self::wants_difference`] is worth asking again without any other event.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        match self.session.as_ref()?.hold {
            Some(Hold::Until(at)) => Some(at),
            Some(Hold::Final(_)) | None => None,
        }
    }

    /// Why edits will not be saved in this session, while there are such.
    pub(crate) fn refusal(&self) -> Option<&Refusal> {
        match &self.session.as_ref()?.hold {
            Some(Hold::Final(refusal)) if self.waiting_edits > 0 => Some(refusal),
            Some(Hold::Final(_) | Hold::Until(_)) | None => None,
        }
    }

    /// How many edits are not known to be durable.
    pub(crate) fn edits(&self) -> u64 {
        let in_flight = self
            .session
            .as_ref()
            .map_or(0, |session| session.in_flight.iter().map(|update| update.edits).sum());
        self.waiting_edits + in_flight
    }

    /// Everything was handed to the stream.
    pub(crate) fn is_sent(&self) -> bool {
        self.waiting_edits == 0 && self.session.as_ref().is_none_or(|s| s.ready.is_empty())
    }
}

impl Session {
    fn has_room(&self) -> bool {
        self.in_flight.len() < UPDATES_MAX && self.in_flight_bytes < BYTES_MAX
    }

    fn push(&mut self, update: Bytes, edits: u64) {
        let id = self.next_id;
        self.next_id += 1;
        self.in_flight_bytes += update.len();
        self.in_flight.push_back(InFlight { id, bytes: update.len(), edits });
        self.ready.push_back((id, update));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at_session() -> Unconfirmed {
        let mut edits = Unconfirmed::default();
        edits.session_began(StateVector::default(), 1 << 20);
        edits
    }

    fn refusal() -> Refusal {
        Refusal { reason: ErrorReason::Busy, message: "busy".to_owned() }
    }

    #[test]
    fn an_edit_is_unsaved_until_its_acknowledgement() {
        let mut edits = at_session();
        edits.edited(b"1", &StateVector::default());
        edits.edited(b"2", &StateVector::default());
        assert_eq!(edits.next_ready(), Some((1, Bytes::from_static(b"1"))));
        edits.acknowledged(1);
        assert_eq!(edits.edits(), 1);
        edits.acknowledged(2);
        assert_eq!(edits.edits(), 0);
    }

    #[test]
    fn a_full_window_keeps_no_updates_and_ends_in_one_difference() {
        let mut edits = at_session();
        for _ in 0..UPDATES_MAX + 1000 {
            edits.edited(b"u", &StateVector::default());
        }
        assert_eq!(std::iter::from_fn(|| edits.next_ready()).count(), UPDATES_MAX);
        let now = Instant::now();
        assert_eq!(edits.wants_difference(now), None);
        edits.acknowledged(UPDATES_MAX as u64 / 2);
        assert!(edits.wants_difference(now).is_some());
        edits.difference(b"all".to_vec());
        assert_eq!(edits.next_ready(), Some((UPDATES_MAX as u64 + 1, Bytes::from_static(b"all"))));
        edits.acknowledged(UPDATES_MAX as u64 + 1);
        assert_eq!(edits.edits(), 0);
    }

    #[test]
    fn what_was_on_its_way_at_a_loss_is_in_the_next_sessions_difference() {
        let mut edits = at_session();
        edits.edited(b"1", &StateVector::default());
        edits.session_ended();
        edits.edited(b"2", &StateVector::default());
        assert_eq!((edits.edits(), edits.next_ready()), (2, None));
        edits.session_began(StateVector::default(), 1 << 20);
        assert!(edits.wants_difference(Instant::now()).is_some());
    }

    #[test]
    fn a_refused_edit_waits_for_the_time_that_the_server_asks_for() {
        let mut edits = at_session();
        edits.edited(b"1", &StateVector::default());
        let now = Instant::now();
        let retry_at = now + Duration::from_secs(2);
        edits.refused(1, refusal(), Some(retry_at));
        assert_eq!((edits.wants_difference(now), edits.retry_at()), (None, Some(retry_at)));
        assert!(edits.wants_difference(retry_at).is_some());
        assert_eq!(edits.refusal(), None);
    }

    #[test]
    fn a_final_refusal_is_reported_and_holds_back_what_depends_on_it() {
        let mut edits = at_session();
        edits.edited(b"1", &StateVector::default());
        edits.refused(1, refusal(), None);
        edits.edited(b"2", &StateVector::default());
        assert_eq!(edits.refusal(), Some(&refusal()));
        assert_eq!(edits.wants_difference(Instant::now()), None);
        assert_eq!(edits.edits(), 2);
    }

    #[test]
    fn edits_larger_than_the_limit_are_reported_as_not_saved() {
        let mut edits = Unconfirmed::default();
        edits.session_began(StateVector::default(), 4);
        edits.edited(b"12345", &StateVector::default());
        assert!(edits.wants_difference(Instant::now()).is_some());
        edits.difference(b"12345".to_vec());
        assert_eq!(edits.refusal().map(|r| r.reason), Some(ErrorReason::UpdateTooLarge));
    }
}
