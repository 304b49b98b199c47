//! The ways from control to the I/O reactors, whatever the applications there take.

use pollux_reactor::{Outbox, Sender};

use crate::io::{IoMessage, ToIo};

/// Posts a message, or with `None` hands over what found no room before.
type Post = Box<dyn FnMut(Option<ToIo>)>;

/// An outbox to each I/O reactor.
///
/// A message is posted when it is made, not at the end of a turn: an answer that is given after it tells that a reactor
/// takes it in before all that is sent there because of the answer.
pub(super) struct Reactors {
    posts: Vec<Post>,
}

impl Reactors {
    pub fn new<M: Send + 'static>(reactors: Vec<Sender<IoMessage<M>>>) -> Reactors {
        let post = |sender| -> Post {
            let mut outbox = Outbox::new(sender);
            Box::new(move |message| match message {
                Some(message) => outbox.post(IoMessage::control(message)),
                None => {
                    outbox.flush();
                }
            })
        };
        Reactors {
            posts: reactors.into_iter().map(post).collect(),
        }
    }

    pub fn len(&self) -> usize {
        self.posts.len()
    }

    /// Sends a message to one of them.
    pub fn post(&mut self, reactor: usize, message: ToIo) {
        let Some(post) = self.posts.get_mut(reactor) else {
            unreachable!("there is no I/O reactor {reactor}");
        };
        post(Some(message));
    }

    /// Sends a message, made for each, to every one of them.
    pub fn broadcast(&mut self, mut message: impl FnMut() -> ToIo) {
        for post in &mut self.posts {
            post(Some(message()));
        }
    }

    /// Hands over what found no room in a mailbox before.
    pub fn flush(&mut self) {
        for post in &mut self.posts {
            post(None);
        }
    }
}
