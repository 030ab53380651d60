//! The two halves of a session in a run with edits: one that types, and one that counts what
//! arrives.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until},
};

use crate::{
    door::{Event, Receiver, Sender},
    error::SessionError,
    measure::{Board, Counts, Measure},
    update::{Coverage, append, insertions},
};

/// One who types.
#[derive(Debug)]
pub(crate) struct Typist {
    pub(crate) board: Arc<Board>,
    pub(crate) measure: Arc<Measure>,
    pub(crate) editor: usize,
    pub(crate) sender: Sender,
    pub(crate) rhythm: Rhythm,
}

/// When the next edit comes.
#[derive(Debug)]
pub(crate) enum Rhythm {
    /// From `first` on, each `period`. Those that are late are made up for at once.
    Fixed { first: Instant, period: Duration },
    /// Whenever there is room in the window.
    Window(Arc<Semaphore>),
}

impl Typist {
    /// Types until the measured span has ended or the session does, which the receiving half reports.
    /// Not to be dropped before: an edit may be noted and not sent.
    pub(crate) async fn run(self) {
        let root = format!("e{}", self.editor);
        let (client, chars) = (self.board.client(self.editor), self.board.edit_chars);
        let mut edits = 0;
        loop {
            match &self.rhythm {
                Rhythm::Fixed { first, period } => sleep_until(*first + *period * edits).await,
                Rhythm::Window(window) => {
                    if window.available_permits() == 0 && self.sender.flush().await.is_err() {
                        return;
                    }
                    match window.acquire().await {
                        // Given back by the one who reads.
                        Ok(permit) => permit.forget(),
                        Err(_) => return,
                    }
                }
            }
            if self.measure.has_ended() {
                // What was noted and waits goes out.
                self.sender.flush().await.ok();
                return;
            }
            let update = append(client, edits * chars, &root, chars);
            let edit = self.board.send(self.editor, self.measure.now_ns());
            debug_assert_eq!(edit, edits);
            if self.sender.update(u64::from(edits) + 1, update).await.is_err() {
                return;
            }
            if matches!(self.rhythm, Rhythm::Fixed { .. }) && self.sender.flush().await.is_err() {
                return;
            }
            edits += 1;
        }
    }
}

/// One who receives.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) board: Arc<Board>,
    pub(crate) measure: Arc<Measure>,
    pub(crate) receiver: Receiver,
    /// The own edits, for one who types too.
    pub(crate) own: Option<Own>,
    /// By editor: the window to give room in when an edit arrives here, at a door without
    /// acknowledgements.
    pub(crate) windows: Vec<Option<Arc<Semaphore>>>,
}

/// What one who types knows of its own edits.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) editor: usize,
    /// The window to give room in when an edit is acknowledged, for a typist who waits for that.
    pub(crate) window: Option<Arc<Semaphore>>,
}

impl Reader {
    /// Receives until the session ends, which is an error.
    pub(crate) async fn run(self) -> SessionError {
        let Self { board, measure, mut receiver, own, windows } = self;
        let mut taken = Taken {
            coverage: (0..board.editors()).map(|_| Coverage::default()).collect(),
            acknowledged: 0,
            synced: false,
        };
        loop {
            let mut event = match receiver.next().await {
                Ok(event) => event,
                Err(error) => return error,
            };
            let mut arrival = Arrival {
                now_ns: measure.now_ns(),
                board: &board,
                measure: &measure,
                own: own.as_ref(),
                windows: &windows,
                counts: &mut measure.counts(),
            };
            // All that came together is counted under one lock and at one time.
            loop {
                if let Err(error) = arrival.event(&mut taken, event) {
                    return error;
                }
                match receiver.next_buffered() {
                    Ok(Some(next)) => event = next,
                    Ok(None) => break,
                    Err(error) => return error,
                }
            }
        }
    }
}

/// What a reader has taken so far.
#[derive(Debug)]
struct Taken {
    /// By editor.
    coverage: Vec<Coverage>,
    /// The own updates that are acknowledged.
    acknowledged: u64,
    synced: bool,
}

/// Events that arrived together.
struct Arrival<'a> {
    now_ns: u64,
    board: &'a Board,
    measure: &'a Measure,
    own: Option<&'a Own>,
    windows: &'a [Option<Arc<Semaphore>>],
    counts: &'a mut Counts,
}

impl Arrival<'_> {
    fn event(&mut self, taken: &mut Taken, event: Event) -> Result<(), SessionError> {
        match event {
            Event::Update(update) => self.update(taken, &update)?,
            Event::State { update, .. } => {
                self.counts.resyncs += u64::from(taken.synced);
                taken.synced = true;
                self.update(taken, &update)?;
            }
            Event::Ack { update_id } => self.acknowledged(taken, update_id),
            Event::Refused(reason) => {
                self.counts.refused += 1;
                return Err(SessionError::Refused(reason));
            }
            Event::Other => {}
        }
        Ok(())
    }

    fn update(&mut self, taken: &mut Taken, update: &[u8]) -> Result<(), SessionError> {
        let Self { now_ns, board, measure, own, windows, counts } = self;
        counts.received_bytes += update.len() as u64;
        let own = own.map(|own| own.editor);
        insertions(update, |client, run| {
            let Some(editor) = board.editor(client).filter(|editor| Some(*editor) != own) else {
                return;
            };
            taken.coverage[editor].arrived(run, |new| {
                // An edit has arrived with its last character.
                let edits = new.start / board.edit_chars..new.end / board.edit_chars;
                if let Some(window) = &windows[editor] {
                    window.add_permits(edits.len());
                }
                for edit in edits {
                    let Some(sent_ns) = board.sent_ns(editor, edit) else { continue };
                    counts.arrivals += 1;
                    if measure.counts_at(sent_ns) {
                        counts.delivered += 1;
                        counts.delivery.record_ns(now_ns.saturating_sub(sent_ns));
                    }
                }
            });
        })?;
        Ok(())
    }

    fn acknowledged(&mut self, taken: &mut Taken, update_id: u64) {
        let Some(own) = self.own else { return };
        // Update n + 1 is edit n.
        for edit in taken.acknowledged..update_id {
            let sent_ns = self.board.sent_ns(own.editor, edit as u32);
            if let Some(sent_ns) = sent_ns.filter(|sent_ns| self.measure.counts_at(*sent_ns)) {
                self.counts.ack.record_ns(self.now_ns.saturating_sub(sent_ns));
            }
        }
        let new = update_id.saturating_sub(taken.acknowledged);
        taken.acknowledged += new;
        if let Some(window) = &own.window {
            window.add_permits(new as usize);
        }
    }
}
