//! Something that wants to be written, and the way back to whoever waits for it.

use tokio::sync::oneshot;

use super::draft::Draft;
use crate::store::StoreError;

/// Something that wants to be written.
pub(super) trait Job: Send {
    /// Decides, and writes into the draft what is to be written.
    fn run(&mut self, draft: &mut Draft) -> Kept;
    /// Tells the caller, after the commit or its failure.
    fn reply(self: Box<Self>, committed: Result<(), StoreError>);
}

/// What of a job's changes stays in the draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// All of it.
    Everything,
    /// What it logged as failed: it was refused.
    Refusals,
}

/// A job made of a closure, and the way back to whoever waits for it.
pub(super) struct Work<F, T, E> {
    decide: Option<F>,
    outcome: Option<Result<T, E>>,
    caller: oneshot::Sender<Result<T, E>>,
}

impl<F, T, E> Work<F, T, E> {
    pub(super) fn new(decide: F) -> (Self, oneshot::Receiver<Result<T, E>>) {
        let (caller, answer) = oneshot::channel();
        (
            Self {
                decide: Some(decide),
                outcome: None,
                caller,
            },
            answer,
        )
    }
}

impl<F, T, E> Job for Work<F, T, E>
where
    F: FnOnce(&mut Draft) -> Result<T, E> + Send,
    T: Send,
    E: From<StoreError> + Send,
{
    fn run(&mut self, draft: &mut Draft) -> Kept {
        let Some(decide) = self.decide.take() else {
            return Kept::Refusals;
        };
        let outcome = decide(draft);
        let kept = if outcome.is_ok() {
            Kept::Everything
        } else {
            Kept::Refusals
        };
        self.outcome = Some(outcome);
        kept
    }

    fn reply(self: Box<Self>, committed: Result<(), StoreError>) {
        let outcome = match (committed, self.outcome) {
            (Ok(()), Some(outcome)) => outcome,
            // A refusal stays one, whether or not it could be logged.
            (Err(_), Some(Err(refusal))) => Err(refusal),
            (Err(error), Some(Ok(_)) | None) => Err(error.into()),
            // It panicked: the caller sees its channel close.
            (Ok(()), None) => return,
        };
        // A caller who has gone away does not want to know.
        let _ = self.caller.send(outcome);
    }
}
