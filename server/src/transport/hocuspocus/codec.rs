//! The messages of Hocuspocus: an address, a kind, and what belongs to it.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::super::{
    lib0::{Malformed, Reader, put_bytes},
    yjs::{self, Sync},
};
use crate::session::{Access, AwarenessState};

/// The longest address, in bytes: twice a document id.
const ADDRESS_BYTES_MAX: usize = 256;

/// A message, of which the address has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Incoming {
    /// The name of the document, perhaps with a session behind a zero.
    pub(super) address: Bytes,
    /// The kind and what belongs to it.
    pub(super) rest: Bytes,
}

/// What came on a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// A message to a document.
    Message(Incoming),
    /// The client asks for a sign of life of the connection.
    Ping,
    /// The client has answered such a question, which is not asked here.
    Pong,
}

/// A message to a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ToDocument {
    /// Sync.
    Sync(Sync),
    /// Awareness states.
    Awareness(Vec<AwarenessState>),
    /// A token.
    Token(String),
    /// Asks for awareness: everything was told already.
    QueryAwareness,
    /// A message of an application, for extensions of the server.
    Stateless,
    /// The client goes.
    Close,
}

/// How a document ends, as far as its client is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Coming back cannot help.
    Denied,
    /// The client has made a mistake.
    Closed,
    /// Coming back helps.
    ComeBack,
}

/// Reads what came, up to the address.
pub(super) fn read(message: Bytes) -> Result<Received, Malformed> {
    match message[..] {
        [9] => return Ok(Received::Ping),
        [10] => return Ok(Received::Pong),
        _ => {}
    }
    let mut reader = Reader::new(message);
    let address = reader.text()?.into_bytes();
    if name(&address).is_empty() {
        return Err(Malformed("an empty address"));
    }
    if address.len() > ADDRESS_BYTES_MAX {
        return Err(Malformed("an address that is too long"));
    }
    Ok(Received::Message(Incoming { address, rest: reader.into_rest() }))
}

