//! The queue of the writer, and whether anything is taken into it.
//!
//! It has no bound of its own. Every caller waits for what it has queued or bounds it: a room has a
//! bounded number of batches under way, and there is a bound on rooms.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use crate::{
    ids::{DocumentId, Epoch, Sequence},
    log::{Append, AppendError, Completion, LogState},
    metrics::LogMetrics,
};

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    /// See [`UpdateLog::create`](crate::log::UpdateLog::create).
    Create { document: DocumentId, epoch: Epoch },
    /// See [`UpdateLog::append`](crate::log::UpdateLog::append).
    Append(Append),
    /// See [`UpdateLog::delete`](crate::log::UpdateLog::delete).
    Delete { document: DocumentId },
}

/// What waits for the writer.
#[derive(Debug)]
pub(super) struct Queue {
    inner: Mutex<Queued>,
    wake: Condvar,
    state: watch::Sender<LogState>,
    metrics: LogMetrics,
}

#[derive(Debug)]
struct Queued {
    commands: Vec<(Command, Completion)>,
    /// The writer waits for a wake-up. While it sleeps out the commit interval it does not.
    idle: bool,
    state: LogState,
    closing: bool,
}

impl Queue {
    /// An empty queue.
    pub(super) fn new(state: LogState, metrics: LogMetrics) -> Self {
        metrics.writable.set((state == LogState::Writable).into());
        Self {
            inner: Mutex::new(Queued { commands: Vec::new(), idle: false, state, closing: false }),
            wake: Condvar::new(),
            state: watch::Sender::new(state),
            metrics,
        }
    }

    /// Queues a command, or completes it at once when nothing is taken.
    pub(super) fn push(&self, command: Command, completion: Completion) {
        let mut inner = self.inner.lock();
        let refusal = match inner.state {
            _ if inner.closing => AppendError::Unavailable,
            LogState::Writable => {
                inner.commands.push((command, completion));
                if inner.idle {
                    inner.idle = false;
                    drop(inner);
                    self.wake.notify_one();
                }
                return;
            }
            LogState::Full => AppendError::Full,
            LogState::Failed | LogState::Closed => AppendError::Unavailable,
        };
        drop(inner);
        self.metrics.append_failures.inc();
        complete(completion, Err(refusal));
    }

    /// Asks the writer to commit what is queued and to end.
    pub(super) fn close(&self) {
        self.inner.lock().closing = true;
        self.wake.notify_one();
    }

    /// Whether appends are taken now.
    pub(super) fn current(&self) -> LogState {
        *self.state.borrow()
    }

    /// Whether appends are taken.
    pub(super) fn state(&self) -> watch::Receiver<LogState> {
        self.state.subscribe()
    }

    /// Says whether appends are taken. A failure is final but for the end.
    pub(super) fn set_state(&self, state: LogState) {
        let mut inner = self.inner.lock();
        if inner.state == LogState::Failed && state != LogState::Closed {
            return;
        }
        inner.state = state;
        self.metrics.writable.set((state == LogState::Writable).into());
        self.state.send_replace(state);
    }

    /// Waits for commands, at most for `timeout`, and takes all of them. `None` when there are none
    /// and there will be none.
    pub(super) fn take(
        &self,
        into: &mut Vec<(Command, Completion)>,
        timeout: Option<Duration>,
    ) -> Option<()> {
        let mut inner = self.inner.lock();
        while inner.commands.is_empty() && !inner.closing {
            inner.idle = true;
            if let Some(timeout) = timeout {
                if self.wake.wait_for(&mut inner, timeout).timed_out() {
                    break;
                }
            } else {
                self.wake.wait(&mut inner);
            }
        }
        inner.idle = false;
        if inner.commands.is_empty() && inner.closing {
            return None;
        }
        into.append(&mut inner.commands);
        Some(())
    }

    /// Waits for the first command; leaves it in the queue. Says whether the log is closing.
    pub(super) fn wait(&self) -> bool {
        let mut inner = self.inner.lock();
        while inner.commands.is_empty() && !inner.closing {
            inner.idle = true;
            self.wake.wait(&mut inner);
        }
        inner.idle = false;
        inner.closing
    }

    /// Takes nothing any more, for this reason, and gives up what is queued.
    pub(super) fn stop(&self, state: LogState, queued: &mut Vec<(Command, Completion)>) {
        self.set_state(state);
        queued.append(&mut self.inner.lock().commands);
    }
}

/// Completes an append. Nobody need be waiting for it any more.
pub(super) fn complete(completion: Completion, result: Result<Sequence, AppendError>) {
    drop(completion.send(result));
}
