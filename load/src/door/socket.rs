//! A session over a WebSocket, as a Yjs provider without awareness has it.

use std::{collections::VecDeque, future::pending, sync::Arc, time::Duration};

use bytes::Bytes;
use cowrite_client::{ErrorReason, JoinOptions};
use futures_util::{
    FutureExt as _, SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use parking_lot::Mutex;
use tokio::{
    net::TcpStream,
    sync,
    task::JoinSet,
    time::{Instant, Interval, interval_at},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Message as Frame, client::IntoClientRequest as _, protocol::WebSocketConfig},
};

use super::{
    Door, Entrance, Event, Joined,
    wire::{BadFrame, Framing, Message},
};
use crate::error::SessionError;

/// For each direction of a connection. The libraries' 128 KiB are slow to fill with small frames.
const BUFFER_BYTES: usize = 16 << 10;
/// What comes in one go is counted at one time: no more than this, or the time would be wrong.
const TOGETHER_MAX: usize = 64;
/// A Hocuspocus server ends a session that sends nothing for 60 s. A provider renews its awareness
/// every 15 s.
const SIGN_OF_LIFE: Duration = Duration::from_secs(20);
/// The Yjs v1 update, or state vector, of nothing.
const EMPTY_UPDATE: &[u8] = &[0, 0];
const EMPTY_STATE_VECTOR: &[u8] = &[0];

type Socket = WebSocketStream<TcpStream>;

/// The way up of a session.
#[derive(Debug, Clone)]
pub(crate) struct Sender(Arc<Up>);

#[derive(Debug)]
struct Up {
    framing: Framing,
    sink: sync::Mutex<SplitSink<Socket, Frame>>,
    /// What the server is going to answer, in order: to an update, or to something that no update
    /// id stands for. Extended while the sink is locked.
    due: Mutex<VecDeque<Option<u64>>>,
}

impl Up {
    /// Puts a frame into the buffer of the connection. `due` is what its answer will stand for.
    async fn feed(&self, frame: Bytes, due: Option<Option<u64>>) -> Result<(), SessionError> {
        let mut sink = self.sink.lock().await;
        self.due.lock().extend(due);
        Ok(sink.feed(Frame::Binary(frame)).await?)
    }

    async fn flush(&self) -> Result<(), SessionError> {
        Ok(self.sink.lock().await.flush().await?)
    }

    async fn send(&self, frame: Bytes, due: Option<Option<u64>>) -> Result<(), SessionError> {
        self.feed(frame, due).await?;
        self.flush().await
    }

    /// Each update and each Step2 is answered.
    fn acknowledges(&self) -> bool {
        matches!(self.framing, Framing::Hocuspocus { .. })
    }
}

impl Sender {
    pub(crate) async fn update(&self, update_id: u64, update: &[u8]) -> Result<(), SessionError> {
        let due = self.0.acknowledges().then_some(Some(update_id));
        self.0.feed(self.0.framing.update(update), due).await
    }

    pub(crate) async fn flush(&self) -> Result<(), SessionError> {
        self.0.flush().await
    }

    pub(crate) fn must_be_asked(&self) -> bool {
        !self.0.acknowledges()
    }

    /// A server that does not acknowledge still answers Step1, after what came before it.
    pub(crate) async fn request_ack(
        &self,
        update_id: u64,
        state_vector: &[u8],
    ) -> Result<(), SessionError> {
        self.0.send(self.0.framing.step1(state_vector), Some(Some(update_id))).await
    }
}

/// The way down of a session.
#[derive(Debug)]
pub(crate) struct Receiver {
    stream: SplitStream<Socket>,
    up: Arc<Up>,
    /// Read and not taken yet.
    ready: VecDeque<Event>,
    /// How many events were taken since the socket was last waited for.
    together: usize,
    authenticated: bool,
    state_vector: Option<Bytes>,
    /// When to send a sign of life, at a door that wants one.
    life: Option<Interval>,
    /// Answers on their way: one who reads must not wait until the server reads.
    answers: JoinSet<()>,
}

/// Opens a session and receives the initial state, which is the first event then.
pub(crate) async fn open(
    entrance: &Entrance,
    options: JoinOptions,
) -> Result<(Sender, Receiver, Joined), SessionError> {
    let framing = match entrance.door {
        Door::Hocuspocus => Framing::hocuspocus(&options.document),
        Door::Grpc | Door::GrpcWeb | Door::YWebsocket => Framing::YWebsocket,
    };
    let (sink, stream) = connect(&address(entrance, &options.document)).await?.split();
    let hocuspocus = matches!(framing, Framing::Hocuspocus { .. });
    let token = framing.token(&options.token);
    let state_vector = Some(&options.state_vector[..]).filter(|bytes| !bytes.is_empty());
    let step1 = framing.step1(state_vector.unwrap_or(EMPTY_STATE_VECTOR));
    let up = Arc::new(Up { framing, sink: sync::Mutex::new(sink), due: Mutex::default() });
    let mut receiver = Receiver {
        stream,
        up: Arc::clone(&up),
        ready: VecDeque::new(),
        together: 0,
        authenticated: !hocuspocus,
        state_vector: None,
        life: hocuspocus.then(|| interval_at(Instant::now() + SIGN_OF_LIFE, SIGN_OF_LIFE)),
        answers: JoinSet::new(),
    };
    if hocuspocus {
        up.feed(token, None).await?;
        up.send(step1, None).await?;
    } else {
        up.send(step1, Some(None)).await?;
    }
    loop {
        receiver.read().await?;
        let has_state = receiver.ready.iter().any(|event| matches!(event, Event::State { .. }));
        if let Some(state_vector) = &receiver.state_vector
            && receiver.authenticated
            && has_state
        {
            let joined = Joined {
                state_vector: state_vector.clone(),
                epoch: Bytes::new(),
                sync_sequence: 0,
                resumed: false,
            };
            return Ok((Sender(up), receiver, joined));
        }
    }
}

