//! What follows from the answers to admin commands.

use std::time::Duration;

use pollux_reactor::Time;

use super::retry::{RETRIES_MAX, RETRY_DELAY, retry_delay};
use super::steps::{Answer, Next};
use super::{Asked, Controller, ControllerError, ControllerEvent, Stage, StepState};
use crate::host::LOG_FLAG;
use crate::host::queue_pair::QueueError;
use crate::host::request::{Completed, Outcome};
use crate::spec::status::Status;

/// Time between two reads of CSTS while waiting for ready or shutdown: the first, doubled with each that
/// follows, and the longest.
const CSTS_PERIOD: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));
/// Time until what could not be read is read again, once all tries were of no avail.
const REREAD_DELAY: Duration = Duration::from_secs(5);

impl<U> Controller<U> {
    pub(super) fn on_completion(
        &mut self,
        completed: Completed<Asked<U>>,
        now: Time,
    ) -> Result<(), ControllerError> {
        let outcome = completed.outcome;
        let (request, asked) = completed.request.replace(());
        if !matches!(asked, Asked::AsyncEvent) {
            self.note_traffic(now);
        }
        match asked {
            Asked::KeepAlive => {
                self.wants_status = true;
                if let Outcome::Completed { status, .. } = outcome {
                    self.on_keep_alive(status, now)?;
                }
            }
            Asked::AsyncEvent => match outcome {
                Outcome::Completed { status, result } if status.is_success() => {
                    self.aers.fired();
                    self.on_event(result, now);
                }
                Outcome::Completed { status, .. } if status.is_transient() => {
                    self.say_transient("Asynchronous Event Request", status);
                    self.aers.failed(now);
                }
                // A controller that takes no (more) AERs is not asked again.
                _ => self.aers.refused(),
            },
            Asked::Abort(abort) => {
                if let Outcome::Completed { status, .. } = outcome
                    && self.aborts.answered(abort, status, now)
                {
                    self.events.push_back(ControllerEvent::AbortFailed(status));
                }
            }
            Asked::Step(number) if number == self.step_number => {
                self.on_step_answer(&request.buffer.into_vec(), outcome, now)?;
            }
            // A shutdown has taken the place of the step.
            Asked::Step(_) => {}
            Asked::Owner(owner) => {
                let request = request.with(owner);
                let completed = Completed { request, outcome };
                self.events.push_back(ControllerEvent::Admin(completed));
            }
        }
        Ok(())
    }

    fn on_keep_alive(&mut self, status: Status, now: Time) -> Result<(), ControllerError> {
        if status.is_success() {
            self.keep_alive.answered(now);
        } else if status.is_transient() {
            self.say_transient("Keep Alive", status);
            self.keep_alive.answered_in_vain(now);
        } else if status.code() == Status::INVALID_OPCODE {
            self.go_without_keep_alive(now);
        } else {
            return Err(ControllerError::Refused {
                step: "Keep Alive",
                status,
            });
        }
        Ok(())
    }

    /// The controller knows no Keep Alive: its status register is read instead, so that its end is noticed.
    fn go_without_keep_alive(&mut self, now: Time) {
        if self.keep_alive.is_unsupported(now) {
            let remote = self.known.options.connect.remote;
            log::info!(
                target: LOG_FLAG,
                "{remote}: the controller does not support Keep Alive; its status is read instead"
            );
        }
    }

    /// Says that a status is not taken for the last word, once until something was read again.
    fn say_transient(&mut self, what: &str, status: Status) {
        if !std::mem::replace(&mut self.is_troubled, true) {
            let remote = self.known.options.connect.remote;
            log::warn!(target: LOG_FLAG, "{remote}: {what}: {status}; asked again");
        }
    }

    /// An asynchronous event (NVMe Base 2.1, 5.1.2.1): type in bits 2:0, information in 15:8.
    fn on_event(&mut self, result: u64, now: Time) {
        const ERROR: u64 = 0;
        const NOTICE: u64 = 2;
        self.notices
            .note(now, |wanted| match (result & 7, result >> 8 & 0xff) {
                // Some of these are said to be persistent or fatal: CSTS tells whether it is so.
                (ERROR, _) => wanted.status = true,
                (NOTICE, 0x00) => wanted.namespaces = true,
                (NOTICE, 0x03) => wanted.ana = true,
                (NOTICE, 0xf0) => wanted.discovery = true,
                (NOTICE, 0xf4) => wanted.resets = true,
                _ => wanted.nothing = true,
            });
    }

    fn on_step_answer(
        &mut self,
        data: &[u8],
        outcome: Outcome,
        now: Time,
    ) -> Result<(), ControllerError> {
        #[expect(clippy::expect_used, reason = "a step stays until it is answered")]
        let (step, _) = self.step.take().expect("an answer to a step that is gone");
        let Outcome::Completed { status, result } = outcome else {
            return Err(ControllerError::BadData("admin queue lost"));
        };
        let is_transient = status.is_transient();
        if is_transient && self.retries < RETRIES_MAX {
            self.say_transient(step.name(), status);
            let (_, longest) = RETRY_DELAY;
            let asked = self.known.asked_delay(status);
            let delay = asked.unwrap_or_else(|| retry_delay(self.retries));
            let delay = delay.min(longest);
            self.retries += 1;
            self.step = Some((step, StepState::Due(now + delay)));
            // Shutting down has its time as a whole.
            if self.stage != Stage::Stopping {
                self.step_deadline = now + delay + self.known.options.connect.timeout;
            }
            return Ok(());
        }
        let next = if is_transient && self.stage == Stage::Ready {
            self.reread_at = Some(now + REREAD_DELAY);
            step.given_up(&mut self.known)
        } else {
            let answer = Answer {
                status,
                result,
                data,
            };
            step.answered(&mut self.known, &answer)?
        };
        self.go_on(next, now);
        Ok(())
    }

    fn go_on(&mut self, next: Next, now: Time) {
        match next {
            Next::Step(next) => {
                if self.known.identify().is_some() {
                    // MDTS is known now, and holds for what is read from here on.
                    self.admin.set_transfer_max(self.known.transfer_max());
                }
                self.start_step(next, now);
            }
            Next::Again(step) => {
                let (first, longest) = CSTS_PERIOD;
                let delay = (first * (1 << self.polls.min(8))).min(longest);
                self.polls += 1;
                self.step = Some((step, StepState::Due(now + delay)));
            }
            Next::Namespaces => {
                self.is_troubled &= self.reread_at.is_some();
                self.events.push_back(ControllerEvent::Namespaces);
            }
            Next::Ana => {
                self.is_troubled &= self.reread_at.is_some();
                self.ana_reads_done = self.ana_reads_begun;
                self.events.push_back(ControllerEvent::Ana);
            }
            Next::Well => {}
            Next::Ready => {
                self.stage = Stage::Ready;
                self.known.is_up = true;
                self.is_troubled = false;
                if self.identify().is_some_and(|id| id.kas.get() == 0) {
                    self.go_without_keep_alive(now);
                }
                self.ana_reads_done = self.ana_reads_begun;
                self.events.push_back(ControllerEvent::Ready);
            }
            Next::ShutDown => self.end(QueueError::HostClosed.into()),
        }
    }
}
