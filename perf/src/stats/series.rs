//! A run cut into intervals: what each gave, for plots, for HDR tools, and for tests of whether two runs differ.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde_json::{Value, json};

use super::{JobStats, LatencySummary, add, latency_histogram, latency_json};
use crate::text::rounded;

/// What the jobs together did in one interval.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interval {
    /// In the clock of the statistics.
    pub start_ns: u64,
    /// The counters were collected then.
    pub end_ns: u64,
    /// I/Os that succeeded.
    pub ios: u64,
    /// Payload bytes of those I/Os.
    pub bytes: u64,
    /// I/Os that failed.
    pub errors: u64,
    /// The most I/Os that were due and not started, in an open loop.
    pub backlog: Option<u64>,
    /// I/Os that succeeded by path, in attach order.
    pub paths: Vec<u64>,
    /// Latency of the I/Os that succeeded.
    pub latency: LatencySummary,
    /// All of their latencies, see [`encode`].
    pub histogram: String,
}

impl Interval {
    /// The interval in which `counted` was counted.
    pub fn of(counted: &JobStats, start_ns: u64, end_ns: u64, backlog: Option<u64>) -> Self {
        Self {
            start_ns,
            end_ns,
            ios: counted.ios(),
            bytes: counted.bytes,
            errors: counted.errors,
            backlog,
            paths: counted.paths.iter().map(|path| path.ios).collect(),
            latency: LatencySummary::of(&counted.latency),
            histogram: encode(&counted.latency),
        }
    }

    /// A point that [`Self::json`] has written.
    ///
    /// # Errors
    ///
    /// What it lacks.
    pub fn from_json(point: &Value) -> Result<Self, String> {
        let number = |name: &str| {
            let value = point[name].as_u64();
            value.ok_or_else(|| format!("'{name}' of a point is {}, not a count", point[name]))
        };
        let (start_ns, end_ns) = (number("start_ns")?, number("end_ns")?);
        if end_ns <= start_ns {
            return Err("a point has no length".to_owned());
        }
        let histogram = point["histogram"].as_str().unwrap_or_default();
        let mut interval = Self {
            start_ns,
            end_ns,
            ios: number("ios")?,
            bytes: 0,
            errors: number("errors")?,
            backlog: point["backlog_max"].as_u64(),
            paths: point["path_ios"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|ios| ios.as_u64().unwrap_or(0))
                .collect(),
            latency: LatencySummary::of(&decode(histogram)?),
            histogram: histogram.to_owned(),
        };
        let rate = point["bytes_per_sec"].as_f64();
        let rate = rate.ok_or("a point has no bytes_per_sec")?;
        interval.bytes = rounded(rate * interval.seconds());
        Ok(interval)
    }

    /// Intervals as one, from the first start to the last end; their paths are the same ones.
    ///
    /// # Errors
    ///
    /// A histogram that another program has written, with values beyond an hour.
    pub fn sum(parts: &[Self]) -> Result<Self, String> {
        let mut latency = latency_histogram();
        let mut sum = Self {
            start_ns: parts.iter().map(|part| part.start_ns).min().unwrap_or(0),
            ..Self::default()
        };
        for part in parts {
            let mut own = latency_histogram();
            own.add(&decode(&part.histogram)?)
                .map_err(|_| "a histogram goes beyond an hour".to_owned())?;
            add(&mut latency, &own);
            sum.end_ns = sum.end_ns.max(part.end_ns);
            // The parts were read from a file, where anything may stand.
            sum.ios = sum.ios.saturating_add(part.ios);
            sum.bytes = sum.bytes.saturating_add(part.bytes);
            sum.errors = sum.errors.saturating_add(part.errors);
            if let Some(backlog) = part.backlog {
                sum.backlog = Some(sum.backlog.unwrap_or(0).saturating_add(backlog));
            }
            let paths = sum.paths.len().max(part.paths.len());
            sum.paths.resize(paths, 0);
            for (sum, ios) in sum.paths.iter_mut().zip(&part.paths) {
                *sum = sum.saturating_add(*ios);
            }
        }
        sum.latency = LatencySummary::of(&latency);
        sum.histogram = encode(&latency);
        Ok(sum)
    }

    /// Its length.
    pub fn seconds(&self) -> f64 {
        self.end_ns.saturating_sub(self.start_ns).max(1) as f64 / 1e9
    }

    /// I/Os that succeeded, per second.
    pub fn iops(&self) -> f64 {
        self.ios as f64 / self.seconds()
    }

    /// Payload bytes per second of the I/Os that succeeded.
    pub fn bytes_per_sec(&self) -> f64 {
        self.bytes as f64 / self.seconds()
    }

    /// For programs; times since `origin_ns`.
    pub fn json(&self, origin_ns: u64) -> Value {
        json!({
            "start_ns": self.start_ns.saturating_sub(origin_ns),
            "end_ns": self.end_ns.saturating_sub(origin_ns),
            "ios": self.ios,
            "iops": self.iops(),
            "bytes_per_sec": self.bytes_per_sec(),
            "errors": self.errors,
            "backlog_max": self.backlog,
            "path_ios": self.paths,
            "latency_ns": latency_json(&self.latency),
            "histogram": self.histogram,
        })
    }
}

