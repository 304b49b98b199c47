//! A controller that lies: what bringing it up must come to.

mod ana_logs;
mod identify_data;
mod properties;

use std::time::Duration;

use pollux_nvme_tcp::spec::Sqe;
use pollux_nvme_tcp::spec::log::lid;
use pollux_nvme_tcp::spec::opcode::admin;
use pollux_nvme_tcp::testing::lying::{Lie, Reply, is_property_get, selector};
use pollux_nvme_tcp::testing::wire::PATIENCE;

/// How bringing up a controller ends.
pub enum Outlook {
    /// It is usable, with this many namespaces, and this many left out.
    Usable(usize, usize),
    /// It is given up, with this in the message.
    GivenUp(&'static str),
}

pub struct Nonsense {
    pub name: &'static str,
    pub outlook: Outlook,
    pub lie: Lie,
    /// Time for each step.
    pub timeout: Duration,
    pub keep_alive_ms: u32,
}

pub fn nonsense(
    name: &'static str,
    outlook: Outlook,
    lie: impl FnMut(&Sqe) -> Option<Reply> + Send + 'static,
) -> Nonsense {
    Nonsense {
        name,
        outlook,
        lie: Box::new(lie),
        timeout: PATIENCE,
        keep_alive_ms: 0,
    }
}

/// Lies about one Identify structure.
pub fn identify(
    structure: u8,
    mut reply: impl FnMut(u32) -> Reply + Send + 'static,
) -> impl FnMut(&Sqe) -> Option<Reply> + Send {
    move |sqe| {
        let asked = sqe.opcode == admin::IDENTIFY && selector(sqe) == u32::from(structure);
        asked.then(|| reply(sqe.nsid.get()))
    }
}

/// Lies about one property.
pub fn property_get(
    offset: u32,
    mut reply: impl FnMut() -> Reply + Send + 'static,
) -> impl FnMut(&Sqe) -> Option<Reply> + Send {
    move |sqe| (is_property_get(sqe) && selector(sqe) == offset).then(&mut reply)
}

/// Lies about the ANA log.
pub fn ana(
    mut reply: impl FnMut() -> Reply + Send + 'static,
) -> impl FnMut(&Sqe) -> Option<Reply> + Send {
    move |sqe| {
        let asked = sqe.opcode == admin::GET_LOG_PAGE && selector(sqe) == u32::from(lid::ANA);
        asked.then(&mut reply)
    }
}

/// Lies about one opcode.
pub fn answer_to(
    opcode: u8,
    mut reply: impl FnMut() -> Reply + Send + 'static,
) -> impl FnMut(&Sqe) -> Option<Reply> + Send {
    move |sqe| (sqe.opcode == opcode).then(&mut reply)
}

/// All rows.
pub fn table() -> Vec<Nonsense> {
    [
        properties::table(),
        identify_data::table(),
        ana_logs::table(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
