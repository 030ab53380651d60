//! The way to one server: options, the channel, and what is opened over it.

use std::{sync::Arc, time::Duration};

use cowrite_proto::v1::{
    ListDocumentsRequest, ListDocumentsResponse,
    collaboration_service_client::CollaborationServiceClient,
    document_service_client::DocumentServiceClient,
};
use tonic::{
    metadata::MetadataValue,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use crate::{
    Document, DocumentOptions, Error, FrameReceiver, FrameSender, JoinOptions, Joined, TokenSource,
    connection,
};

/// 16 MiB. HTTP/2 kills a whole connection after many small frames that nobody read; its budget is
/// half of this, so a big connection window and a smaller stream window make the one slow stream
/// stall instead.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// 1 MiB: what a session may have under way to a client that does not read for a moment.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// How to reach a server. Made by [`Client::builder`].
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    url: String,
    connect_timeout: Duration,
    first_message_timeout: Duration,
    message_bytes_max: usize,
    stream_window_bytes: u32,
    ca: Option<Vec<u8>>,
    token: TokenSource,
}

impl ClientBuilder {
    /// The credentials of everything that brings none of its own.
    #[must_use]
    pub fn token(mut self, token: impl Into<TokenSource>) -> Self {
        self.token = token.into();
        self
    }

    /// Roots, in PEM, that the certificate of an `https` server may lead to, besides those of the
    /// operating system.
    #[must_use]
    pub fn ca(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(pem.into());
        self
    }

    /// How long a TCP connection may take to come about. Default 5 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a server may take from the start of a call to the answer to Join. Default 10 s:
    /// behind it is a queue that a waiting person would not believe in any more.
    #[must_use]
    pub fn first_message_timeout(mut self, timeout: Duration) -> Self {
        self.first_message_timeout = timeout;
        self
    }

    /// The largest message taken from the server, in bytes. Default 16 MiB; less than 8 MiB is
    /// taken as 8 MiB, which a busy server's joined frames may reach.
    #[must_use]
    pub fn message_bytes_max(mut self, bytes: usize) -> Self {
        self.message_bytes_max = bytes.max(8 << 20);
        self
    }

    /// How many bytes a session may have under way to this client, 65 535 to 2^31 - 1. Default
    /// 1 MiB.
    #[must_use]
    pub fn stream_window_bytes(mut self, bytes: u32) -> Self {
        self.stream_window_bytes = bytes;
        self
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// [`Error::Address`] for an address that is no URL, [`Error::Lost`] when the server cannot be
    /// reached now.
    ///
    /// # Cancellation
    ///
    /// Nothing remains.
    pub async fn connect(self) -> Result<Client, Error> {
        let channel =
            self.endpoint()?.connect().await.map_err(|error| {
                Error::from_status(tonic::Status::from_error(error.into()), None)
            })?;
        Ok(self.with_channel(channel))
    }

    /// Connects when something is first opened, and finds out then whether the server is there.
    /// Must be called within a runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Address`] for an address that is no URL.
    pub fn connect_lazy(self) -> Result<Client, Error> {
        let channel = self.endpoint()?.connect_lazy();
        Ok(self.with_channel(channel))
    }

    /// Uses a channel that the caller made: for client certificates, for a Unix socket, or for tests.
    #[must_use]
    pub fn with_channel(self, channel: Channel) -> Client {
        let Self { first_message_timeout, message_bytes_max, token, .. } = self;
        let config = Config { first_message_timeout, message_bytes_max, token };
        Client { channel, config: Arc::new(config) }
    }

    fn endpoint(&self) -> Result<Endpoint, Error> {
        let endpoint = Endpoint::from_shared(self.url.clone())
            .map_err(|source| Error::Address { url: self.url.clone(), source: Arc::new(source) })?;
        let endpoint = if endpoint.uri().scheme_str() == Some("https") {
            let tls = ClientTlsConfig::new().with_enabled_roots();
            let tls = match &self.ca {
                Some(pem) => tls.ca_certificate(Certificate::from_pem(pem)),
                None => tls,
            };
            endpoint.tls_config(tls).map_err(|source| Error::Address {
                url: self.url.clone(),
                source: Arc::new(source),
            })?
        } else {
            endpoint
        };
        Ok(endpoint
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(self.stream_window_bytes)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
    }
}

/// What every session of a client has in common.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) first_message_timeout: Duration,
    pub(crate) message_bytes_max: usize,
    token: TokenSource,
}

/// A client of one server. Cheap to clone; the clones share one connection, which is made anew by
/// itself after it was lost.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    config: Arc<Config>,
}

