//! The way from a socket to one of its sessions: frames that were read and not taken yet, few.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

use crate::session::{CloseReason, Delivery, Frame, Inbound};

/// Frames that wait for a session, from which on its socket is not read.
const FRAMES_MAX: usize = 64;

/// Bytes of frames that wait for a session, from which on its socket is not read.
const BYTES_MAX: usize = 64 << 10;

/// Where the frames of a session go in. Dropped, the session ends after them.
#[derive(Debug)]
pub(in super::super) struct Feed {
    slot: Arc<Mutex<Slot>>,
}

/// Where the session takes them.
#[derive(Debug)]
pub(in super::super) struct Fed {
    slot: Arc<Mutex<Slot>>,
}

#[derive(Debug, Default)]
struct Slot {
    frames: Vec<Frame>,
    bytes: usize,
    /// The session, which waits for frames.
    reader: Option<Waker>,
    /// The socket, which waits for room.
    writer: Option<Waker>,
    /// One of both is gone.
    is_closed: bool,
}

/// A way for frames, on which `first` is already.
pub(in super::super) fn feed(first: Frame) -> (Feed, Fed) {
    let slot = Slot { frames: vec![first], ..Slot::default() };
    let slot = Arc::new(Mutex::new(slot));
    (Feed { slot: Arc::clone(&slot) }, Fed { slot })
}

impl Feed {
    /// Whether there is room for a message.
    pub(in super::super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut slot = self.slot.lock();
        let has_room = slot.frames.len() < FRAMES_MAX && slot.bytes < BYTES_MAX;
        if has_room || slot.is_closed {
            return Poll::Ready(());
        }
        slot.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Hands over a frame of this many bytes. For a session that has ended it is thrown away.
    pub(in super::super) fn push(&self, frame: Frame, bytes: usize) {
        let mut slot = self.slot.lock();
        if slot.is_closed {
            return;
        }
        slot.frames.push(frame);
        slot.bytes += bytes;
        if let Some(reader) = slot.reader.take() {
            reader.wake();
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let mut slot = self.slot.lock();
        slot.is_closed = true;
        if let Some(reader) = slot.reader.take() {
            reader.wake();
        }
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        let mut slot = self.slot.lock();
        slot.is_closed = true;
        slot.frames = Vec::new();
        if let Some(writer) = slot.writer.take() {
            writer.wake();
        }
    }
}

impl Inbound for Fed {
    const WAITS: bool = true;

    async fn next(&mut self) -> Option<Result<Delivery, CloseReason>> {
        std::future::poll_fn(|cx| {
            let mut slot = self.slot.lock();
            if !slot.frames.is_empty() {
                let frames = std::mem::take(&mut slot.frames);
                slot.bytes = 0;
                if let Some(writer) = slot.writer.take() {
                    writer.wake();
                }
                return Poll::Ready(Some(Ok(Delivery { frames, reply: None })));
            }
            if slot.is_closed {
                return Poll::Ready(None);
            }
            slot.reader = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_arrive_in_order_and_no_more_are_taken_than_fit() {
        let (feed, mut fed) = feed(Frame::Leave);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(feed.poll_ready(&mut cx).is_ready());
        feed.push(Frame::Pong, BYTES_MAX);
        assert!(feed.poll_ready(&mut cx).is_pending());
        let delivery = fed.next().await.unwrap().unwrap();
        assert_eq!(delivery.frames, [Frame::Leave, Frame::Pong]);
        assert!(feed.poll_ready(&mut cx).is_ready());
        for _ in 0..FRAMES_MAX {
            feed.push(Frame::Pong, 0);
        }
        assert!(feed.poll_ready(&mut cx).is_pending());
        drop(feed);
        assert_eq!(fed.next().await.unwrap().unwrap().frames.len(), FRAMES_MAX);
        assert!(fed.next().await.is_none());
    }
}