/// What to connect to: `ws://` is taken as a provider takes it, `http://` is a Cowrite server.
fn address(entrance: &Entrance, document: &str) -> String {
    let Entrance { url, door } = entrance;
    let of_cowrite = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
    match (door, of_cowrite) {
        (Door::Hocuspocus, Some(host)) => format!("ws://{host}/hocuspocus"),
        (Door::Hocuspocus, None) => url.clone(),
        (_, Some(host)) => format!("ws://{host}/yjs/{document}"),
        (_, None) => format!("{}/{document}", url.trim_end_matches('/')),
    }
}

async fn connect(url: &str) -> Result<Socket, SessionError> {
    let request = url.into_client_request()?;
    let uri = request.uri();
    let host = uri.host().ok_or(SessionError::Address)?;
    if uri.scheme_str() != Some("ws") {
        return Err(SessionError::Address);
    }
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?;
    stream.set_nodelay(true)?;
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_message_size(None)
        .max_frame_size(None);
    Ok(client_async_with_config(request, stream, Some(config)).await?.0)
}

impl Receiver {
    /// The next event.
    pub(crate) async fn next(&mut self) -> Result<Event, SessionError> {
        self.together = 0;
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            self.read().await?;
        }
    }

    /// The next event if it is here already.
    pub(crate) fn next_buffered(&mut self) -> Result<Option<Event>, SessionError> {
        self.together += 1;
        if self.together > TOGETHER_MAX {
            return Ok(None);
        }
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            match self.stream.next().now_or_never() {
                Some(frame) => self.frame(frame.ok_or(SessionError::Ended)??)?,
                None => return Ok(None),
            }
        }
    }

    /// Reads one frame, or gives a sign of life.
    async fn read(&mut self) -> Result<(), SessionError> {
        tokio::select! {
            biased;
            frame = self.stream.next() => self.frame(frame.ok_or(SessionError::Ended)??),
            () = tick(&mut self.life) => {
                self.answer(self.up.framing.query_awareness(), None);
                Ok(())
            }
        }
    }

    fn frame(&mut self, frame: Frame) -> Result<(), SessionError> {
        match frame {
            Frame::Binary(bytes) => {
                let message = self.up.framing.read(&bytes)?;
                self.message(message)
            }
            Frame::Close(Some(close)) => Err(SessionError::Closed {
                code: close.code.into(),
                reason: close.reason.as_str().to_owned(),
            }),
            Frame::Close(None) => Err(SessionError::Ended),
            Frame::Text(_) => Err(BadFrame.into()),
            // Pings have been answered.
            Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_) => Ok(()),
        }
    }

    fn message(&mut self, message: Message) -> Result<(), SessionError> {
        match message {
            Message::Update(update) => self.ready.push_back(Event::Update(update)),
            Message::Step1(state_vector) => {
                self.state_vector.get_or_insert(state_vector);
                // All that this side has, it has from the server or has sent.
                let due = self.up.acknowledges().then_some(None);
                self.answer(self.up.framing.step2(EMPTY_UPDATE), due);
            }
            Message::Step2(update) => {
                self.ready.push_back(Event::State { update, sequence: 0 });
                if !self.up.acknowledges()
                    && let Some(Some(update_id)) = self.up.due.lock().pop_front()
                {
                    self.ready.push_back(Event::Ack { update_id });
                }
            }
            Message::Status { taken } => {
                let due = self.up.due.lock().pop_front();
                match due.ok_or(SessionError::Protocol("an acknowledgement of nothing"))? {
                    Some(update_id) if taken => self.ready.push_back(Event::Ack { update_id }),
                    Some(_) => self.ready.push_back(Event::Refused(ErrorReason::Unspecified)),
                    None => {}
                }
            }
            Message::Authenticated => self.authenticated = true,
            Message::Denied(reason) => return Err(SessionError::Denied(reason)),
            Message::Close(reason) => return Err(SessionError::Closed { code: 1000, reason }),
            Message::Ping => self.answer(Framing::pong(), None),
            Message::Other => {}
        }
        Ok(())
    }

    fn answer(&mut self, frame: Bytes, due: Option<Option<u64>>) {
        while self.answers.try_join_next().is_some() {}
        let up = Arc::clone(&self.up);
        self.answers.spawn(async move {
            // A connection that is broken is broken for the one who reads too.
            up.send(frame, due).await.ok();
        });
    }
}

async fn tick(life: &mut Option<Interval>) {
    match life {
        Some(life) => drop(life.tick().await),
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_providers_or_that_of_a_cowrite_server() {
        let address = |url: &str, door| address(&Entrance { url: url.to_owned(), door }, "a/b");
        assert_eq!(address("http://host:1", Door::YWebsocket), "ws://host:1/yjs/a/b");
        assert_eq!(address("ws://host:1/base/", Door::YWebsocket), "ws://host:1/base/a/b");
        assert_eq!(address("http://host:1/", Door::Hocuspocus), "ws://host:1/hocuspocus");
        assert_eq!(address("ws://host:1", Door::Hocuspocus), "ws://host:1");
    }
}