/// The name of the document in an address.
pub(super) fn name(address: &[u8]) -> &[u8] {
    address.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The token, if this is a message with one.
pub(super) fn token(rest: Bytes) -> Result<Option<String>, Malformed> {
    match rest.first() {
        Some(2) => match read_rest(rest)? {
            ToDocument::Token(token) => Ok(Some(token)),
            ToDocument::Sync(_)
            | ToDocument::Awareness(_)
            | ToDocument::QueryAwareness
            | ToDocument::Stateless
            | ToDocument::Close => Ok(None),
        },
        _ => Ok(None),
    }
}

/// Whether this is the message of a client that goes.
pub(super) fn is_close(rest: &[u8]) -> bool {
    rest == [7]
}

/// Reads what comes after the address.
pub(super) fn read_rest(rest: Bytes) -> Result<ToDocument, Malformed> {
    let mut reader = Reader::new(rest);
    let message = match reader.number()? {
        // 4 is an answer that must not be asked back, as between servers.
        yjs::SYNC | 4 => ToDocument::Sync(Sync::read(&mut reader)?),
        yjs::AWARENESS => ToDocument::Awareness(yjs::read_awareness(&mut reader)?),
        yjs::AUTH => {
            if reader.number()? != 0 {
                return Err(Malformed("an authentication message that only servers send"));
            }
            let token = reader.text()?.as_str().to_owned();
            // Version 4 says which it is.
            if !reader.is_empty() {
                reader.text()?;
            }
            ToDocument::Token(token)
        }
        yjs::QUERY_AWARENESS => ToDocument::QueryAwareness,
        5 => {
            reader.text()?;
            ToDocument::Stateless
        }
        6 => return Err(Malformed("a broadcast, which only servers send")),
        7 => ToDocument::Close,
        _ => return Err(Malformed("an unknown kind of message")),
    };
    if reader.is_empty() { Ok(message) } else { Err(Malformed("bytes after the message")) }
}

/// The beginning of each message to this address.
pub(super) fn head(address: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(address.len() + 2);
    put_bytes(&mut out, address);
    out.freeze()
}

/// "You are authenticated", with what the client may do.
pub(super) fn authenticated(access: Access) -> Bytes {
    let scope: &[u8] = match access {
        // Who may only comment is shown the document as somebody who may only read.
        Access::Read | Access::Comment => b"readonly",
        Access::Write | Access::Admin => b"read-write",
    };
    let mut out = BytesMut::from(&[2, 2][..]);
    put_bytes(&mut out, scope);
    out.freeze()
}

/// "Send a token": a client answers with the token that it has now.
pub(super) const TOKEN_SYNC: &[u8] = &[2, 0];

/// "Permission denied".
pub(super) fn denied(reason: &str) -> Bytes {
    let mut out = BytesMut::from(&[2, 1][..]);
    put_bytes(&mut out, reason.as_bytes());
    out.freeze()
}

/// The end of a document.
pub(super) fn closed(reason: &str) -> Bytes {
    let mut out = BytesMut::from(&[7][..]);
    put_bytes(&mut out, reason.as_bytes());
    out.freeze()
}

/// Whether an update was taken, to this head.
pub(super) fn sync_status(head: &[u8], is_taken: bool) -> Bytes {
    let mut out = BytesMut::with_capacity(head.len() + 2);
    out.put_slice(head);
    out.put_slice(&[8, u8::from(is_taken)]);
    out.freeze()
}

/// A sign of life.
pub(super) fn pong() -> Bytes {
    Bytes::from_static(&[10])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Bytes {
        let digits: Vec<_> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
        digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
    }

    fn message(hex: &str) -> ToDocument {
        let Received::Message(Incoming { address, rest }) = read(bytes(hex)).unwrap() else {
            panic!("no message");
        };
        assert_eq!(address, "doc");
        read_rest(rest).unwrap()
    }

    /// Frames of provider 4.8.0.
    const CAPTURED: &[&str] = &[
        "03646f63 02 00 03746f6b 05342e382e30",
        "03646f63 00 00 01 00",
        "03646f63 01 06 010100027b7d",
        "03646f63 00 01 02 0000",
        "03646f63 00 02 0a 01010100440700014100",
        "03646f63 05 0470696e67",
        "03646f63 07",
    ];

    #[test]
    fn the_messages_of_a_provider_are_read() {
        let state = AwarenessState { client_id: 1, clock: 0, state: Bytes::from_static(b"{}") };
        let expected = [
            ToDocument::Token("tok".to_owned()),
            ToDocument::Sync(Sync::Step1(bytes("00"))),
            ToDocument::Awareness(vec![state]),
            ToDocument::Sync(Sync::Step2(bytes("0000"))),
            ToDocument::Sync(Sync::Update(bytes("01010100440700014100"))),
            ToDocument::Stateless,
            ToDocument::Close,
        ];
        for (hex, expected) in CAPTURED.iter().zip(expected) {
            assert_eq!(message(hex), expected, "{hex}");
        }
        assert_eq!(message("03646f63 02 00 03746f6b"), ToDocument::Token("tok".to_owned()), "v3");
        assert_eq!(read(bytes("09")), Ok(Received::Ping));
        assert_eq!(read(bytes("0a")), Ok(Received::Pong));
        assert_eq!(name(b"doc\0sess1"), b"doc");
    }

    #[test]
    fn the_messages_to_a_provider_are_those_of_the_reference() {
        let head = head(b"doc");
        let with_head = |body: &Bytes| [&head[..], body].concat();
        assert_eq!(
            with_head(&authenticated(Access::Write)),
            bytes("03646f63 02 02 0a726561642d7772697465")
        );
        assert_eq!(
            with_head(&authenticated(Access::Read)),
            bytes("03646f63 02 02 08726561646f6e6c79")
        );
        assert_eq!(
            with_head(&denied("not-allowed")),
            bytes("03646f63 02 01 0b6e6f742d616c6c6f776564")
        );
        assert_eq!(
            with_head(&closed("Reset Connection")),
            bytes("03646f63 07 10526573657420436f6e6e656374696f6e")
        );
        assert_eq!(sync_status(&head, true), bytes("03646f63 08 01"));
        assert_eq!(sync_status(&head, false), bytes("03646f63 08 00"));
        assert_eq!(with_head(&yjs::step1(&bytes("010702"))), bytes("03646f63 00 00 03 010702"));
    }

    #[test]
    fn a_part_of_a_message_is_refused_and_so_is_one_that_goes_on() {
        let whole = |message: Bytes| match read(message)? {
            Received::Message(incoming) => read_rest(incoming.rest),
            Received::Ping | Received::Pong => Err(Malformed("no message")),
        };
        for hex in CAPTURED {
            let message = bytes(hex);
            for end in 0..message.len() {
                let part = message.slice(..end);
                // Version 3 ends with the token.
                let is_version_3 = *hex == CAPTURED[0] && end == 10;
                assert_eq!(whole(part).is_ok(), is_version_3, "{hex} up to {end}");
            }
            let longer = [&message[..], &[0]].concat();
            let is_empty_version = message[..] == bytes("03646f63 02 00 03746f6b")[..];
            assert!(whole(longer.into()).is_err() || is_empty_version, "{hex} and more");
        }
        for hex in ["00", "00 00", "01 00 00", "02c328 00", "03646f63 06 00", "03646f63 0b"] {
            assert!(whole(bytes(hex)).is_err(), "{hex}");
        }
        let long = [&[0x81, 0x02][..], &[b'x'; 257], &[7]].concat();
        assert!(read(long.into()).is_err());
    }
}
