//! One question to every reactor, one answer: with reactors that answer late, that end, and that are asked twice.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::sync::mpsc;
use std::time::Duration;

use pollux_reactor::{
    Context, Gather, Outbox, Part, Progress, Sender, Service, Simulation, mailbox,
};

const PATIENCE: Duration = Duration::from_secs(1);

/// What is told of a question: its name, and what was answered to it.
type Report = (&'static str, Vec<u64>);

enum ToAsker {
    Ask(&'static str),
    Woken,
}

/// Asks all others, and reports their answers.
struct Asker {
    gather: Gather<mpsc::Sender<Report>>,
    others: Vec<Outbox<ToOther>>,
    report: mpsc::Sender<Report>,
}

impl Service for Asker {
    type Message = ToAsker;

    fn on_message(&mut self, message: ToAsker, _: &mut Context<'_>) {
        if let ToAsker::Ask(name) = message {
            let parts = self.gather.ask(self.others.len(), move |report, answers| {
                report.send((name, answers)).unwrap();
            });
            for (other, part) in self.others.iter_mut().zip(parts) {
                other.post(ToOther::Question(part));
            }
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Progress {
        let mut progress = Progress::Idle;
        while let Some(answered) = self.gather.next_answered() {
            answered(&mut self.report);
            progress = Progress::Busy;
        }
        progress
    }
}

enum ToOther {
    Question(Part<u64>),
    /// Keep what is asked from now on until then.
    Keep,
    Answer,
    End,
}

/// Answers with how many messages it was sent.
#[derive(Default)]
struct Other {
    messages: u64,
    keeps: bool,
    kept: Vec<Part<u64>>,
}

impl Service for Other {
    type Message = ToOther;

    fn on_message(&mut self, message: ToOther, cx: &mut Context<'_>) {
        self.messages += 1;
        match message {
            ToOther::Question(part) if self.keeps => self.kept.push(part),
            ToOther::Question(part) => part.answer(self.messages),
            ToOther::Keep => self.keeps = true,
            ToOther::Answer => {
                for part in self.kept.drain(..) {
                    part.answer(self.messages);
                }
            }
            ToOther::End => cx.request_stop(),
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Progress {
        Progress::Idle
    }
}

/// An asker on the first reactor and three others.
struct World {
    simulation: Simulation,
    asker: Sender<ToAsker>,
    others: Vec<Sender<ToOther>>,
    reports: mpsc::Receiver<Report>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut simulation = Simulation::new(seed);
        let (report, reports) = mpsc::channel();
        let (asker, receiver) = mailbox(2);
        let mut others = Vec::new();
        let first = simulation.add_reactor();
        for _ in 0..3 {
            let (sender, receiver) = mailbox(4);
            let reactor = simulation.add_reactor();
            simulation.add_service(reactor, receiver, Other::default);
            others.push(sender);
        }
        let own = asker.clone();
        let service = Asker {
            gather: Gather::new(move || drop(own.send(ToAsker::Woken))),
            others: others.iter().cloned().map(Outbox::new).collect(),
            report,
        };
        simulation.add_service(first, receiver, || service);
        World {
            simulation,
            asker,
            others,
            reports,
        }
    }

    fn ask(&self, name: &'static str) {
        assert!(self.asker.send(ToAsker::Ask(name)).is_ok());
    }

    fn tell(&self, other: usize, message: ToOther) {
        assert!(self.others[other].send(message).is_ok());
    }

    fn run(&mut self) -> Vec<Report> {
        self.simulation.run_for(PATIENCE);
        self.reports.try_iter().collect()
    }
}

#[test]
fn answers_come_together_and_in_the_order_of_the_reactors() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        for other in 0..3 {
            for _ in 0..other {
                world.tell(other, ToOther::Answer);
            }
        }
        world.ask("one");
        assert_eq!(world.run(), [("one", vec![1, 2, 3])], "seed {seed}");
    }
}

#[test]
fn a_late_answer_is_waited_for_and_holds_up_no_other_question() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        world.ask("whole");
        assert_eq!(world.run().len(), 1);
        world.tell(1, ToOther::Keep);
        world.ask("late");
        assert_eq!(world.run(), [], "seed {seed}");
        world.ask("later");
        assert_eq!(world.run(), [], "seed {seed}");
        world.tell(1, ToOther::Answer);
        // Both were kept by the one reactor and are answered by it at once.
        let expected = [("late", vec![2, 5, 2]), ("later", vec![3, 5, 3])];
        assert_eq!(world.run(), expected, "seed {seed}");
    }
}

#[test]
fn two_questions_at_once_are_answered_each_for_itself() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        world.ask("one");
        world.ask("two");
        let mut reports = world.run();
        reports.sort_unstable();
        let expected = [("one", vec![1, 1, 1]), ("two", vec![2, 2, 2])];
        assert_eq!(reports, expected, "seed {seed}");
    }
}

#[test]
fn a_reactor_that_ends_while_it_is_asked_is_left_out() {
    for seed in 0..20 {
        // It ends with the question in its hands,
        let mut world = World::new(seed);
        world.tell(2, ToOther::Keep);
        world.ask("kept");
        assert_eq!(world.run(), [], "seed {seed}");
        world.tell(2, ToOther::End);
        assert_eq!(world.run(), [("kept", vec![1, 1])], "seed {seed}");
        // before it is asked,
        world.ask("gone");
        assert_eq!(world.run(), [("gone", vec![2, 2])], "seed {seed}");
        // and with the question unread in its mailbox or read in its last turn.
        world.tell(0, ToOther::End);
        world.ask("unread");
        let [("unread", answers)] = &world.run()[..] else {
            panic!("not answered once, seed {seed}");
        };
        assert!(matches!(answers[..], [3] | [4, 3]), "{answers:?}");
    }
}

#[test]
fn a_mailbox_that_is_full_of_other_messages_loses_no_answer() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        world.tell(0, ToOther::Keep);
        world.ask("full");
        assert_eq!(world.run(), []);
        world.tell(0, ToOther::Answer);
        while world.asker.send(ToAsker::Woken).is_ok() {}
        assert_eq!(world.run(), [("full", vec![3, 1, 1])], "seed {seed}");
    }
}
