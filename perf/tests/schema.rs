//! Results are what the schema in the tree says, whatever was measured.

#![expect(clippy::expect_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// The result that is written, and the folder it is in.
fn result(name: &str, args: &[&str]) -> (Value, PathBuf) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("result.json");
    let output = Command::new(env!("CARGO_BIN_EXE_pollux-perf"))
        .args(args)
        .arg("--json")
        .arg(&file)
        .current_dir(&folder)
        .output()
        .expect("the program starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    let text = fs::read_to_string(&file).expect("the file was written");
    (serde_json::from_str(&text).expect("JSON"), folder)
}

fn schema(name: &str) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("schema")
        .join(name);
    serde_json::from_str(&fs::read_to_string(file).expect("the schema")).expect("JSON")
}

/// What is wrong with `value`; the part of JSON Schema that the schema uses.
fn faults(root: &Value, schema: &Value, value: &Value, at: &str, faults_: &mut Vec<String>) {
    let mut fault = |why: String| faults_.push(format!("{at}: {why}"));
    let known = [
        "$schema",
        "$defs",
        "$ref",
        "title",
        "description",
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "const",
        "enum",
        "anyOf",
    ];
    for keyword in schema.as_object().expect("a schema").keys() {
        assert!(
            known.contains(&keyword.as_str()),
            "{keyword} is not understood"
        );
    }
    if let Some(reference) = schema["$ref"].as_str() {
        if reference.ends_with(".json") {
            let other = self::schema(reference);
            return faults(&other, &other, value, at, faults_);
        }
        let name = reference.strip_prefix("#/$defs/").expect("a definition");
        return faults(root, &root["$defs"][name], value, at, faults_);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let fits = |one: &Value| {
            let mut found = Vec::new();
            faults(root, one, value, at, &mut found);
            found.is_empty()
        };
        if !any.iter().any(fits) {
            fault(format!("{value} is none of what is allowed"));
        }
        return;
    }
    if let Some(wanted) = schema.get("const")
        && wanted != value
    {
        fault(format!("{value} is not {wanted}"));
    }
    if let Some(wanted) = schema["enum"].as_array()
        && !wanted.contains(value)
    {
        fault(format!("{value} is not one of {wanted:?}"));
    }
    let is = |name: &Value| match name.as_str().expect("a type") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "null" => value.is_null(),
        other => panic!("type {other} is not understood"),
    };
    let right = match &schema["type"] {
        Value::Null => true,
        Value::Array(types) => types.iter().any(is),
        one => is(one),
    };
    if !right {
        fault(format!("{value} is not {}", schema["type"]));
    }
    if let Some(object) = value.as_object() {
        for name in schema["required"].as_array().into_iter().flatten() {
            if !object.contains_key(name.as_str().expect("a name")) {
                fault(format!("{name} is missing"));
            }
        }
        for (name, member) in object {
            match schema["properties"].get(name) {
                Some(part) => faults(root, part, member, &format!("{at}.{name}"), faults_),
                None if schema["additionalProperties"] == false => {
                    faults_.push(format!("{at}.{name} is not in the schema"));
                }
                None if schema["additionalProperties"].is_object() => {
                    let part = &schema["additionalProperties"];
                    faults(root, part, member, &format!("{at}.{name}"), faults_);
                }
                None => {}
            }
        }
    }
    if let (Some(items), Some(part)) = (value.as_array(), schema.get("items")) {
        for (index, item) in items.iter().enumerate() {
            faults(root, part, item, &format!("{at}[{index}]"), faults_);
        }
    }
}

fn all_faults(name: &str, value: &Value) -> Vec<String> {
    let (schema, mut found) = (schema(name), Vec::new());
    faults(&schema, &schema, value, name, &mut found);
    found
}

fn assert_is(name: &str, value: &Value) {
    let found = all_faults(name, value);
    assert!(found.is_empty(), "{found:#?}");
}

fn assert_fits(value: &Value) {
    assert_is("result-1.json", value);
}

#[test]
fn a_closed_loop_with_a_failover_fits() {
    let (result, _) = result("schema-closed", &["-t", "2", "--interval", "0.1"]);
    assert_fits(&result);
    let series = result["series"].as_array().expect("a list");
    assert!(series.len() >= 15, "{} points", series.len());
    let sum: u64 = series
        .iter()
        .filter_map(|point| point["ios"].as_u64())
        .sum();
    assert_eq!(
        Some(sum),
        result["reads"].as_u64(),
        "every I/O is in one point"
    );
    for pair in series.windows(2) {
        assert_eq!(pair[0]["end_ns"], pair[1]["start_ns"]);
    }
    let mut broken = result;
    broken["schema_version"] = json!(2);
    broken["latency_ns"]["p50"] = json!("fast");
    broken["more"] = Value::Null;
    assert_eq!(
        all_faults("result-1.json", &broken).len(),
        3,
        "the test can fail"
    );
}

