//! Handles that a C program holds: numbers, and no pointers, so that one which is not, or no longer, is told apart from one
//! that is.
#![expect(
    clippy::disallowed_types,
    reason = "the program's threads meet here, and no reactor"
)]

use std::sync::{Arc, PoisonError, RwLock};

use crate::failure::Failure;

/// What of one kind there is.
pub(crate) struct Handles<T> {
    /// Each place with how many had it before.
    places: RwLock<Vec<(u32, Option<Arc<T>>)>>,
    /// The two highest bytes of every handle of this kind.
    kind: u16,
    /// What a handle of this kind is called.
    name: &'static str,
}

impl<T> Handles<T> {
    pub const fn new(kind: u16, name: &'static str) -> Self {
        let places = RwLock::new(Vec::new());
        Self { places, kind, name }
    }

    pub fn add(&self, value: T) -> Result<u64, Failure> {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        let place = places.iter().position(|(_, value)| value.is_none());
        let place = place.unwrap_or(places.len());
        let Ok(low) = u16::try_from(place) else {
            let text = format!("there are 65,536 {}s already", self.name);
            return Err(Failure::new(libc::EMFILE, text));
        };
        if place == places.len() {
            places.push((0, None));
        }
        let (before, here) = &mut places[place];
        *before = before.wrapping_add(1);
        *here = Some(Arc::new(value));
        let (kind, before) = (u64::from(self.kind), u64::from(*before));
        Ok(kind << 48 | before << 16 | u64::from(low))
    }

    pub fn get(&self, handle: u64) -> Result<Arc<T>, Failure> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        let (place, before) = self.parts(handle);
        let found = places.get(place).filter(|found| found.0 == before);
        let found = found.and_then(|found| found.1.as_ref());
        match found {
            Some(value) if self.is_kind(handle) => Ok(Arc::clone(value)),
            _ => Err(self.bad()),
        }
    }

    pub fn remove(&self, handle: u64) -> Result<Arc<T>, Failure> {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        let (place, before) = self.parts(handle);
        let is_kind = self.is_kind(handle);
        let found = places.get_mut(place).filter(|f| is_kind && f.0 == before);
        found
            .and_then(|found| found.1.take())
            .ok_or_else(|| self.bad())
    }

    fn is_kind(&self, handle: u64) -> bool {
        handle >> 48 == u64::from(self.kind)
    }

    #[expect(clippy::cast_possible_truncation, reason = "a part of a handle")]
    fn parts(&self, handle: u64) -> (usize, u32) {
        (usize::from(handle as u16), (handle >> 16) as u32)
    }

    fn bad(&self) -> Failure {
        let text = match self.name {
            "host" => "this is no handle of a host that is there",
            _ => "this is no handle of a disk that is there",
        };
        Failure::new(libc::EBADF, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_there_is_found() {
        let (numbers, others) = (Handles::new(7, "host"), Handles::new(8, "disk"));
        let handle = numbers.add(5).unwrap_or_else(|_| panic!("there is room"));
        assert!(numbers.get(handle).is_ok_and(|n| *n == 5));
        assert!(others.add(6).is_ok());
        for bad in [
            0,
            1,
            u64::MAX,
            handle + 1,
            handle ^ 1 << 20,
            handle ^ 1 << 50,
        ] {
            assert!(numbers.get(bad).is_err(), "{bad:x}");
        }
        assert!(others.get(handle).is_err(), "of another kind");
        assert!(numbers.remove(handle).is_ok_and(|n| *n == 5));
        assert!(numbers.remove(handle).is_err());
        let again = numbers.add(6).unwrap_or_else(|_| panic!("there is room"));
        assert!(numbers.get(handle).is_err(), "its place is another's");
        assert!(numbers.get(again).is_ok_and(|n| *n == 6));
    }
}
