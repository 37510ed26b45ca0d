//! Facts about reading traces, on tiny files written here.

use std::io::Write as _;
use std::path::PathBuf;

use super::*;

/// A file that is removed when the test ends.
struct Fixture(PathBuf);

impl Fixture {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("headroom-trace-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn mapped(time_unit: TimeUnit, count: Option<&str>) -> ImportOptions {
    let mapping =
        Mapping { time: "at".into(), time_unit, count: count.map(Into::into), ..Mapping::default() };
    ImportOptions { mapping: Some(mapping), ..ImportOptions::default() }
}

fn stamps(trace: Trace) -> Timestamps {
    match trace.data {
        TraceData::Timestamps(stamps) => stamps,
        TraceData::Counts(_) => panic!("expected timestamps"),
    }
}

fn dense(trace: &Trace) -> Vec<Option<f64>> {
    match &trace.data {
        TraceData::Counts(counts) => counts.dense().collect(),
        TraceData::Timestamps(_) => panic!("expected counts"),
    }
}

#[test]
fn alibaba_rows_become_requests_with_columns() {
    let text = "gmt_create,predict_type,predict_status,exec_time_seconds,groupId,num_images_per_prompt,\
                checkpoint_model_version_id,num_lora\n\
                2024-11-15 16:57:50,TXT_2_IMG,SUCCEED,32.0,G0,1.0,M0,0\n\
                2024-11-15 16:58:50,IMG_2_IMG,FAILED,,G1,4.0,M1,0\n";
    let file = Fixture::new("genai.csv.gz", &gzip(text));
    let trace = Trace::import(&file.0, &ImportOptions::default()).unwrap();
    assert_eq!(trace.start.unwrap().to_string(), "2024-11-15T16:57:50");
    let stamps = stamps(trace);
    assert_eq!(
        (stamps.at_ns.as_slice(), stamps.resolution_ns),
        ([0, 60_000_000_000].as_slice(), 1_000_000_000)
    );
    assert_eq!(stamps.exec_s.as_ref().map(|e| (e[0], e[1].is_nan())), Some((32.0, true)));
    assert_eq!(stamps.size, Some(vec![1.0, 4.0]));
    assert_eq!(stamps.class.unwrap().name(1), Some("IMG_2_IMG"));
    assert_eq!(stamps.model.unwrap().name(1), Some("M1"));
}

#[test]
fn azure_times_keep_their_100_ns() {
    let text = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,374,44\r\n\
                2023-11-16 18:15:50.9951691,396,109";
    let file = Fixture::new("azure.csv", text.as_bytes());
    let stamps = stamps(Trace::import(&file.0, &ImportOptions::default()).unwrap());
    assert_eq!((stamps.at_ns[1], stamps.resolution_ns), (4_314_579_100, 100));
    assert_eq!(stamps.size, Some(vec![418.0, 505.0]));
}

#[test]
fn absent_minutes_are_missing() {
    let text = "period,count\n1998-04-30 21:30:00,2\n1998-04-30 21:31:00,0\n1998-04-30 21:33:00,16\n";
    let file = Fixture::new("wc.csv", text.as_bytes());
    let trace = Trace::import(&file.0, &ImportOptions::default()).unwrap();
    assert_eq!(dense(&trace), [Some(2.0), Some(0.0), None, Some(16.0)]);
    assert_eq!(trace.source.sha256.unwrap().len(), 64);
}

#[test]
fn sha256_is_that_of_the_file_as_it_lies() {
    // `printf 'timestamp,value\n2015-02-26 21:42:53,57\n' | sha256sum`
    let file = Fixture::new("nab.csv", b"timestamp,value\n2015-02-26 21:42:53,57\n");
    let trace = Trace::import(&file.0, &ImportOptions::default()).unwrap();
    let expected = "b2bf0b4320a9c1b1453e282a0c7a76a78cc6ba2848877ee9120cc305122e7f12";
    assert_eq!(trace.source.sha256.as_deref(), Some(expected));
}

#[test]
fn plain_files_are_read_through_a_mapping() {
    let csv = "who,at,where\nx,1.5,eu\ny,1.75,us\n";
    let jsonl = "{\"at\": 1.5, \"where\": \"eu\"}\n\n{\"where\": \"us\", \"at\": \"1.75\"}\n";
    for (name, text) in [("plain.csv", csv), ("plain.jsonl", jsonl)] {
        let file = Fixture::new(name, text.as_bytes());
        let mut options = mapped(TimeUnit::Seconds, None);
        options.mapping.as_mut().unwrap().region = Some("where".into());
        let trace = Trace::import(&file.0, &options).unwrap();
        assert_eq!(trace.start, None);
        let stamps = stamps(trace);
        assert_eq!(
            (stamps.at_ns.as_slice(), stamps.resolution_ns),
            ([0, 250_000_000].as_slice(), 10_000_000)
        );
        assert_eq!(stamps.region.unwrap().names, ["eu", "us"]);
    }
}

#[test]
fn plain_counts_find_their_bin_and_sum_rows_of_one_bin() {
    let file = Fixture::new("counts.csv", b"at,n\n0,1\n10,2\n10,3\n20,4\n50,6\n");
    let trace = Trace::import(&file.0, &mapped(TimeUnit::Millis, Some("n"))).unwrap();
    assert_eq!(dense(&trace), [Some(1.0), Some(5.0), Some(4.0), None, None, Some(6.0)]);
    assert_eq!(trace.resolution_ns(), 10_000_000);
}

#[test]
fn sorting_is_done_when_asked() {
    let file = Fixture::new("unsorted.csv", b"at,c\n5,b\n3,a\n5,d\n4,c\n");
    let mut options = mapped(TimeUnit::Nanos, None);
    options.mapping.as_mut().unwrap().class = Some("c".into());
    options.sort = true;
    let stamps = stamps(Trace::import(&file.0, &options).unwrap());
    let class = stamps.class.unwrap();
    let rows: Vec<_> = (0..4).map(|row| (stamps.at_ns[row], class.name(row).unwrap())).collect();
    assert_eq!(rows, [(0, "a"), (1, "c"), (2, "b"), (2, "d")]);
}

#[test]
fn rows_are_counted_per_bin_while_they_stream() {
    let rows = || (0..100_000i64).map(|i| Row { at_ns: 1_000 + i / 2, ..Row::default() });
    let small = ImportOptions { rows_max: 1000, ..ImportOptions::default() };
    let message = Trace::from_rows("big", rows(), false, &small).unwrap_err().to_string();
    assert!(message.contains("more than 1000 rows") && message.contains("give a bin width"), "{message}");
    let binned = ImportOptions { bin_ns: Some(20_000), ..small };
    let trace = Trace::from_rows("big", rows(), false, &binned).unwrap();
    assert_eq!(dense(&trace), [Some(40_000.0), Some(40_000.0), Some(20_000.0)]);
    let backwards = Trace::from_rows("big", rows().collect::<Vec<_>>().into_iter().rev(), false, &binned);
    assert!(matches!(backwards, Err(TraceError::Unsorted { line: 3, .. })));
    let sorted = ImportOptions { sort: true, ..binned };
    let trace =
        Trace::from_rows("big", rows().collect::<Vec<_>>().into_iter().rev(), false, &sorted).unwrap();
    assert_eq!((trace.count(), dense(&trace).len()), (100_000.0, 4)); // bins start at the first row read
}

#[test]
fn servegen_windows_become_expected_counts() {
    let text = "client_id,window_start_s,rate_rps,cv,pattern,param1,param2\n0,0,0,0,,0,0\n\
                0,600,0.5,2,Gamma,0.25,8\n1,600,1.5,1,Weibull,1,0.6\n";
    let file = Fixture::new("servegen.csv", text.as_bytes());
    let trace = Trace::import(&file.0, &ImportOptions::default()).unwrap();
    assert_eq!(dense(&trace), [Some(0.0), Some(1200.0)]);
    let rates = ClientRates::read(&file.0).unwrap();
    assert_eq!(rates.clients[0][1].law, Some(GapLaw::Gamma { shape: 0.25 }));
    assert!((rates.gap_cv_weighted() - 1.25).abs() < 1e-12);
}

#[test]
fn wrong_files_are_named_with_place_and_remedy() {
    let check = |name: &str, bytes: &[u8], options: ImportOptions, parts: &[&str]| {
        let file = Fixture::new(name, bytes);
        let message = Trace::import(&file.0, &options).unwrap_err().to_string();
        for part in parts.iter().chain([&name]) {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
    };
    let plain = ImportOptions::default;
    let seconds = || mapped(TimeUnit::Seconds, None);
    let counts = || mapped(TimeUnit::Seconds, Some("n"));
    check("e1.csv", b"", plain(), &["is empty"]);
    check("e2.csv", b"period,count\n", plain(), &["is empty"]);
    check("e3.csv", b"a,b\n1,2\n", plain(), &["no known format", "`a,b`", "name its time column"]);
    check("e4.csv", b"PAR1\x15\x04", plain(), &["headroom trace import"]);
    check("e5.csv", b"\xff\xfea\0,\0", plain(), &["UTF-16"]);
    check("e6.csv", b"att,n\n1,2\n", seconds(), &["no column `at`", "did you mean `att`?"]);
    check("e7.csv", b"at,n\n1,2\nsoon,2\n", seconds(), &["line 3", "column `at`", "`soon`", "name the unit"]);
    check("e8.csv", b"at,n\n5,2\n3,2\n", seconds(), &["line 3", "`3` is before", "sort"]);
    check("e9.csv", b"at,n\n5,NaN\n", counts(), &["line 2", "column `n`", "`NaN`", "missing"]);
    check("e10.csv", b"at,n\n5,-1\n", counts(), &["line 2", "`-1`"]);
    check("e11.csv", b"at,n\n5,inf\n", counts(), &["`inf`"]);
    check("e12.csv", b"at,n\n5,0\n6,0\n", counts(), &["no request"]);
    check("e13.csv", b"at,n\n5,1\n", counts(), &["bin width is unknown"]);
    check("e14.csv", b"at,n\n0,1\n2,1\n4,1\n5,1\n", counts(), &["line 5", "5 s after", "bin width 2 s"]);
    check("e15.csv", b"at,n\n0,1\n1,1\n99999999,1\n", counts(), &["bins of 1 s", "wider bin"]);
    check("e16.csv", b"at,n\n0,1\n1\n", counts(), &["line 3", "1 columns where the header has 2"]);
    check("e17.csv", b"at,n\n0,\xff\n", counts(), &["not UTF-8"]);
    check("e18.jsonl", b"{\"at\": 1}\n{\"at\": \n", seconds(), &["line 2", "not a JSON object"]);
    check("e19.jsonl", b"{\"at\": 1}\n{\"att\": 1}\n", seconds(), &["line 2", "no key `at`", "`att`"]);
    check("e20.json", b"{\"metadata\": {\"gap_seconds\": 1}}", plain(), &["a spot availability trace, not"]);
    let whole = gzip(&"period,count\n1998-04-30 21:30:00,2\n".repeat(50));
    check("e21.csv.gz", &whole[..whole.len() - 9], plain(), &["middle of its gzip stream"]);
    let limited = ImportOptions { rows_max: 1, ..seconds() };
    check("e22.csv", b"at\n1\n2\n", limited, &["more than 1 rows", "bin width"]);
    let wide = ImportOptions { bin_ns: Some(90_000_000_000), ..plain() };
    let message = Trace::import(&Fixture::new("e23.csv", b"period,count\n1998-04-30 21:30:00,2\n").0, &wide);
    assert!(message.unwrap_err().to_string().contains("90 s is not a multiple"));
    let absent = Trace::import(std::path::Path::new("/no/such/file.csv"), &plain()).unwrap_err();
    assert!(absent.to_string().contains("could not read trace `/no/such/file.csv`"));
}
