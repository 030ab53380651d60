//! Encodes events for gRPC: what many sessions get is encoded once and copied from there.

use std::marker::PhantomData;

use bytes::{BufMut, Bytes, BytesMut};
use cowrite_proto::v1::{
    AccessChanged, Ack, Closing, EditResponse, Joined, Limits, Ping, Refused, ServerAwareness,
    ServerFrame, ServerUpdate, SyncChunk, server_frame::Frame,
};
use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use super::status;
use crate::session::{self, Access, Event};

/// The place of gRPC among the wire formats of shared events.
const FORMAT: usize = 0;

/// Bytes that a stream reserves for reading and writing at first. Most messages are keystrokes, and
/// tonic's 8 KiB for each direction would be most of what an idle session costs.
const BUFFER_BYTES: usize = 512;

/// When a stream writes although there is more: tonic's own value.
const YIELD_BYTES: usize = 32 << 10;

/// One response message: events in order, and what a Joined needs to know besides.
#[derive(Debug)]
pub struct Frames {
    /// In order.
    pub events: Vec<Event>,
    /// What the doors promise, for Joined.
    pub terms: Terms,
}

/// What the doors promise to a client, told in Joined.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The secret of a session that is fed by Publish.
    pub secret: Option<Bytes>,
    /// Heartbeat and limits.
    pub common: std::sync::Arc<CommonTerms>,
}

/// What is the same for all sessions.
#[derive(Clone, Copy, Debug)]
pub struct CommonTerms {
    /// From the last frame to a ping.
    pub heartbeat_interval: std::time::Duration,
    /// From the last frame to the end.
    pub heartbeat_timeout: std::time::Duration,
    /// Limits in bytes.
    pub limits: Limits,
}

/// Decodes requests with prost, and encodes events.
#[derive(Debug)]
pub struct FrameCodec<T>(PhantomData<T>);

impl<T> Default for FrameCodec<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + Default + Send + 'static> Codec for FrameCodec<T> {
    type Encode = Frames;
    type Decode = T;
    type Encoder = FrameEncoder;
    type Decoder = FrameDecoder<T>;

    fn encoder(&mut self) -> Self::Encoder {
        FrameEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        FrameDecoder(PhantomData)
    }
}

/// Encodes events.
#[derive(Debug)]
pub struct FrameEncoder;

impl Encoder for FrameEncoder {
    type Item = Frames;
    type Error = Status;

    fn encode(&mut self, frames: Frames, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        for event in &frames.events {
            match shared(event) {
                Some(bytes) => dst.put_slice(&bytes),
                None => {
                    if let Some(frame) = to_frame(event, &frames.terms) {
                        encode(frame, dst);
                    }
                }
            }
        }
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}

/// Decodes requests.
#[derive(Debug)]
pub struct FrameDecoder<T>(PhantomData<T>);

impl<T: Message + Default> Decoder for FrameDecoder<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        T::decode(src).map(Some).map_err(|error| status::malformed_message(&error))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}

/// The encoding of an event that goes to many, made once.
fn shared(event: &Event) -> Option<Bytes> {
    match event {
        Event::Update(update) => Some(update.encoded(FORMAT, |update| one(to_update(update)))),
        Event::Chunk(chunk) => Some(chunk.encoded(FORMAT, |chunk| one(to_chunk(chunk)))),
        Event::Awareness(state) => Some(state.encoded(FORMAT, |state| one(to_awareness(state)))),
        Event::Joined(_)
        | Event::Ack { .. }
        | Event::Refused { .. }
        | Event::Ping { .. }
        | Event::AccessChanged(_)
        | Event::TokenExpiring
        | Event::Closing { .. } => None,
    }
}

/// One frame as a whole response message: messages of one repeated field can be concatenated.
fn one(frame: Frame) -> Bytes {
    let mut bytes = BytesMut::new();
    encode(frame, &mut bytes);
    bytes.freeze()
}

fn encode(frame: Frame, dst: &mut impl BufMut) {
    let message = EditResponse { frames: vec![ServerFrame { frame: Some(frame) }] };
    // The buffer grows as needed, so that there is always room.
    let encoded = message.encode(dst);
    debug_assert!(encoded.is_ok());
}

/// An event as a frame; nothing for what our own clients are not told.
fn to_frame(event: &Event, terms: &Terms) -> Option<Frame> {
    Some(match event {
        Event::Joined(joined) => Frame::Joined(to_joined(joined, terms)),
        Event::Ack { update_id, sequence } => {
            Frame::Ack(Ack { update_id: *update_id, sequence: sequence.0 })
        }
        Event::Refused { update_id, reason } => {
            let (update_id, message) = (*update_id, reason.to_string());
            let (code, retry_after) = status::refusal(*reason);
            let retry_after = retry_after.and_then(|after| after.try_into().ok());
            Frame::Refused(Refused { update_id, reason: code.into(), message, retry_after })
        }
        Event::Ping { nonce } => Frame::Ping(Ping { nonce: *nonce }),
        Event::AccessChanged(access) => {
            Frame::AccessChanged(AccessChanged { access: to_access(*access).into() })
        }
        Event::Closing { reason, retry_after } => Frame::Closing(Closing {
            reason: status::reason(reason).into(),
            retry_after: retry_after.and_then(|after| after.try_into().ok()),
        }),
        Event::Update(update) => to_update(update.get()),
        Event::Chunk(chunk) => to_chunk(chunk.get()),
        Event::Awareness(state) => to_awareness(state.get()),
        Event::TokenExpiring => return None,
    })
}

fn to_update(update: &session::Update) -> Frame {
    Frame::Update(ServerUpdate { sequence: update.sequence.0, update: update.update.clone() })
}

fn to_chunk(chunk: &session::Chunk) -> Frame {
    let (bytes, sequence) = (chunk.bytes.clone(), chunk.sequence.0);
    Frame::SyncChunk(SyncChunk { bytes, last: chunk.last, sequence })
}

fn to_awareness(state: &session::AwarenessState) -> Frame {
    let (client_id, clock) = (state.client_id, state.clock);
    Frame::Awareness(ServerAwareness { client_id, clock, state: state.state.clone() })
}

fn to_access(access: Access) -> cowrite_proto::v1::Access {
    match access {
        Access::Read => cowrite_proto::v1::Access::Read,
        Access::Comment => cowrite_proto::v1::Access::Comment,
        Access::Write | Access::Admin => cowrite_proto::v1::Access::Write,
    }
}

fn to_joined(joined: &session::Joined, terms: &Terms) -> Joined {
    Joined {
        session_id: joined.session.to_string(),
        session_secret: terms.secret.clone().unwrap_or_default(),
        epoch: joined.epoch.map(|epoch| Bytes::copy_from_slice(&epoch.0)).unwrap_or_default(),
        access: to_access(joined.access).into(),
        state_vector: joined.state_vector.clone(),
        sync_sequence: joined.sync_sequence.0,
        heartbeat_interval: terms.common.heartbeat_interval.try_into().ok(),
        heartbeat_timeout: terms.common.heartbeat_timeout.try_into().ok(),
        limits: Some(terms.common.limits),
        resumed: joined.resumed,
    }
}
