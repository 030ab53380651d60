//! The Cowrite server: real-time collaborative editing with a durable log.
//!
//! One way for data to flow: connection, session, room, log, fan-out. Calls go down, channels come
//! up. `tests/tests/tidy.rs` fails on any other edge between these layers:
//!
//! | layer | modules | may import |
//! | --- | --- | --- |
//! | 0 base | `ids` `metrics` `shutdown` `time` | external crates only |
//! | 1 parts | `auth` `crdt` `log` | base |
//! | 2 room | `room` | base, parts |
//! | 2 exchange | `exchange` | base, `crdt`, `log` |
//! | 3 session | `session` | base, `auth`, `room` |
//! | 4 transport | `transport` | base, `session`, `cowrite-proto` |
//! | 5 app | `app`, `main.rs` | everything |

pub mod app;
pub mod auth;
pub mod crdt;
pub mod exchange;
pub mod ids;
pub mod log;
pub mod metrics;
pub mod room;
pub mod session;
pub mod shutdown;
pub mod time;
pub mod transport;
