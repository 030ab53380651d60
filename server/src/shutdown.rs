//! Who owns the tasks, and how they are asked to end.

use std::{future::Future, io, thread};

use rustix::process::setpriority_process;
use tokio::{sync::oneshot, task::JoinHandle};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerWaitFuture},
};

/// The priority of work aside: 0 is that of everybody, 19 the lowest.
const ASIDE_NICE: i32 = 15;

/// A group of tasks that are ended together: a cancellation token and a tracker. Cheap to clone; all
/// clones are the same group.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    token: CancellationToken,
    tracker: TaskTracker,
}

impl Tasks {
    /// A new group without tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `task` as a part of the group. It is asked to end by [`Self::token`].
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(self.tracker.track_future(task))
    }

    /// Runs `work`, which may block, on a thread of its own as a part of the group.
    pub fn spawn_blocking<F, T>(&self, work: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.tracker.spawn_blocking(work)
    }

    /// The token that asks the tasks to end.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Asks all tasks to end.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Waits until the last task has ended. Tasks can still be added meanwhile.
    pub fn wait(&self) -> TaskTrackerWaitFuture<'_> {
        self.tracker.close();
        self.tracker.wait()
    }

    /// How many tasks there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// There are no tasks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }
}

/// Runs `work`, which takes long and which this task waits for, here; where there are several threads,
/// the other tasks of this one go on elsewhere meanwhile.
pub fn while_others_go_on<T>(work: impl FnOnce() -> T) -> T {
    let flavor = tokio::runtime::Handle::try_current().map(|handle| handle.runtime_flavor());
    if matches!(flavor, Ok(tokio::runtime::RuntimeFlavor::MultiThread)) {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}

/// Runs `work`, which takes long and which nobody waits for, on a thread of its own with a low
/// priority: where processors are few, it does not take them from those who serve.
///
/// # Errors
///
/// There is no thread to be had, or the work panicked.
///
/// # Cancellation
///
/// The work goes on to its end, for nothing.
pub async fn aside<F, T>(work: F) -> io::Result<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let (done, result) = oneshot::channel();
    thread::Builder::new().name("cowrite-aside".to_owned()).spawn(move || {
        // Fails where the system has no priorities for threads; then it takes its share.
        setpriority_process(None, ASIDE_NICE).ok();
        // An error means that nobody waits any more.
        drop(done.send(work()));
    })?;
    result.await.map_err(io::Error::other)
}
