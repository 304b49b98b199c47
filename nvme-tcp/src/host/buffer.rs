//! The memory of a request: its user's, whatever it is.

use std::any::Any;
use std::fmt;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use super::LOG_FLAG;

/// Memory that is handed in with a request and handed back with its completion: a [`Vec`], or [any
/// owner](Self::owned) of bytes. No alignment is asked of it. Data goes straight to and from it.
///
/// As large as a `Vec`, which it takes and gives back as it is. Whatever it was made of, it is equal to the bytes that
/// are in it:
///
/// ```
/// use pollux_nvme_tcp::host::Buffer;
///
/// let buffer = Buffer::from(vec![7; 512]);
/// assert_eq!(buffer, [7; 512]);
/// let vec: Vec<u8> = buffer.into_vec();
/// ```
pub struct Buffer(ManuallyDrop<Memory>);

enum Memory {
    Vec(Vec<u8>),
    /// With its length.
    Owned(Box<Box<dyn OwnedBytes>>, usize),
}

// I/O carries buffers about by value: they are not to be larger than what most of them are.
const _: () = assert!(size_of::<Buffer>() == size_of::<Vec<u8>>());

impl Buffer {
    /// Memory of any owner: an array, a boxed slice, a part of a slab that many buffers share, mapped memory. It is boxed,
    /// once: a buffer that has come back is handed in again as it is, and [`downcast`](Self::downcast) gives the owner
    /// back.
    ///
    /// How many bytes it has is asked now. An owner that has fewer later, or that panics when it is asked for them, ends the
    /// I/O that it is in with an error, and with it the connection that carries the I/O, since a message that has begun
    /// cannot be left out; it is not asked again. The owner is asked, and may be dropped, on a reactor: neither may block.
    ///
    /// Two buffers of one slab:
    ///
    /// ```
    /// use std::sync::mpsc::{Sender, channel};
    ///
    /// use pollux_nvme_tcp::host::Buffer;
    ///
    /// /// 4 KiB of a slab, which go back to it.
    /// struct Piece {
    ///     bytes: Option<&'static mut [u8]>,
    ///     slab: Sender<&'static mut [u8]>,
    /// }
    ///
    /// impl AsRef<[u8]> for Piece {
    ///     fn as_ref(&self) -> &[u8] {
    ///         self.bytes.as_deref().unwrap_or_default()
    ///     }
    /// }
    ///
    /// impl AsMut<[u8]> for Piece {
    ///     fn as_mut(&mut self) -> &mut [u8] {
    ///         self.bytes.as_deref_mut().unwrap_or_default()
    ///     }
    /// }
    ///
    /// impl Drop for Piece {
    ///     fn drop(&mut self) {
    ///         // Without a slab nobody wants it any more.
    ///         let _ = self.bytes.take().map(|bytes| self.slab.send(bytes));
    ///     }
    /// }
    ///
    /// let (slab, free) = channel();
    /// for bytes in vec![0; 2 * 4096].leak().chunks_mut(4096) {
    ///     slab.send(bytes)?;
    /// }
    /// let take = || {
    ///     let bytes = Some(free.try_recv().ok()?);
    ///     Some(Buffer::owned(Piece { bytes, slab: slab.clone() }))
    /// };
    /// let (first, second) = (take().unwrap(), take().unwrap());
    /// assert_eq!(first.len(), 4096);
    /// assert!(take().is_none());
    /// drop(second);
    /// assert!(take().is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn owned<T: AsRef<[u8]> + AsMut<[u8]> + Send + Sync + 'static>(owner: T) -> Self {
        let len = owner.as_ref().len();
        let owned = Box::new(Owned {
            owner,
            len,
            is_broken: AtomicBool::new(false),
        });
        Self(ManuallyDrop::new(Memory::Owned(Box::new(owned), len)))
    }

    /// Its bytes.
    #[inline]
    pub fn len(&self) -> usize {
        match &*self.0 {
            Memory::Vec(vec) => vec.len(),
            Memory::Owned(_, len) => *len,
        }
    }

    /// It has no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is in it; `None` if its owner has failed.
    #[inline]
    pub fn as_slice(&self) -> Option<&[u8]> {
        match &*self.0 {
            Memory::Vec(vec) => Some(vec),
            Memory::Owned(owned, _) => owned.bytes(),
        }
    }

    /// As [`as_slice`](Self::as_slice), to be changed.
    #[inline]
    pub fn as_mut_slice(&mut self) -> Option<&mut [u8]> {
        match &mut *self.0 {
            Memory::Vec(vec) => Some(vec),
            Memory::Owned(owned, _) => owned.bytes_mut(),
        }
    }

    /// The `Vec` that it is, or a copy of what is in it if it is something else.
    #[inline]
    pub fn into_vec(self) -> Vec<u8> {
        match self.take() {
            Memory::Vec(vec) => vec,
            Memory::Owned(owned, _) => owned.bytes().unwrap_or_default().to_vec(),
        }
    }

    /// The `Vec` that it is, if it is one: to be made longer, for example.
    #[inline]
    pub fn as_mut_vec(&mut self) -> Option<&mut Vec<u8>> {
        match &mut *self.0 {
            Memory::Vec(vec) => Some(vec),
            Memory::Owned(..) => None,
        }
    }

    /// The owner that it was [made of](Self::owned).
    ///
    /// # Errors
    /// The buffer as it is, if that was no `T`.
    pub fn downcast<T: 'static>(self) -> Result<T, Self> {
        match self.take() {
            Memory::Owned(owned, _) if (&**owned as &dyn Any).is::<Owned<T>>() => {
                let owned: Box<dyn Any> = *owned;
                match owned.downcast::<Owned<T>>() {
                    Ok(owned) => Ok(owned.owner),
                    Err(_) => unreachable!("a type that it is was not found"),
                }
            }
            memory => Err(Self(ManuallyDrop::new(memory))),
        }
    }

    /// It is a `Vec`.
    #[inline]
    pub fn is_vec(&self) -> bool {
        matches!(&*self.0, Memory::Vec(_))
    }

    /// Whether so many bytes can be moved to it or from it.
    #[inline]
    pub(super) fn has(&self, len: usize) -> bool {
        self.len() >= len
            && match &*self.0 {
                Memory::Vec(_) => true,
                Memory::Owned(owned, _) => is_whole(&***owned),
            }
    }

    /// Bytes of what was submitted; empty if its owner does not keep what it has promised.
    #[inline]
    pub(super) fn range(&self, at: usize, len: usize) -> &[u8] {
        match &*self.0 {
            Memory::Vec(vec) => inside(vec.get(at..at + len)),
            Memory::Owned(owned, _) => range_of(&***owned, at, len),
        }
    }

    /// As [`range`](Self::range), to be written; `None` in place of nothing.
    #[inline]
    pub(super) fn range_mut(&mut self, at: usize, len: usize) -> Option<&mut [u8]> {
        match &mut *self.0 {
            Memory::Vec(vec) => Some(inside(vec.get_mut(at..at + len))),
            Memory::Owned(owned, _) => range_of_mut(&mut ***owned, at, len),
        }
    }

    /// What it is, of which it is the owner no more.
    #[inline]
    fn take(mut self) -> Memory {
        std::mem::replace(&mut *self.0, Memory::Vec(Vec::new()))
    }
}

