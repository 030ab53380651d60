//! Frames of the two WebSocket protocols of Yjs, y-websocket and Hocuspocus: making those that a
//! client sends, and reading of those that arrive what a run needs to know.

use bytes::Bytes;

use crate::update::{Reader, write_var};

const SYNC: u8 = 0;
const AUTH: u8 = 2;
const QUERY_AWARENESS: u8 = 3;
/// Hocuspocus alone.
const CLOSE: u8 = 7;
const SYNC_STATUS: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

const STEP_1: u8 = 0;
const STEP_2: u8 = 1;
const UPDATE: u8 = 2;

const TOKEN: u8 = 0;
const DENIED: u8 = 1;
const AUTHENTICATED: u8 = 2;

/// A provider of the version says that it answers pings of the connection.
const PROVIDER_VERSION: &str = "4.8.0";

/// What stands around a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Nothing: the connection is the document's.
    YWebsocket,
    /// The document's name, with its length: in front of every message.
    Hocuspocus { address: Bytes },
}

/// What a server sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// The server's state vector: it wants what that lacks.
    Step1(Bytes),
    /// What the client's state vector lacked.
    Step2(Bytes),
    Update(Bytes),
    /// Hocuspocus: an update or a difference of this session was taken, or was not.
    Status {
        taken: bool,
    },
    /// Hocuspocus: the session may begin.
    Authenticated,
    /// The session may not, for the reason that follows.
    Denied(String),
    /// Hocuspocus: the server has ended the session, for the reason that follows.
    Close(String),
    /// Hocuspocus: the server asks whether the connection is alive.
    Ping,
    /// Nothing that a run looks at.
    Other,
}

/// A frame that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server sent a frame that cannot be read")]
pub(crate) struct BadFrame;

impl Framing {
    pub(crate) fn hocuspocus(document: &str) -> Self {
        let mut address = Vec::with_capacity(document.len() + 2);
        write_bytes(&mut address, document.as_bytes());
        Self::Hocuspocus { address: address.into() }
    }

    /// What this side has. The server answers with Step2.
    pub(crate) fn step1(&self, state_vector: &[u8]) -> Bytes {
        self.frame(&[SYNC, STEP_1], state_vector)
    }

    /// The answer to the server's Step1.
    pub(crate) fn step2(&self, update: &[u8]) -> Bytes {
        self.frame(&[SYNC, STEP_2], update)
    }

    pub(crate) fn update(&self, update: &[u8]) -> Bytes {
        self.frame(&[SYNC, UPDATE], update)
    }

    /// Opens a Hocuspocus session.
    pub(crate) fn token(&self, token: &str) -> Bytes {
        let mut frame = self.frame(&[AUTH, TOKEN], token.as_bytes()).to_vec();
        write_bytes(&mut frame, PROVIDER_VERSION.as_bytes());
        frame.into()
    }

    /// A sign of life that costs a server next to nothing.
    pub(crate) fn query_awareness(&self) -> Bytes {
        let mut frame = self.address().to_vec();
        frame.push(QUERY_AWARENESS);
        frame.into()
    }

    /// The answer to a ping.
    pub(crate) fn pong() -> Bytes {
        Bytes::from_static(&[PONG])
    }

    /// Reads a frame. Payloads share its memory.
    pub(crate) fn read(&self, frame: &Bytes) -> Result<Message, BadFrame> {
        if frame.as_ref() == [PING] && matches!(self, Self::Hocuspocus { .. }) {
            return Ok(Message::Ping);
        }
        // Another document's frame: this session has asked for none.
        let message = frame.strip_prefix(self.address()).ok_or(BadFrame)?;
        self.message(frame, message).ok_or(BadFrame)
    }

    fn message(&self, frame: &Bytes, message: &[u8]) -> Option<Message> {
        let mut reader = Reader(message);
        let kind = reader.byte()?;
        let hocuspocus = matches!(self, Self::Hocuspocus { .. });
        Some(match kind {
            SYNC => {
                let step = reader.byte()?;
                let payload = frame.slice_ref(reader.string()?);
                match step {
                    STEP_1 => Message::Step1(payload),
                    STEP_2 => Message::Step2(payload),
                    UPDATE => Message::Update(payload),
                    _ => return None,
                }
            }
            AUTH if hocuspocus => match reader.byte()? {
                DENIED => Message::Denied(text(reader.string()?)),
                AUTHENTICATED => Message::Authenticated,
                _ => Message::Other,
            },
            // Permission denied is the only thing there is.
            AUTH => {
                reader.byte()?;
                Message::Denied(text(reader.string()?))
            }
            CLOSE if hocuspocus => Message::Close(text(reader.string()?)),
            SYNC_STATUS if hocuspocus => Message::Status { taken: reader.byte()? == 1 },
            _ => Message::Other,
        })
    }

    /// What stands in front of each message.
    pub(crate) fn address(&self) -> &[u8] {
        match self {
            Self::YWebsocket => &[],
            Self::Hocuspocus { address } => address,
        }
    }

