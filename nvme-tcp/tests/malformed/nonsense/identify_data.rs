//! Identify data that makes no sense.

use std::ops::Range;

use pollux_nvme_tcp::spec::fabrics::property;
use pollux_nvme_tcp::spec::identify::cns;
use pollux_nvme_tcp::spec::status::Status;
use zerocopy::IntoBytes;

use super::{Nonsense, Outlook, identify, nonsense, property_get};
use crate::broken::Spoil;
use pollux_nvme_tcp::testing::lying::{Reply, cap, identify_controller, identify_namespace, nsids};
use pollux_nvme_tcp::testing::pattern;

const CNTLID: Range<usize> = 78..80;
const SUBNQN: Range<usize> = 768..1024;

pub fn table() -> Vec<Nonsense> {
    use Outlook::{GivenUp, Usable};
    let controller = |name, outlook, change: fn(&mut [u8])| {
        nonsense(
            name,
            outlook,
            identify(cns::CONTROLLER, move |_| {
                let mut data = identify_controller().as_bytes().to_vec();
                change(&mut data);
                Reply::Data(data)
            }),
        )
    };
    let namespace = |name, outlook, change: fn(&mut [u8])| {
        nonsense(
            name,
            outlook,
            identify(cns::NAMESPACE, move |_| {
                let mut data = identify_namespace().as_bytes().to_vec();
                change(&mut data);
                Reply::Data(data)
            }),
        )
    };
    let descriptors = |name, outlook, data: fn() -> Vec<u8>| {
        nonsense(
            name,
            outlook,
            identify(cns::NAMESPACE_ID_DESCRIPTORS, move |_| Reply::Data(data())),
        )
    };
    let list = |name, outlook, data: fn(u32) -> Vec<u8>| {
        nonsense(
            name,
            outlook,
            identify(cns::ACTIVE_NAMESPACE_LIST, move |after| {
                Reply::Data(data(after))
            }),
        )
    };
    vec![
        controller("Identify Controller: zeroes", GivenUp("SUBNQN"), |data| {
            data.fill(0)
        }),
        controller(
            "Identify Controller: ones",
            GivenUp("controller 65535"),
            |data| data.fill(0xff),
        ),
        controller(
            "Identify Controller: zeroes but the names",
            Usable(1, 0),
            |data| {
                let truth = data.to_vec();
                data.fill(0);
                data[CNTLID].copy_from_slice(&truth[CNTLID]);
                data[SUBNQN].copy_from_slice(&truth[SUBNQN]);
            },
        ),
        controller(
            "Identify Controller: ones but the names",
            Usable(1, 0),
            |data| {
                let truth = data.to_vec();
                data.fill(0xff);
                // And MDTS, which would only make the log of its claims slow to read.
                data[77] = 0;
                data[CNTLID].copy_from_slice(&truth[CNTLID]);
                data[SUBNQN].copy_from_slice(&truth[SUBNQN]);
            },
        ),
        controller(
            "Identify Controller: another CNTLID",
            GivenUp("connected is controller 0"),
            |data| data[CNTLID].copy_from_slice(&[2, 0]),
        ),
        controller(
            "Identify Controller: another SUBNQN",
            GivenUp("SUBNQN"),
            |data| data[SUBNQN.start + 20] ^= 1,
        ),
        controller(
            "Identify Controller: a SUBNQN that is longer",
            GivenUp("SUBNQN"),
            |data| {
                let len = data[SUBNQN].iter().position(|&b| b == 0).unwrap();
                data[SUBNQN.start + len] = b'x';
            },
        ),
        controller(
            "Identify Controller: no SUBNQN",
            GivenUp("SUBNQN"),
            |data| data[SUBNQN].fill(0),
        ),
        controller("Identify Controller: MDTS 255", Usable(1, 0), |data| {
            data[77] = 255
        }),
        controller("Identify Controller: MDTS 63", Usable(1, 0), |data| {
            data[77] = 63
        }),
        nonsense("pages of 128 MiB and MDTS 1", Usable(1, 0), {
            let mut lie = identify(cns::CONTROLLER, |_| {
                let mut data = identify_controller();
                data.mdts = 1;
                Reply::Data(data.as_bytes().to_vec())
            });
            let mut cap = property_get(property::CAP, || {
                Reply::Result(cap().with_mpsmin(15).into_bits())
            });
            move |sqe| cap(sqe).or_else(|| lie(sqe))
        }),
        nonsense(
            "Identify Controller: 512 bytes",
            GivenUp("SUBNQN"),
            identify(cns::CONTROLLER, |_| {
                Reply::Short(identify_controller().as_bytes()[..512].to_vec())
            }),
        ),
        nonsense(
            "Identify Controller: no data",
            GivenUp("SUBNQN"),
            identify(cns::CONTROLLER, |_| Reply::Result(0)),
        ),
        nonsense(
            "Identify Controller: refused",
            GivenUp("Identify Controller"),
            identify(cns::CONTROLLER, |_| {
                Reply::Status(Status::INTERNAL_ERROR.with_dnr())
            }),
        ),
        nonsense(
            "Identify Controller: too much",
            GivenUp("protocol"),
            identify(cns::CONTROLLER, |_| Reply::Short(vec![0; 4100])),
        ),
        list("active list: falling", GivenUp("rising"), |_| nsids([2, 1])),
        list("active list: the same twice", GivenUp("rising"), |_| {
            nsids([1, 1])
        }),
        list("active list: empty", Usable(0, 0), |_| Vec::new()),
        list(
            "active list: a full one, again and again",
            GivenUp("rising"),
            |_| nsids(1..=1024),
        ),
        list("active list: without end", GivenUp("65536"), |after| {
            nsids(after + 1..=after + 1024)
        }),
        list("active list: NSID FFFFFFFFh", Usable(2, 0), |_| {
            nsids([1, u32::MAX])
        }),
        nonsense(
            "active list: refused",
            GivenUp("Active Namespace"),
            identify(cns::ACTIVE_NAMESPACE_LIST, |_| {
                Reply::Status(Status::INVALID_FIELD)
            }),
        ),
        namespace("namespace: zeroes", Usable(0, 1), |data| data.fill(0)),
        namespace("namespace: ones", Usable(0, 1), |data| data.fill(0xff)),
        namespace("namespace: LBADS 0", Usable(0, 1), |data| data[130] = 0),
        namespace("namespace: LBADS 63", Usable(0, 1), |data| data[130] = 63),
        namespace("namespace: LBADS 255", Usable(0, 1), |data| data[130] = 255),
        namespace(
            "namespace: a format that is not there",
            Usable(0, 1),
            |data| data[26] = 0x6f,
        ),
        namespace("namespace: metadata", Usable(0, 1), |data| data[128] = 8),
        nonsense(
            "namespace: refused",
            Usable(0, 1),
            identify(cns::NAMESPACE, |_| Reply::Status(Status::INVALID_NAMESPACE)),
        ),
        descriptors("descriptors: of no length", Usable(1, 0), || {
            vec![3, 0, 0, 0]
        }),
        descriptors("descriptors: noise", Usable(1, 0), || {
            pattern(4096, 4).with(0, &[9])
        }),
        descriptors("descriptors: one beyond the end", Usable(1, 0), || {
            let mut data = vec![0xee; 4096];
            data[..2].copy_from_slice(&[0xee, 0xff]);
            data
        }),
        descriptors("descriptors: a UUID of 3 bytes", Usable(1, 0), || {
            vec![3, 3, 0, 0, 1, 2, 3]
        }),
        descriptors("descriptors: another command set", Usable(0, 1), || {
            vec![4, 1, 0, 0, 2]
        }),
    ]
}
