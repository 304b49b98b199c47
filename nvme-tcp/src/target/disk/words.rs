//! Copies between bytes and words that other threads read and write at the same time.
//!
//! The language copies shared memory atomic by atomic, which takes five times as long as a plain copy (4 KiB in the
//! cache: 1.9 us against 0.33 us). On x86-64 the copy is one string instruction. The compiler does not look into it: to
//! the language it does what relaxed loads or stores of the bytes, one after the other, would do. On other processors
//! the copy goes word by word.
#![expect(
    unsafe_code,
    reason = "an instruction that the language has no name for"
)]

use std::sync::atomic::AtomicU64;
#[cfg(any(not(target_arch = "x86_64"), miri))]
use std::sync::atomic::Ordering;

/// Appends what the words hold.
#[inline]
pub(super) fn append(words: &[AtomicU64], out: &mut Vec<u8>) {
    let len = size_of_val(words);
    out.reserve(len);
    let room = &mut out.spare_capacity_mut()[..len];
    // SAFETY: `room` is valid for writes of the length of `words`, and nothing else refers to it
    // (`copies_are_exact_at_every_length`).
    unsafe { load(words, room.as_mut_ptr().cast()) };
    // SAFETY: `load` has written `len` bytes behind the present end.
    unsafe { out.set_len(out.len() + len) };
}

/// Fills `out`, which is as long as the words, with what they hold.
#[inline]
pub(super) fn fill(words: &[AtomicU64], out: &mut [u8]) {
    assert_eq!(size_of_val(words), out.len(), "a copy of another length");
    // SAFETY: `out` is valid for writes of its length, which is that of `words` (`copies_are_exact_at_every_length`).
    unsafe { load(words, out.as_mut_ptr()) };
}

/// Stores `data`, which is as long as the words, into them.
#[inline]
pub(super) fn store(words: &[AtomicU64], data: &[u8]) {
    assert_eq!(size_of_val(words), data.len(), "a copy of another length");
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: `data` is valid for reads and `words`, which may be changed through a shared reference, for writes of
    // their common length (`copies_are_exact_at_every_length`).
    unsafe {
        copy(data.as_ptr(), words.as_ptr().cast_mut().cast(), data.len());
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    for (word, bytes) in words.iter().zip(data.as_chunks::<8>().0) {
        word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
    }
}

/// Copies what the words hold to `to`.
///
/// # Safety
///
/// `to` is valid for writes of the words' length, and nothing else refers to that memory.
#[inline]
unsafe fn load(words: &[AtomicU64], to: *mut u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: `words` is valid for reads of its length, and `to` for writes, as the caller says.
    unsafe {
        copy(words.as_ptr().cast(), to, size_of_val(words));
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    for (place, word) in words.iter().enumerate() {
        let bytes = word.load(Ordering::Relaxed).to_ne_bytes();
        // SAFETY: the place lies within the words' length, for which `to` is valid, as the caller says.
        unsafe { to.cast::<[u8; 8]>().add(place).write_unaligned(bytes) };
    }
}

/// Copies bytes from the lowest address on.
///
/// # Safety
///
/// `from` is valid for reads and `to` for writes of `len` bytes, and they do not overlap. Other threads may use either
/// as atomics at the same time.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the instruction reads and writes what the caller says is valid, changes the three registers that are
    // named, and no flags; the direction flag is clear by the calling convention.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags)
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn words(count: usize) -> Vec<AtomicU64> {
        std::iter::repeat_with(AtomicU64::default)
            .take(count)
            .collect()
    }

    #[test]
    fn copies_are_exact_at_every_length() {
        let memory = words(66);
        for count in 0..=64 {
            memory
                .iter()
                .for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
            let piece = &memory[1..=count];
            let data: Vec<u8> = (0..count * 8).map(|i| (i % 251).to_le_bytes()[0]).collect();
            store(piece, &data);
            let is = |at: usize| memory[at].load(Ordering::Relaxed);
            assert_eq!((is(0), is(count + 1)), (u64::MAX, u64::MAX), "neighbours");
            let mut out = vec![7];
            append(piece, &mut out);
            assert_eq!((out[0], &out[1..]), (7, &data[..]));
            let mut out = vec![9; count * 8 + 2];
            fill(piece, &mut out[1..=count * 8]);
            assert_eq!(&out[1..=count * 8], data);
            assert_eq!((out[0], out[count * 8 + 1]), (9, 9), "neighbours");
        }
    }

    /// Each byte is of one of the stores, whenever it is read.
    #[test]
    fn copies_at_the_same_time_mix_whole_bytes() {
        let memory = words(512);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for byte in [0x11, 0x22] {
                let (memory, stop) = (&memory, &stop);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        store(memory, &[byte; 4096]);
                    }
                });
            }
            let mut out = Vec::new();
            let is_whole = (0..200).all(|_| {
                out.clear();
                append(&memory, &mut out);
                out.iter().all(|byte| [0, 0x11, 0x22].contains(byte))
            });
            stop.store(true, Ordering::Relaxed);
            assert!(is_whole);
        });
    }
}