#[test]
fn an_open_loop_with_everything_in_its_mix_fits() {
    let args = [
        "-t",
        "1",
        "--no-failover",
        "--rate",
        "2000",
        "--arrivals",
        "poisson",
        "--seed",
        "5",
        "--ramp-time",
        "0.3",
        "-w",
        "randrw",
        "-o",
        "4k:70,16k:30",
        "--mix",
        "read:50,write:20,write_zeroes:10,unmap:10,compare:5,flush:5",
        "--random-distribution",
        "zipf:1.1",
        "--hdr-log",
        "latency.hlog",
        "--interval",
        "0.25",
    ];
    let (result, folder) = result("schema-open", &args);
    assert_fits(&result);
    for name in ["read", "write", "write_zeroes", "unmap", "compare", "flush"] {
        assert!(
            result["operations"][name].as_u64() > Some(0),
            "{name}: {result:#}"
        );
    }
    assert!(
        result["compares_differing"].as_u64() > Some(0),
        "{result:#}"
    );
    assert_eq!(result["errors"], 0, "{result:#}");
    let iops = result["iops"].as_f64().expect("a number");
    assert!(
        (1_700.0..2_300.0).contains(&iops),
        "{iops} I/Os a second of 2000"
    );
    assert_eq!(result["open_loop"]["rate_iops"], 2_000);
    assert_eq!(result["ramp"]["failures"], 0);
    assert!((0.9..1.2).contains(&result["seconds"].as_f64().expect("a number")));
    let log = fs::read_to_string(folder.join("latency.hlog")).expect("a log");
    let lines = log.lines().filter(|line| line.contains(",HISTFAAA"));
    let series = result["series"].as_array().expect("a list");
    assert_eq!(lines.count(), series.len(), "{log}");
}

#[test]
fn a_verify_with_doubts_and_a_floor_fit() {
    let verify = ["-t", "300", "-w", "verify", "--ios", "200", "--no-failover"];
    let (verified, _) = result("schema-verify", &verify);
    assert_fits(&verified);
    assert_eq!(
        verified["latency_ns"]["p9999"],
        Value::Null,
        "too few for it"
    );
    let (floor, _) = result("schema-floor", &["floor", "-t", "0.1"]);
    assert_fits(&floor);
}

#[test]
fn results_of_two_runs_are_merged_and_fit() {
    let args = ["-t", "0.3", "--interval", "0.1", "--no-failover", "-q", "2"];
    let (one, one_folder) = result("schema-merge-a", &args);
    let (two, two_folder) = result("schema-merge-b", &args);
    let file = |folder: PathBuf| folder.join("result.json").to_string_lossy().into_owned();
    let (one_file, two_file) = (file(one_folder), file(two_folder));
    let args = ["merge", &one_file, &two_file, "--hdr-log", "merged.hlog"];
    let (merged, folder) = result("schema-merge", &args);
    assert_fits(&merged);
    let sum =
        |name: &str| one[name].as_u64().expect("a count") + two[name].as_u64().expect("a count");
    assert_eq!(merged["reads"], sum("reads"));
    let ios = |value: &Value| -> u64 {
        let series = value["series"].as_array().expect("a list");
        series
            .iter()
            .filter_map(|point| point["ios"].as_u64())
            .sum()
    };
    assert_eq!(
        ios(&merged),
        ios(&one) + ios(&two),
        "every I/O is in one point"
    );
    let log = fs::read_to_string(folder.join("merged.hlog")).expect("a log");
    assert!(log.contains(",HISTFAAA"), "{log}");

    let text = fs::read_to_string(&one_file).expect("a file");
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("written");
    write("cut.json", &text[..text.len() / 2]);
    write("text.json", "hello");
    write("image.json", "\u{0}");
    write(
        "version.json",
        &text.replace("\"schema_version\": 1", "\"schema_version\": 7"),
    );
    write("other.json", &text.replace("\"depth\": 2", "\"depth\": 3"));
    for (file, code, why) in [
        ("cut.json", 1, "cut off"),
        ("text.json", 1, "not JSON"),
        ("image.json", 1, "not JSON"),
        ("version.json", 1, "schema version 7"),
        ("nowhere.json", 1, "nowhere.json"),
        ("other.json", 2, "depth: 2 / 3"),
        (one_file.as_str(), 2, "twice"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_pollux-perf"))
            .args(["merge", &one_file, file])
            .current_dir(&folder)
            .output()
            .expect("the program starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{file}: {errors}");
        assert!(
            errors.contains(why) && errors.lines().count() == 1,
            "{file}: {errors}"
        );
    }
}

#[test]
fn a_run_that_became_steady_and_one_that_did_not_fit() {
    // No four points are further from their mean than this, whatever the machine does.
    let always = "--steadystate=iops:1000%";
    let args = ["--ss_dur=0.4", "--interval=0.1", "--no-failover"];
    let (steady, _) = result("schema-steady", &[&args[..], &[always, "-t300"]].concat());
    assert_fits(&steady);
    assert_eq!(steady["steadystate"]["attained"], true);
    assert_eq!(steady["steadystate"]["criterion"], "iops:1000%");
    assert!(steady["seconds"].as_f64() < Some(300.0));
    // And no machine does the same to a billionth.
    let never = "--steadystate=iops:0.000000001";
    let (unsteady, _) = result("schema-unsteady", &[&args[..], &[never, "-t0.6"]].concat());
    assert_fits(&unsteady);
    assert_eq!(unsteady["steadystate"]["attained"], false);
    let doubts = unsteady["doubts"].as_array().expect("a list");
    let said = |doubt: &Value| {
        doubt
            .as_str()
            .is_some_and(|text| text.contains("never steady"))
    };
    assert!(doubts.iter().any(said), "{doubts:?}");
}

#[test]
fn several_jobs_fit() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("schema-jobs");
    fs::create_dir_all(&folder).expect("a folder");
    let profile = "[global]\nruntime = 0.3\nno_failover = true\n[job.a]\nrate_iops = 500\n[job.b]\nrw = \"randwrite\"\n";
    fs::write(folder.join("jobs.toml"), profile).expect("written");
    let (one, _) = result("schema-jobs", &["--profile", "jobs.toml"]);
    assert_fits(&one);
    assert_eq!(
        one["open_loop"],
        Value::Null,
        "one of them is in a closed loop"
    );
    assert_eq!(one["jobs"][0]["open_loop"]["rate_iops"], 500);
    fs::rename(folder.join("result.json"), folder.join("one.json")).expect("moved");
    let (two, _) = result("schema-jobs", &["--profile", "jobs.toml"]);
    fs::rename(folder.join("result.json"), folder.join("two.json")).expect("moved");
    let (merged, _) = result("schema-jobs", &["merge", "one.json", "two.json"]);
    assert_fits(&merged);
    for name in ["reads", "writes"] {
        for job in [0, 1] {
            let of = |result: &Value| result["jobs"][job][name].as_u64().expect("a count");
            assert_eq!(of(&merged), of(&one) + of(&two), "{name} of job {job}");
        }
    }
}

