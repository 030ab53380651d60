//! The web pages of other origins that may use the server: one list for all doors, which can be
//! replaced while the server runs.

use std::sync::Arc;

use parking_lot::RwLock;

/// The list of `transport.allowed_origins`. Cheap to clone; clones are the same.
#[derive(Clone, Debug)]
pub struct Origins {
    allowed: Arc<RwLock<Arc<[String]>>>,
}

impl Origins {
    /// These origins; `*` for all.
    #[must_use]
    pub fn new(allowed: &[String]) -> Self {
        Self { allowed: Arc::new(RwLock::new(allowed.into())) }
    }

    /// Allows these from now on, in the place of those before. What is open stays open.
    pub fn replace(&self, allowed: &[String]) {
        *self.allowed.write() = allowed.into();
    }

    /// Whether pages of this origin may use the server.
    pub(super) fn allow(&self, origin: &[u8]) -> bool {
        let allowed = Arc::clone(&self.allowed.read());
        allowed.iter().any(|allowed| allowed == "*" || allowed.as_bytes() == origin)
    }
}
