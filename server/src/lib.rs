//! The Cowrite server as a library.

pub mod ids;
pub mod log;
pub mod metrics;
pub mod shutdown;
pub mod time;
