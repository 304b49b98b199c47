//! ANA logs that make no sense.

use pollux_nvme_tcp::spec::identify::cns;
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::testing::lying::{Reply, ana_log, identify_controller};
use zerocopy::IntoBytes;

use super::{Nonsense, Outlook, ana, identify, nonsense};
use crate::broken::Spoil;

pub fn table() -> Vec<Nonsense> {
    use Outlook::{GivenUp, Usable};
    const GOOD: AnaState = AnaState::OPTIMIZED;
    let log = |name, outlook, data: fn() -> Vec<u8>| {
        nonsense(name, outlook, ana(move || Reply::Data(data())))
    };
    vec![
        log("ANA log: zeroes", Usable(1, 0), Vec::new),
        log("ANA log: ones", GivenUp("ANA log"), || vec![0xff; 8192]),
        log("ANA log: 65,535 groups", GivenUp("ANA log"), || {
            ana_log(&[(1, GOOD, &[1])]).with(8, &[0xff, 0xff])
        }),
        log("ANA log: 2^32 - 1 namespaces", GivenUp("ANA log"), || {
            ana_log(&[(1, GOOD, &[1])]).with(20, &[0xff; 4])
        }),
        log("ANA log: 2^30 namespaces", GivenUp("ANA log"), || {
            ana_log(&[(1, GOOD, &[1])]).with(20, &[0, 0, 0, 0x40])
        }),
        log("ANA log: group 0", GivenUp("ANA log"), || {
            ana_log(&[(0, GOOD, &[1])])
        }),
        log("ANA log: a group twice", GivenUp("ANA log"), || {
            ana_log(&[(1, GOOD, &[1]), (1, GOOD, &[])])
        }),
        log("ANA log: a namespace twice", GivenUp("ANA log"), || {
            ana_log(&[(1, GOOD, &[1]), (2, AnaState::INACCESSIBLE, &[1])])
        }),
        log("ANA log: namespace 0", GivenUp("ANA log"), || {
            ana_log(&[(1, GOOD, &[0])])
        }),
        log("ANA log: state 0", GivenUp("ANA log"), || {
            ana_log(&[(1, AnaState(0), &[1])])
        }),
        log("ANA log: state Eh", GivenUp("ANA log"), || {
            ana_log(&[(1, AnaState(14), &[1])])
        }),
        log(
            "ANA log: namespaces that are not there",
            Usable(1, 0),
            || ana_log(&[(1, GOOD, &[1, 30, 31, 32])]),
        ),
        nonsense(
            "ANA log: refused",
            GivenUp("ANA"),
            ana(|| Reply::Status(Status::INVALID_LOG_PAGE)),
        ),
        nonsense(
            "ANA log: 20 bytes of it",
            GivenUp("ANA log"),
            ana(|| Reply::Short(ana_log(&[(1, GOOD, &[1])])[..20].to_vec())),
        ),
        nonsense("ANA log: another one each time", GivenUp("ANA log"), {
            // So many groups that the log takes several reads.
            let mut many = identify(cns::CONTROLLER, |_| {
                let mut data = identify_controller();
                data.mdts = 1;
                data.nanagrpid = 1024.into();
                Reply::Data(data.as_bytes().to_vec())
            });
            let mut count = 0u8;
            let mut moving = ana(move || {
                count = count.wrapping_add(1);
                let none: &[u32] = &[];
                let groups: Vec<_> = (1..=300).map(|id| (id, GOOD, none)).collect();
                Reply::Data(ana_log(&groups)[..8192].to_vec().with(0, &[count]))
            });
            move |sqe| many(sqe).or_else(|| moving(sqe))
        }),
    ]
}
