//! Asking reactors about themselves, by message like everything else.

use std::fmt;

use crate::context::Context;
use crate::executor::Executor;
use crate::mailbox::{Sender, mailbox};
use crate::service::{Progress, Service};
use crate::status::ReactorStatus;

/// Questions that may wait for one reactor.
const MAILBOX_CAPACITY: usize = 256;

type Question = Box<dyn FnOnce(ReactorStatus) + Send>;

/// Sits on a reactor and answers what it is asked about it.
struct Observer;

impl Service for Observer {
    type Message = Question;

    fn on_message(&mut self, question: Question, cx: &mut Context<'_>) {
        question(cx.reactor_status());
    }

    fn poll(&mut self, _cx: &mut Context<'_>) -> Progress {
        Progress::Idle
    }
}

/// The way to ask each reactor how it is.
pub struct Observers {
    reactors: Vec<Sender<Question>>,
}

/// A question was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAsked {
    /// The reactor has ended, or there is none of this index.
    #[error("the reactor has ended")]
    Ended,
    /// Too many questions wait for it already.
    #[error("too many questions wait for the reactor")]
    Busy,
}

impl Observers {
    /// Seats an observer on each reactor that was added so far. It costs a look into an empty mailbox per turn.
    pub fn install(executor: &mut impl Executor) -> Observers {
        let mut reactors = Vec::new();
        for reactor in 0..executor.reactors() {
            let (sender, receiver) = mailbox(MAILBOX_CAPACITY);
            executor.add_service(reactor, receiver, || Observer);
            reactors.push(sender);
        }
        Observers { reactors }
    }

    /// How many reactors can be asked.
    pub fn len(&self) -> usize {
        self.reactors.len()
    }

    /// Whether there is nobody to ask.
    pub fn is_empty(&self) -> bool {
        self.reactors.is_empty()
    }

    /// Asks a reactor, without waiting: it runs `answer` in its next turn. One that ends before that drops it.
    ///
    /// # Errors
    ///
    /// The question was not taken; `answer` was dropped.
    pub fn ask(
        &self,
        reactor: usize,
        answer: impl FnOnce(ReactorStatus) + Send + 'static,
    ) -> Result<(), NotAsked> {
        let sender = self.reactors.get(reactor).ok_or(NotAsked::Ended)?;
        sender
            .send(Box::new(answer))
            .map_err(|_| match sender.is_closed() {
                true => NotAsked::Ended,
                false => NotAsked::Busy,
            })
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observers")
            .field("reactors", &self.reactors.len())
            .finish()
    }
}
