//! From an HTTP request to a WebSocket: whether it is one, from where, and with which credentials.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::{rt::TokioIo, server::conn::auto};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tonic::body::Body;

use super::{Dialect, Socket};
use crate::{
    session::Sessions,
    transport::{config::Config, listener::Wire, origins::Origins},
};

/// The sub-protocol of a client that offers one.
const PROTOCOL: &str = "cowrite";

/// The sub-protocol that carries a token: browsers cannot set headers.
const TOKEN_PROTOCOL: &str = "cowrite.token.";

/// What WebSocket doors need. Cheap to clone.
#[derive(Clone, Debug)]
pub(in super::super) struct Upgrades {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    sessions: Sessions,
    config: Config,
    origins: Origins,
    drain_spread: Duration,
}

/// What a client asks for besides the path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Offer {
    /// The token; empty for none.
    pub(in super::super) token: String,
    /// The sub-protocol to be selected, if the client offers any.
    pub(in super::super) protocol: Option<HeaderValue>,
}

impl Upgrades {
    /// Upgrades to sockets with these sessions.
    pub(in super::super) fn new(
        sessions: Sessions,
        config: Config,
        origins: Origins,
        drain_spread: Duration,
    ) -> Self {
        Self { inner: Arc::new(Inner { sessions, config, origins, drain_spread }) }
    }

    /// The sessions.
    pub(in super::super) fn sessions(&self) -> &Sessions {
        &self.inner.sessions
    }

    /// The settings of the doors.
    pub(in super::super) fn config(&self) -> &Config {
        &self.inner.config
    }

    /// How long the ends of sockets are spread when the server shuts down.
    pub(in super::super) fn drain_spread(&self) -> Duration {
        self.inner.drain_spread
    }

    /// Answers `request`; if it is good, what `dialect` makes is spoken on the connection.
    pub(in super::super) fn answer<D: Dialect>(
        &self,
        mut request: Request<Incoming>,
        protocol: Option<HeaderValue>,
        dialect: impl FnOnce(&Self) -> D + Send + 'static,
    ) -> Response<Body> {
        let headers = request.headers();
        let key = match handshake(request.method(), headers) {
            Ok(key) => key,
            Err((status, why)) => return refusal(status, why),
        };
        if !is_allowed(headers, &self.inner.origins) {
            return refusal(StatusCode::FORBIDDEN, "this origin is not allowed");
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
        if let Some(protocol) = protocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        let upgrade = hyper::upgrade::on(&mut request);
        let upgrades = self.clone();
        // With the sessions, so that a shutdown waits until the client has been told.
        self.inner.sessions.spawn(async move {
            // In boxes: the task keeps the room of its largest part for as long as it runs, and most
            // of what the upgrade takes is not needed after it.
            let socket = Box::pin(upgrades.socket(upgrade, dialect)).await;
            if let Some(mut socket) = socket {
                socket.serve().await;
            }
        });
        response
    }

    /// The socket of an upgraded connection; `None` if the connection is gone.
    async fn socket<D: Dialect>(
        self,
        upgrade: hyper::upgrade::OnUpgrade,
        dialect: impl FnOnce(&Self) -> D,
    ) -> Option<Box<Socket<D>>> {
        // What it is wrapped in would be looked through for each message.
        match auto::upgrade::downcast::<TokioIo<Wire>>(upgrade.await.ok()?) {
            Ok(parts) => {
                let (wire, max) = (parts.io.into_inner(), self.config().message_bytes_max);
                let dialect = dialect(&self);
                Some(Box::new(Socket::new(wire, &parts.read_buf, dialect, max).await))
            }
            Err(_) => {
                tracing::error!("an upgraded connection is not one of the listener");
                None
            }
        }
    }
}

fn refusal(status: StatusCode, why: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::new(format!("{why}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if status == StatusCode::UPGRADE_REQUIRED {
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    response
}

/// Checks that this is the opening handshake of RFC 6455, and returns the key of the answer.
fn handshake(
    method: &Method,
    headers: &HeaderMap,
) -> Result<HeaderValue, (StatusCode, &'static str)> {
    let has = |name, token: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|v| v.trim().eq_ignore_ascii_case(token))
    };
    if !has(header::UPGRADE, "websocket") || !has(header::CONNECTION, "upgrade") {
        return Err((StatusCode::UPGRADE_REQUIRED, "this is a WebSocket address"));
    }
    if method != Method::GET {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "a WebSocket is opened with GET"));
    }
    if !has(header::SEC_WEBSOCKET_VERSION, "13") {
        return Err((StatusCode::UPGRADE_REQUIRED, "WebSocket version 13 is spoken here"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    let key = key.and_then(|key| HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok());
    key.ok_or((StatusCode::BAD_REQUEST, "sec-websocket-key is missing"))
}

/// Whether a page of this origin may come in. A browser sends cookies and reaches local networks on
/// behalf of any page, and asks nobody before it opens a WebSocket; what is no browser sends none.
fn is_allowed(headers: &HeaderMap, allowed: &Origins) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    if allowed.allow(origin.as_bytes()) {
        return true;
    }
    let Ok(origin) = origin.to_str() else { return false };
    // The page's own server, by host and port: which scheme it has is not known behind a proxy.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let origin_host = origin.split_once("://").map(|(_, host)| host);
    match (origin_host, host) {
        (Some(origin), Some(host)) => origin.eq_ignore_ascii_case(host),
        _ => false,
    }
}

/// The token and the sub-protocol of a request: `?token=`, or a sub-protocol `cowrite.token.` with
/// the token behind it.
pub(in super::super) fn credentials(query: Option<&str>, headers: &HeaderMap) -> Offer {
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let offered: Vec<_> = offered
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|protocol| !protocol.is_empty())
        .collect();
    let in_query =
        query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("token="));
    let in_query = in_query.and_then(percent_decoded);
    let in_protocol = || offered.iter().find_map(|offered| offered.strip_prefix(TOKEN_PROTOCOL));
    let token = in_query.or_else(|| in_protocol().map(str::to_owned)).unwrap_or_default();
    // A browser fails the handshake if none of those that it offers is selected. The one with the
    // token is the last choice: what is selected is shown to the page, and logged.
    let harmless = || offered.iter().find(|offered| !offered.starts_with(TOKEN_PROTOCOL));
    let protocol = offered.iter().find(|offered| **offered == PROTOCOL).or_else(harmless);
    let protocol = protocol.or(offered.first()).and_then(|p| HeaderValue::from_str(p).ok());
    Offer { token, protocol }
}

