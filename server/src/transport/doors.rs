//! Which door a request goes to: native collaboration calls take the short way.
//!
//! A response stream is polled once for each frame, through every layer that wraps its body. The
//! router with gRPC-Web and CORS adds six of them, which is a good part of what a delivery costs.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::Router;
use http::{HeaderMap, Request, Response, header};
use hyper::body::Incoming;
use tonic::{body::Body, server::NamedService};
use tower::Service;

use super::{
    grpc::{Collaboration, generated::collaboration_service_server::CollaborationServiceServer},
    hocuspocus::Hocuspocus,
    timely::Timely,
    websocket::{Offer, Upgrades, credentials, percent_decoded},
    y_websocket::{self, YWebSocket},
};

/// Everything that is served on one port. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Doors {
    collaboration: Option<CollaborationServiceServer<Collaboration>>,
    websockets: Option<Upgrades>,
    router: Router,
    request_timeout: Duration,
}

impl Doors {
    /// The collaboration service, WebSockets, and everything including the service for those who do
    /// not come natively. What is not a stream has to be asked for within `request_timeout`.
    pub(super) fn new(
        collaboration: CollaborationServiceServer<Collaboration>,
        websockets: Upgrades,
        router: Router,
        request_timeout: Duration,
    ) -> Self {
        let (collaboration, websockets) = (Some(collaboration), Some(websockets));
        Self { collaboration, websockets, router, request_timeout }
    }

    /// A router alone.
    #[must_use]
    pub fn plain(router: Router, request_timeout: Duration) -> Self {
        Self { collaboration: None, websockets: None, router, request_timeout }
    }
}

impl Service<Request<Incoming>> for Doors {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        if let Some(upgrades) = &self.websockets
            && let Some(door) = WebSocketDoor::of(&request)
        {
            return Box::pin(std::future::ready(Ok(door.answer(upgrades, request))));
        }
        let within = self.request_timeout;
        let method = native_method(request.uri().path(), request.headers());
        match &mut self.collaboration {
            // It goes on for as long as its session.
            Some(collaboration) if method == Some("Edit") => collaboration.call(request),
            Some(collaboration) if method.is_some() => {
                collaboration.call(request.map(|body| Timely::new(body, within)))
            }
            _ => {
                let body = |body| axum::body::Body::new(Timely::new(body, within));
                let answer = self.router.call(request.map(body));
                Box::pin(async move { answer.await.map(|response| response.map(Body::new)) })
            }
        }
    }
}

/// Which WebSocket door a request is for.
enum WebSocketDoor {
    /// This document, not checked yet.
    Yjs(String),
    /// Any documents.
    Hocuspocus,
}

impl WebSocketDoor {
    fn of(request: &Request<Incoming>) -> Option<Self> {
        let path = request.uri().path();
        if path == "/hocuspocus" || path.starts_with("/hocuspocus/") {
            return Some(Self::Hocuspocus);
        }
        let document = path.strip_prefix("/yjs/")?;
        // What cannot be decoded is no document id either, and is refused as such.
        Some(Self::Yjs(percent_decoded(document).unwrap_or_else(|| document.to_owned())))
    }

    fn answer(self, upgrades: &Upgrades, request: Request<Incoming>) -> Response<Body> {
        let Offer { token, protocol } = credentials(request.uri().query(), request.headers());
        match self {
            Self::Hocuspocus => upgrades.answer(request, protocol, Hocuspocus::open),
            Self::Yjs(document) => {
                let wanted = y_websocket::Request { document, token };
                upgrades.answer(request, protocol, |upgrades| YWebSocket::open(upgrades, wanted))
            }
        }
    }
}

/// The method of the collaboration service that is called natively.
fn native_method<'a>(path: &'a str, headers: &HeaderMap) -> Option<&'a str> {
    let service = <CollaborationServiceServer<Collaboration> as NamedService>::NAME;
    let path = path.strip_prefix('/').and_then(|path| path.strip_prefix(service));
    let method = path.and_then(|path| path.strip_prefix('/'))?;
    let kind = headers.get(header::CONTENT_TYPE).map(http::HeaderValue::as_bytes)?;
    let rest = kind.strip_prefix(b"application/grpc")?;
    // Not application/grpc-web.
    matches!(rest.first(), None | Some(b'+' | b';')).then_some(method)
}
