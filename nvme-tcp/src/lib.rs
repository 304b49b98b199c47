//! pollux-nvme-tcp
#![deny(missing_docs)]
