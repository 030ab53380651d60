//! Somebody who came in through one of all doors with a token, and what happened to him there.

use bytes::Bytes;
use cowrite_proto::v1::{Join, server_frame::Frame as Down};
use yrs::Doc;

use crate::{
    Door, HClient, RawSession, RawSocket, TestServer, Told, YClient, join_as, lib0, refused, soon,
    text_update, up,
};

/// A way into the server, of all that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnyDoor {
    /// Edit.
    Edit,
    /// Subscribe and Publish.
    Publish,
    /// y-websocket.
    YWebSocket,
    /// Hocuspocus.
    Hocuspocus,
}

impl AnyDoor {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Edit, Self::Publish, Self::YWebSocket, Self::Hocuspocus];
}

/// How somebody was told that this is the end, in the words of the door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// The reason of a status.
    Status(String),
    /// The code and the reason of a close frame.
    Close(u16, String),
    /// A document was denied on a socket that goes on.
    Denied(String),
}

/// Somebody in a document.
#[derive(Debug)]
pub enum Guest {
    /// By frames.
    Frames(Box<RawSession>),
    /// By y-websocket.
    Y(Box<YClient>),
    /// By Hocuspocus: the client, and the document.
    H(Box<HClient>, String),
}

impl Guest {
    /// Joins `document`, and waits until it is in.
    ///
    /// # Errors
    ///
    /// How it was told that it may not.
    pub async fn enter(
        server: &TestServer,
        door: AnyDoor,
        token: &str,
        document: &str,
    ) -> Result<Self, Farewell> {
        let door = match door {
            AnyDoor::Edit => Door::Edit,
            AnyDoor::Publish => Door::Publish,
            AnyDoor::YWebSocket => {
                let path = format!("{document}?token={token}");
                let mut client = YClient::open(server.address(), &path).await;
                while client.server_state.is_none() || client.differences == 0 {
                    match client.socket.next().await {
                        Told::Message(message) => client.receive(message).await,
                        Told::Ping => {}
                        Told::Closed(code, reason) => return Err(Farewell::Close(code, reason)),
                        Told::Lost => panic!("the connection was lost without a close frame"),
                    }
                }
                return Ok(Self::Y(Box::new(client)));
            }
            AnyDoor::Hocuspocus => {
                let mut client = HClient::connect(server.address()).await;
                client.attach_as(document, token, Doc::new()).await;
                let told = |d: &crate::HDocument| d.denied.is_some() || !d.statuses.is_empty();
                client.wait_until(document, "the answer to the token", told).await;
                return match &client.document(document).denied {
                    Some(why) => Err(Farewell::Denied(why.clone())),
                    None => Ok(Self::H(Box::new(client), document.to_owned())),
                };
            }
        };
        let join = Join { token: token.to_owned(), ..join_as(document, 7) };
        match RawSession::open(server.channel(), door, join).await {
            Ok((session, _)) => Ok(Self::Frames(Box::new(session))),
            Err(status) => Err(Farewell::Status(refused(&status).reason)),
        }
    }

    /// Writes, and waits for what comes of it: `true` if it was taken, `false` if it was refused and
    /// the session goes on.
    ///
    /// # Errors
    ///
    /// How the session ended.
    pub async fn write(&mut self, update_id: u64) -> Result<bool, Farewell> {
        self.write_update(update_id, text_update("w")).await
    }

    /// As [`Self::write`], of this update. Of y-websocket, which acknowledges nothing, an answer to a
    /// question that comes later tells that it was taken.
    ///
    /// # Errors
    ///
    /// How the session ended.
    pub async fn write_update(&mut self, update_id: u64, update: Bytes) -> Result<bool, Farewell> {
        soon("what becomes of an edit", self.written(update_id, update)).await
    }

    async fn written(&mut self, update_id: u64, update: Bytes) -> Result<bool, Farewell> {
        match self {
            Self::Frames(session) => {
                // A refusal shows on the stream as well.
                session.send([up::update(update_id, update)]).await.ok();
                loop {
                    match session.next().await {
                        Ok(Some(Down::Ack(ack))) if ack.update_id >= update_id => return Ok(true),
                        Ok(Some(Down::Refused(_))) => return Ok(false),
                        Ok(Some(_)) => {}
                        Ok(None) => panic!("the stream ended with OK"),
                        Err(status) => return Err(Farewell::Status(refused(&status).reason)),
                    }
                }
            }
            Self::Y(client) => {
                let (denied, answers) = (client.denied.len(), client.differences);
                client.socket.send_bytes(lib0::message(&[0, 2], &update)).await;
                client.socket.send_bytes(lib0::message(&[0, 0], &[0])).await;
                while client.differences == answers {
                    match client.socket.next().await {
                        Told::Message(message) => client.receive(message).await,
                        Told::Ping => {}
                        Told::Closed(code, reason) => return Err(Farewell::Close(code, reason)),
                        Told::Lost => panic!("the connection was lost without a close frame"),
                    }
                }
                // It is said once.
                Ok(client.denied.len() == denied && client.denied.is_empty())
            }
            Self::H(client, document) => {
                let count = client.document(document).statuses.len();
                client.send(document, &lib0::message(&[0, 2], &update)).await;
                let told = |d: &crate::HDocument| {
                    d.statuses.len() > count || d.denied.is_some() || d.closed.is_some()
                };
                client.wait_until(document, "a status", told).await;
                let document = client.document(document);
                match document.denied.clone().or_else(|| document.closed.clone()) {
                    Some(why) => Err(Farewell::Denied(why)),
                    None => Ok(document.statuses.back() == Some(&true)),
                }
            }
        }
    }

    /// Shows a new token, if the door has a way to.
    pub async fn show(&mut self, token: &str) {
        match self {
            Self::Frames(session) => drop(session.send([up::refresh_token(token)]).await),
            Self::Y(_) => panic!("y-websocket has no way to"),
            Self::H(client, document) => client.show(document, token).await,
        }
    }

    /// Waits for the end.
    pub async fn end(&mut self) -> Farewell {
        // As a whole: keepalives come for ever.
        soon("the end of a session", self.ended()).await
    }

    async fn ended(&mut self) -> Farewell {
        match self {
            Self::Frames(session) => match session.end().await {
                (_, Some(status)) => Farewell::Status(refused(&status).reason),
                (_, None) => panic!("the stream ended with OK"),
            },
            Self::Y(client) => {
                let (code, reason) = client.socket.end().await;
                Farewell::Close(code, reason)
            }
            Self::H(client, document) => {
                client.wait_until(document, "the end", |document| document.denied.is_some()).await;
                Farewell::Denied(client.document(document).denied.clone().unwrap_or_default())
            }
        }
    }

    /// The socket, if there is one.
    #[must_use]
    pub fn socket(&mut self) -> Option<&mut RawSocket> {
        match self {
            Self::Frames(_) => None,
            Self::Y(client) => Some(&mut client.socket),
            Self::H(client, _) => Some(&mut client.socket),
        }
    }
}
