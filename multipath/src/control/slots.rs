//! Places in the reactors' tables, handed out again with a new generation.

/// Hands out slots for volumes and controllers; the lowest free one first.
#[derive(Debug, Default)]
pub(super) struct Slots {
    free: std::collections::BTreeSet<u16>,
    used: u16,
    generation: u32,
}

impl Slots {
    /// A slot and a generation that it never had before; `None` once all 65,535 are in use.
    pub fn take(&mut self) -> Option<(u16, u32)> {
        let slot = match self.free.pop_first() {
            Some(slot) => slot,
            None => {
                let slot = self.used;
                self.used = self.used.checked_add(1)?;
                slot
            }
        };
        self.generation = self.generation.wrapping_add(1);
        Some((slot, self.generation))
    }

    pub fn give_back(&mut self, slot: u16) {
        self.free.insert(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_used_again_and_generations_are_not() {
        let mut slots = Slots::default();
        let (a, first) = slots.take().unwrap();
        let (b, second) = slots.take().unwrap();
        assert_ne!(a, b);
        slots.give_back(a);
        let (c, third) = slots.take().unwrap();
        assert_eq!(a, c);
        assert!(first < second && second < third);
    }
}