/// A range that was accepted when it was submitted.
#[inline]
#[expect(clippy::expect_used, reason = "the buffer covers what was accepted")]
fn inside<T>(range: Option<T>) -> T {
    range.expect("data beyond the buffer of its request")
}

// What asks an owner is out of the way of a `Vec`.

#[cold]
#[inline(never)]
fn is_whole(owned: &dyn OwnedBytes) -> bool {
    !owned.is_broken()
}

#[cold]
#[inline(never)]
fn range_of(owned: &dyn OwnedBytes, at: usize, len: usize) -> &[u8] {
    let bytes = owned.bytes();
    bytes.map_or(&[], |bytes| inside(bytes.get(at..at + len)))
}

#[cold]
#[inline(never)]
fn range_of_mut(owned: &mut dyn OwnedBytes, at: usize, len: usize) -> Option<&mut [u8]> {
    let bytes = owned.bytes_mut()?;
    Some(inside(bytes.get_mut(at..at + len)))
}

/// Its words go by value to what drops it. Dropped where it is, as an enum drops what is in it, it would have an address on
/// the ways out of a panic of each function that an I/O comes through: the whole I/O then stands in memory and is copied
/// from place to place, which takes a host a seventh more instructions for a read, and a quarter more for a write.
#[expect(
    unsafe_code,
    reason = "a safe move of three words goes by their address"
)]
impl Drop for Buffer {
    #[inline]
    fn drop(&mut self) {
        if matches!(&*self.0, Memory::Vec(vec) if vec.capacity() == 0) {
            return;
        }
        let memory: *const Memory = &raw const *self.0;
        // SAFETY: a `Memory` is three words, and `self` is not used any more: `a_buffer_is_dropped_once_whatever_it_is`.
        unsafe {
            let [a, b, c] = memory.cast::<[Word; 3]>().read();
            release(a, b, c);
        }
    }
}

