//! Volumes and paths as a host tells them: several answers put together.

use serde_json::{Value, json};

use pollux_reactor::rpc::{CallError, Client};

/// What there is at one moment, as far as several questions can be of one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub volumes: Vec<Volume>,
}

#[derive(Debug)]
pub struct Volume {
    pub name: String,
    pub blocks: u64,
    pub block_size: u64,
    pub policy: String,
    /// I/Os that wait for a path, on all reactors; only Pollux tells.
    pub waiting: Option<u64>,
    /// Writes that a lost controller may still execute and what waits behind them, and the time left in ms.
    pub fenced: Option<(u64, u64)>,
    pub paths: Vec<Path>,
}

#[derive(Debug)]
pub struct Path {
    pub addr: String,
    pub cntlid: u64,
    /// State of the path's controller, with why it was lost last.
    pub controller: Option<(String, Option<String>)>,
    /// Only Pollux tells.
    pub ana: Option<Ana>,
    /// As each reactor sees it, by the reactor's number.
    pub views: Vec<(usize, View)>,
    /// Only with statistics of paths.
    pub counters: Option<Counters>,
}

#[derive(Debug)]
pub struct Ana {
    pub state: String,
    /// Until ANATT runs out, if it runs.
    pub anatt_ms: Option<u64>,
    pub anatt_expired: bool,
}

/// A path on one reactor.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub connected: bool,
    pub accessible: bool,
    pub current: bool,
    pub outstanding: u64,
}

/// Since the path was added, on all reactors.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counters {
    pub reads: u64,
    pub writes: u64,
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub errors: u64,
}

impl Snapshot {
    /// Asks for one volume or for all.
    pub fn take(client: &mut Client, name: Option<&str>) -> Result<Snapshot, CallError> {
        let filter = name.map(|name| json!({"name": name}));
        let bdevs = client.call("bdev_get_bdevs", filter.clone())?;
        let controllers = client.call("bdev_nvme_get_controllers", None)?;
        let groups = client.call("bdev_nvme_get_io_paths", filter)?;
        let mut volumes = Vec::new();
        for bdev in list(&bdevs) {
            let name = text(&bdev["name"]);
            let stats = match client.call("bdev_nvme_get_path_iostat", Some(json!({"name": name})))
            {
                Ok(stats) => stats,
                // It went away meanwhile, or its paths are not counted.
                Err(CallError::Refused { .. }) => Value::Null,
                Err(error) => return Err(error),
            };
            volumes.push(volume(bdev, &groups, &controllers, &stats));
        }
        Ok(Snapshot { volumes })
    }

    pub fn path(&self, volume: &str, addr: &str) -> Option<&Path> {
        let volume = self.volumes.iter().find(|v| v.name == volume)?;
        volume.paths.iter().find(|path| path.addr == addr)
    }
}

fn volume(bdev: &Value, groups: &Value, controllers: &Value, stats: &Value) -> Volume {
    let name = text(&bdev["name"]);
    let groups = list(&groups["poll_groups"]);
    let waiting = |group: &Value| group["pollux"]["waiting_io"][&name].as_u64();
    let fenced = groups.iter().filter_map(|group| {
        let fence = &group["pollux"]["fenced_io"][&name];
        let writes = fence["writes"].as_u64()? + number(&fence["behind"]);
        Some((writes, number(&fence["remaining_ms"])))
    });
    let mut volume = Volume {
        blocks: number(&bdev["num_blocks"]),
        block_size: number(&bdev["block_size"]),
        policy: text(&bdev["driver_specific"]["mp_policy"]),
        waiting: groups
            .iter()
            .map(waiting)
            .try_fold(0, |sum, waiting| Some(sum + waiting?)),
        fenced: fenced.reduce(|a, b| (a.0 + b.0, a.1.max(b.1))),
        paths: Vec::new(),
        name,
    };
    for (reactor, group) in groups.iter().enumerate() {
        let of_volume = |path: &&Value| path["bdev_name"] == volume.name.as_str();
        for path in list(&group["io_paths"]).iter().filter(of_volume) {
            let addr = addr(&path["transport"]);
            let view = View {
                connected: path["connected"] == true,
                accessible: path["accessible"] == true,
                current: path["current"] == true,
                outstanding: number(&path["pollux"]["outstanding"]),
            };
            match volume.paths.iter_mut().find(|p| p.addr == addr) {
                Some(known) => known.views.push((reactor, view)),
                None => volume.paths.push(Path {
                    cntlid: number(&path["cntlid"]),
                    controller: controller(controllers, &volume.name, &addr),
                    ana: ana(&path["pollux"]),
                    views: vec![(reactor, view)],
                    counters: counters(stats, &addr),
                    addr,
                }),
            }
        }
    }
    volume
}

/// State and last error of the controller at `addr` whose namespaces are volumes of this name.
fn controller(groups: &Value, volume: &str, addr_of: &str) -> Option<(String, Option<String>)> {
    // NAMEn1 is of NAME.
    let name = volume.rsplit_once('n').map_or(volume, |(name, _)| name);
    let mut groups = list(groups).iter();
    let group = groups.find(|group| group["name"] == name)?;
    let mut controllers = list(&group["ctrlrs"]).iter();
    let controller = controllers.find(|c| addr(&c["trid"]) == addr_of)?;
    let error = controller["pollux"]["last_error"].as_str();
    Some((text(&controller["state"]), error.map(str::to_owned)))
}

fn ana(pollux: &Value) -> Option<Ana> {
    Some(Ana {
        state: pollux["ana_state"].as_str()?.to_owned(),
        anatt_ms: pollux["anatt_remaining_ms"].as_u64(),
        anatt_expired: pollux["anatt_expired"] == true,
    })
}

fn counters(stats: &Value, addr_of: &str) -> Option<Counters> {
    let mut stats = list(&stats["stats"]).iter();
    let stat = &stats.find(|stat| addr(&stat["trid"]) == addr_of)?["stat"];
    Some(Counters {
        reads: number(&stat["num_read_ops"]),
        writes: number(&stat["num_write_ops"]),
        read_bytes: number(&stat["bytes_read"]),
        write_bytes: number(&stat["bytes_written"]),
        errors: number(&stat["pollux"]["errors"]),
    })
}

/// Address and port, as they are written.
fn addr(transport: &Value) -> String {
    let (ip, port) = (text(&transport["traddr"]), text(&transport["trsvcid"]));
    match ip.contains(':') {
        true => format!("[{ip}]:{port}"),
        false => format!("{ip}:{port}"),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}
