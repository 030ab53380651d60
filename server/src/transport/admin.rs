//! What operators look at: metrics, liveness, readiness, on a listener of its own.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{Router, extract::State, response::IntoResponse, routing::get};
use http::{StatusCode, header};

use super::pages;
use crate::{
    metrics::Metrics,
    session::{LogState, Sessions},
};

/// The format of the metrics page: OpenMetrics text.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether new clients should be sent here. Cheap to clone; clones are the same.
#[derive(Clone, Debug)]
pub struct Readiness {
    draining: Arc<AtomicBool>,
    sessions: Sessions,
}

impl Readiness {
    /// Ready as long as the log is not broken, tokens can be checked, and nobody drains the server.
    #[must_use]
    pub fn new(sessions: Sessions) -> Self {
        Self { draining: Arc::default(), sessions }
    }

    /// Not ready from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the server is ready.
    ///
    /// # Errors
    ///
    /// Why it is not.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.draining.load(Ordering::Relaxed) {
            return Err("draining");
        }
        if !self.sessions.is_ready() {
            return Err("the keys of the issuer are not there yet");
        }
        match self.sessions.registry().log_state() {
            // A full disk still serves readers, and other servers may be no better off.
            LogState::Writable | LogState::Full => Ok(()),
            LogState::Failed => Err("the log has failed"),
            LogState::Closed => Err("the log is closed"),
        }
    }
}

/// Everything on the admin listener.
pub fn admin_router(metrics: Arc<Metrics>, readiness: &Readiness) -> Router {
    Router::new().route("/metrics", get(scrape)).with_state(metrics).merge(pages::health(readiness))
}

async fn scrape(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    match metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
