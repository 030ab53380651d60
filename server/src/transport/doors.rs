//! Which door a request goes to: native collaboration calls take the short way.
//!
//! A response stream is polled once for each frame, through every layer that wraps its body. The
//! router with gRPC-Web and CORS adds six of them, which is a good part of what a delivery costs.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use axum::Router;
use http::{Request, Response, header};
use hyper::body::Incoming;
use tonic::{body::Body, server::NamedService};
use tower::Service;

use super::{
    grpc::{Collaboration, generated::collaboration_service_server::CollaborationServiceServer},
    hocuspocus::Hocuspocus,
    websocket::{Offer, Upgrades, credentials, percent_decoded},
    y_websocket::{self, YWebSocket},
};

/// Everything that is served on one port. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Doors {
    collaboration: Option<CollaborationServiceServer<Collaboration>>,
    websockets: Option<Upgrades>,
    router: Router,
}

impl Doors {
    /// The collaboration service, WebSockets, and everything including the service for those who do
    /// not come natively.
    pub(super) fn new(
        collaboration: CollaborationServiceServer<Collaboration>,
        websockets: Upgrades,
        router: Router,
    ) -> Self {
        Self { collaboration: Some(collaboration), websockets: Some(websockets), router }
    }

    /// A router alone.
    #[must_use]
    pub fn plain(router: Router) -> Self {
        Self { collaboration: None, websockets: None, router }
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
        match &mut self.collaboration {
            Some(collaboration) if is_native(&request) => collaboration.call(request),
            _ => {
                let answer = self.router.call(request.map(axum::body::Body::new));
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

/// A native gRPC call of the collaboration service.
fn is_native(request: &Request<Incoming>) -> bool {
    let service = <CollaborationServiceServer<Collaboration> as NamedService>::NAME;
    let path = request.uri().path().strip_prefix('/');
    let method = path.and_then(|path| path.strip_prefix(service));
    let kind = request.headers().get(header::CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    method.is_some_and(|method| method.starts_with('/'))
        && kind.is_some_and(|kind| {
            kind.strip_prefix(b"application/grpc").is_some_and(|rest| {
                // Not application/grpc-web.
                matches!(rest.first(), None | Some(b'+' | b';'))
            })
        })
}
