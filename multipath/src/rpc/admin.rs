//! Admin commands to a controller.

use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE};
use base64::{Engine, alphabet};
use pollux_nvme_tcp::host::{AdminCommand, Command, Completed, Outcome, Request, Transfer};
use pollux_nvme_tcp::spec::identify::{IdentifyController, cns, text};
use pollux_nvme_tcp::spec::log::{SmartLog, lid};
use pollux_nvme_tcp::spec::sqe::{Cqe, Sqe};
use pollux_reactor::rpc::{Answer, Call, MethodResult, Params, Phase, RpcError};
use serde_json::{Map, Value, json};
use zerocopy::{FromBytes, IntoBytes};

use super::{EIO, Module, State, error, forward};
use crate::error::HostError;
use crate::request::HostRequest;

/// The methods of this room.
pub(super) fn methods(module: Module<'_>) -> Module<'_> {
    module
        .method(
            "bdev_nvme_get_controller_health_info",
            Phase::Runtime,
            health_info,
        )
        .method("bdev_nvme_send_cmd", Phase::Runtime, send_cmd)
}

/// The namespace identifier that stands for the whole controller.
const NSID_ALL: u32 = 0xffff_ffff;
const KELVIN: i32 = 273;
/// Most bytes that one admin command may bring.
const DATA_MAX: u32 = 1 << 20;

/// `bdev_nvme_get_controller_health_info`: the SMART / Health Information log.
fn health_info(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let name: String = call.params.required("name")?;
    call.params.finish()?;
    let responder = call.responder()?;
    let mail = call.mail.clone();
    let identify = AdminCommand::identify(cns::CONTROLLER, 0, 0);
    state.request(HostRequest::Admin {
        name: name.clone(),
        command: Box::new(identify),
        reply: Box::new(move |answer| {
            let members = match data(answer).and_then(|data| identity(&data)) {
                Ok(members) => members,
                Err(e) => return responder.answer(Err(e)),
            };
            mail.run(move |state| {
                let length = size_of::<SmartLog>();
                let log = AdminCommand::get_log_page(lid::SMART, NSID_ALL, 0, length, true);
                state.request(HostRequest::Admin {
                    name,
                    command: Box::new(log),
                    reply: Box::new(move |answer| {
                        responder.answer(data(answer).and_then(|data| health(&data, members)));
                    }),
                });
            });
        }),
    });
    Ok(Answer::Later)
}

/// `bdev_nvme_send_cmd`: an admin command as its 64 bytes; answers with the completion and the data, in Base64.
fn send_cmd(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let (name, command) = command(&mut call.params)?;
    let direction = command.transfer;
    forward(
        state,
        call,
        |reply| HostRequest::Admin {
            name,
            command: Box::new(command),
            reply,
        },
        move |completed| {
            let (status, result) = match completed.outcome {
                Outcome::Completed { status, result } => (status, result),
                Outcome::Lost(lost) => return Err(RpcError::errno_of(EIO, lost)),
            };
            let mut cqe = Cqe::new(0, status);
            cqe.result = result.into();
            let mut members = Map::new();
            members.insert("cpl".into(), URL_SAFE.encode(cqe.as_bytes()).into());
            if direction == Transfer::FromController {
                let data = URL_SAFE.encode(completed.request.buffer.into_vec());
                members.insert("data".into(), data.into());
            }
            Ok(members.into())
        },
    )
}

fn command(params: &mut Params) -> Result<(String, Request), RpcError> {
    let name: String = params.required("name")?;
    let is_admin = params.one_of("cmd_type", &[("admin", true), ("io", false)])?;
    let to_controller = params.one_of("data_direction", &[("h2c", true), ("c2h", false)])?;
    let bytes = |params: &Params, name: &str, text: String| {
        decode(&text).map_err(|e| params.invalid(name, format!("Base64 is expected: {e}")))
    };
    let text = params.required("cmdbuf")?;
    let sqe = bytes(params, "cmdbuf", text)?;
    let data = match params.optional("data")? {
        Some(text) => Some(bytes(params, "data", text)?),
        None => None,
    };
    let data_len: u32 = params.optional("data_len")?.unwrap_or(0);
    params.unused::<u32>(&["timeout_ms"])?;
    params.finish()?;
    let missing = |name: &str| RpcError::invalid_params(format!("'{name}' is missing"));
    if !is_admin.ok_or_else(|| missing("cmd_type"))? {
        return Err(params.invalid("cmd_type", "only admin commands are supported"));
    }
    let to_controller = to_controller.ok_or_else(|| missing("data_direction"))?;
    let sqe = Sqe::ref_from_bytes(&sqe).map_err(|_| params.invalid("cmdbuf", "64 bytes"))?;
    let (transfer, buffer) = match (to_controller, data) {
        (true, Some(data)) if !data.is_empty() => (Transfer::ToController, data),
        (true, _) => (Transfer::None, Vec::new()),
        (false, Some(_)) => return Err(params.invalid("data", "has no meaning with c2h")),
        (false, None) if data_len > DATA_MAX => {
            return Err(params.invalid("data_len", format!("at most {DATA_MAX}")));
        }
        (false, None) if data_len > 0 => (Transfer::FromController, vec![0; data_len as usize]),
        (false, None) => (Transfer::None, Vec::new()),
    };
    let cdw = [
        sqe.cdw10, sqe.cdw11, sqe.cdw12, sqe.cdw13, sqe.cdw14, sqe.cdw15,
    ];
    let command = Command {
        opcode: sqe.opcode,
        nsid: sqe.nsid.get(),
        cdw: cdw.map(|word| word.get()),
    };
    let length = buffer.len();
    Ok((name, Request::plain(command, transfer, length, buffer)))
}

/// Clients send either alphabet (RFC 4648, sections 4 and 5), with padding or without.
fn decode(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let by = |alphabet| GeneralPurpose::new(alphabet, LENIENT).decode(text);
    by(&alphabet::STANDARD).or_else(|_| by(&alphabet::URL_SAFE))
}

fn data(answer: Result<Completed, HostError>) -> Result<Vec<u8>, RpcError> {
    let completed = answer.map_err(|e| error(&e))?;
    match completed.outcome {
        Outcome::Completed { status, .. } if status.is_success() => {
            Ok(completed.request.buffer.into_vec())
        }
        Outcome::Completed { status, .. } => Err(RpcError::errno_of(EIO, status)),
        Outcome::Lost(lost) => Err(RpcError::errno_of(EIO, lost)),
    }
}

fn identity(data: &[u8]) -> Result<Map<String, Value>, RpcError> {
    let (id, _) = IdentifyController::ref_from_prefix(data).map_err(|_| short())?;
    let mut members = Map::new();
    members.insert("model_number".into(), json!(text(&id.mn)));
    members.insert("serial_number".into(), json!(text(&id.sn)));
    members.insert("firmware_revision".into(), json!(text(&id.fr)));
    Ok(members)
}

fn health(data: &[u8], mut members: Map<String, Value>) -> Result<Value, RpcError> {
    let (log, _) = SmartLog::ref_from_prefix(data).map_err(|_| short())?;
    // Counters of 128 bits that no controller fills.
    let count = |value: u128| json!(u64::try_from(value).unwrap_or(u64::MAX));
    let celsius = i32::from(log.composite_temperature.get()) - KELVIN;
    for (name, value) in [
        ("critical_warning", json!(log.critical_warning)),
        ("temperature_celsius", json!(celsius)),
        ("available_spare_percentage", json!(log.available_spare)),
        (
            "available_spare_threshold_percentage",
            json!(log.available_spare_threshold),
        ),
        ("percentage_used", json!(log.percentage_used)),
        ("data_units_read", count(log.data_units_read.get())),
        ("data_units_written", count(log.data_units_written.get())),
        ("host_read_commands", count(log.host_read_commands.get())),
        ("host_write_commands", count(log.host_write_commands.get())),
        (
            "controller_busy_time",
            count(log.controller_busy_time.get()),
        ),
        ("power_cycles", count(log.power_cycles.get())),
        ("power_on_hours", count(log.power_on_hours.get())),
        ("unsafe_shutdowns", count(log.unsafe_shutdowns.get())),
        ("media_errors", count(log.media_errors.get())),
        ("num_err_log_entries", count(log.error_log_entries.get())),
    ] {
        members.insert(name.into(), value);
    }
    Ok(members.into())
}

fn short() -> RpcError {
    RpcError::errno_of(EIO, "the answer is too short")
}
