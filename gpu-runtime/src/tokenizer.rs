//! The byte-pair encoder of CLIP text models, from a folder's `vocab.json` and `merges.txt`. Knows nothing of the model
//! that takes the numbers, but for how many there must be.
//!
//! As CLIP's own (Radford et al. 2021) and the fast tokenizer of transformers: text is composed (NFC), its white space
//! joined, its letters lowered; it falls into words by CLIP's pattern; a word's bytes, the last one marked `</w>`, are
//! merged by rank.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use regex::Regex;
use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

use crate::{RuntimeError, small_file};

/// Bytes of a vocabulary, of merges, or of settings; CLIP's own have 1.1 MB, 0.5 MB and 1 kB.
const FILE_BYTES_MAX: usize = 16 << 20;
/// Entries of a vocabulary; CLIP's own has 49,408.
const VOCABULARY_MAX: usize = 1 << 20;
/// Bytes of a prompt. Models read 77 tokens of it; this bounds the work, which grows with the square of the longest word.
pub const PROMPT_BYTES_MAX: usize = 8192;

/// Words, after lowering: special tokens, English endings, runs of letters, single digits, runs of anything else.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";
const WORD_END: &str = "</w>";

/// A prompt as a model reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Start, the prompt's tokens, end, then padding: as many as asked for.
    pub ids: Vec<u32>,
    /// Tokens of the prompt that found no room and were cut off its end.
    pub cut: usize,
}

/// The encoder of one model folder.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    words: Regex,
    /// Ids of a byte inside a word and at its end.
    bytes: Vec<[u32; 2]>,
    /// Two neighbours, what they become, and how early.
    merges: HashMap<(u32, u32), Merge>,
    start: u32,
    end: u32,
    padding: u32,
    id_max: u32,
}

#[derive(Clone, Copy, Debug)]
struct Merge {
    rank: u32,
    id: u32,
}

impl Tokenizer {
    /// Reads `vocab.json`, `merges.txt` and, where they are there, the padding token of `tokenizer_config.json` or
    /// `special_tokens_map.json`.
    ///
    /// # Errors
    /// `BadModel` naming the file and what is wrong with it.
    pub fn load(folder: &Path) -> Result<Self, RuntimeError> {
        let path = folder.join("vocab.json");
        let vocabulary = Vocabulary::parse(&path, &small_file::read(&path, FILE_BYTES_MAX)?)?;
        let path = folder.join("merges.txt");
        let merges = parse_merges(&path, &small_file::read(&path, FILE_BYTES_MAX)?, &vocabulary)?;
        let padding = padding_token(folder)?;
        Ok(Self {
            words: Regex::new(WORDS).expect("the pattern is a constant of this file"),
            bytes: byte_ids(&vocabulary)?,
            merges,
            start: vocabulary.id(START)?,
            end: vocabulary.id(END)?,
            padding: vocabulary.id(&padding)?,
            id_max: vocabulary.id_max,
        })
    }

    /// The largest id that [`Tokenizer::encode`] may give: a model must have more embeddings than that.
    pub fn id_max(&self) -> u32 {
        self.id_max
    }

    /// The prompt as `length` ids.
    ///
    /// # Errors
    /// `BadRequest` when the prompt is longer than [`PROMPT_BYTES_MAX`].
    ///
    /// # Panics
    /// `length` is below 2: there is no room for start and end.
    pub fn encode(&self, prompt: &str, length: usize) -> Result<Tokens, RuntimeError> {
        assert!(length >= 2, "{length} tokens have no room for start and end");
        if prompt.len() > PROMPT_BYTES_MAX {
            let why = format!("a prompt of {} bytes; the most is {PROMPT_BYTES_MAX}", prompt.len());
            return Err(RuntimeError::BadRequest { why });
        }
        let text = normalized(prompt);
        let mut found = Vec::new();
        for word in self.words.find_iter(&text) {
            match word.as_str() {
                START => found.push(self.start),
                END => found.push(self.end),
                word => found.extend(self.merged(word)),
            }
        }
        let cut = found.len().saturating_sub(length - 2);
        found.truncate(length - 2);
        let mut ids = Vec::with_capacity(length);
        ids.push(self.start);
        ids.extend(found);
        ids.push(self.end);
        ids.resize(length, self.padding);
        Ok(Tokens { ids, cut })
    }

