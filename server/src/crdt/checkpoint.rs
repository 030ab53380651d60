//! What a checkpoint is made of: the document as a yrs v2 update, and whose its client ids are.
//!
//! Where nobody owns any, the v2 update alone, as it always was; it begins with a 0. Else a 1, the
//! owners behind their length in bytes, and the v2 update.

use bytes::{BufMut as _, Bytes, BytesMut};
use yrs::encoding::write::Write as _;

use super::validate::{Cursor, Malformed};

const WITH_OWNERS: u8 = 1;

/// Puts a checkpoint together.
pub(super) fn seal(owners: &[u8], state: Bytes) -> Bytes {
    if owners.is_empty() {
        return state;
    }
    let mut head = vec![WITH_OWNERS];
    head.write_buf(owners);
    let mut out = BytesMut::with_capacity(head.len() + state.len());
    out.put_slice(&head);
    out.put_slice(&state);
    out.freeze()
}

/// Takes a checkpoint apart: whose the client ids are, and the yrs v2 update.
pub(super) fn open(checkpoint: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    if checkpoint.first() != Some(&WITH_OWNERS) {
        return Ok((&[], checkpoint));
    }
    let mut cursor = Cursor { bytes: checkpoint, at: 1 };
    let owners = cursor.blob()?;
    Ok((owners, checkpoint.get(cursor.at..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_comes_apart_as_it_was_put_together() {
        let state = Bytes::from_static(&[0, 7, 8]);
        assert_eq!(seal(&[], state.clone()), state);
        assert_eq!(open(&state), Ok((&[][..], &state[..])));
        let sealed = seal(&[1; 300], state.clone());
        assert_eq!(open(&sealed), Ok((&[1; 300][..], &state[..])));
        assert!(open(&sealed[..200]).is_err());
    }
}
