//! Frames of the wire into frames of a session.

use cowrite_proto::v1::{self, ClientFrame, client_frame};

use crate::session::{Access, CloseReason, Frame, Join, Rules};

/// Turns frames of a message into frames of a session.
///
/// # Errors
///
/// A frame of a kind that this version does not know.
pub(super) fn frames(frames: Vec<ClientFrame>) -> Result<Vec<Frame>, CloseReason> {
    frames.into_iter().map(frame).collect()
}

fn frame(frame: ClientFrame) -> Result<Frame, CloseReason> {
    use client_frame::Frame as Wire;
    let unknown = || CloseReason::MalformedFrame("a frame of an unknown kind".to_owned());
    Ok(match frame.frame.ok_or_else(unknown)? {
        Wire::Join(wanted) => Frame::Join(Box::new(join(wanted)?)),
        Wire::Update(v1::ClientUpdate { update_id, update }) => Frame::Update { update_id, update },
        Wire::Awareness(v1::ClientAwareness { state }) => Frame::Awareness(state),
        Wire::Pong(_) => Frame::Pong,
        Wire::RefreshToken(v1::RefreshToken { token }) => Frame::RefreshToken(token.into()),
        Wire::Leave(v1::Leave {}) => Frame::Leave,
    })
}

/// Turns a Join of the wire into one of a session.
///
/// # Errors
///
/// An access that this version does not know.
pub(super) fn join(join: v1::Join) -> Result<Join, CloseReason> {
    let access = match v1::Access::try_from(join.access) {
        Ok(v1::Access::Unspecified) => None,
        Ok(v1::Access::Read) => Some(Access::Read),
        Ok(v1::Access::Comment) => Some(Access::Comment),
        Ok(v1::Access::Write) => Some(Access::Write),
        Err(_) => return Err(CloseReason::MalformedFrame("an unknown access".to_owned())),
    };
    Ok(Join {
        protocol_version: join.protocol_version,
        document: join.document,
        token: join.token.into(),
        state_vector: join.state_vector,
        epoch: join.epoch,
        resume_sequence: join.resume_sequence,
        awareness_client_id: join.awareness_client_id,
        access,
        rules: Rules::Cowrite,
    })
}
