use serde_json::{Value, json};

use super::*;
use crate::saved::tests::{object, saved};

fn result(paths: u64) -> Value {
    let mut result = object(8);
    result["title"] = "randread <4 KiB> & more".into();
    result["paths"] = json!([
        {"traddr": "10.0.0.1", "trsvcid": "4420"}, {"traddr": "fe80::1", "trsvcid": "4420"},
    ]);
    let event = |at: u64, from: &str, to: &str| {
        json!({"at_ns": at * 1_000_000_000, "path": "10.0.0.1:4420", "from": from, "to": to,
               "pause_ns": 2_500_000, "pause_open": false})
    };
    result["path_events"] = json!([
        event(2, "optimized", "inaccessible"),
        event(4, "inaccessible", "optimized"),
        event(5, "optimized", "disconnected"),
        event(7, "disconnected", "optimized"),
    ]);
    result["doubts"] = json!(["a <doubt>"]);
    result["options"]["paths"] = paths.into();
    for point in [2, 3, 5, 6] {
        result["series"][point]["path_ios"] = json!([0, 500]);
    }
    result
}

fn runs(results: &[Value]) -> Vec<Run> {
    let names = ["base", "new <1>"].iter();
    let runs = results.iter().zip(names);
    runs.map(|(result, name)| Run::new((*name).to_owned(), saved(result).unwrap()).unwrap())
        .collect()
}

/// Names of elements that are opened and closed in order; panics if they are not.
fn elements(markup: &str) -> Vec<String> {
    let (mut open, mut all) = (Vec::new(), Vec::new());
    let mut rest = markup.strip_prefix("<!DOCTYPE html>").unwrap_or(markup);
    while let Some(start) = rest.find('<') {
        assert!(
            !rest[..start].contains('>'),
            "a stray > in {}",
            &rest[..start]
        );
        let end = rest.find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "closed in order");
            continue;
        }
        let name = tag.split([' ', '/']).next().expect("a name").to_owned();
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        if name == "style" {
            rest = &rest[rest.find("</style>").expect("it ends")..];
        }
        all.push(name.clone());
        if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?} are not closed");
    all
}

#[test]
fn the_page_is_well_formed_and_no_plot_is_empty() {
    for results in [vec![result(2)], vec![result(2), result(3)]] {
        let runs = runs(&results);
        let page = page(&runs, figures(&runs), STYLE);
        let all = elements(&page);
        assert!(!all.contains(&"script".to_owned()));
        for loaded in ["href=", "src=", "url("] {
            assert!(!page.contains(loaded), "{loaded}");
        }
        assert_eq!(page.matches("class=\"plot\"").count(), 3 + results.len());
        for plot in page.split("<svg xmlns").skip(1) {
            let plot = &plot[..plot.find("</svg>").expect("it ends")];
            let drawn = plot
                .split(" d=\"")
                .skip(1)
                .map(|path| path.find('"').expect("it ends"));
            let lengths: Vec<usize> = drawn.collect();
            assert!(
                !lengths.is_empty() && lengths.iter().all(|length| *length > 20),
                "{plot}"
            );
            assert!(!plot.contains("NaN") && !plot.contains("inf"), "{plot}");
        }
        for part in [
            "randread &lt;4 KiB&gt; &amp; more",
            "to [fe80::1]:4420",
            "path lost",
            "ANA optimized",
            "a &lt;doubt&gt;",
        ] {
            assert!(page.contains(part), "{part}");
        }
        let differs =
            page.contains("<th>options.paths</th><td class=\"v\">2</td><td class=\"v\">3</td>");
        assert_eq!(differs, results.len() > 1, "what differs");
    }
}

#[test]
fn jobs_stand_below_their_run() {
    let mut one = result(2);
    let job = |name: &str, iops: f64| json!({"name": name, "iops": iops, "errors": 0, "histogram": object(1)["histogram"]});
    one["jobs"] = json!([job("reads <1>", 1234.0), job("writes", 77.0)]);
    let runs = runs(&[one]);
    let drawn = figures(&runs);
    let jobs = drawn.iter().find(|figure| figure.plot == Plot::Jobs);
    assert_eq!(jobs.expect("a plot").legend, ["reads <1>", "writes"]);
    let page = page(&runs, drawn, "");
    for part in ["base: reads &lt;1&gt;", ">1,234<", "base: writes", ">77<"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    elements(&page);
}

#[test]
fn single_plots_carry_their_style() {
    let runs = runs(&[result(2)]);
    for figure in figures(&runs) {
        let marks = figure.plot != args::Plot::Percentiles;
        let svg = figure.chart.svg("plot", &figure.title, Some(STYLE));
        assert_eq!(elements(&svg)[..2], ["svg", "style"]);
        assert!(svg.contains("prefers-color-scheme: dark"));
        assert_eq!(svg.matches("class=\"mark lost").count(), usize::from(marks));
        assert_eq!(
            svg.matches("class=\"mark ana").count(),
            2 * usize::from(marks)
        );
    }
}

#[test]
fn a_result_without_a_series_has_its_percentiles() {
    let runs = runs(&[object(0)]);
    let drawn = figures(&runs);
    assert_eq!(drawn.len(), 1);
    elements(&page(&runs, drawn, STYLE));
}

#[test]
fn files_are_called_as_they_can_be_told_apart() {
    let files = ["a/x.json", "b/x.json", "y.json"].map(PathBuf::from);
    let names: Vec<String> = files.iter().map(|file| name(file, &files)).collect();
    assert_eq!(names, ["a/x.json", "b/x.json", "y"]);
}