    /// Merges the bytes of a word: always the pair of the lowest rank, the leftmost of equal ones, until none is left.
    fn merged(&self, word: &str) -> Vec<u32> {
        let last = word.len() - 1;
        let mut ids: Vec<u32> = word
            .bytes()
            .enumerate()
            .map(|(i, byte)| self.bytes[byte as usize][usize::from(i == last)])
            .collect();
        let merge = |pair: &[u32]| self.merges.get(&(pair[0], pair[1])).copied();
        let mut merges: Vec<Option<Merge>> = ids.windows(2).map(merge).collect();
        loop {
            let known = merges.iter().enumerate().filter_map(|(at, merge)| merge.map(|merge| (at, merge)));
            let Some((at, best)) = known.min_by_key(|(at, merge)| (merge.rank, *at)) else { return ids };
            ids[at] = best.id;
            ids.remove(at + 1);
            merges.remove(at);
            for near in [at.checked_sub(1), Some(at)].into_iter().flatten() {
                if let Some(pair) = ids.get(near..near + 2) {
                    merges[near] = merge(pair);
                }
            }
        }
    }
}

/// Composes, joins white space and lowers letter by letter, as the fast tokenizer does.
fn normalized(prompt: &str) -> String {
    let mut text = String::with_capacity(prompt.len());
    let mut gap = false;
    for letter in prompt.nfc() {
        if letter.is_whitespace() {
            gap = true;
            continue;
        }
        if std::mem::take(&mut gap) {
            text.push(' ');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

struct Vocabulary {
    path: PathBuf,
    ids: HashMap<String, u32>,
    id_max: u32,
}

impl Vocabulary {
    fn parse(path: &Path, text: &str) -> Result<Self, RuntimeError> {
        let bad = |why: String| RuntimeError::BadModel { path: path.to_owned(), why };
        let parsed: Result<HashMap<String, u32>, serde_json::Error> = serde_json::from_str(text);
        let ids = parsed.map_err(|error| bad(format!("is not a table of tokens and ids: {error}")))?;
        if ids.is_empty() || ids.len() > VOCABULARY_MAX {
            return Err(bad(format!("has {} tokens; 1 to {VOCABULARY_MAX} are possible", ids.len())));
        }
        let id_max = ids.values().copied().max().unwrap_or(0);
        if id_max as usize >= ids.len() {
            let count = ids.len();
            return Err(bad(format!(
                "has {count} tokens but an id {id_max}; ids must run from 0 to {}",
                count - 1
            )));
        }
        let mut seen = vec![false; ids.len()];
        for (token, &id) in &ids {
            if std::mem::replace(&mut seen[id as usize], true) {
                return Err(bad(format!("gives id {id} twice, once to `{token}`")));
            }
        }
        Ok(Self { path: path.to_owned(), ids, id_max })
    }

    fn id(&self, token: &str) -> Result<u32, RuntimeError> {
        let missing = || RuntimeError::BadModel {
            path: self.path.clone(),
            why: format!("has no token `{token}`; it is no CLIP vocabulary, or damaged"),
        };
        self.ids.get(token).copied().ok_or_else(missing)
    }
}

/// Merges in order of rank; a first line `#version` is left out.
fn parse_merges(
    path: &Path,
    text: &str,
    vocabulary: &Vocabulary,
) -> Result<HashMap<(u32, u32), Merge>, RuntimeError> {
    let mut merges = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || (number == 0 && line.starts_with("#version")) {
            continue;
        }
        let bad = |why: String| RuntimeError::BadModel {
            path: path.to_owned(),
            why: format!("line {}: {why}", number + 1),
        };
        let Some((left, right)) = line.trim_end().split_once(' ').filter(|(_, right)| !right.contains(' '))
        else {
            return Err(bad(format!("`{line}` is not two tokens with a space between")));
        };
        let id = |token: &str| {
            let absent =
                || bad(format!("`{token}` is not in vocab.json; the two files do not belong together"));
            vocabulary.ids.get(token).copied().ok_or_else(absent)
        };
        let pair = (id(left)?, id(right)?);
        let rank = u32::try_from(merges.len()).map_err(|_| bad("too many merges".to_owned()))?;
        let merge = Merge { rank, id: id(&format!("{left}{right}"))? };
        if merges.insert(pair, merge).is_some() {
            return Err(bad(format!("`{left} {right}` stands twice")));
        }
    }
    Ok(merges)
}

/// Ids of every byte. A byte is written as a printable letter: itself where it is one, else a letter from U+0100 upwards.
fn byte_ids(vocabulary: &Vocabulary) -> Result<Vec<[u32; 2]>, RuntimeError> {
    let mut beyond = 0x100;
    let mut ids = Vec::with_capacity(256);
    for byte in 0..=255_u8 {
        let letter = match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
            _ => {
                beyond += 1;
                char::from_u32(beyond - 1).expect("letters up to U+0144 exist")
            }
        };
        ids.push([vocabulary.id(&letter.to_string())?, vocabulary.id(&format!("{letter}{WORD_END}"))?]);
    }
    Ok(ids)
}

/// The padding token: what the settings say, else the end token, as CLIP does.
fn padding_token(folder: &Path) -> Result<String, RuntimeError> {
    for name in ["tokenizer_config.json", "special_tokens_map.json"] {
        let path = folder.join(name);
        if !path.exists() {
            continue;
        }
        let text = small_file::read(&path, FILE_BYTES_MAX)?;
        let bad = |why: String| RuntimeError::BadModel { path: path.clone(), why };
        let settings: Value =
            serde_json::from_str(&text).map_err(|error| bad(format!("is not JSON: {error}")))?;
        match &settings["pad_token"] {
            Value::Null => {}
            Value::String(token) => return Ok(token.clone()),
            Value::Object(token) if token.get("content").is_some_and(Value::is_string) => {
                return Ok(token["content"].as_str().unwrap_or(END).to_owned());
            }
            other => return Err(bad(format!("`pad_token` = {other} is not a token"))),
        }
    }
    Ok(END.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixtures() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
    }

    fn tokenizer() -> Tokenizer {
        Tokenizer::load(&fixtures().join("model/tokenizer")).unwrap()
    }

    #[test]
    fn ids_are_those_of_the_reference() {
        let text = std::fs::read_to_string(fixtures().join("golden/tokens.json")).unwrap();
        let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(cases.len(), 5);
        for case in &cases {
            let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            let prompt = case["text"].as_str().unwrap();
            assert_eq!(tokenizer().encode(prompt, 16).unwrap().ids, ids, "{prompt}");
        }
    }

    #[test]
    fn long_prompts_are_cut_and_short_ones_padded() {
        let check = |prompt: &str, length: usize, expected: &[u32], cut: usize| {
            let tokens = tokenizer().encode(prompt, length).unwrap();
            assert_eq!((tokens.ids.as_slice(), tokens.cut), (expected, cut), "{prompt}");
        };
        check("the", 5, &[598, 513, 599, 599, 599], 0);
        check("the the the the", 4, &[598, 513, 513, 599], 2);
        check("the", 2, &[598, 599], 1);
        check("the<|endoftext|>", 5, &[598, 513, 599, 599, 599], 0);
        check("THE\u{a0}\t the", 4, &[598, 513, 513, 599], 0);
    }

    /// A composed letter and its parts are the same text; a capital sharp s is lowered to itself.
    #[test]
    fn text_is_composed_and_lowered() {
        let check = |prompt: &str, expected: &str| assert_eq!(normalized(prompt), expected);
        check("Cafe\u{301}", "café");
        check("  A \n B ", " a b");
        check("ΣΑΣ", "σασ");
        check("ẞ", "ß");
    }

    #[test]
    fn settings_choose_the_padding() {
        let check = |name: &str, text: &str, expected: Result<u32, &str>| {
            let folder = copy();
            std::fs::write(folder.path().join(name), text).unwrap();
            match (Tokenizer::load(folder.path()), expected) {
                (Ok(tokenizer), Ok(id)) => assert_eq!(tokenizer.encode("", 3).unwrap().ids[2], id),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (result, _) => panic!("{text}: {result:?}"),
            }
        };
        check("special_tokens_map.json", r#"{"pad_token": "!"}"#, Ok(33));
        check("tokenizer_config.json", r#"{"pad_token": {"content": "!", "lstrip": false}}"#, Ok(33));
        check("tokenizer_config.json", r#"{"model_max_length": 77}"#, Ok(599));
        check("tokenizer_config.json", r#"{"pad_token": 7}"#, Err("`pad_token` = 7"));
        check("tokenizer_config.json", r#"{"pad_token": "none"}"#, Err("no token `none`"));
        check("tokenizer_config.json", "{", Err("not JSON"));
    }

    fn copy() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in ["vocab.json", "merges.txt"] {
            std::fs::copy(fixtures().join("model/tokenizer").join(name), folder.path().join(name)).unwrap();
        }
        folder
    }

    #[test]
    fn damaged_folders_are_bad_models() {
        let check = |name: &str, change: &dyn Fn(String) -> String, part: &str| {
            let folder = copy();
            let path = folder.path().join(name);
            std::fs::write(&path, change(std::fs::read_to_string(&path).unwrap())).unwrap();
            let error = Tokenizer::load(folder.path()).unwrap_err();
            assert!(
                matches!(error, RuntimeError::BadModel { .. }) && error.to_string().contains(part),
                "{error}"
            );
        };
        check("vocab.json", &|text| text[..400].to_owned(), "is not a table");
        check("vocab.json", &|_| "{}".to_owned(), "has 0 tokens");
        check("vocab.json", &|text| text.replace("\"!\": 33", "\"!\": 34"), "gives id 34 twice");
        check("vocab.json", &|text| text.replace("\"!\": 33", "\"!\": 4000000000"), "an id 4000000000");
        check("vocab.json", &|text| text.replace("\"!\": 33", "\"!\": -1"), "-1");
        check("vocab.json", &|text| text.replace("\"!\": 33", "\"!!!\": 33"), "no token `!`");
        check("vocab.json", &|text| text.replace("<|startoftext|>", "<s>"), "no token `<|startoftext|>`");
        check("merges.txt", &|text| text.replace("t h\n", "th\n"), "line 2: `th` is not two tokens");
        check("merges.txt", &|text| text.replace("t h\n", "t q\n"), "line 2: `tq` is not in vocab.json");
        check("merges.txt", &|text| format!("{text}t h\n"), "`t h` stands twice");
        let empty = tempfile::tempdir().unwrap();
        assert!(Tokenizer::load(empty.path()).unwrap_err().to_string().contains("vocab.json"));
    }

    #[test]
    fn prompts_beyond_the_limit_are_bad_requests() {
        let long = "a".repeat(PROMPT_BYTES_MAX);
        assert_eq!(tokenizer().encode(&long, 77).unwrap().ids.len(), 77);
        let error = tokenizer().encode(&format!("{long}a"), 77).unwrap_err();
        assert!(matches!(error, RuntimeError::BadRequest { .. }), "{error}");
    }

    #[test]
    fn any_prompt_becomes_the_length_asked_for() {
        let tokenizer = tokenizer();
        proptest::proptest!(|(prompt in ".{0,200}", length in 2_usize..90)| {
            let ids = tokenizer.encode(&prompt, length).unwrap().ids;
            proptest::prop_assert!(ids.len() == length && ids.iter().all(|&id| id <= tokenizer.id_max()));
        });
    }
}