impl Client {
    /// Connects to `url`, such as `http://127.0.0.1:8080`, with the default options.
    ///
    /// # Errors
    ///
    /// As [`ClientBuilder::connect`].
    ///
    /// # Cancellation
    ///
    /// Nothing remains.
    pub async fn connect(url: impl Into<String>) -> Result<Self, Error> {
        Self::builder(url).connect().await
    }

    /// Options for the way to `url`.
    #[must_use]
    pub fn builder(url: impl Into<String>) -> ClientBuilder {
        ClientBuilder {
            url: url.into(),
            connect_timeout: Duration::from_secs(5),
            first_message_timeout: Duration::from_secs(10),
            message_bytes_max: 16 << 20,
            stream_window_bytes: STREAM_WINDOW_BYTES,
            ca: None,
            token: TokenSource::default(),
        }
    }

    /// Opens the document `id`: a local copy that is kept in sync from now on, over losses of the
    /// connection too. Returns at once; [`Document::wait_until_synced`] tells when it is there.
    /// Must be called within a runtime.
    #[must_use]
    pub fn document(&self, id: impl Into<String>, mut options: DocumentOptions) -> Document {
        if options.token.is_none() {
            options.token = self.config.token.clone();
        }
        Document::open(self.clone(), id.into(), options)
    }

    /// Opens one bare session: frames, without a local copy and without coming back. Pings are
    /// answered by [`FrameReceiver::next`], which therefore has to be called.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] where trying again may help, also when the server did not answer in time;
    /// [`Error::EpochMismatch`] and [`Error::Rejected`] where not.
    ///
    /// # Cancellation
    ///
    /// The session is given up; the server sees that it was cancelled.
    pub async fn open(
        &self,
        mut options: JoinOptions,
    ) -> Result<(FrameSender, FrameReceiver, Joined), Error> {
        if options.token.is_empty() {
            options.token = self.config.token.get().await?;
        }
        let service = CollaborationServiceClient::new(self.channel.clone())
            .max_decoding_message_size(self.config.message_bytes_max);
        let opened = connection::open(service, options);
        match tokio::time::timeout(self.config.first_message_timeout, opened).await {
            Ok(result) => result,
            Err(_) => Err(Error::lost("the server did not answer Join in time")),
        }
    }

    /// Lists the documents of the server, a page at a time, in the order of their ids.
    /// `page_size` 0 lets the server choose; `page_token` is `next_page_token` of the page before.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] where trying again may help, [`Error::Rejected`] where not.
    ///
    /// # Cancellation
    ///
    /// Nothing remains.
    pub async fn list_documents(
        &self,
        page_size: u32,
        page_token: impl Into<String>,
    ) -> Result<ListDocumentsResponse, Error> {
        let request = ListDocumentsRequest { page_size, page_token: page_token.into() };
        let mut request = tonic::Request::new(request);
        let token = self.config.token.get().await?;
        if !token.is_empty() {
            let bearer = format!("Bearer {token}").parse().map(|mut value: MetadataValue<_>| {
                value.set_sensitive(true);
                value
            });
            let bearer = bearer.map_err(|_| Error::Token)?;
            request.metadata_mut().insert("authorization", bearer);
        }
        DocumentServiceClient::new(self.channel.clone())
            .list_documents(request)
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| Error::from_status(status, None))
    }
}
