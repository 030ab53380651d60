//! A request that has to be complete in time.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};
use tonic::Status;

/// The body of a request whose last byte has to come within a time. Who is served from it waits for
/// the whole of it, and would be kept for ever by a client that sends a byte now and then.
#[derive(Debug)]
pub(super) struct Timely {
    body: Incoming,
    deadline: Pin<Box<Sleep>>,
}

impl Timely {
    /// `body`, which has `within` from now on.
    pub(super) fn new(body: Incoming, within: Duration) -> Self {
        Self { body, deadline: Box::pin(sleep(within)) }
    }
}

impl Body for Timely {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        // First, because a client may always have one more byte.
        if self.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(Status::deadline_exceeded(
                "the request was not complete in time",
            ))));
        }
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        frame.map_err(|error| Status::from_error(Box::new(error)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
