//! The specification's structures, constants and codes: types only, no behaviour beyond accessors.
//!
//! Every structure that travels is `repr(C)` with alignment 1 and explicit little-endian fields, so
//! it can be read in place at any offset of a receive buffer, and has no padding that could leak
//! memory. Field names are those of the specification; reserved fields are `rsvdN`, where N is
//! their offset; fields that hold "count minus one" end in `_z`.
//!
//! Sections named in the documentation are those of *NVM Express Base Specification 2.1*, *NVM
//! Command Set Specification 1.1* and *NVMe over TCP Transport Specification 1.1*; what came later is said to be of *Base
//! 2.3*.

/// Declares an open code: a newtype with named values that keeps and prints values it has no name
/// for.
macro_rules! open_code {
    (
        $(#[$meta:meta])*
        $name:ident($repr:ty) {
            $( $(#[$doc:meta])* $konst:ident = $value:expr, $text:literal; )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(pub $repr);

        impl $name {
            $( $(#[$doc])* pub const $konst: Self = Self($value); )*

            /// The specification's name, where the value has one.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $( Self::$konst => Some($text), )*
                    _ => None,
                }
            }
        }

        impl ::core::fmt::Display for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{:#x}", self.0),
                }
            }
        }

        impl ::core::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                match self.name() {
                    Some(name) => write!(f, "{}({})", stringify!($name), name),
                    None => write!(f, "{}({:#x})", stringify!($name), self.0),
                }
            }
        }
    };
}

/// Fails the build when a structure's size, or the offset of a field, is not the one in the
/// specification's figure.
macro_rules! assert_layout {
    ($name:ty, $size:expr $(, $field:ident @ $offset:expr)* $(,)?) => {
        const _: () = {
            assert!(::core::mem::size_of::<$name>() == $size);
            assert!(::core::mem::align_of::<$name>() == 1);
            $( assert!(::core::mem::offset_of!($name, $field) == $offset); )*
        };
    };
}

pub mod authentication;
pub mod cross_controller_reset;
pub mod fabrics;
pub mod features;
pub mod identify;
pub mod log;
pub mod nqn;
pub mod nvm;
pub mod opcode;
pub mod pdu;
pub mod registers;
pub mod sqe;
pub mod status;

#[cfg(test)]
mod tests;

pub use nqn::{HostNqn, Nqn};
pub use sqe::{Cqe, SglDescriptor, Sqe};
pub use status::Status;
