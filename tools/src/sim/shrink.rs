//! Makes a scenario that fails smaller, for as long as it breaks the same rule.

use super::run::run;
use super::scenario::{Scenario, Shape};

/// The smallest scenario that was found in `tries` runs.
pub fn shrink(scenario: &Scenario, rule: &'static str, tries: u32) -> Scenario {
    let mut shrinking = Shrinking {
        best: scenario.clone(),
        rule,
        left: tries,
    };
    loop {
        let before = shrinking.best.clone();
        shrinking.events();
        shrinking.shape();
        if shrinking.best == before || shrinking.left == 0 {
            return shrinking.best;
        }
    }
}

struct Shrinking {
    best: Scenario,
    rule: &'static str,
    left: u32,
}

impl Shrinking {
    fn attempt(&mut self, scenario: Scenario) -> bool {
        if self.left == 0 || scenario == self.best {
            return false;
        }
        self.left -= 1;
        let broken = run(&scenario, false).violation;
        let fails = broken.is_some_and(|violation| violation.rule == self.rule);
        if fails {
            self.best = scenario;
        }
        fails
    }

    /// Leaves events out: half of them, a quarter, one by one.
    fn events(&mut self) {
        let mut piece = self.best.events.len().div_ceil(2);
        while piece > 0 {
            let mut at = 0;
            while at < self.best.events.len() {
                let mut scenario = self.best.clone();
                let end = (at + piece).min(scenario.events.len());
                scenario.events.drain(at..end);
                if !self.attempt(scenario) {
                    at += piece;
                }
            }
            piece /= 2;
        }
    }

    /// Makes what can be simple so.
    fn shape(&mut self) {
        let mut simple = Shape::SIMPLE;
        let simple: Vec<u32> = simple.fields().into_iter().map(|(_, v)| *v).collect();
        for (index, simple) in simple.into_iter().enumerate() {
            let mut scenario = self.best.clone();
            if let Some((name, value)) = scenario.shape.fields().get_mut(index) {
                // Without the fence the rules are others.
                if ["fencing", "cqt_ms", "target_cqt_ms"].contains(name) {
                    continue;
                }
                **value = simple;
            }
            self.attempt(scenario);
        }
    }
}