#[test]
fn verdicts_and_baselines_fit() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("schema-verdicts");
    fs::create_dir_all(&folder).expect("a folder");
    let profile = "[global]\nruntime = 0.2\ninterval = 0.02\nloops = 1\nno_failover = true\n[job.a]\n[job.b]\nrw = \"randwrite\"\n";
    fs::write(folder.join("bench.toml"), profile).expect("written");
    // Whether it is slower than before is nobody's business here.
    let write = |args: &[&str], file: &str| -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_pollux-perf"))
            .args(args)
            .current_dir(&folder)
            .output()
            .expect("the program starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        let text = fs::read_to_string(folder.join(file));
        let text = text.unwrap_or_else(|error| panic!("{args:?}: {error}: {errors}"));
        serde_json::from_str(&text).expect("JSON")
    };
    let bench = ["bench", "--profile", "bench.toml", "--json", "verdict.json"];
    let first = write(
        &[&bench[..], &["--save", "base.json"]].concat(),
        "verdict.json",
    );
    assert_is("bench-1.json", &first);
    assert_eq!(first["verdict"], Value::Null, "nothing to compare with");
    let mut base = write(&["--help"], "base.json");
    assert_is("baseline-1.json", &base);
    base["jobs"].as_object_mut().expect("jobs").remove("b");
    fs::write(folder.join("less.json"), base.to_string()).expect("written");
    let second = write(
        &[&bench[..], &["--baseline", "less.json"]].concat(),
        "verdict.json",
    );
    assert_is("bench-1.json", &second);
    assert!(second["jobs"]["a"]["comparison"].is_object(), "{second}");
    assert_eq!(second["jobs"]["b"]["comparison"], Value::Null);

    let runs = base["jobs"]["a"].as_array().expect("runs");
    fs::write(folder.join("run.json"), runs[0].to_string()).expect("written");
    let args = [
        "compare",
        "run.json",
        "run.json",
        "--fail-on",
        "iops:-3%,p9999:+5%",
    ];
    let args = [&args[..], &["--json", "compared.json"]].concat();
    let mut compared = write(&args, "compared.json");
    assert_is("compare-1.json", &compared);
    compared["verdict"] = json!("maybe");
    compared["metrics"][0]["more"] = Value::Null;
    assert_eq!(
        all_faults("compare-1.json", &compared).len(),
        2,
        "the test can fail"
    );
}
