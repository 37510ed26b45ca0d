//! The chart of plans as lines of text, for a terminal: marks on a grid, and a list that explains each mark.

use crate::chart::axis::{Axis, Scale};
use crate::front::{PlanChart, PlanChartError, Standing};

/// Which characters the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// Box drawing.
    Unicode,
    /// Seven bits, for logs and readers that speak.
    Ascii,
}

/// Size of the text, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextSize {
    /// Columns of the terminal; fewer than [`TextSize::WIDTH_MIN`] are taken as that many.
    pub width: usize,
    /// Rows of the plot itself; fewer than [`TextSize::HEIGHT_MIN`] are taken as that many.
    pub height: usize,
}

impl TextSize {
    /// Narrowest plot that still has room for labels.
    pub const WIDTH_MIN: usize = 40;
    /// Lowest plot on which plans can be told apart.
    pub const HEIGHT_MIN: usize = 6;
}

/// Marks of plans, in the order of rising latency; plans beyond them are shown as `+` and left out of the list.
const MARKS: &str = "123456789abcdefghijklmnopqrstuvwxyz";
const MARK_BEYOND: char = '+';

struct Glyphs {
    side: char,
    floor: char,
    corner: char,
    tick: char,
    objective: char,
    across: char,
    down: char,
    chosen: char,
    /// Ends a line that is too long.
    cut: &'static str,
}

const UNICODE: Glyphs = Glyphs {
    side: '\u{2502}',
    floor: '\u{2500}',
    corner: '\u{2514}',
    tick: '\u{2524}',
    objective: '\u{250a}',
    across: '\u{00b7}',
    down: '\u{00b7}',
    chosen: '\u{25c6}',
    cut: "\u{2026}\n",
};
const ASCII: Glyphs = Glyphs {
    side: '|',
    floor: '-',
    corner: '+',
    tick: '+',
    objective: ':',
    across: '.',
    down: '.',
    chosen: '@',
    cut: "~\n",
};

/// Draws the plans as text, each line at most `size.width` characters, with a newline at its end.
///
/// # Errors
/// No plans, or a value that no axis can hold.
pub fn plan_text(chart: &PlanChart, size: TextSize, charset: Charset) -> Result<String, PlanChartError> {
    chart.check()?;
    let size = TextSize {
        width: size.width.max(TextSize::WIDTH_MIN),
        height: size.height.max(TextSize::HEIGHT_MIN),
    };
    let glyphs = if charset == Charset::Unicode { &UNICODE } else { &ASCII };
    let latencies = chart.points.iter().map(|point| point.latency_s).chain(chart.latency_objective_s);
    let latency = Axis::around(latencies, 5);
    let cost = Axis::around(chart.points.iter().map(|point| point.usd_per_1000_jobs), 4);
    let labels: Vec<String> = cost.ticks.iter().map(|tick| cost.label(*tick)).collect();
    let margin = labels.iter().map(String::len).max().unwrap_or(0) + 2;
    let plot = Plot { chart, glyphs, latency, cost, margin, size };
    let mut lines = vec![plot.heading()];
    lines.extend(plot.grid());
    lines.extend(plot.latency_axis());
    lines.extend(plot.list());
    let cut = |line: String| {
        let line = line.trim_end();
        let fits = line.chars().count() <= size.width;
        let kept: String = line.chars().take(if fits { size.width } else { size.width - 1 }).collect();
        kept.trim_end().to_owned() + if fits { "\n" } else { glyphs.cut }
    };
    Ok(lines.into_iter().map(cut).collect())
}

struct Plot<'a> {
    chart: &'a PlanChart,
    glyphs: &'a Glyphs,
    latency: Axis,
    cost: Axis,
    /// Columns left of the plot, the axis included.
    margin: usize,
    size: TextSize,
}

