//! The settings of the doors.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{addresses::Network, tls};

/// The settings of the doors: the table `[transport]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where clients come in.
    pub listen: SocketAddr,
    /// Where operators look: metrics and health.
    pub admin_listen: SocketAddr,
    /// Web pages of other origins that may use the server, such as `https://app.example.com`; `*`
    /// for all. Pages of the server's own origin always may.
    pub allowed_origins: Vec<String>,
    /// Connections at most.
    pub connections_max: usize,
    /// Connections from one address at most, where all addresses of an IPv6 /64 are one; 0 is no
    /// limit. 1000: a large office behind one address. It keeps one machine from taking all of
    /// `connections_max`.
    pub connections_per_address_max: usize,
    /// Addresses and networks from which any number of connections may come: proxies, which bring
    /// everybody, and this machine.
    pub unlimited_addresses: Vec<Network>,
    /// Streams of one connection at most. 100 is right for clients that connect directly; a proxy
    /// needs as many as it has users on one connection.
    pub streams_per_connection_max: u32,
    /// The largest request message, in bytes.
    pub message_bytes_max: usize,
    /// Documents on one WebSocket at most, where the protocol has several.
    pub documents_per_socket_max: usize,
    /// How long such a WebSocket may be open without a document that its client was let into.
    #[serde(with = "humantime_serde")]
    pub authentication_timeout: Duration,
    /// HTTP/2: a ping is sent after this long without a frame.
    #[serde(with = "humantime_serde")]
    pub keepalive_interval: Duration,
    /// HTTP/2: the connection is cut if a ping is not answered within this.
    #[serde(with = "humantime_serde")]
    pub keepalive_timeout: Duration,
    /// How long the TLS handshake may take, the beginning of a connection from which its protocol is
    /// known, and in HTTP/1 the head of a request.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// How long the request of a call that is not a stream may take to arrive.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// HTTP/2: a connection without streams is closed after this, at most after twice as long. A
    /// client that comes back later pays one round trip for it.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// HTTP/2: bytes that a client may send on one stream before they are read.
    pub stream_window_bytes: u32,
    /// HTTP/2: bytes that a client may send on one connection before they are read. Far more than a
    /// stream's, because h2 ends a connection on which many small frames wait.
    pub connection_window_bytes: u32,
    /// HTTP/2: bytes of one stream that are kept for a client that does not read.
    pub stream_send_bytes: usize,
    /// TLS.
    pub tls: tls::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 9090)),
            allowed_origins: Vec::new(),
            connections_max: 20_000,
            connections_per_address_max: 1000,
            unlimited_addresses: [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
                .map(Network::of)
                .to_vec(),
            streams_per_connection_max: 100,
            message_bytes_max: 4 << 20,
            documents_per_socket_max: 100,
            authentication_timeout: Duration::from_secs(60),
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            stream_window_bytes: 64 << 10,
            connection_window_bytes: 16 << 20,
            stream_send_bytes: 64 << 10,
            tls: tls::Config::default(),
        }
    }
}

impl Config {
    /// Checks the values against each other.
    ///
    /// # Errors
    ///
    /// A sentence that names the key.
    pub fn validate(&self, update_bytes_max: usize) -> Result<(), String> {
        if self.message_bytes_max < update_bytes_max + 1024 {
            return Err(
                "transport.message_bytes_max must exceed session.update_bytes_max by 1024: \
                        an update travels in a message"
                    .to_owned(),
            );
        }
        self.tls.validate()?;
        if self.connections_max == 0 || self.streams_per_connection_max == 0 {
            return Err("transport.connections_max and transport.streams_per_connection_max must \
                        be at least 1"
                .to_owned());
        }
        let least = u32::from(u16::MAX);
        if self.stream_window_bytes < least || self.connection_window_bytes < least {
            return Err(
                "transport.stream_window_bytes and transport.connection_window_bytes must \
                        be at least 65535, which is what HTTP/2 begins with"
                    .to_owned(),
            );
        }
        if self.stream_window_bytes > i32::MAX as u32
            || self.connection_window_bytes > i32::MAX as u32
        {
            return Err(
                "transport.stream_window_bytes and transport.connection_window_bytes must \
                        be at most 2147483647"
                    .to_owned(),
            );
        }
        if self.keepalive_interval.is_zero() || self.keepalive_timeout.is_zero() {
            return Err(
                "transport.keepalive_interval and transport.keepalive_timeout must be more \
                        than 0s"
                    .to_owned(),
            );
        }
        if self.documents_per_socket_max == 0 || self.authentication_timeout.is_zero() {
            return Err("transport.documents_per_socket_max and transport.authentication_timeout \
                        must be more than 0"
                .to_owned());
        }
        for (key, timeout) in [
            ("header_timeout", self.header_timeout),
            ("request_timeout", self.request_timeout),
            ("idle_timeout", self.idle_timeout),
        ] {
            if timeout.is_zero() {
                return Err(format!("transport.{key} must be more than 0s"));
            }
        }
        if self.stream_send_bytes < 16 << 10 {
            return Err(
                "transport.stream_send_bytes must be at least 16384, one HTTP/2 frame".to_owned()
            );
        }
        for origin in &self.allowed_origins {
            let good = origin == "*"
                || (origin.starts_with("http://") || origin.starts_with("https://"))
                    && origin.matches('/').count() == 2
                    && http::HeaderValue::from_str(origin).is_ok();
            if !good {
                return Err(format!(
                    "transport.allowed_origins has {origin:?}: an origin is a scheme, a host and \
                     perhaps a port, as in https://app.example.com"
                ));
            }
        }
        Ok(())
    }
}