/// The points of a series, each with the path events that came in it. An event after the last point belongs to that one.
pub fn with_events(mut points: Vec<Value>, events: &[Value]) -> Vec<Value> {
    let ends: Vec<u64> = points
        .iter()
        .map(|point| point["end_ns"].as_u64().unwrap_or(0))
        .collect();
    let last = points.len().saturating_sub(1);
    let place = |event: &Value| {
        let at_ns = event["at_ns"].as_u64().unwrap_or(0);
        ends.partition_point(|end_ns| *end_ns <= at_ns).min(last)
    };
    for (index, point) in points.iter_mut().enumerate() {
        let own = events.iter().filter(|event| place(event) == index);
        let own = own.map(|event| {
            json!({
                "at_ns": event["at_ns"],
                "path": event["path"],
                "from": event["from"],
                "to": event["to"],
            })
        });
        point["path_events"] = own.collect();
    }
    points
}

/// A histogram as HDR tools exchange it: V2, compressed, in base64.
#[expect(clippy::expect_used, reason = "counts of I/Os and a buffer in memory")]
pub fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(histogram, &mut bytes)
        .expect("a histogram of latencies fits its format");
    STANDARD.encode(bytes)
}

/// The histogram that [`encode`] has written, or another program.
///
/// # Errors
///
/// What is wrong with the text.
pub fn decode(text: &str) -> Result<Histogram<u64>, String> {
    let bytes = STANDARD
        .decode(text)
        .map_err(|error| format!("no base64: {error}"))?;
    Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|error| format!("no HdrHistogram: {error}"))
}

/// The intervals as a log that HDR tools read (format 1.3). Values are nanoseconds, and the column of the largest one
/// milliseconds, as is usual.
pub fn hdr_log(series: &[Interval], origin_ns: u64, began: SystemTime) -> String {
    let began = began.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let mut log = format!(
        "#[Latencies of pollux-perf {}, in nanoseconds]\n#[Histogram log format version 1.3]\n#[BaseTime: {:.3} (seconds since epoch)]\n#[StartTime: {:.3} (seconds since epoch)]\n\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
        env!("CARGO_PKG_VERSION"),
        began.as_secs_f64(),
        began.as_secs_f64()
    );
    for interval in series {
        let start = interval.start_ns.saturating_sub(origin_ns) as f64 / 1e9;
        log.push_str(&format!(
            "{start:.3},{:.3},{:.3},{}\n",
            interval.seconds(),
            interval.latency.max as f64 / 1e6,
            interval.histogram
        ));
    }
    log
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;

    fn counted(latencies: &[u64]) -> JobStats {
        let mut stats = JobStats::new();
        for &latency in latencies {
            stats.latency.saturating_record(latency);
        }
        stats.reads = latencies.len() as u64;
        stats.path(1).ios = stats.reads;
        stats
    }

    #[test]
    fn a_histogram_survives_the_text() {
        let stats = counted(&[1, 1_000, 1_000, 3_599_000_000_000]);
        let back = decode(&encode(&stats.latency)).unwrap();
        assert_eq!(back, stats.latency);
        assert_eq!(decode(&encode(&counted(&[]).latency)).unwrap().len(), 0);
        for text in ["", "!", "AAAA", "HISTFAAA"] {
            assert!(decode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn events_stand_in_the_point_in_which_they_came() {
        let points = vec![json!({"end_ns": 10}), json!({"end_ns": 20})];
        let event = |at_ns: u64| json!({"at_ns": at_ns, "path": "a", "from": "b", "to": "c"});
        let points = with_events(points, &[9, 10, 19, 25].map(event));
        assert_eq!(points[0]["path_events"], json!([event(9)]));
        let rest: Vec<Value> = [10, 19, 25].map(event).to_vec();
        assert_eq!(points[1]["path_events"], Value::Array(rest));
        assert_eq!(with_events(Vec::new(), &[event(1)]), Vec::<Value>::new());
    }

    #[test]
    fn an_interval_has_rates_and_percentiles() {
        let interval = Interval::of(&counted(&[500; 200]), 5_000_000_000, 5_500_000_000, Some(3));
        let json = interval.json(4_000_000_000);
        assert_eq!(
            (&json["start_ns"], &json["end_ns"]),
            (&json!(1_000_000_000), &json!(1_500_000_000))
        );
        assert_eq!(
            (&json["iops"], &json["backlog_max"]),
            (&json!(400.0), &json!(3))
        );
        assert_eq!(json["path_ios"], json!([0, 200]));
        assert_eq!(json["latency_ns"]["p99"], 500);
        assert_eq!(json["latency_ns"]["p999"], Value::Null, "200 are too few");
    }

    #[test]
    fn the_log_is_read_by_the_readers_of_the_format() {
        let series = [
            Interval::of(&counted(&[1_000, 2_000]), 100, 1_000_000_100, None),
            Interval::of(&counted(&[4_000_000]), 1_000_000_100, 1_500_000_100, None),
        ];
        let log = hdr_log(
            &series,
            100,
            UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        );
        let entries = IntervalLogIterator::new(log.as_bytes()).map(Result::unwrap);
        let intervals: Vec<_> = entries
            .filter_map(|entry| match entry {
                LogEntry::Interval(interval) => Some(interval),
                _ => None,
            })
            .collect();
        assert_eq!(intervals.len(), 2);
        assert_eq!(intervals[1].start_timestamp(), Duration::from_secs(1));
        assert_eq!(intervals[1].duration(), Duration::from_millis(500));
        assert!((intervals[1].max() - 4.0).abs() < 0.01);
        let histogram = decode(intervals[0].encoded_histogram()).unwrap();
        assert_eq!((histogram.len(), histogram.max()), (2, 2_000));
    }
}
