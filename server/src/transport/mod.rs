//! The doors: everything that a client can reach, on one port, and the admin listener.
//!
//! This is the only layer that knows tonic, hyper and the wire. A door decodes frames into
//! [`session::Frame`](crate::session::Frame), encodes [`session::Event`](crate::session::Event), and
//! decides nothing else.

mod addresses;
mod admin;
pub mod codec;
mod config;
mod convert;
mod documents;
mod doors;
pub mod grpc;
mod grpc_web;
mod hocuspocus;
mod lib0;
mod listener;
mod origins;
mod pages;
mod status;
mod timely;
pub mod tls;
mod websocket;
mod y_websocket;
mod yjs;

use axum::Router;
use cowrite_proto::{
    FILE_DESCRIPTOR_SET,
    v1::{Limits, document_service_server::DocumentServiceServer},
};
use http::{HeaderName, Method};
use tonic::{server::NamedService as _, service::Routes};
use tonic_health::server::HealthReporter;
use tonic_web::GrpcWebLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};

use self::websocket::Upgrades;
pub use self::{
    addresses::Network,
    admin::{Readiness, admin_router},
    config::Config,
    doors::Doors,
    listener::{Listener, ListenerLimits},
    origins::Origins,
    tls::{Tls, TlsError},
};
use self::{
    codec::CommonTerms,
    documents::Documents,
    grpc::{Collaboration, generated::collaboration_service_server::CollaborationServiceServer},
};
use crate::session::Sessions;

/// What fuzz targets call: each door up to the frames that a session gets.
#[cfg(fuzzing)]
pub mod fuzzing {
    use bytes::Bytes;
    use cowrite_proto::v1;
    use prost::Message as _;

    use super::{convert, hocuspocus, y_websocket};
    use crate::session::Join;

    /// A message on an Edit stream or of Publish.
    pub fn frames(message: Bytes) {
        if let Ok(request) = v1::EditRequest::decode(message.clone()) {
            drop(convert::frames(request.frames));
        }
        if let Ok(request) = v1::PublishRequest::decode(message) {
            drop(convert::frames(request.frames));
        }
    }

    /// The message of a Subscribe.
    #[must_use]
    pub fn join(message: Bytes) -> Option<Join> {
        let request = v1::SubscribeRequest::decode(message).ok()?;
        convert::join(request.join?).ok()
    }

    /// A message on a y-websocket.
    pub fn y_websocket(message: Bytes) {
        y_websocket::fuzz(message);
    }

    /// A message on a Hocuspocus socket.
    pub fn hocuspocus(message: Bytes) {
        hocuspocus::fuzz(message);
    }
}

/// How long a browser may remember what an origin may do. Chromium's own limit.
const CORS_MAX_AGE: std::time::Duration = std::time::Duration::from_secs(2 * 60 * 60);

/// The health of the services, as grpc.health.v1 tells it.
#[derive(Clone)]
pub struct Health {
    reporter: HealthReporter,
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Health")
    }
}

impl Health {
    /// Says whether new sessions are welcome.
    pub async fn set_serving(&self, serving: bool) {
        let status = if serving {
            tonic_health::ServingStatus::Serving
        } else {
            tonic_health::ServingStatus::NotServing
        };
        let collaboration = CollaborationServiceServer::<Collaboration>::NAME;
        let documents = DocumentServiceServer::<Documents>::NAME;
        // The empty name is the server as a whole.
        for name in ["", collaboration, documents] {
            self.reporter.set_service_status(name, status).await;
        }
    }
}

/// Everything that is served on the main port, to pages of `origins` among others. When the server shuts down, the ends of WebSockets
/// are spread over `drain_spread`, because their clients come back at once.
///
/// # Errors
///
/// The descriptors of the services cannot be read, which is a fault of the build.
pub fn doors(
    config: &Config,
    sessions: &Sessions,
    readiness: &Readiness,
    origins: &Origins,
    drain_spread: std::time::Duration,
) -> Result<(Doors, Health), tonic_reflection::server::Error> {
    let session = sessions.config();
    let common = CommonTerms {
        heartbeat_interval: session.heartbeat_interval,
        heartbeat_timeout: session.heartbeat_timeout,
        limits: Limits {
            message_bytes_max: config.message_bytes_max as u64,
            update_bytes_max: session.update_bytes_max as u64,
            awareness_bytes_max: session.awareness_bytes_max as u64,
            document_bytes_max: sessions.registry().config().document_bytes_max as u64,
        },
    };
    let collaboration = Collaboration::new(sessions.clone(), common, config.message_bytes_max);
    let collaboration = CollaborationServiceServer::new(collaboration)
        .max_decoding_message_size(config.message_bytes_max);
    let documents = Documents::new(sessions.clone());
    let documents =
        DocumentServiceServer::new(documents).max_decoding_message_size(config.message_bytes_max);
    let (reporter, health) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let services = Routes::new(collaboration.clone())
        .add_service(documents)
        .add_service(health)
        .add_service(reflection)
        .into_axum_router()
        .reset_fallback()
        // Only here: it answers 400 to any HTTP/1 request that is not gRPC-Web.
        .layer(GrpcWebLayer::new());
    let router = Router::new()
        .merge(services)
        .merge(pages::router(readiness))
        .fallback(pages::not_found)
        // Outside of gRPC-Web, which would answer a preflight request with 400.
        .layer(cors(origins.clone()));
    let websockets = Upgrades::new(sessions.clone(), config.clone(), origins.clone(), drain_spread);
    Ok((Doors::new(collaboration, websockets, router, config.request_timeout), Health { reporter }))
}

fn cors(origins: Origins) -> CorsLayer {
    // The answer names the origin that asked, which is as good as `*` where no cookies are sent.
    let origins = AllowOrigin::predicate(move |origin, _| origins.allow(origin.as_bytes()));
    let names = |names: &[&'static str]| -> Vec<HeaderName> {
        names.iter().map(|name| HeaderName::from_static(name)).collect()
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(names(&[
            "authorization",
            "content-type",
            "x-grpc-web",
            "x-user-agent",
            "grpc-timeout",
        ]))
        .expose_headers(names(&["grpc-status", "grpc-message", "grpc-status-details-bin"]))
        .max_age(CORS_MAX_AGE)
}