/// A third of a [`Memory`], whatever is in it.
type Word = std::mem::MaybeUninit<*const ()>;

/// Drops a [`Memory`].
///
/// SAFETY: the words are, in their order, those of one that is not used any more.
#[expect(unsafe_code, reason = "as above")]
#[cold]
#[inline(never)]
unsafe fn release(a: Word, b: Word, c: Word) {
    // SAFETY: as said above; both are as large, which the compiler checks.
    drop(unsafe { std::mem::transmute::<[Word; 3], Memory>([a, b, c]) });
}

/// An owner, whatever its type.
trait OwnedBytes: Any + Send + Sync {
    fn is_broken(&self) -> bool;
    /// `len` bytes; `None` once that has failed.
    fn bytes(&self) -> Option<&[u8]>;
    fn bytes_mut(&mut self) -> Option<&mut [u8]>;
}

struct Owned<T> {
    owner: T,
    /// Bytes that the owner had at first.
    len: usize,
    /// It had fewer, or has panicked.
    is_broken: AtomicBool,
}

impl<T: AsRef<[u8]> + AsMut<[u8]> + Send + Sync + 'static> OwnedBytes for Owned<T> {
    fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed)
    }

    fn bytes(&self) -> Option<&[u8]> {
        if self.is_broken.load(Ordering::Relaxed) {
            return None;
        }
        let bytes = outlive(|| self.owner.as_ref()).and_then(|bytes| bytes.get(..self.len));
        self.is_broken.store(bytes.is_none(), Ordering::Relaxed);
        bytes
    }

    fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        if self.is_broken.load(Ordering::Relaxed) {
            return None;
        }
        let bytes = outlive(|| self.owner.as_mut()).and_then(|bytes| bytes.get_mut(..self.len));
        self.is_broken.store(bytes.is_none(), Ordering::Relaxed);
        bytes
    }
}

/// Asks an owner for its bytes, and outlives it if it panics: it is its user's, and the reactor is everybody's.
fn outlive<B>(bytes: impl FnOnce() -> B) -> Option<B> {
    match catch_unwind(AssertUnwindSafe(bytes)) {
        Ok(bytes) => Some(bytes),
        Err(panic) => {
            // What it has panicked with might panic as well when it is dropped.
            std::mem::forget(panic);
            log::error!(target: LOG_FLAG, "the owner of a buffer has panicked when it was asked for its bytes");
            None
        }
    }
}

impl Default for Buffer {
    #[inline]
    fn default() -> Self {
        Self::from(Vec::new())
    }
}

impl From<Vec<u8>> for Buffer {
    #[inline]
    fn from(vec: Vec<u8>) -> Self {
        Self(ManuallyDrop::new(Memory::Vec(vec)))
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.len())
    }
}

impl PartialEq for Buffer {
    fn eq(&self, other: &Self) -> bool {
        other.as_slice().is_some_and(|other| *self == *other)
    }
}

impl PartialEq<[u8]> for Buffer {
    fn eq(&self, other: &[u8]) -> bool {
        self.as_slice() == Some(other)
    }
}

impl<const N: usize> PartialEq<[u8; N]> for Buffer {
    fn eq(&self, other: &[u8; N]) -> bool {
        *self == other[..]
    }
}

