use std::time::Duration;

use super::*;
use crate::load::Workload;

#[test]
fn jobs_have_what_is_global_and_what_is_their_own() {
    let profile = Profile::parse(
        "[global]\nruntime = 0.5\nbs = \"8k\"\nno_failover = true\nloops = 2\n\n[job.second]\nrw = \"randrw\"\nrwmixread = 70\niodepth = 1_6\n\n[job.first]\nbs = \"4k\"\nloops = 1\nfail_on = \"iops:-1%\"\nhdgst = false\nramp_time = 1\nrate_iops = 1000\n",
    )
    .unwrap();
    let [second, first] = &profile.jobs[..] else {
        panic!("{profile:?}");
    };
    assert_eq!((second.job.name.as_str(), second.loops), ("second", 2));
    assert_eq!(second.job.args.time, Duration::from_millis(500));
    assert_eq!(second.job.args.workload, Workload::RandRw);
    assert_eq!(
        (second.job.args.read_share, second.job.args.depth),
        (Some(70), 16)
    );
    assert!(second.job.args.no_failover && second.job.args.io_size.bytes() == [8192]);
    assert_eq!(second.fail_on.0.len(), 2);
    assert_eq!((first.job.name.as_str(), first.loops), ("first", 1));
    assert_eq!(first.job.args.io_size.bytes(), [4096]);
    assert!(!first.job.args.hdgst && first.job.args.rate.is_some());
    assert_eq!(first.fail_on, "iops:-1%".parse().unwrap());
}

#[test]
fn what_is_wrong_is_said_with_line_and_key() {
    for (text, wanted) in [
        (
            "[global]\niodetph = 4\n[job.a]",
            &["line 2", "'iodetph'", "'iodepth'"][..],
        ),
        ("[job.a]\n\nbs = \"4x\"", &["line 3", "bs: ", "'4x'"]),
        (
            "[job.a]\nrw = \"randraed\"",
            &["line 2", "rw: ", "'randread'"],
        ),
        (
            "[job.a]\nbs = \"4k\"\nio_size = \"8k\"",
            &["line 3", "io_size", "already"],
        ),
        (
            "[job.a]\n[job.b]\nrwmixread = 70",
            &["line 2", "job b", "randrw"],
        ),
        (
            "[job.a]\narrivals = \"poisson\"",
            &["line 1", "job a", "--rate"],
        ),
        ("[job.a]\nhdgst = 1", &["line 2", "hdgst", "true and false"]),
        (
            "[job.a]\nbs = true",
            &["line 2", "bs", "string or a number"],
        ),
        ("[job.a]\njson = \"x\"", &["line 2", "'json'"]),
        ("[job.a]\nloops = 0", &["line 2", "loops", "1 to 1000"]),
        (
            "[job.a]\nfail_on = \"p98:+1%\"",
            &["line 2", "fail_on", "'p98'"],
        ),
        ("[jobs.a]\n", &["line 1", "'jobs'", "'job'"]),
        ("job = 3", &["line 1", "[job.NAME]"]),
        ("[job.a]\nbs = ", &["line 2"]),
        ("[job.a]\nbs = 1\nbs = 2", &["line 3"]),
        ("[global]\n", &["no job", "[job.randread]"]),
    ] {
        let error = Profile::parse(text).unwrap_err();
        for part in wanted {
            assert!(error.contains(part), "{text:?}: {part:?} in {error}");
        }
        assert!(!error.contains('\n'), "{error}");
    }
}

fn together(text: &str, line: &[&str]) -> Result<Vec<JobArgs>, String> {
    let command = RunArgs::augment_args(Command::new("pollux-perf").no_binary_name(true));
    let matches = command.try_get_matches_from(line).unwrap();
    Profile::parse_together(text, &matches)
}

#[test]
fn jobs_that_run_together_share_what_is_not_theirs_alone() {
    let text = "[global]\nruntime = 5\nnamespace = [\"null:1m\", \"null:1m\", \"null:1m\"]\n[job.a]\nnsid = [1, 3]\nnumjobs = 2\n[job.b]\niodepth = 4\nnsid = \"all\"\nloops = 9\n";
    let jobs = together(text, &["-t", "1", "--hdgst", "--json", "a b.json"]).unwrap();
    let [a, b] = &jobs[..] else {
        panic!("{jobs:?}");
    };
    assert_eq!((a.name.as_str(), b.name.as_str()), ("a", "b"));
    assert_eq!((a.args.numjobs, b.args.numjobs), (2, 1));
    assert_eq!((a.args.depth, b.args.depth), (32, 4));
    assert_eq!(a.args.nsid, Some("1,3".parse().unwrap()));
    assert_eq!(b.args.nsid, Some("all".parse().unwrap()));
    for job in &jobs {
        assert_eq!(job.args.time, Duration::from_secs(1), "the command line's");
        assert!(job.args.hdgst && job.args.json == Some("a b.json".into()));
    }
    let error = together("[job.a]\n[job.b]\npolicy = \"active_active\"\n", &[]).unwrap_err();
    for part in ["line 2", "policy", "jobs a and b", "[global]", "bench"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(Profile::parse("[job.a]\n[job.b]\npolicy = \"active_active\"\n").is_ok());
}
