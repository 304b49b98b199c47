//! A result as fio writes one with `--output-format=json+`, for programs that read that.
//!
//! The names mean what they mean there. A run is one job, or as many as it had. There is one latency, so `slat_ns` is empty, and `clat_ns` and
//! `lat_ns` are the same. Of runs that mix operations the latencies are of all together, under `mixed`, as with fio's
//! `unified_rw_reporting`; `read` and `write` then have counts and rates only. What is not measured, as processor time,
//! is 0.

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::stats::{decode, latency_histogram};
use crate::text::rounded;

/// As fio has them, in percent.
const PERCENTILES: [f64; 17] = [
    1.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95,
    99.99,
];

/// `object` is a result of this program.
pub fn fio(object: &Value) -> Value {
    let began = object["began_unix_seconds"].as_f64().unwrap_or(0.0);
    let seconds = object["seconds"].as_f64().unwrap_or(0.0);
    let ended = began + seconds;
    let jobs: Vec<Value> = match object["jobs"].as_array().map(Vec::as_slice) {
        None | Some([]) => vec![job(object, "pollux-perf")],
        Some(several) => several
            .iter()
            .map(|own| {
                // What is not of one job alone is that of the run; its series is of all of them, so there is none.
                let mut whole = object.clone();
                whole["series"] = Value::Null;
                for (name, value) in own.as_object().into_iter().flatten() {
                    if name != "options" {
                        whole[name] = value.clone();
                    } else if let Some(all) = whole[name].as_object_mut() {
                        all.extend(value.as_object().into_iter().flatten().map(owned));
                    }
                }
                job(&whole, own["name"].as_str().unwrap_or("unknown"))
            })
            .collect(),
    };
    json!({
        "fio version": format!("pollux-perf-{}", object["version"].as_str().unwrap_or("unknown")),
        "timestamp": rounded(ended),
        "timestamp_ms": rounded(ended * 1e3),
        "time": "",
        "global options": {},
        "jobs": jobs,
        "disk_util": [],
    })
}

