//! No text makes the loader panic: valid scenarios are mutilated at random, and arbitrary overrides are applied.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

/// Pieces that mutations insert: whatever TOML and quantities are made of.
const PIECES: [&str; 28] = [
    "=",
    "\"",
    "[",
    "]",
    "[[",
    "{",
    "}",
    ",",
    ".",
    "\n",
    "#",
    "nan",
    "-inf",
    "-1",
    "0",
    "1e308",
    "1e-320",
    "99999999999999999999",
    "18446744073709551615",
    "\"584y\"",
    "\"1e18s\"",
    "\"9e9 USD/h\"",
    "true",
    "1979-05-27",
    "kind",
    "name",
    "é",
    "\u{0}",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("valid")
}

fn valid_texts() -> Vec<String> {
    let entries = fs::read_dir(folder()).expect("the folder is part of the repository");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry can be read").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    paths.iter().map(|path| fs::read_to_string(path).expect("a test file is text")).collect()
}

#[derive(Clone, Debug)]
enum Change {
    Insert(usize, usize),
    Delete(usize, usize),
    Replace(usize, usize, usize),
    Move(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let at = 0_usize..6000;
    prop_oneof![
        (at.clone(), 0..PIECES.len()).prop_map(|(at, piece)| Change::Insert(at, piece)),
        (at.clone(), 1_usize..30).prop_map(|(at, length)| Change::Delete(at, length)),
        (at.clone(), 1_usize..12, 0..PIECES.len()).prop_map(|(at, l, piece)| Change::Replace(at, l, piece)),
        (at.clone(), at).prop_map(|(from, to)| Change::Move(from, to)),
    ]
}

fn mutilate(text: &str, changes: &[Change]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for change in changes {
        let len = chars.len().max(1);
        let (at, length, piece) = match *change {
            Change::Insert(at, piece) => (at % len, 0, PIECES[piece].to_owned()),
            Change::Delete(at, length) => (at % len, length, String::new()),
            Change::Replace(at, length, piece) => (at % len, length, PIECES[piece].to_owned()),
            Change::Move(from, to) => {
                let from = from % len;
                let line: String =
                    chars[from.min(chars.len())..].iter().take_while(|c| **c != '\n').collect();
                (to % len, 0, format!("\n{line}\n"))
            }
        };
        let (at, end) = (at.min(chars.len()), (at + length).min(chars.len()));
        chars.splice(at..end.max(at), piece.chars());
    }
    chars.into_iter().collect()
}

/// Loads, and checks what must hold of every answer.
fn answer(text: &str, overrides: &[String]) -> Result<(), TestCaseError> {
    match scenarios::load_str("mutated.toml", text, &folder(), overrides) {
        Ok(loaded) => {
            prop_assert!(loaded.scenario.system.check().is_ok());
            prop_assert_eq!(loaded.scenario.digest.len(), 64);
            let shares =
                loaded.scenario.workload.iter().map(|source| source.region_share.iter().sum::<f64>());
            for share in shares {
                prop_assert!((share - 1.0).abs() < 1e-6);
            }
        }
        Err(errors) => {
            prop_assert!(!errors.is_empty());
            for error in errors {
                prop_assert!(!error.to_string().is_empty());
                if let (Some(text), Some(span)) = (error.source_text(), error.span()) {
                    prop_assert!(text.get(span).is_some(), "the span lies inside the text");
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn mutilated_scenarios_never_panic(
        which in 0_usize..100,
        changes in proptest::collection::vec(change(), 0..8),
    ) {
        let texts = valid_texts();
        answer(&mutilate(&texts[which % texts.len()], &changes), &[])?;
    }

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        answer(&text, &[])?;
    }

    #[test]
    fn arbitrary_overrides_never_panic(
        which in 0_usize..100,
        key in "(run|fleet|policy|pipeline|workload)(\\.(stage|pool|source|0|infer|main|horizon|count|\"x\")){0,4}",
        value in "[-0-9a-z\"{}\\[\\]=. ]{0,12}",
    ) {
        let texts = valid_texts();
        answer(&texts[which % texts.len()], &[format!("{key}={value}")])?;
    }
}
