//! What a browser or a probe sees: the pages, health, and answers to what is not there.

use axum::{
    Router,
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::admin::Readiness;

/// Served where the pages were not built.
const UNBUILT: &str = include_str!("index.html");

/// What a page of ours may do: nothing but talk to this server. Editors write style elements.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                      img-src 'self' data:; font-src 'self'; connect-src 'self'; \
                      manifest-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// Files whose name changes with their content.
const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// The files of the demo; written by the build script.
const PAGES: &[Page] = include!(concat!(env!("OUT_DIR"), "/pages.rs"));

/// A file of the demo.
#[derive(Debug)]
struct Page {
    /// Below `/`.
    path: &'static str,
    /// The content type.
    kind: &'static str,
    bytes: &'static [u8],
    /// The same, compressed.
    gzip: Option<&'static [u8]>,
}

pub(super) fn router(readiness: &Readiness) -> Router {
    let router = Router::new()
        .route("/", get(index))
        // The page finds out by itself which document it is for.
        .route("/d/{*document}", get(index))
        .route("/r/{*document}", get(index));
    let files = PAGES.iter().filter(|page| page.path != "index.html");
    let router = files.fold(router, |router, page| {
        let answer = move |headers: HeaderMap| async move { page.respond(&headers) };
        router.route(&format!("/{}", page.path), get(answer))
    });
    router.merge(health(readiness))
}

async fn index(headers: HeaderMap) -> Response {
    match PAGES.iter().find(|page| page.path == "index.html") {
        Some(page) => page.respond(&headers),
        None => unbuilt(),
    }
}

fn unbuilt() -> Response {
    let page = Page {
        path: "index.html",
        kind: "text/html; charset=utf-8",
        bytes: UNBUILT.as_bytes(),
        gzip: None,
    };
    page.respond(&HeaderMap::new())
}

impl Page {
    fn respond(&self, request: &HeaderMap) -> Response {
        let gzip = self.gzip.filter(|_| takes_gzip(request));
        let caching = if self.path.starts_with("assets/") { FOR_EVER } else { "no-cache" };
        let mut response = Bytes::from_static(gzip.unwrap_or(self.bytes)).into_response();
        let headers = response.headers_mut();
        let mut set = |name: HeaderName, value: &'static str| {
            headers.insert(name, HeaderValue::from_static(value));
        };
        set(header::CONTENT_TYPE, self.kind);
        set(header::CACHE_CONTROL, caching);
        set(header::CONTENT_SECURITY_POLICY, POLICY);
        set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        set(header::REFERRER_POLICY, "no-referrer");
        set(header::VARY, "accept-encoding");
        if gzip.is_some() {
            set(header::CONTENT_ENCODING, "gzip");
        }
        response
    }
}

fn takes_gzip(request: &HeaderMap) -> bool {
    let accepted = request.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    accepted.unwrap_or_default().split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        parts.next() == Some("gzip") && !parts.any(|part| matches!(part, "q=0" | "q=0.0"))
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        let (path, kind) = ("assets/index-abc.js", "text/javascript; charset=utf-8");
        Page { path, kind, bytes: b"plain", gzip: Some(b"zipped") }
    }

    fn accepting(coding: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(coding))])
    }

    #[test]
    fn a_page_is_compressed_for_those_who_take_it() {
        for (coding, compressed) in [
            ("gzip, deflate, br", true),
            ("br;q=1.0, gzip;q=0.8", true),
            ("br", false),
            ("gzip;q=0", false),
            ("", false),
        ] {
            let response = page().respond(&accepting(coding));
            let encoding = response.headers().get(header::CONTENT_ENCODING);
            assert_eq!(encoding.is_some(), compressed, "{coding}");
            assert_eq!(response.headers()[header::VARY], "accept-encoding");
        }
    }

    #[test]
    fn a_page_may_run_no_script_but_its_own_and_is_cached_only_under_a_name_of_its_content() {
        let asset = page().respond(&HeaderMap::new());
        assert_eq!(asset.headers()[header::CACHE_CONTROL], FOR_EVER);
        let index = unbuilt();
        assert_eq!(index.headers()[header::CACHE_CONTROL], "no-cache");
        let policy = index.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("script-src 'self';"), "{policy}");
    }
}
