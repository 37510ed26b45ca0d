//! Tests of the Parquet tables.

use std::fs;

use polars::prelude::{DataFrame, ParquetReader, SerReader};
use policy::records::{ChargeCategory, InstanceEnd, JobOutcome};

use super::*;

fn provenance() -> Provenance {
    Provenance { origin: Origin::Simulated, facts: vec![("seed".to_owned(), "7".to_owned())] }
}

fn job(job: u64) -> JobRow {
    JobRow {
        job,
        class: if job.is_multiple_of(2) { "dance".to_owned() } else { "avatar, \u{e9}".to_owned() },
        region: "us-east-1".to_owned(),
        arrived_s: job as f64 * 0.5,
        ended_s: job as f64 * 0.5 + 3.25,
        outcome: JobOutcome::ALL[job as usize % JobOutcome::ALL.len()],
        wait_s: 0.25,
        service_s: 3.0,
        deliveries: 1,
        quality: String::new(),
        weight: 1.0,
    }
}

fn read(path: &Path) -> DataFrame {
    ParquetReader::new(fs::File::open(path).expect("the file is there")).finish().expect("it is Parquet")
}

fn text(frame: &DataFrame, column: &str, row: usize) -> String {
    let cells = frame.column(column).expect(column).str().expect("text");
    cells.get(row).expect("no null").to_owned()
}

#[test]
fn a_run_comes_back_as_it_was_written() {
    let dir = tempfile::tempdir().expect("a folder");
    let instance = |ready_s| InstanceRow {
        pool: "gpu".to_owned(),
        instance: 4,
        capacity_type: "spot",
        requested_s: 1.0,
        ready_s,
        ended_s: 99.5,
        busy_slot_s: 12.0,
        billed_nanousd: 5,
        end: InstanceEnd::Interrupted,
    };
    let run = RunRecords {
        provenance: &provenance(),
        jobs: &[job(0), job(1), job(2)],
        minutes: &[],
        instances: &[instance(Some(61.5)), instance(None)],
        decisions: &[DecisionRow {
            at_s: 60.0,
            policy: "scaling",
            subject: "gpu".to_owned(),
            from: 1,
            to: u32::MAX,
            code: "queue-time",
            reason: "12 jobs wait".to_owned(),
        }],
        charges: &[ChargeRow {
            from_s: 0.0,
            to_s: 60.0,
            category: ChargeCategory::Compute,
            resource: "gpu".to_owned(),
            item: "instance-hours spot".to_owned(),
            quantity: 0.1,
            unit: "h",
            billed_nanousd: i64::MAX,
            list_nanousd: -1,
            source: "list 2026-07-20".to_owned(),
        }],
    };
    let paths = write_run(&dir.path().join("run/1"), &run).expect("written");
    let [jobs, minutes, instances, decisions, charges] = paths.as_slice() else { panic!("five tables") };

    let frame = read(jobs);
    assert_eq!(frame.shape(), (3, JOBS.columns.len() + 1));
    assert_eq!(text(&frame, "class", 1), "avatar, \u{e9}");
    assert_eq!(text(&frame, "outcome", 2), "expired");
    assert_eq!(text(&frame, "origin", 0), "simulated");
    assert_eq!(frame.column("ended_s").expect("there").f64().expect("f64").get(2), Some(4.25));

    let frame = read(minutes);
    assert_eq!((frame.height(), frame.width()), (0, MINUTES.columns.len() + 1));
    let frame = read(instances);
    let ready: Vec<_> = frame.column("ready_s").expect("there").f64().expect("f64").into_iter().collect();
    assert_eq!(ready, [Some(61.5), None]);
    assert_eq!(text(&frame, "end", 0), "interrupted");
    assert_eq!(read(decisions).column("to").expect("there").u32().expect("u32").get(0), Some(u32::MAX));
    let frame = read(charges);
    assert_eq!(frame.column("billed_nanousd").expect("there").i64().expect("i64").get(0), Some(i64::MAX));
    assert_eq!(text(&frame, "category", 0), "compute");
}

#[test]
fn long_tables_are_written_in_row_groups_and_name_their_run() {
    let dir = tempfile::tempdir().expect("a folder");
    let count = ROWS_PER_GROUP + 10;
    let path = dir.path().join("jobs.parquet");
    let mut writer = TableWriter::create(&path, &JOBS, &provenance()).expect("created");
    for number in 0..count as u64 {
        writer.push(job(number)).expect("written");
    }
    assert!(!path.exists(), "nothing shows before the end");
    assert_eq!(writer.finish().expect("finished"), count as u64);

    let mut reader = ParquetReader::new(fs::File::open(&path).expect("the file is there"));
    let metadata = reader.get_metadata().expect("metadata").clone();
    let groups: Vec<usize> = metadata.row_groups.iter().map(|group| group.num_rows()).collect();
    assert_eq!(groups, [ROWS_PER_GROUP, 10]);
    let facts = metadata.key_value_metadata().as_ref().expect("facts");
    assert!(facts.iter().any(|fact| fact.key == "headroom.seed" && fact.value.as_deref() == Some("7")));
    let frame = reader.finish().expect("it is Parquet");
    let numbers = frame.column("job").expect("there").u64().expect("u64");
    assert_eq!(numbers.get(count - 1), Some(count as u64 - 1));
}

#[test]
fn the_same_rows_give_the_same_bytes() {
    let dir = tempfile::tempdir().expect("a folder");
    let rows: Vec<JobRow> = (0..1000).map(job).collect();
    let bytes = |name: &str| {
        let folder = dir.path().join(name);
        fs::create_dir(&folder).expect("a folder");
        fs::read(write_table(&folder, &JOBS, &provenance(), &rows).expect("written")).expect("read")
    };
    assert_eq!(bytes("a"), bytes("b"));
}

#[test]
fn an_unfinished_table_leaves_the_old_one_and_no_other_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = write_table(dir.path(), &JOBS, &provenance(), &[job(1)]).expect("written");
    let before = fs::read(&path).expect("read");
    let mut writer = TableWriter::create(&path, &JOBS, &provenance()).expect("created");
    writer.push(job(2)).expect("taken");
    drop(writer);
    assert_eq!(fs::read(&path).expect("read"), before);
    assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let missing = dir.path().join("missing");
    let error = write_table(&missing, &JOBS, &provenance(), &[job(1)]).expect_err("no folder");
    assert!(error.to_string().contains("missing/jobs.parquet"), "{error}");
    fs::create_dir(dir.path().join("jobs.parquet")).expect("a folder in the way");
    let error = write_table(dir.path(), &JOBS, &provenance(), &[job(1)]).expect_err("in the way");
    assert!(matches!(error, WriteError::Rename { .. }), "{error}");
}
