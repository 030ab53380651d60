//! What a run of the tests can be told from outside, and the clock of tests on virtual time.

use std::time::Duration;

use cowrite_server::shutdown::Tasks;

/// How far virtual time moves at once.
const BEAT: Duration = Duration::from_millis(5);

/// A number from the environment, such as `COWRITE_KILL_ROUNDS`; `default` where there is none.
#[expect(clippy::disallowed_methods, reason = "the one place of the tests that reads it")]
#[must_use]
pub fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{name} has to be a number")),
        Err(_) => default,
    }
}

/// The seeds of a simulation: `COWRITE_SEED` alone if it is set; else all that ever failed, from
/// `tests/seeds/regressions.txt`, and `fresh` new ones.
#[must_use]
pub fn seeds(fresh: usize) -> Vec<u64> {
    let given = setting("COWRITE_SEED", u64::MAX);
    if given != u64::MAX {
        return vec![given];
    }
    let known = include_str!("../seeds/regressions.txt").lines();
    let known = known.filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let known = known.map(|line| line.trim().parse().expect("a seed in regressions.txt"));
    // Below 2^32, to be short to type.
    known.chain((0..fresh).map(|_| u64::from(rand::random::<u32>()))).collect()
}

/// Keeps the virtual time of a test with real sockets true.
///
/// A paused clock jumps to the next timer whenever nothing is to be done, also while bytes are on
/// their way through the kernel: a client would seem to take until the next timer for every answer.
/// With this it takes 5 ms. Ends with the group.
pub fn pacemaker(tasks: &Tasks) {
    let beat = async {
        loop {
            tokio::time::sleep(BEAT).await;
        }
    };
    let beat = tasks.token().clone().run_until_cancelled_owned(beat);
    tasks.spawn(beat);
}
