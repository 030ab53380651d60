//! A client of Cowrite for Rust programs.
//!
//! [`Client::document`] opens a [`Document`]: a local copy that can be read and edited at any time,
//! also without a connection, and that keeps itself in sync with the server and with everybody else
//! who has it open.
//!
//! ```no_run
//! use cowrite_client::{Client, DocumentOptions, yrs::{Text as _, WriteTxn as _}};
//!
//! # async fn example() -> Result<(), cowrite_client::Error> {
//! let client = Client::connect("http://127.0.0.1:8080").await?;
//! let notes = client.document("notes", DocumentOptions::default());
//! notes.wait_until_synced().await?;
//! notes.edit(|txn| txn.get_or_insert_text("content").insert(txn, 0, "Hello"));
//! notes.wait_until_saved().await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Client::open`] gives a bare session instead: frames up and down, for programs that bring their
//! own document or need none.

mod backoff;
mod client;
mod connection;
mod document;
mod error;
mod token;
mod unconfirmed;

pub use cowrite_proto::v1::{Access, ErrorReason, Joined, Limits};
pub use yrs;

pub use crate::{
    client::{Client, ClientBuilder},
    connection::{Event, FrameReceiver, FrameSender, JoinOptions, QUEUE_FRAMES_MAX},
    document::{Document, DocumentOptions, Status, Unsaved},
    error::{Error, Loss, Refusal},
    token::TokenSource,
};
