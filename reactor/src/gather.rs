//! Gathering: one question to every reactor, one answer when all have answered.
//!
//! A service that asks keeps a [`Gather`]. [`Gather::ask`] opens a question and makes one [`Part`] for each reactor. The
//! service sends each part with its own messages, so that a reactor is asked after it has taken in all that was sent to
//! it before. A reactor answers by [`Part::answer`], at once or when it can. The asking service calls
//! [`Gather::next_answered`] in its poll, and runs what that returns on its own state.
//!
//! The contract:
//!
//! * A question is answered exactly once, on the asker's reactor, with the answers in the order of the reactors.
//! * A part that is dropped has no answer: its reactor has ended, or its mailbox was never read. The question is answered
//!   without it, so nobody waits for ever. Only a part that is kept keeps a question open.
//! * Questions do not wait for each other.
//! * Answers take their own way, not the mailbox, so none is lost to a full one. The `wake` that [`Gather::new`] is
//!   given only has to give the asker a turn; a message to it that finds the mailbox full is no loss.
//! * A [`Gather`] that ends with its service drops its questions, and whoever they would have answered sees that.
//!
//! This is for questions and settings, not for I/O: a question allocates.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc;

type Wake = Arc<dyn Fn() + Send + Sync>;

/// An answered question: runs what its asker wanted done with the answers.
pub type Answered<S> = Box<dyn FnOnce(&mut S) + Send>;

/// Looks whether a question is answered.
type Look<S> = Box<dyn FnMut() -> Option<Answered<S>> + Send>;

/// The open questions of a service whose state is `S`.
pub struct Gather<S> {
    wake: Wake,
    open: Vec<Look<S>>,
}

/// One reactor's part in a question.
#[must_use = "a part that is dropped says that the reactor has ended"]
pub struct Part<A> {
    reactor: usize,
    /// Taken before the asker is woken, so that it sees that nothing more comes.
    answers: Option<mpsc::Sender<(usize, A)>>,
    wake: Wake,
}

impl<S> Gather<S> {
    /// No questions yet. `wake` is called from any thread when there may be an answer, and sees to it that the asker
    /// has a turn.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Gather<S> {
        Gather {
            wake: Arc::new(wake),
            open: Vec::new(),
        }
    }

    /// Opens a question to `reactors` reactors and makes their parts, in order. `then` is done with the answers.
    pub fn ask<A: Send + 'static>(
        &mut self,
        reactors: usize,
        then: impl FnOnce(&mut S, Vec<A>) + Send + 'static,
    ) -> Vec<Part<A>> {
        let (sender, receiver) = mpsc::channel();
        let mut answers: Vec<(usize, A)> = Vec::with_capacity(reactors);
        let mut then = Some(then);
        self.open.push(Box::new(move || {
            loop {
                match receiver.try_recv() {
                    Ok(answer) => answers.push(answer),
                    Err(mpsc::TryRecvError::Empty) => return None,
                    // No part is left that could answer.
                    Err(mpsc::TryRecvError::Disconnected) => break,
                }
            }
            let then = then.take()?;
            let mut answers = std::mem::take(&mut answers);
            answers.sort_by_key(|&(reactor, _)| reactor);
            let answers = answers.into_iter().map(|(_, answer)| answer).collect();
            Some(Box::new(move |state: &mut S| then(state, answers)))
        }));
        if reactors == 0 {
            (self.wake)();
        }
        let part = |reactor| Part {
            reactor,
            answers: Some(sender.clone()),
            wake: Arc::clone(&self.wake),
        };
        (0..reactors).map(part).collect()
    }

    /// The next question that is answered, the one that was asked first before others.
    pub fn next_answered(&mut self) -> Option<Answered<S>> {
        for (place, look) in self.open.iter_mut().enumerate() {
            if let Some(answered) = look() {
                drop(self.open.remove(place));
                return Some(answered);
            }
        }
        None
    }

    /// Questions that are not answered yet.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether no question is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

impl<A> Part<A> {
    /// Answers for this reactor.
    pub fn answer(self, answer: A) {
        if let Some(answers) = &self.answers {
            // Refused only by an asker that has ended, and then nobody waits.
            let _ = answers.send((self.reactor, answer));
        }
    }
}

impl<A> Drop for Part<A> {
    fn drop(&mut self) {
        self.answers = None;
        (self.wake)();
    }
}

impl<S> fmt::Debug for Gather<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gather")
            .field("open", &self.open.len())
            .finish_non_exhaustive()
    }
}

impl<A> fmt::Debug for Part<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part")
            .field("reactor", &self.reactor)
            .finish_non_exhaustive()
    }
}
