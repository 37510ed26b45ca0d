//! One line of text that shows the course of a rate.

/// Which characters draw a sparkline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SparkStyle {
    /// Unicode blocks; `·` where nothing was measured.
    Blocks,
    /// ASCII; `?` where nothing was measured.
    Ascii,
}

const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII: [char; 9] = [' ', '.', ':', '-', '=', '+', '*', '#', '@'];

/// Draws one character per value, from 0 to the largest; only 0 is blank.
#[must_use]
pub fn sparkline(values: &[Option<f64>], style: SparkStyle) -> String {
    let (levels, unknown) = match style {
        SparkStyle::Blocks => (BLOCKS, '·'),
        SparkStyle::Ascii => (ASCII, '?'),
    };
    let max = values.iter().flatten().copied().fold(0.0, f64::max);
    let level = |value: f64| {
        if value <= 0.0 { levels[0] } else { levels[((value / max * 8.0).ceil() as usize).clamp(1, 8)] }
    };
    values.iter().map(|value| value.map_or(unknown, level)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_heights() {
        let check = |values: &[Option<f64>], blocks: &str, ascii: &str| {
            assert_eq!(sparkline(values, SparkStyle::Blocks), blocks);
            assert_eq!(sparkline(values, SparkStyle::Ascii), ascii);
        };
        check(&[Some(0.0), Some(0.01), Some(4.0), Some(8.0), None], " ▁▄█·", " .=@?");
        check(&[Some(0.0), Some(0.0)], "  ", "  ");
        check(&[], "", "");
    }
}