fn owned((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}

/// An entry of `jobs`.
fn job(object: &Value, name: &str) -> Value {
    let seconds = object["seconds"].as_f64().unwrap_or(0.0);
    let text = object["histogram"].as_str().unwrap_or_default();
    let latency = decode(text).unwrap_or_else(|_| latency_histogram());
    let count = |name: &str| object[name].as_u64().unwrap_or(0);
    let (reads, writes) = (count("reads"), count("writes"));
    let trims = object["operations"]["unmap"].as_u64().unwrap_or(0);
    let syncs = object["operations"]["flush"].as_u64().unwrap_or(0);
    let all: u64 = object["operations"]
        .as_object()
        .map_or(0, |all| all.values().filter_map(Value::as_u64).sum());
    let direction = |ios: u64| {
        // A run of one kind has all bytes and latencies for its own; in a mix bytes are shared out by count.
        let share = if all > 0 {
            ios as f64 / all as f64
        } else {
            0.0
        };
        let own = if ios == all && ios > 0 {
            Some(&latency)
        } else {
            None
        };
        section(object, ios, share, own)
    };
    let mut job = Map::from_iter([
        ("jobname".to_owned(), name.into()),
        ("groupid".to_owned(), 0.into()),
        (
            "error".to_owned(),
            i32::from(count("errors") + count("miscompares") > 0).into(),
        ),
        ("eta".to_owned(), 0.into()),
        ("elapsed".to_owned(), rounded(seconds.ceil()).into()),
        ("job options".to_owned(), job_options(object, name)),
        ("read".to_owned(), direction(reads)),
        ("write".to_owned(), direction(writes)),
        ("trim".to_owned(), direction(trims)),
    ]);
    if ![reads, writes, trims].contains(&all) {
        job.insert(
            "mixed".to_owned(),
            section(object, all, 1.0, Some(&latency)),
        );
    }
    let rest = json!({
        "sync": { "total_ios": syncs, "lat_ns": spread(None, false) },
        "job_runtime": rounded(seconds * 1e3),
        "usr_cpu": 0.0, "sys_cpu": 0.0, "ctx": 0, "majf": 0, "minf": 0,
        "iodepth_level": depth_level(object),
        "latency_ns": {}, "latency_us": {}, "latency_ms": {},
        "latency_depth": object["options"]["depth"],
        "latency_target": 0, "latency_percentile": 100.0, "latency_window": 0,
    });
    if let Value::Object(rest) = rest {
        job.extend(rest);
    }
    let steady = &object["steadystate"];
    if steady.is_object() {
        job.insert(
            "steadystate".to_owned(),
            json!({
                "ss": steady["criterion"],
                "duration": rounded(steady["window_seconds"].as_f64().unwrap_or(0.0)),
                "attained": i32::from(steady["attained"] == true),
                "criterion": steady["value"].as_f64().map_or_else(String::new, |value| format!("{value:.6}")),
            }),
        );
    }
    job.into()
}

/// fio's names for what was run; its values are texts.
fn job_options(object: &Value, name: &str) -> Value {
    let options = &object["options"];
    let sizes = match &options["io_size"] {
        Value::Array(sizes) => sizes.iter().filter_map(Value::as_u64).collect(),
        size => Vec::from_iter(size.as_u64()),
    };
    let cores = object["cores"]["host"].as_array();
    let numjobs = cores.map_or(1, |cores| cores.len() as u64)
        * options["numjobs"].as_u64().unwrap_or(1)
        * options["volumes"].as_u64().unwrap_or(1);
    let mut found = json!({
        "name": name,
        "ioengine": "pollux",
        "rw": options["workload"].as_str().unwrap_or("unknown"),
        "bs": sizes.first().map_or_else(|| "unknown".to_owned(), u64::to_string),
        "iodepth": options["depth"].as_u64().unwrap_or(0).to_string(),
        "numjobs": numjobs.to_string(),
        "runtime": rounded(object["seconds"].as_f64().unwrap_or(0.0)).to_string(),
    });
    if sizes.len() > 1 {
        let list: Vec<String> = sizes.iter().map(u64::to_string).collect();
        found["bssplit"] = list.join(":").into();
    }
    for (ours, fios) in [
        ("read_share", "rwmixread"),
        ("rate_iops", "rate_iops"),
        ("seed", "randseed"),
        ("random_distribution", "random_distribution"),
    ] {
        match &options[ours] {
            Value::Null => {}
            Value::String(text) => found[fios] = text.clone().into(),
            number => found[fios] = number.to_string().into(),
        }
    }
    found
}

/// `read`, `write`, `trim` or `mixed`. `share` is of all I/Os.
fn section(object: &Value, ios: u64, share: f64, latency: Option<&Histogram<u64>>) -> Value {
    let seconds = object["seconds"].as_f64().unwrap_or(0.0).max(1e-9);
    let rate = object["bytes_per_sec"].as_f64().unwrap_or(0.0) * share;
    let points = object["series"].as_array();
    let points = points.map_or(&[][..], Vec::as_slice);
    let series = |name: &str, unit: f64| -> Vec<f64> {
        let values = points.iter().filter_map(|point| point[name].as_f64());
        values.map(|value| value * share / unit).collect()
    };
    let (iops, bw) = (series("iops", 1.0), series("bytes_per_sec", 1024.0));
    let (iops, bw) = (Moments::of(&iops), Moments::of(&bw));
    let bytes = rounded(rate * seconds);
    json!({
        "io_bytes": bytes,
        "io_kbytes": bytes >> 10,
        "bw_bytes": rounded(rate),
        "bw": rounded(rate / 1024.0),
        "iops": ios as f64 / seconds,
        "runtime": if ios > 0 { rounded(seconds * 1e3) } else { 0 },
        "total_ios": ios,
        "short_ios": 0,
        "drop_ios": 0,
        "slat_ns": spread(None, false),
        "clat_ns": spread(latency, true),
        "lat_ns": spread(latency, false),
        "bw_min": rounded(bw.min),
        "bw_max": rounded(bw.max),
        "bw_agg": if ios > 0 { 100.0 } else { 0.0 },
        "bw_mean": bw.mean,
        "bw_dev": bw.stddev,
        "bw_samples": bw.samples,
        "iops_min": rounded(iops.min),
        "iops_max": rounded(iops.max),
        "iops_mean": iops.mean,
        "iops_stddev": iops.stddev,
        "iops_samples": iops.samples,
    })
}

fn spread(latency: Option<&Histogram<u64>>, percentiles: bool) -> Value {
    let Some(latency) = latency.filter(|latency| !latency.is_empty()) else {
        return json!({ "min": 0, "max": 0, "mean": 0.0, "stddev": 0.0, "N": 0 });
    };
    let mut spread = json!({
        "min": latency.min(),
        "max": latency.max(),
        "mean": latency.mean(),
        "stddev": latency.stdev(),
        "N": latency.len(),
    });
    if percentiles {
        let at = |percent: f64| latency.value_at_percentile(percent).min(latency.max());
        let values = PERCENTILES.map(|percent| (format!("{percent:.6}"), at(percent).into()));
        spread["percentile"] = Value::Object(values.into_iter().collect());
        let bins = latency.iter_recorded();
        let bins = bins.map(|bin| {
            let value = bin.value_iterated_to();
            (value.to_string(), bin.count_at_value().into())
        });
        spread["bins"] = Value::Object(bins.collect());
    }
    spread
}

/// All I/Os were submitted at the depth, but for the last.
fn depth_level(object: &Value) -> Value {
    const LEVELS: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];
    let depth = object["options"]["depth"].as_u64().unwrap_or(0);
    let open = object["open_loop"].is_object();
    let own = LEVELS.iter().rposition(|&level| level <= depth);
    let levels = LEVELS.iter().enumerate().map(|(index, level)| {
        let name = if *level == 64 {
            ">=64".to_owned()
        } else {
            level.to_string()
        };
        let share = if Some(index) == own && !open {
            100.0
        } else {
            0.0
        };
        (name, share.into())
    });
    Value::Object(levels.collect())
}