    fn frame(&self, kind: &[u8], payload: &[u8]) -> Bytes {
        let mut frame = Vec::with_capacity(self.address().len() + kind.len() + payload.len() + 10);
        frame.extend_from_slice(self.address());
        frame.extend_from_slice(kind);
        write_bytes(&mut frame, payload);
        frame.into()
    }
}

fn write_bytes(frame: &mut Vec<u8>, bytes: &[u8]) {
    write_var(frame, bytes.len() as u64);
    frame.extend_from_slice(bytes);
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An "A" by client 1, in front of the "h" that client 7 wrote before.
    const TYPED: &[u8] = &[1, 1, 1, 0, 0x44, 7, 0, 1, 0x41, 0];
    /// "hi" by client 7 in the root "t".
    const HI: &[u8] = &[1, 1, 7, 0, 4, 1, 1, 0x74, 2, 0x68, 0x69, 0];

    fn bytes(hex: &str) -> Bytes {
        let hex = hex.replace(' ', "");
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex"))
            .collect()
    }

    fn read(framing: &Framing, hex: &str) -> Message {
        framing.read(&bytes(hex)).expect("reads")
    }

    #[test]
    fn a_y_websocket_client_sends_what_the_reference_client_sends() {
        let framing = Framing::YWebsocket;
        assert_eq!(framing.step1(&[0]), bytes("00 00 01 00"));
        assert_eq!(framing.step2(&[0, 0]), bytes("00 01 02 0000"));
        assert_eq!(framing.update(TYPED), bytes("00 02 0a 01010100440700014100"));
    }

    #[test]
    fn what_a_y_websocket_server_sends_is_read() {
        let framing = Framing::YWebsocket;
        let step1 = Message::Step1(bytes("010702"));
        assert_eq!(read(&framing, "00 00 03 010702"), step1);
        let step2 = Message::Step2(HI.into());
        assert_eq!(read(&framing, "00 01 0c 010107000401017402686900"), step2);
        let update = Message::Update(TYPED.into());
        assert_eq!(read(&framing, "00 02 0a 01010100440700014100"), update);
        assert_eq!(read(&framing, "01 06 01 01 00 02 7b7d"), Message::Other);
        assert_eq!(read(&framing, "03"), Message::Other);
        assert_eq!(read(&framing, "02 00 02 6e6f"), Message::Denied("no".to_owned()));
    }

    #[test]
    fn a_hocuspocus_client_sends_what_the_reference_provider_sends() {
        let framing = Framing::hocuspocus("doc");
        assert_eq!(framing.token("tok"), bytes("03646f63 02 00 03746f6b 05342e382e30"));
        assert_eq!(framing.step1(&[0]), bytes("03646f63 00 00 01 00"));
        assert_eq!(framing.step2(&[0, 0]), bytes("03646f63 00 01 02 0000"));
        assert_eq!(framing.update(TYPED), bytes("03646f63 00 02 0a 01010100440700014100"));
        assert_eq!(framing.query_awareness(), bytes("03646f63 03"));
        assert_eq!(Framing::pong(), bytes("0a"));
    }

    #[test]
    fn what_a_hocuspocus_server_sends_is_read() {
        let framing = Framing::hocuspocus("doc");
        let authenticated = "03646f63 02 02 0a726561642d7772697465";
        assert_eq!(read(&framing, authenticated), Message::Authenticated);
        let step1 = Message::Step1(bytes("010702"));
        assert_eq!(read(&framing, "03646f63 00 00 03 010702"), step1);
        let step2 = Message::Step2(HI.into());
        assert_eq!(read(&framing, "03646f63 00 01 0c 010107000401017402686900"), step2);
        assert_eq!(read(&framing, "03646f63 08 01"), Message::Status { taken: true });
        assert_eq!(read(&framing, "03646f63 08 00"), Message::Status { taken: false });
        let update = Message::Update(TYPED.into());
        assert_eq!(read(&framing, "03646f63 00 02 0a 01010100440700014100"), update);
        assert_eq!(read(&framing, "03646f63 02 00"), Message::Other);
        let close = "03646f63 07 10526573657420436f6e6e656374696f6e";
        assert_eq!(read(&framing, close), Message::Close("Reset Connection".to_owned()));
        let denied = Message::Denied("not-allowed".to_owned());
        assert_eq!(read(&framing, "03646f63 02 01 0b6e6f742d616c6c6f776564"), denied);
        assert_eq!(read(&framing, "09"), Message::Ping);
    }

    #[test]
    fn a_frame_that_is_cut_off_or_of_another_document_is_an_error() {
        for cut in ["", "00", "00 02", "00 02 0a 0101", "02 00 05 6e6f"] {
            assert_eq!(Framing::YWebsocket.read(&bytes(cut)), Err(BadFrame), "{cut}");
        }
        assert_eq!(Framing::hocuspocus("other").read(&bytes("03646f63 08 01")), Err(BadFrame));
        assert_eq!(Framing::hocuspocus("doc").read(&bytes("03646f63 08")), Err(BadFrame));
    }
}