/// Undoes the escapes of a URL, once; `None` if they are broken or the result is not UTF-8.
pub(in super::super) fn percent_decoded(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let value = digit(bytes.next())? * 16 + digit(bytes.next())?;
            decoded.push(u8::try_from(value).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs.map(|(k, v)| (k.parse().unwrap(), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn escapes_are_undone_once() {
        for (text, decoded) in [
            ("notes", Some("notes")),
            ("my%20room%2fx", Some("my room/x")),
            ("%2525", Some("%25")),
            ("a+b", Some("a+b")),
            ("%C3%A9", Some("é")),
            ("%ff", None),
            ("%2", None),
            ("%zz", None),
            ("%+1", None),
        ] {
            assert_eq!(percent_decoded(text).as_deref(), decoded, "{text}");
        }
    }

    #[test]
    fn a_sub_protocol_is_selected_and_never_the_token_if_there_is_another() {
        let offer = |protocols| {
            let offer = credentials(None, &headers(&[("sec-websocket-protocol", protocols)]));
            (offer.token, offer.protocol.unwrap().to_str().unwrap().to_owned())
        };
        let told = |token: &str, protocol: &str| (token.to_owned(), protocol.to_owned());
        assert_eq!(offer("cowrite.token.abc, cowrite"), told("abc", "cowrite"));
        assert_eq!(offer("cowrite.token.abc, other"), told("abc", "other"));
        assert_eq!(offer("cowrite.token.abc"), told("abc", "cowrite.token.abc"));
        assert_eq!(offer("a, b"), told("", "a"));
        let none = credentials(Some("x=1&token=a%20b%26c"), &HeaderMap::new());
        assert_eq!(none, Offer { token: "a b&c".to_owned(), protocol: None });
    }

    #[test]
    fn pages_of_the_same_host_and_of_allowed_origins_may_come_in() {
        let allowed = Origins::new(&["https://app.example.com".to_owned()]);
        let all = Origins::new(&["*".to_owned()]);
        for (origin, may) in [
            ("https://app.example.com", true),
            ("http://app.example.com", false),
            ("https://cowrite.example.com:8080", true),
            ("https://cowrite.example.com", false),
            ("https://cowrite.example.com:8080.evil.com", false),
            ("null", false),
            ("", false),
        ] {
            let pairs = [("host", "cowrite.example.com:8080"), ("origin", origin)];
            assert_eq!(is_allowed(&headers(&pairs), &allowed), may, "{origin}");
            assert!(is_allowed(&headers(&pairs), &all));
        }
        allowed.replace(&[]);
        assert!(is_allowed(&headers(&[("host", "x")]), &allowed), "what is no browser");
        let once_allowed = [("host", "x"), ("origin", "https://app.example.com")];
        assert!(!is_allowed(&headers(&once_allowed), &allowed));
    }
}