impl Plot<'_> {
    fn columns(&self) -> usize {
        self.size.width - self.margin
    }

    fn column(&self, latency_s: f64) -> usize {
        (self.latency.place(latency_s) * (self.columns() - 1) as f64).round() as usize
    }

    /// Row from the top.
    fn row(&self, usd: f64) -> usize {
        self.size.height - 1 - (self.cost.place(usd) * (self.size.height - 1) as f64).round() as usize
    }

    fn heading(&self) -> String {
        let log = if self.cost.scale == Scale::Log { ", log scale" } else { "" };
        format!("USD per 1000 jobs{log}")
    }

    /// Indices of the plans by rising latency, then cost: the order of their marks.
    fn order(&self) -> Vec<usize> {
        let points = &self.chart.points;
        let mut order: Vec<usize> = (0..points.len()).collect();
        order.sort_by(|a, b| {
            let (a, b) = (&points[*a], &points[*b]);
            a.latency_s.total_cmp(&b.latency_s).then(a.usd_per_1000_jobs.total_cmp(&b.usd_per_1000_jobs))
        });
        order
    }

    fn mark(&self, place: usize, standing: Standing) -> char {
        match standing {
            Standing::Chosen => self.glyphs.chosen,
            Standing::Meets | Standing::Misses => MARKS.chars().nth(place).unwrap_or(MARK_BEYOND),
        }
    }

    fn grid(&self) -> Vec<String> {
        let mut grid = vec![vec![' '; self.columns()]; self.size.height];
        self.draw_front(&mut grid);
        if let Some(latency_s) = self.chart.latency_objective_s {
            let column = self.column(latency_s);
            grid.iter_mut().for_each(|row| row[column] = self.glyphs.objective);
        }
        // The chosen plan last, so that nothing covers it.
        let mut order: Vec<(usize, usize)> = self.order().into_iter().enumerate().collect();
        order.reverse();
        order.sort_by_key(|(_, index)| self.chart.points[*index].standing == Standing::Chosen);
        for (place, index) in order {
            let point = &self.chart.points[index];
            let (row, column) = (self.row(point.usd_per_1000_jobs), self.column(point.latency_s));
            grid[row][column] = self.mark(place, point.standing);
        }
        let mut axis = vec![format!("{}{}", " ".repeat(self.margin - 1), self.glyphs.side); self.size.height];
        for tick in &self.cost.ticks {
            let label = self.cost.label(*tick);
            axis[self.row(*tick)] = format!("{label:>width$} {}", self.glyphs.tick, width = self.margin - 2);
        }
        axis.into_iter()
            .zip(grid)
            .map(|(axis, cells)| axis + &cells.into_iter().collect::<String>())
            .collect()
    }

    /// Steps between the plans of the front.
    fn draw_front(&self, grid: &mut [Vec<char>]) {
        let mut last: Option<(usize, usize)> = None;
        for index in self.chart.front() {
            let point = &self.chart.points[index];
            let (row, column) = (self.row(point.usd_per_1000_jobs), self.column(point.latency_s));
            if let Some((row_before, column_before)) = last {
                grid[row_before][column_before..=column].fill(self.glyphs.across);
                grid[row_before..=row].iter_mut().for_each(|cells| cells[column] = self.glyphs.down);
            }
            last = Some((row, column));
        }
    }

    fn latency_axis(&self) -> Vec<String> {
        let floor: String = std::iter::repeat_n(self.glyphs.floor, self.columns()).collect();
        let line = format!("{}{}{floor}", " ".repeat(self.margin - 1), self.glyphs.corner);
        let mut labels = vec![' '; self.size.width];
        let mut free_from = 0;
        for tick in &self.latency.ticks {
            let label = self.latency.label(*tick);
            let middle = self.margin + self.column(*tick);
            let start = middle.saturating_sub(label.len() / 2).min(self.size.width - label.len());
            if start >= free_from {
                label.chars().enumerate().for_each(|(at, letter)| labels[start + at] = letter);
                free_from = start + label.len() + 2;
            }
        }
        let log = if self.latency.scale == Scale::Log { ", log scale" } else { "" };
        let name = format!("{} in seconds{log}", self.chart.latency_name);
        let pad = self.margin + self.columns().saturating_sub(name.chars().count()) / 2;
        vec![line, labels.into_iter().collect(), format!("{}{name}", " ".repeat(pad))]
    }

    fn list(&self) -> Vec<String> {
        let mut lines = vec![String::new()];
        let front = self.chart.front();
        let order = self.order();
        let seconds = order.iter().map(|index| format!("{:.2} s", self.chart.points[*index].latency_s));
        let dollars =
            order.iter().map(|index| format!("${:.2}", self.chart.points[*index].usd_per_1000_jobs));
        let (seconds, dollars): (Vec<String>, Vec<String>) = (seconds.collect(), dollars.collect());
        let wide = |cells: &[String]| cells.iter().map(String::len).max().unwrap_or(0);
        let (seconds_wide, dollars_wide) = (wide(&seconds), wide(&dollars));
        for (place, index) in order.iter().enumerate() {
            let point = &self.chart.points[*index];
            let mark = self.mark(place, point.standing);
            if mark == MARK_BEYOND {
                continue;
            }
            let note = match (point.standing, front.contains(index)) {
                (Standing::Chosen, _) => "recommended",
                (Standing::Meets, true) => "meets, front",
                (Standing::Meets, false) => "meets",
                (Standing::Misses, true) => "misses, front",
                (Standing::Misses, false) => "misses",
            };
            let (seconds, dollars) = (&seconds[place], &dollars[place]);
            lines.push(format!(
                "{mark} {seconds:>seconds_wide$}  {dollars:>dollars_wide$}  {note:<13}  {}",
                point.label.replace(char::is_control, " ")
            ));
        }
        let beyond = order.len().saturating_sub(lines.len() - 1);
        if beyond > 0 {
            lines.push(format!("{MARK_BEYOND} {beyond} more"));
        }
        if let Some(latency_s) = self.chart.latency_objective_s {
            lines.push(format!(
                "{} objective: {} within {latency_s} s",
                self.glyphs.objective, self.chart.latency_name
            ));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::PlanPoint;

    fn plans(points: &[(&str, f64, f64, Standing)]) -> PlanChart {
        let points = points.iter().map(|(label, latency_s, usd_per_1000_jobs, standing)| PlanPoint {
            label: (*label).to_owned(),
            usd_per_1000_jobs: *usd_per_1000_jobs,
            latency_s: *latency_s,
            standing: *standing,
        });
        PlanChart {
            title: "Launch".to_owned(),
            latency_name: "p95 latency".to_owned(),
            latency_objective_s: Some(60.0),
            points: points.collect(),
        }
    }

    fn launch() -> PlanChart {
        plans(&[
            ("on-demand 40", 21.0, 9.4, Standing::Meets),
            ("queue time 30 s, 80 % spot", 48.0, 4.1, Standing::Chosen),
            ("target 70 %, on-demand", 44.0, 7.2, Standing::Meets),
            ("all spot", 90.0, 2.9, Standing::Misses),
        ])
    }

    #[test]
    fn plans_are_drawn_with_axes_units_and_a_list() {
        let text = plan_text(&launch(), TextSize { width: 60, height: 10 }, Charset::Ascii).expect("drawn");
        let expected = include_str!("terminal_plans.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/terminal_plans.txt");
            std::fs::write(path, &text).expect("the golden file can be written");
            return;
        }
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let mut crowd = launch();
        crowd.points = (0..60_u32)
            .map(|index| PlanPoint {
                label: "a label longer than the terminal is wide, with a\nbreak".to_owned(),
                usd_per_1000_jobs: f64::from(index * index) * 1000.0,
                latency_s: 0.001 * 1.3_f64.powf(f64::from(index)),
                standing: if index == 59 { Standing::Chosen } else { Standing::Meets },
            })
            .collect();
        for charset in [Charset::Ascii, Charset::Unicode] {
            for width in [0, 40, 79, 200] {
                let text = plan_text(&crowd, TextSize { width, height: 3 }, charset).expect("drawn");
                let widest = text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
                assert!(widest <= width.max(TextSize::WIDTH_MIN), "{widest} of {width}\n{text}");
                assert!(text.contains("+ 24 more"), "{text}");
                assert!(charset == Charset::Unicode || text.is_ascii());
            }
        }
    }

    #[test]
    fn the_chosen_plan_is_never_covered() {
        let text = plan_text(
            &plans(&[
                ("chosen", 50.0, 5.0, Standing::Chosen),
                ("same", 50.0, 5.0, Standing::Meets),
                ("other", 60.0, 9.0, Standing::Meets),
            ]),
            TextSize { width: 60, height: 12 },
            Charset::Unicode,
        );
        let text = text.expect("drawn");
        assert_eq!(text.matches('\u{25c6}').count(), 2, "on the grid and in the list\n{text}");
    }

    #[test]
    fn nothing_to_draw_is_an_error() {
        assert_eq!(
            plan_text(&plans(&[]), TextSize { width: 80, height: 20 }, Charset::Ascii),
            Err(PlanChartError::NoPlans)
        );
    }
}