impl PartialEq<Vec<u8>> for Buffer {
    fn eq(&self, other: &Vec<u8>) -> bool {
        *self == other[..]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// An owner that lends as many bytes as it is told, if it does not panic.
    struct Fickle {
        bytes: [u8; 8],
        lends: [usize; 2],
        asked: AtomicBool,
    }

    const PANICS: usize = usize::MAX;

    impl Fickle {
        /// As many at first, and then.
        fn buffer(lends: [usize; 2]) -> Buffer {
            Buffer::owned(Self {
                bytes: [7; 8],
                lends,
                asked: AtomicBool::new(false),
            })
        }

        fn lends(&self) -> usize {
            let asked = self.asked.swap(true, Ordering::Relaxed);
            let len = self.lends[usize::from(asked)];
            assert!(len != PANICS, "an owner that panics");
            len
        }
    }

    impl AsRef<[u8]> for Fickle {
        fn as_ref(&self) -> &[u8] {
            &self.bytes[..self.lends()]
        }
    }

    impl AsMut<[u8]> for Fickle {
        fn as_mut(&mut self) -> &mut [u8] {
            let len = self.lends();
            &mut self.bytes[..len]
        }
    }

    #[test]
    fn an_owner_comes_back_as_it_was_with_what_was_put_into_it() {
        let mut buffer = Buffer::owned([0; 8]);
        assert!(buffer.has(8) && !buffer.has(9));
        buffer.range_mut(2, 3).unwrap().fill(1);
        assert_eq!(buffer.range(1, 3), [0, 1, 1]);
        assert_eq!(buffer, [0, 0, 1, 1, 1, 0, 0, 0]);
        let buffer = buffer.downcast::<Vec<u8>>().unwrap_err();
        let array = buffer.downcast::<[u8; 8]>();
        assert_eq!(array.unwrap(), [0, 0, 1, 1, 1, 0, 0, 0]);
        assert!(Buffer::from(vec![1]).downcast::<Vec<u8>>().is_err());
    }

    /// An owner that counts itself.
    struct Counted(Arc<()>, [u8; 4]);

    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &self.1
        }
    }

    impl AsMut<[u8]> for Counted {
        fn as_mut(&mut self) -> &mut [u8] {
            &mut self.1
        }
    }

    #[test]
    fn a_buffer_is_dropped_once_whatever_it_is() {
        let owners = Arc::new(());
        let make = || Buffer::owned(Counted(owners.clone(), [5; 4]));
        let mut kept = vec![make(), vec![1, 2, 3].into(), Vec::new().into(), make()];
        assert_eq!(Arc::strong_count(&owners), 3);
        kept[0] = Buffer::default();
        assert_eq!(Arc::strong_count(&owners), 2);
        kept[1] = make();
        assert_eq!(Arc::strong_count(&owners), 3);
        assert_eq!(std::mem::take(&mut kept[3]).into_vec(), [5; 4]);
        assert_eq!(Arc::strong_count(&owners), 2);
        let owner = std::mem::take(&mut kept[1])
            .downcast::<Counted>()
            .ok()
            .unwrap();
        assert_eq!(Arc::strong_count(&owners), 2);
        assert!(Arc::ptr_eq(&owner.0, &owners));
        drop((owner, kept));
        assert_eq!(Arc::strong_count(&owners), 1);
        let unwound = std::panic::catch_unwind(|| {
            let _buffers = (make(), Buffer::from(vec![1; 100]));
            panic!("with buffers of both kinds");
        });
        assert!(unwound.is_err() && Arc::strong_count(&owners) == 1);
    }

    #[test]
    fn a_vec_comes_back_as_the_same_memory() {
        let vec = vec![3; 100];
        let memory = vec.as_ptr();
        let mut buffer = Buffer::from(vec);
        assert!(buffer.is_vec() && buffer.as_mut_vec().is_some());
        let vec = buffer.into_vec();
        assert_eq!(vec.as_ptr(), memory);
    }

    #[test]
    fn an_owner_that_lends_less_or_panics_has_nothing_from_then_on() {
        for then in [7, 0, PANICS] {
            let buffer = Fickle::buffer([8, then]);
            assert!(buffer.has(8));
            assert!(buffer.range(0, 1).is_empty());
            assert!(!buffer.has(8) && buffer.len() == 8);
            assert!(buffer.as_slice().is_none() && buffer.into_vec().is_empty());

            let mut buffer = Fickle::buffer([8, then]);
            assert_eq!(buffer.range_mut(0, 1), None);
            assert!(!buffer.has(1) && buffer.as_mut_slice().is_none());
        }
    }

    #[test]
    fn an_owner_that_lends_more_later_is_taken_at_its_first_word() {
        let buffer = Fickle::buffer([4, 8]);
        assert_eq!(buffer.as_slice(), Some(&[7; 4][..]));
        assert_eq!(buffer, [7; 4]);
    }
}
