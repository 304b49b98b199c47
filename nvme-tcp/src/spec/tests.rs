//! Bytes as in the specification's figures or as seen from real peers, to fields, to the same
//! bytes.

use uuid::Uuid;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::fabrics::*;
use super::features::*;
use super::identify::*;
use super::log::*;
use super::nqn::*;
use super::nvm::*;
use super::opcode::{self, DataDirection};
use super::pdu::{Fes, PduType, TermReq};
use super::registers::*;
use super::*;

/// Writes `value` at `offset`, as the specification's tables state fields.
fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    bytes[offset..offset + value.len()].copy_from_slice(value);
}

#[test]
fn sqe_of_a_write() {
    #[rustfmt::skip]
    let bytes: [u8; 64] = [
        0x01, 0x40, 0x34, 0x12, 0x02, 0, 0, 0,   // opcode, PSDT, CID, NSID
        0, 0, 0, 0, 0, 0, 0, 0,                  // CDW2, CDW3
        0, 0, 0, 0, 0, 0, 0, 0,                  // MPTR
        0, 0, 0, 0, 0, 0, 0, 0,                  // SGL address
        0x00, 0x10, 0, 0, 0, 0, 0, 0x5A,         // SGL length, type
        0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, // SLBA
        0x07, 0, 0, 0, 0, 0, 0, 0,               // NLB
        0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let sqe = Sqe::read_from_bytes(&bytes).unwrap();
    assert_eq!(
        (sqe.opcode, sqe.cid.get(), sqe.nsid.get()),
        (opcode::nvm::WRITE, 0x1234, 2)
    );
    assert_eq!(sqe.flags & Sqe::PSDT_MASK, Sqe::PSDT_SGL);
    assert_eq!((sqe.slba(), sqe.blocks()), (0x1122_3344_5566_7788, 8));
    assert_eq!(sqe.data_direction(), DataDirection::HostToController);

    let mut made = Sqe::for_blocks(opcode::nvm::WRITE, 2, 0x1122_3344_5566_7788, 8);
    made.cid.set(0x1234);
    made.sgl = SglDescriptor::transport(4096);
    assert_eq!(made.as_bytes(), bytes);
}

#[test]
fn data_directions() {
    use DataDirection::{ControllerToHost, HostToController, None};
    for (code, direction) in [
        (opcode::nvm::FLUSH, None),
        (opcode::nvm::READ, ControllerToHost),
        (opcode::nvm::COMPARE, HostToController),
        (opcode::nvm::WRITE_ZEROES, None),
        (opcode::nvm::DATASET_MANAGEMENT, HostToController),
        (opcode::admin::IDENTIFY, ControllerToHost),
        (opcode::admin::GET_LOG_PAGE, ControllerToHost),
        (opcode::admin::SET_FEATURES, HostToController),
        (opcode::admin::KEEP_ALIVE, None),
        (opcode::admin::CROSS_CONTROLLER_RESET, None),
    ] {
        assert_eq!(Sqe::new(code, 0).data_direction(), direction, "{code:#x}");
    }
    assert_eq!(
        Sqe::from(ConnectCommand::new(0, 32, 0, 0)).data_direction(),
        HostToController
    );
    assert_eq!(Sqe::from(PropertyGet::new(0, 0)).data_direction(), None);
}

#[test]
fn block_counts_at_the_edges() {
    assert_eq!(Sqe::for_blocks(opcode::nvm::READ, 1, 0, 1).cdw12.get(), 0);
    assert_eq!(
        Sqe::for_blocks(opcode::nvm::READ, 1, 0, 65_536).blocks(),
        65_536
    );
    let cdw12 = NvmCdw12::new().with_nlb_z(7).with_fua(true);
    assert_eq!(cdw12.into_bits(), 0x4000_0007);
    assert_eq!(NvmCdw12::new().with_deac(true).into_bits(), 1 << 25);
    assert_eq!(NvmCdw12::new().with_lr(true).into_bits(), 1 << 31);
}

#[test]
fn cqe_at_an_odd_offset() {
    #[rustfmt::skip]
    let bytes: [u8; 17] = [
        0xEE,
        0x02, 0x03, 0x0C, 0x00, 0, 0, 0, 0, // result: an ANA change event
        0x05, 0x00, 0x00, 0x00,             // SQHD, SQID
        0x1F, 0x00, 0x05, 0x86,             // CID, status: DNR, SCT 3, SC 2, phase 1
    ];
    let cqe = Cqe::ref_from_bytes(&bytes[1..]).unwrap();
    assert_eq!((cqe.sqhd.get(), cqe.sqid.get(), cqe.cid.get()), (5, 0, 31));
    let status = cqe.status();
    assert_eq!(
        (status.sct(), status.sc(), status.dnr(), status.more()),
        (3, 2, true, false)
    );
    assert_eq!(cqe.dw0(), AsyncEvent::ANA_CHANGE.into_bits());
    assert_eq!(
        AsyncEvent::NAMESPACE_ATTRIBUTE_CHANGED.into_bits(),
        0x04_0002
    );
    assert_eq!(AsyncEvent::DISCOVERY_CHANGE.into_bits(), 0x70_F002);
    assert_eq!(
        AsyncEvent::CROSS_CONTROLLER_RESET_COMPLETED.into_bits(),
        0x1E_F402
    );
    let cqe = Cqe::new(31, Status::INVALID_FIELD.with_dnr());
    assert_eq!(cqe.as_bytes()[12..], [0x1F, 0x00, 0x04, 0x80]);
}

#[test]
fn status_fields() {
    // As nvmet answers most errors: More and DNR are set.
    let status = Status::from_cqe(0xC004.into());
    assert_eq!(status.code(), Status::INVALID_FIELD);
    assert!(status.more() && status.dnr() && !status.is_success());
    assert_eq!(status.to_cqe().get(), 0xC004);
    assert_eq!(
        status.to_string(),
        "Invalid Field in Command (SCT 0h, SC 02h, More, DNR)"
    );

    let ana = Status::new(3, 2);
    assert!(ana.is_ana() && ana.is_path_related() && !ana.dnr());
    assert_eq!(ana, Status::ASYMMETRIC_ACCESS_INACCESSIBLE);
    assert!(!Status::INTERNAL_PATH_ERROR.is_ana());
    assert!(Status::HOST_PATHING_ERROR.is_path_related() && !Status::HOST_PATHING_ERROR.is_ana());
    assert!(!Status::new(0, 2).is_ana());

    assert_eq!(
        Status::new(7, 0xC1).to_string(),
        "unknown status (SCT 7h, SC C1h)"
    );
    assert_eq!(Status::new(7, 0xC1).name(), None);
    assert_eq!(Status::COMMAND_INTERRUPTED.with_crd(2).crd(), 2);
    assert_eq!(
        Status::COMMAND_INTERRUPTED.with_crd(2).code(),
        Status::COMMAND_INTERRUPTED
    );
    assert!(Status::SUCCESS.with_more().is_success());
    for word in 0..=u16::MAX {
        let status = Status::from_cqe(word.into());
        assert_eq!(status.to_cqe().get(), word & 0xFFFE);
        let again = Status::new(status.sct(), status.sc());
        assert_eq!(again, status.code());
    }
}

#[test]
fn registers_of_a_real_target() {
    // nvmet: MQES 1023, TO 7.5 s, CSS bits 0 and 6.
    let cap = Cap::from_bits(0x0000_0820_0F00_03FF);
    assert_eq!((cap.mqes_z(), cap.max_queue_entries()), (1023, 1024));
    assert_eq!(cap.timeout().as_millis(), 7500);
    assert_eq!(cap.css(), Cap::CSS_NVM | Cap::CSS_IOCS);
    assert_eq!((cap.mpsmin(), cap.cqr(), cap.dstrd()), (0, false, 0));
    // The Linux host.
    let cc = Cc::from_bits(0x46_0061);
    assert!(cc.en());
    assert_eq!(
        (cc.css(), cc.mps(), cc.shn()),
        (Cc::CSS_IOCS, 0, Cc::SHN_NONE)
    );
    assert_eq!((cc.iosqes(), cc.iocqes()), (6, 4));
    assert_eq!(Cc::from_bits(0x46_4061).shn(), Cc::SHN_NORMAL);
    assert_eq!(Vs::V1_3.into_bits(), 0x1_0300);
    assert!(Vs::V2_1 > Vs::V2_0 && Vs::V2_0 > Vs::V1_4);
    let csts = Csts::new().with_rdy(true).with_shst(Csts::SHST_COMPLETE);
    assert_eq!(csts.into_bits(), 0b1001);
    assert_eq!(Csts::new().with_cfs(true).into_bits(), 0b10);
    for (bits, cap) in [
        (16, Cap::new().with_cqr(true)),
        (24, Cap::new().with_to(1)),
        (37, Cap::new().with_css(1)),
        (48, Cap::new().with_mpsmin(1)),
        (52, Cap::new().with_mpsmax(1)),
        (59, Cap::new().with_crwms(true)),
        (61, Cap::new().with_nsses(true)),
    ] {
        assert_eq!(cap.into_bits(), 1 << bits);
    }
}

#[test]
fn connect_command_and_data() {
    let mut bytes = [0u8; 64];
    put(&mut bytes, 0, &[0x7F, 0x40, 0x03, 0x00, 0x01]);
    put(&mut bytes, 32, &[0x00, 0x04, 0, 0, 0, 0, 0, 0x01]); // SGL: 1,024 bytes in-capsule
    put(&mut bytes, 42, &[2, 0]);
    put(&mut bytes, 44, &[127, 0]);
    put(&mut bytes, 46, &[4]);
    put(&mut bytes, 48, &5000u32.to_le_bytes());
    let mut made = ConnectCommand::new(2, 128, cattr::DISABLE_SQ_FLOW_CONTROL, 5000);
    made.cid.set(3);
    assert_eq!(made.as_bytes(), bytes);
    let sqe = Sqe::read_from_bytes(&bytes).unwrap();
    assert_eq!(
        (sqe.opcode, sqe.fctype()),
        (opcode::FABRICS, opcode::fctype::CONNECT)
    );
    let connect = sqe.as_connect();
    assert_eq!(
        (connect.qid.get(), connect.sqsize(), connect.kato.get()),
        (2, 128, 5000)
    );
    assert_eq!(connect, &made);
    assert_eq!(ConnectCommand::new(0, 65_536, 0, 0).sqsize(), 65_536);

    let host = Nqn::from_uuid(Uuid::from_u128(5));
    let data = ConnectData::new([9; 16], CNTLID_DYNAMIC, &Nqn::discovery(), &host);
    let bytes = data.as_bytes();
    assert_eq!(bytes[..16], [9; 16]);
    assert_eq!(bytes[16..18], [0xFF, 0xFF]);
    assert!(bytes[256..].starts_with(b"nqn.2014-08.org.nvmexpress.discovery\0"));
    assert!(bytes[512..].starts_with(b"nqn.2014-08.org.nvmexpress:uuid:00000000-0000-0000-"));
    assert_eq!(data.subnqn(), Ok(Nqn::discovery()));
    assert_eq!(data.hostnqn(), Ok(host.into()));

    assert_eq!(ConnectSuccess::from_bits(0x0002_0007).cntlid(), 7);
    assert!(ConnectSuccess::from_bits(0x0002_0007).atr());
    assert!(ConnectSuccess::from_bits(0x0004_0007).ascr());
    assert_eq!(ConnectInvalidParameter::of_data(256).into_bits(), 0x1_0100);
    assert_eq!(ConnectInvalidParameter::of_command(44).into_bits(), 44);
}

#[test]
fn property_commands() {
    let mut bytes = [0u8; 64];
    put(&mut bytes, 0, &[0x7F, 0x40, 0, 0, 0x04]);
    put(&mut bytes, 40, &[0x01]);
    assert_eq!(
        PropertyGet::new(property::CAP, property::SIZE_8).as_bytes(),
        bytes
    );
    put(&mut bytes, 4, &[0x00]);
    put(
        &mut bytes,
        40,
        &[0x00, 0, 0, 0, 0x14, 0, 0, 0, 0x61, 0x00, 0x46, 0x00],
    );
    let set = PropertySet::new(property::CC, 0x46_0061);
    assert_eq!(set.as_bytes(), bytes);
    assert_eq!(Sqe::from(set).as_property_set().value.get(), 0x46_0061);
    assert_eq!(Sqe::from(set).as_property_get().ofst.get(), property::CC);
    let disconnect = Sqe::from(DisconnectCommand::new());
    assert_eq!(disconnect.fctype(), 0x08);
    assert_eq!(disconnect.as_disconnect().recfmt.get(), 0);
}

#[test]
fn identify_controller_fields() {
    let mut bytes = vec![0u8; 4096];
    put(&mut bytes, 4, b"SERIAL 1            ");
    put(&mut bytes, 24, b"Linux                                   ");
    put(&mut bytes, 64, b"6.12\0\0\0\0");
    put(&mut bytes, 76, &[0x0B, 0x05]);
    put(&mut bytes, 78, &[0x01, 0x02]);
    put(&mut bytes, 92, &0x900u32.to_le_bytes());
    put(&mut bytes, 96, &0x41u32.to_le_bytes());
    put(&mut bytes, 111, &[1]);
    put(&mut bytes, 128, &[10, 0, 20, 0, 30, 0]);
    put(&mut bytes, 135, &[5, 8, 7, 6, 5, 4, 3, 2, 1]);
    put(&mut bytes, 259, &[3]);
    put(&mut bytes, 320, &[10, 0]);
    put(&mut bytes, 342, &[10, 0x1F, 128, 0, 0, 0, 128, 0, 0, 0]);
    put(&mut bytes, 386, &[0xE8, 0x03]);
    put(
        &mut bytes,
        512,
        &[0x66, 0x44, 0x00, 0x04, 0x00, 0x04, 0x00, 0x00, 0x0C],
    );
    put(&mut bytes, 536, &0x10_0001u32.to_le_bytes());
    put(&mut bytes, 540, &1024u32.to_le_bytes());
    put(&mut bytes, 768, DISCOVERY_NQN.as_bytes());
    put(&mut bytes, 1792, &1028u32.to_le_bytes());
    put(&mut bytes, 1796, &[1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 9]);
    let id = IdentifyController::ref_from_bytes(&bytes).unwrap();
    assert_eq!(
        (id.serial(), id.model(), id.firmware()),
        ("SERIAL 1".into(), "Linux".into(), "6.12".into())
    );
    assert_eq!(id.cmic & ctrl::CMIC_ANA_REPORTING, ctrl::CMIC_ANA_REPORTING);
    assert_eq!(id.cntlid.get(), 0x0201);
    assert_eq!(id.oaes.get(), event::ENABLE_NAMESPACE | event::ENABLE_ANA);
    assert_eq!(
        id.ctratt.get(),
        ctrl::CTRATT_HOST_ID_128 | ctrl::CTRATT_TBKAS
    );
    assert_eq!(id.cntrltype, ctrl::CNTRLTYPE_IO);
    assert_eq!(
        (id.crdt1.get(), id.crdt2.get(), id.crdt3.get()),
        (10, 20, 30)
    );
    assert_eq!((id.aerl_z, id.kas.get(), id.cqt.get()), (3, 10, 1000));
    assert_eq!((id.ciu, id.cirn.get()), (5, 0x0102_0304_0506_0708));
    assert_eq!(id.ccrl, 9);
    assert_eq!((id.anatt, id.anacap), (10, 0x1F));
    assert_eq!((id.anagrpmax.get(), id.nanagrpid.get()), (128, 128));
    assert_eq!((id.sqes, id.cqes), (ctrl::SQES_64, ctrl::CQES_16));
    assert_eq!(
        (id.maxcmd.get(), id.nn.get(), id.mnan.get()),
        (1024, 1024, 1024)
    );
    assert_eq!(
        id.oncs.get(),
        ctrl::ONCS_DATASET_MANAGEMENT | ctrl::ONCS_WRITE_ZEROES
    );
    assert_eq!(id.sgls.get(), ctrl::SGLS_SUPPORTED | ctrl::SGLS_OFFSET);
    assert_eq!(id.subnqn(), Ok(Nqn::discovery()));
    assert_eq!(id.in_capsule_data_len(), 16 * 1024);
    assert_eq!((id.msdbd, id.ofcs.get()), (1, ctrl::OFCS_DISCONNECT));
    assert_eq!(id.max_transfer_len(0), Some(128 * 1024));
    assert_eq!(id.max_transfer_len(200), Some(u64::MAX));
    assert_eq!(id.as_bytes(), bytes);

    let empty = IdentifyController::new_box_zeroed().unwrap();
    assert_eq!(
        (empty.max_transfer_len(0), empty.in_capsule_data_len()),
        (None, 0)
    );
    assert!(empty.subnqn().is_err());
}

#[test]
fn ascii_fields() {
    assert_eq!(&ascii_field::<8>("ab"), b"ab      ");
    assert_eq!(&ascii_field::<4>("a\u{7}\u{e9}xyz"), b"a??x");
    assert_eq!(text(b" a b  "), " a b");
    assert_eq!(text(b"a\0junk"), "a");
    assert_eq!(text(b"\x1b[2J\xff"), "?[2J?");
    assert_eq!(text(&ascii_field::<20>("SERIAL")), "SERIAL");
}

#[test]
fn identify_namespace_fields() {
    let mut bytes = vec![0u8; 4096];
    put(&mut bytes, 0, &1000u64.to_le_bytes());
    put(&mut bytes, 25, &[1, 1]);
    put(&mut bytes, 30, &[1]);
    put(&mut bytes, 33, &[9]);
    put(&mut bytes, 92, &[7, 0, 0, 0]);
    put(&mut bytes, 99, &[1]);
    put(&mut bytes, 104, &[0xA0; 16]);
    put(&mut bytes, 120, &[0xE0; 8]);
    put(&mut bytes, 128, &[0, 0, 9, 0, 0, 0, 12, 0]);
    let ns = IdentifyNamespace::ref_from_bytes(&bytes).unwrap();
    assert_eq!(
        (ns.nsze.get(), ns.nmic, ns.anagrpid.get()),
        (1000, ns::NMIC_SHARED, 7)
    );
    assert_eq!(
        ns.dlfeat,
        ns::DLFEAT_READS_ZEROES | ns::DLFEAT_WRITE_ZEROES_DEALLOCATES
    );
    assert_eq!(ns.nsattr, ns::NSATTR_WRITE_PROTECTED);
    assert_eq!((ns.nguid, ns.eui64), ([0xA0; 16], [0xE0; 8]));
    assert_eq!(ns.block_size(), Some(4096));
    assert_eq!(ns.as_bytes(), bytes);

    let mut ns = ns.clone();
    ns.flbas = 0x5F & !0x10;
    assert_eq!(
        ns.block_size(),
        None,
        "format 15: FLBAS 6:5 is not valid with 16 formats or less"
    );
    ns.nlbaf_z = 63;
    ns.lbaf[0x2F].lbads = 9;
    assert_eq!(ns.block_size(), Some(512), "format 47");
    ns.lbaf[0x2F].lbads = 32;
    assert_eq!(ns.block_size(), None);
}

#[test]
fn namespace_lists() {
    let mut bytes = vec![0u8; 4096];
    put(&mut bytes, 0, &[1, 0, 0, 0, 5, 0, 0, 0]);
    put(&mut bytes, 12, &[9]);
    let list = NamespaceList::ref_from_bytes(&bytes).unwrap();
    assert_eq!(list.iter().collect::<Vec<_>>(), [1, 5]);
    let full = [1u8; 4096];
    assert_eq!(
        NamespaceList::ref_from_bytes(&full).unwrap().iter().count(),
        NamespaceList::MAX
    );
}

#[test]
fn namespace_id_descriptor_lists() {
    let ids: [(u8, &[u8]); 4] = [
        (descriptor_type::EUI64, &[1; 8]),
        (descriptor_type::NGUID, &[2; 16]),
        (descriptor_type::UUID, &[3; 16]),
        (descriptor_type::CSI, &[CSI_NVM]),
    ];
    let mut list = Vec::new();
    for (nidt, id) in ids {
        put_namespace_id_descriptor(&mut list, nidt, id);
    }
    assert_eq!(list[..5], [1, 8, 0, 0, 1]);
    assert_eq!(list.len(), 4 * 4 + 8 + 16 + 16 + 1);
    assert!(namespace_id_descriptors(&list).eq(ids));
    list.resize(IDENTIFY_LEN, 0);
    assert!(namespace_id_descriptors(&list).eq(ids));
    for len in 0..60 {
        let whole = [12, 32, 52, 57].iter().filter(|&&end| end <= len).count();
        assert_eq!(
            namespace_id_descriptors(&list[..len]).count(),
            whole.min(4),
            "{len}"
        );
    }
    // A length that runs past the end.
    assert_eq!(namespace_id_descriptors(&[3, 255, 0, 0, 1, 2]).count(), 0);
}

#[test]
fn ana_log_structures() {
    #[rustfmt::skip]
    let bytes = [
        5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,   // change count, groups
        7, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0,   // group, NSIDs, change count
        0xF3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // state with reserved bits set
        1, 0, 0, 0, 9, 0, 0, 0,
    ];
    let (header, rest) = AnaLogHeader::ref_from_prefix(&bytes).unwrap();
    assert_eq!((header.chgcnt.get(), header.ngrps.get()), (5, 1));
    let (group, nsids) = AnaGroupDescriptor::ref_from_prefix(rest).unwrap();
    assert_eq!(
        (group.agid.get(), group.nnv.get(), group.chgcnt.get()),
        (7, 2, 4)
    );
    assert_eq!(group.state(), AnaState::INACCESSIBLE);
    assert_eq!(nsids.len(), 8);
    let made = AnaGroupDescriptor::new(7, 2, 4, AnaState::INACCESSIBLE);
    assert_eq!(made.as_bytes()[..16], bytes[16..32]);
    assert_eq!(made.anas, 3);
}

#[test]
fn ana_states() {
    for (state, text, accessible) in [
        (AnaState::OPTIMIZED, "optimized", true),
        (AnaState::NON_OPTIMIZED, "non_optimized", true),
        (AnaState::INACCESSIBLE, "inaccessible", false),
        (AnaState::PERSISTENT_LOSS, "persistent_loss", false),
        (AnaState::CHANGE, "change", false),
    ] {
        assert_eq!(state.to_string(), text);
        assert_eq!(text.parse(), Ok(state));
        assert_eq!(text.replace('_', "-").parse(), Ok(state));
        assert_eq!(state.is_accessible(), accessible);
        assert_eq!(state.refusal().is_none(), accessible);
        assert!(state.refusal().is_none_or(|status| status.is_ana()));
    }
    assert_eq!(AnaState(6).to_string(), "0x6");
    assert_eq!(format!("{:?}", AnaState(6)), "AnaState(0x6)");
    assert_eq!(format!("{:?}", AnaState::CHANGE), "AnaState(change)");
    assert_eq!("Optimized".parse::<AnaState>(), Err(AnaStateError));
}

#[test]
fn get_log_page_lengths() {
    // 4 GiB + 8,208 bytes at an offset above 4 GiB.
    let request = GetLogPage {
        lid: lid::ANA,
        lsp: AnaLogHeader::LSP_RGO,
        rae: true,
        len: (1 << 32) + 8208,
        offset: 0x1_0000_0010,
        ot: true,
        csi: 2,
    };
    let sqe = request.to_sqe(sqe::NSID_ALL);
    assert_eq!(sqe.opcode, 0x02);
    assert_eq!(sqe.cdw10.get(), 0x0803_810C);
    assert_eq!(sqe.cdw11.get(), 0x4000);
    assert_eq!((sqe.cdw12.get(), sqe.cdw13.get()), (0x10, 1));
    assert_eq!(sqe.cdw14.get(), 0x0280_0000);
    assert_eq!(GetLogPage::from_sqe(&sqe), request);
    let smart = GetLogPage::new(lid::SMART, 0, 512).to_sqe(0);
    assert_eq!(smart.cdw10.get(), 0x007F_0002);
    // The most a command can ask for.
    let mut sqe = Sqe::new(opcode::admin::GET_LOG_PAGE, 0);
    sqe.cdw10.set(0xFFFF_0001);
    sqe.cdw11.set(0xFFFF_FFFF);
    assert_eq!(GetLogPage::from_sqe(&sqe).len, 1 << 34);
}

#[test]
fn discovery_entry_of_nvmet() {
    let mut bytes = vec![0u8; 1024];
    put(&mut bytes, 0, &[3, 1, 2, 4, 1, 0, 0xFF, 0xFF, 32, 0, 1, 0]);
    put(&mut bytes, 32, b"4420                            ");
    put(&mut bytes, 256, b"nqn.2014-08.org.example:s1");
    put(&mut bytes, 512, b"127.0.0.1");
    let entry = DiscoveryLogEntry::ref_from_bytes(&bytes).unwrap();
    assert_eq!(entry.trtype, discovery::TRTYPE_TCP);
    assert_eq!(
        (entry.adrfam, entry.subtype),
        (discovery::ADRFAM_IPV4, discovery::SUBTYPE_NVM)
    );
    assert_eq!(entry.treq, discovery::TREQ_SQ_FLOW_CONTROL_OPTIONAL);
    assert_eq!((entry.cntlid.get(), entry.asqsz.get()), (0xFFFF, 32));
    assert_eq!(entry.eflags.get(), discovery::EFLAGS_DUPRETINFO);
    assert_eq!(
        (entry.traddr_text(), entry.trsvcid_text()),
        ("127.0.0.1".into(), "4420".into())
    );
    assert_eq!(
        entry.subnqn().unwrap().as_str(),
        "nqn.2014-08.org.example:s1"
    );
    let mut header = DiscoveryLogHeader::new_zeroed();
    header.genctr.set(3);
    header.numrec.set(2);
    assert_eq!(
        header.as_bytes()[..18],
        [3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    );
}

#[test]
fn other_log_structures() {
    let mut smart = SmartLog::new_zeroed();
    smart.composite_temperature.set(0x0140);
    smart.host_read_commands.set(7);
    smart.temperature_sensors[1].set(300);
    let bytes = smart.as_bytes();
    assert_eq!(
        (&bytes[1..3], bytes[64], &bytes[202..204]),
        (&[0x40, 0x01][..], 7, &[0x2C, 0x01][..])
    );
    let mut error = ErrorLogEntry::new_zeroed();
    error.error_count.set(1);
    error.status = Status::LBA_OUT_OF_RANGE.to_cqe();
    error.lba.set(5);
    error.nsid.set(9);
    let bytes = error.as_bytes();
    assert_eq!(
        (bytes[0], bytes[12], bytes[13], bytes[16], bytes[24]),
        (1, 0, 1, 5, 9)
    );
    let mut slots = FirmwareSlotLog::new_zeroed();
    slots.afi = 1;
    slots.frs[0] = ascii_field("1.0");
    assert_eq!(slots.as_bytes()[8..16], *b"1.0     ");
    let mut log = CommandEffectsLog::new_box_zeroed().unwrap();
    log.iocs[usize::from(opcode::nvm::WRITE)].set(effects::CSUPP | effects::LBCC);
    assert_eq!(log.as_bytes()[1028], 3);
}

#[test]
fn cross_controller_reset_structures() {
    use super::cross_controller_reset::*;
    let impacted = Impacted {
        icid: 0x1234,
        ciu: 0x56,
        cirn: 0x1122_3344_5566_7788,
    };
    let sqe = impacted.to_sqe();
    let mut bytes = [0; 64];
    put(&mut bytes, 0, &[0x38, 0x40]); // opcode, PSDT
    put(&mut bytes, 39, &[0x5A]); // SGL type, of no data
    put(&mut bytes, 40, &[0x34, 0x12, 0x56]); // CDW10: ICID, CIU
    put(
        &mut bytes,
        48,
        &[0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11],
    ); // CDW12, CDW13: CIRN
    assert_eq!(sqe.as_bytes(), bytes);
    assert_eq!(Impacted::from_sqe(&sqe), impacted);

    #[rustfmt::skip]
    let bytes: [u8; 24] = [
        0x02, 0, 0, 0, 0, 0, 0, 0,                // number of entries
        0x34, 0x12, 0x56, 0, 0x02, 0x00, 1, 0b11, // succeeded
        0x01, 0x00, 0x00, 0, 0xFF, 0xFF, 7, 0b01, // a status that has no name
    ];
    let (header, rest) = LogHeader::ref_from_prefix(&bytes).unwrap();
    assert_eq!(header.ne.get(), 2);
    let entries = <[LogEntry]>::ref_from_bytes(rest).unwrap();
    let (first, second) = (entries[0], entries[1]);
    assert_eq!(
        (first.icid.get(), first.ciu, first.acid.get()),
        (0x1234, 0x56, 2)
    );
    assert_eq!(first.ccrs, ResetStatus::SUCCESSFUL);
    assert_eq!(first.ccrf, ccrf::VALIDATED | ccrf::RESET_INITIATED);
    assert_eq!(second.ccrs.to_string(), "0x7");
    assert_eq!(
        size_of::<LogHeader>() + LOG_ENTRIES_MAX * size_of::<LogEntry>(),
        4096
    );
    for (status, sc) in [
        (Status::CROSS_CONTROLLER_RESET_IN_PROGRESS, 0x3F),
        (Status::CROSS_CONTROLLER_RESET_LOG_FULL, 0x40),
        (Status::CROSS_CONTROLLER_RESET_LIMIT_EXCEEDED, 0x41),
    ] {
        assert_eq!((status.sct(), status.sc()), (1, sc));
    }
}

#[test]
fn feature_values() {
    assert_eq!(NumberOfQueues::of(128).into_bits(), 0x7F_007F);
    assert_eq!(NumberOfQueues::from_bits(0x7F_007F).pairs(), 128);
    assert_eq!(NumberOfQueues::from_bits(0x0003_0007).pairs(), 4);
    assert_eq!(NumberOfQueues::from_bits(u32::MAX).pairs(), 65_536);
    let get = GetFeaturesCdw10::from_bits(0x0000_030B);
    assert_eq!(
        (get.fid(), get.sel()),
        (fid::ASYNC_EVENT_CONFIG, select::SUPPORTED_CAPABILITIES)
    );
    let set = SetFeaturesCdw10::from_bits(0x8000_0007);
    assert_eq!((set.fid(), set.sv()), (fid::NUMBER_OF_QUEUES, true));
    let identify = IdentifyCdw10::new()
        .with_cns(cns::CONTROLLER_CSI)
        .with_cntid(3);
    assert_eq!(identify.into_bits(), 0x0003_0006);
    assert_eq!(
        IdentifyCdw11::new().with_csi(2).with_cnssid(1).into_bits(),
        0x0200_0001
    );
}

#[test]
fn dataset_range() {
    let range = DatasetRange {
        cattr: 0.into(),
        nlb: 8.into(),
        slba: 0x1000.into(),
    };
    assert_eq!(
        range.as_bytes(),
        [0, 0, 0, 0, 8, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0]
    );
}

#[test]
fn term_req_has_its_information_unaligned() {
    let mut term = TermReq::new_zeroed();
    term.fes.set(Fes::DATA_TRANSFER_OUT_OF_RANGE.0);
    term.fei.set(0x0403_0201);
    assert_eq!(term.as_bytes()[8..14], [4, 0, 1, 2, 3, 4]);
    assert_eq!(term.fes().to_string(), "Data Transfer Out of Range");
    assert_eq!(Fes(0x99).to_string(), "0x99");
    assert_eq!(format!("{:?}", PduType(0x08)), "PduType(0x8)");
    assert_eq!(format!("{:?}", PduType::R2T), "PduType(R2T)");
}

#[test]
fn nqns() {
    let long = format!("nqn.2014-08.org.example:{}", "x".repeat(223 - 24));
    assert_eq!(long.len(), Nqn::MAX_LEN);
    for good in [
        DISCOVERY_NQN,
        "nqn.2016-06.io.spdk:cnode1",
        "nqn.2014-08.org.nvmexpress:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
        "nqn.1999-12.a",
        "nqn.2014-08.org.example:\u{e9}t\u{e9}",
        &long,
    ] {
        let nqn: Nqn = good.parse().unwrap();
        assert_eq!(nqn.as_str(), good);
        let field = nqn.to_field();
        assert_eq!(field[good.len()..].iter().max(), Some(&0));
        assert_eq!(Nqn::from_field(&field), Ok(nqn));
    }
    for (bad, error) in [
        ("", NqnError::Form),
        ("disk1", NqnError::Form),
        ("NQN.2014-08.org.example:a", NqnError::Form),
        ("nqn.2014.org.example:a", NqnError::Form),
        ("nqn.2014-13.org.example:a", NqnError::Form),
        ("nqn.2014-00.org.example:a", NqnError::Form),
        ("nqn.2o14-08.org.example:a", NqnError::Form),
        ("nqn.2014-08.", NqnError::Form),
        ("nqn.2014-08.:a", NqnError::Form),
        ("iqn.2014-08.org.example:a", NqnError::Form),
        ("nqn.2014-08.org.example:a b", NqnError::Character),
        ("nqn.2014-08.org.example:a\n", NqnError::Character),
        ("nqn.2014-08.org.example:a\0", NqnError::Character),
        (&format!("{long}x"), NqnError::TooLong),
    ] {
        assert_eq!(Nqn::new(bad), Err(error), "{bad:?}");
    }
    assert_eq!(Nqn::from_field(&[b'n'; 256]), Err(NqnError::Unterminated));
    assert_eq!(Nqn::from_field(&[0; 256]), Err(NqnError::Form));
    let mut field = Nqn::discovery().to_field();
    field[30] = 0xFF;
    assert_eq!(Nqn::from_field(&field), Err(NqnError::Encoding));
    assert!(Nqn::discovery().is_discovery());
    assert!(
        NqnError::Form
            .to_string()
            .contains("nqn.yyyy-mm.reverse.domain:name")
    );
    let uuid = Nqn::from_uuid(Uuid::from_u128(1));
    assert_eq!(Nqn::new(uuid.as_str()), Ok(uuid));
}