#[derive(Default)]
struct Moments {
    min: f64,
    max: f64,
    mean: f64,
    stddev: f64,
    samples: usize,
}

impl Moments {
    fn of(values: &[f64]) -> Self {
        if values.is_empty() {
            return Self::default();
        }
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Self {
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(0.0, f64::max),
            mean,
            stddev: (squares / (count - 1.0).max(1.0)).sqrt(),
            samples: values.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saved::tests::object;

    #[test]
    fn a_read_is_under_read_with_all_its_latencies() {
        let mut result = object(3);
        result["seconds"] = json!(1.0);
        (result["reads"], result["operations"]) = (json!(500), json!({"read": 500}));
        let fio = fio(&result);
        let job = &fio["jobs"][0];
        assert_eq!(job["read"]["total_ios"], 500);
        assert_eq!(job["read"]["clat_ns"]["percentile"]["99.000000"], 1_000);
        assert_eq!(job["read"]["clat_ns"]["bins"], json!({"1000": 500}));
        assert_eq!(job["read"]["lat_ns"]["N"], 500);
        assert_eq!(
            (&job["write"]["total_ios"], &job["write"]["lat_ns"]["N"]),
            (&json!(0), &json!(0))
        );
        assert_eq!(
            (&job["job options"]["iodepth"], job.get("mixed")),
            (&json!("8"), None)
        );
    }

    #[test]
    fn several_jobs_are_entries_of_their_own() {
        let mut result = object(3);
        result["seconds"] = json!(1.0);
        result["options"] = json!({"seed": 7});
        let job = |name: &str, depth: u64| {
            json!({
                "name": name, "options": {"depth": depth, "workload": "randread"}, "reads": 500,
                "writes": 0, "operations": {"read": 500}, "histogram": object(1)["histogram"],
            })
        };
        result["jobs"] = json!([job("a", 1), job("b", 2)]);
        let fio = fio(&result);
        for (place, name, depth) in [(0, "a", "1"), (1, "b", "2")] {
            let job = &fio["jobs"][place];
            assert_eq!(
                (&job["jobname"], &job["read"]["total_ios"]),
                (&json!(name), &json!(500))
            );
            assert_eq!(job["job options"]["iodepth"], depth);
            assert_eq!(job["job options"]["randseed"], "7");
            assert_eq!(job["read"]["clat_ns"]["percentile"]["99.000000"], 1_000);
        }
    }

    #[test]
    fn a_mix_has_its_latencies_under_mixed() {
        let mut result = object(3);
        result["seconds"] = json!(1.0);
        (result["reads"], result["writes"]) = (json!(400), json!(100));
        result["operations"] = json!({"read": 400, "write": 100});
        let fio = fio(&result);
        let job = &fio["jobs"][0];
        assert_eq!(
            (&job["read"]["iops"], &job["write"]["iops"]),
            (&json!(400.0), &json!(100.0))
        );
        assert_eq!(
            (&job["read"]["bw_bytes"], &job["read"]["lat_ns"]["N"]),
            (&json!(800), &json!(0))
        );
        assert_eq!(
            (&job["mixed"]["total_ios"], &job["mixed"]["lat_ns"]["N"]),
            (&json!(500), &json!(500))
        );
    }
}
