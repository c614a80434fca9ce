//! The text of `strandline remedies`, against a golden file. `STRANDLINE_BLESS=1 cargo test` writes
//! it anew: look at the difference before it is kept.

use std::path::Path;

use strandline_report::remedies::*;
use strandline_report::Exit;

const KIB: i64 = 1 << 10;

fn sample(peak: i64, end: i64, marked: i64, ms: u64) -> Sample {
    Sample {
        peak_rss: Some(peak * KIB),
        end_rss: Some(end * KIB),
        marked_rss: Some(marked * KIB),
        after_action_rss: None,
        run_ns: ms * 1_000_000,
        exit: Exit { code: Some(0), signal: None },
        output: 1,
        error: None,
        last_words: None,
    }
}

fn remedy(name: &'static str, variables: &str, code: Option<&str>, command: &str) -> Remedy {
    Remedy {
        name,
        text: String::new(),
        line: match code {
            Some(code) if variables.is_empty() => code.to_owned(),
            _ => format!("{variables} {command}"),
        },
        dockerfile: (!variables.is_empty()).then(|| format!("RUN install it\nENV {variables}")),
        code: code.map(str::to_owned),
    }
}

fn report(command: &str) -> Remedies {
    let as_is = [sample(167_731, 126_771, 126_771, 1550)];
    let row = |name, variables: &str, code, s: Sample| {
        Row::of(remedy(name, variables, code, command), &[s], &as_is)
    };
    let decay = "LD_PRELOAD=/usr/lib/x86_64-linux-gnu/libjemalloc.so.2 PYTHONMALLOC=malloc \
                 MALLOC_CONF=dirty_decay_ms:0,muzzy_decay_ms:0";
    let other = Sample { output: 2, ..sample(150_000, 89_100, 89_100, 1500) };
    let failed = Sample {
        exit: Exit { code: None, signal: Some(11) },
        last_words: Some("a line with a \u{1b}[31mcolour".to_owned()),
        ..sample(1, 1, 1, 1)
    };
    let mut report = Remedies {
        schema: REMEDIES_SCHEMA,
        strandline: "0.0.0".to_owned(),
        command: vec!["python3".to_owned(), "app.py".to_owned()],
        command_line: command.to_owned(),
        python: Some("3.11.7".to_owned()),
        pid: 1,
        repeat: 3,
        point: Point::Mark,
        point_count: 4,
        noise_bytes: noise(&as_is),
        as_is: Measured::of(&as_is),
        remedies: vec![
            row("arena-max", "MALLOC_ARENA_MAX=1", None, sample(167_700, 126_800, 126_800, 1600)),
            row(
                "pythonmalloc",
                "PYTHONMALLOC=malloc",
                None,
                sample(183_400, 142_500, 142_500, 1500),
            ),
            row("mimalloc", "LD_PRELOAD=m.so", None, sample(167_000, 129_000, 129_000, 1550)),
            row("malloc-trim", "", Some("trim()"), sample(167_700, 86_000, 126_771, 1551)),
            row(
                "pythonmalloc-trim",
                "PYTHONMALLOC=malloc",
                Some("trim()"),
                sample(183_000, 88_000, 126_771, 1400),
            ),
            row("jemalloc-decay0-pythonmalloc", decay, None, other),
            row(
                "tcmalloc-decommit-pythonmalloc",
                decay,
                None,
                sample(150_000, 92_000, 92_000, 1700),
            ),
            row("tcmalloc", "LD_PRELOAD=t.so", None, failed),
        ],
        not_tried: ["jemalloc", "jemalloc-pythonmalloc"]
            .map(|name| NotTried { name, reason: "no libjemalloc.so.2 is installed".to_owned() })
            .into(),
        notes: vec!["A note that is long enough to be broken, since it says what the reader \
                     should know of the figures and of how they were made."
            .to_owned()],
    };
    report.sort();
    report
}

#[test]
fn the_text_is_the_golden_one_and_fits() {
    let mut text = render(&report("python3 app.py"));
    let mut long = report("python3 -c 'import this\nimport that'");
    long.repeat = 1;
    long.point = Point::End;
    long.remedies.retain(|r| r.remedy.name.starts_with("jemalloc"));
    long.not_tried.clear();
    long.notes.clear();
    text += &format!("\n----\n\n{}", render(&long));
    long.remedies.clear();
    long.point = Point::Return;
    long.point_count = 1;
    text += &format!("\n----\n\n{}", render(&long));
    for line in text.lines() {
        assert!(line.chars().count() <= 100 && !line.ends_with(' '), "{line:?}");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/remedies.txt");
    if std::env::var_os("STRANDLINE_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap());
}

#[test]
fn the_json_is_exact_and_flat() {
    let text = report("python3 app.py").to_json().unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["schema"], "strandline-remedies/1");
    assert_eq!((&json["point"], &json["point_count"]), (&"mark".into(), &4.into()));
    let best = &json["remedies"][0];
    assert_eq!((&best["name"], &best["line"]), (&"malloc-trim".into(), &"trim()".into()));
    assert_eq!(best["end_rss_bytes"], 86_000 * KIB);
    assert_eq!(best["returned_bytes"], (126_771 - 86_000) * KIB);
    assert_eq!(best["difference"]["end_rss_bytes"], (86_000 - 126_771) * KIB);
    assert_eq!(best["difference"]["run_ns"], 1_000_000);
    assert_eq!(
        (&best["verdict"], &best["dockerfile"]),
        (&"better".into(), &serde_json::Value::Null)
    );
    let verdicts: Vec<_> = json["remedies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["verdict"].as_str().unwrap())
        .collect();
    let good = ["better"; 4];
    let rest = ["no effect", "worse", "worse", "failed"];
    assert_eq!(verdicts, [&good[..], &rest[..]].concat());
    assert_eq!(json["not_tried"][1]["name"], "jemalloc-pythonmalloc");
}
