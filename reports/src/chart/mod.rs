//! Charts as SVG: same input, same bytes. Colours are told apart by people who see none of red and green, and never
//! carry a meaning alone.

pub(crate) mod axis;
mod load;
mod plans;

pub use load::load_chart;
pub use plans::plan_chart;

use plotters::prelude::{Color, IntoFont, RGBColor, TextStyle};

use crate::front::PlanChartError;

/// The colours of Okabe and Ito (2008, "Color Universal Design"), without the yellow that white swallows.
pub(crate) mod colour {
    use plotters::prelude::RGBColor;

    pub(crate) const BLACK: RGBColor = RGBColor(0, 0, 0);
    pub(crate) const ORANGE: RGBColor = RGBColor(230, 159, 0);
    pub(crate) const SKY: RGBColor = RGBColor(86, 180, 233);
    pub(crate) const GREEN: RGBColor = RGBColor(0, 158, 115);
    pub(crate) const BLUE: RGBColor = RGBColor(0, 114, 178);
    pub(crate) const VERMILLION: RGBColor = RGBColor(213, 94, 0);
    pub(crate) const PURPLE: RGBColor = RGBColor(204, 121, 167);
    /// Frames and ticks.
    pub(crate) const GREY: RGBColor = RGBColor(90, 90, 90);
    /// Grid lines.
    pub(crate) const PALE: RGBColor = RGBColor(225, 225, 225);
}

const FONT: &str = "sans-serif";
/// Heights of text lines, pixels; letters come out 1.24 times smaller.
const TITLE_PX: u32 = 26;
const LABEL_PX: u32 = 19;
const TICK_PX: u32 = 17;

/// Why a chart could not be drawn.
#[derive(Debug, thiserror::Error)]
pub enum ChartError {
    /// The plans cannot be put on axes.
    #[error(transparent)]
    Plans(#[from] PlanChartError),
    /// No minutes were recorded.
    #[error("there is no minute to draw; the run recorded none")]
    NoMinutes,
    /// The drawing library gave up.
    #[error("could not draw the chart: {0}")]
    Draw(String),
}

impl ChartError {
    fn draw(error: impl std::fmt::Display) -> Self {
        Self::Draw(error.to_string())
    }
}

fn text(size: u32, colour: RGBColor) -> TextStyle<'static> {
    (FONT, size).into_font().color(&colour.to_rgba())
}

/// Names the picture for people who hear it: role and label of the root element.
fn labelled(svg: String, label: &str) -> String {
    let escaped: String = label
        .chars()
        .map(|letter| match letter {
            '&' => "&amp;".to_owned(),
            '<' => "&lt;".to_owned(),
            '>' => "&gt;".to_owned(),
            '"' => "&quot;".to_owned(),
            letter if letter.is_control() => " ".to_owned(),
            letter => letter.to_string(),
        })
        .collect();
    svg.replacen("<svg ", &format!("<svg role=\"img\" aria-label=\"{escaped}\" "), 1)
}

#[cfg(test)]
mod tests;
