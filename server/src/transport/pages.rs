//! What a browser or a probe sees: health, a plain page, and answers to what is not there.

use axum::{
    Router,
    extract::State,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::admin::Readiness;

const INDEX: &str = include_str!("index.html");

pub(super) fn router(readiness: &Readiness) -> Router {
    Router::new().route("/", get(|| async { Html(INDEX) })).merge(health(readiness))
}

/// The probes, which are on the admin listener as well.
pub(super) fn health(readiness: &Readiness) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(readiness.clone())
}

async fn readyz(State(readiness): State<Readiness>) -> (StatusCode, String) {
    match readiness.check() {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// An unknown gRPC service gets a gRPC status, whatever the HTTP version; anything else gets 404.
pub(super) async fn not_found(headers: HeaderMap) -> Response {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    match content_type {
        Some(kind) if kind.starts_with("application/grpc") => {
            let kind =
                HeaderValue::from_str(kind).unwrap_or(HeaderValue::from_static("application/grpc"));
            let headers = [
                (header::CONTENT_TYPE, kind),
                (header::HeaderName::from_static("grpc-status"), HeaderValue::from_static("12")),
                (
                    header::HeaderName::from_static("grpc-message"),
                    HeaderValue::from_static("no such service"),
                ),
            ];
            headers.into_response()
        }
        _ => (StatusCode::NOT_FOUND, "not found\n").into_response(),
    }
}
