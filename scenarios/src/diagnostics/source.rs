//! Texts that scenarios are made of, and places in them.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// A text that took part in a scenario: the file, one that it extends, or an override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// File name as it was given.
    pub name: String,
    /// The whole text.
    pub text: String,
    /// Folder of a file that is extended; paths in it are relative to that folder.
    pub(crate) dir: Option<PathBuf>,
}

/// A stretch of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which text.
    pub source: Arc<Source>,
    /// Which bytes of it.
    pub range: Range<usize>,
}

impl Place {
    /// Keeps the range inside the text and on character boundaries, whatever was asked for.
    pub(crate) fn new(source: &Arc<Source>, range: Range<usize>) -> Self {
        let text = &source.text;
        let floor = |mut at: usize| {
            at = at.min(text.len());
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let (start, end) = (floor(range.start), floor(range.end));
        Self { source: Arc::clone(source), range: start..end.max(start) }
    }

    /// The text there.
    pub(crate) fn text(&self) -> &str {
        &self.source.text[self.range.clone()]
    }

    /// Line and column of its start, counted from 1, columns in characters.
    pub fn line_column(&self) -> (usize, usize) {
        let before = &self.source.text[..self.range.start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_stay_on_character_boundaries() {
        let source = Arc::new(Source { name: "a".into(), text: "x = \"ä\"\ny = 1".into(), dir: None });
        assert_eq!(Place::new(&source, 6..100).range, 5..14);
        assert_eq!(Place::new(&source, 9..9).line_column(), (2, 1));
    }
}
