//! A run by the minute: what arrived, what ran and waited, what was bought.

use std::collections::BTreeMap;

use plotters::coord::Shift;
use plotters::element::{PathElement, Polygon, Text};
use plotters::prelude::{DrawingArea, IntoDrawingArea, RGBColor, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontTransform, ShapeStyle, TextStyle};
use policy::records::MinuteRow;

use super::axis::Axis;
use super::{ChartError, LABEL_PX, TICK_PX, TITLE_PX, colour, labelled, text};

const WIDTH: i32 = 960;
const LEFT: i32 = 92;
const RIGHT: i32 = WIDTH - 220;
const TOP: i32 = 62;
const PANEL: i32 = 170;
const GAP: i32 = 36;
const BOTTOM_MARGIN: i32 = 64;
/// Points of a line: one per pixel of the plot at most, so that a month's chart is no longer than an hour's.
const POINTS_MAX: usize = (RIGHT - LEFT) as usize;
/// Round lengths of a stretch, minutes; above them whole days.
const STRETCHES_MIN: [f64; 11] = [1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 240.0, 480.0, 720.0];
/// Groups with a line of their own; the rest are summed.
const GROUPS_MAX: usize = 5;
const GROUP_COLOURS: [RGBColor; GROUPS_MAX + 1] =
    [colour::BLUE, colour::ORANGE, colour::GREEN, colour::PURPLE, colour::SKY, colour::GREY];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Draws three panels over time as an SVG document: arrivals, done and lost per minute; jobs running and waiting;
/// instances ready (with those draining) per group, and the number wanted. Runs longer than the plot is wide in minutes
/// show the largest value of each stretch, and say so.
///
/// # Errors
/// No minutes.
pub fn load_chart(title: &str, minutes: &[MinuteRow]) -> Result<String, ChartError> {
    let times = Times::of(minutes).ok_or(ChartError::NoMinutes)?;
    let panels = panels(minutes, &times);
    let height = TOP + panels.len() as i32 * (PANEL + GAP) - GAP + BOTTOM_MARGIN;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH as u32, height as u32)).into_drawing_area();
        area.fill(&plotters::style::WHITE).map_err(ChartError::draw)?;
        draw(title, &area, &times, &panels).map_err(ChartError::draw)?;
        area.present().map_err(ChartError::draw)?;
    }
    let (from, to) = (times.label(times.from_s), times.label(times.to_s));
    Ok(labelled(svg, &format!("{title}: arrivals, jobs and instances from {from} to {to} {}", times.unit.1)))
}

/// The time axis: stretches of equal length, and a unit fit for people.
struct Times {
    from_s: f64,
    to_s: f64,
    stretch_s: f64,
    count: usize,
    /// Seconds of the unit, and its name.
    unit: (f64, &'static str),
}

impl Times {
    fn of(minutes: &[MinuteRow]) -> Option<Self> {
        let ends = minutes.iter().map(|minute| minute.at_s).filter(|at| at.is_finite());
        let (first, to_s) =
            ends.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), at| (a.min(at), b.max(at)));
        if first > to_s {
            return None;
        }
        let from_s = first - 60.0;
        let least_s = (to_s - from_s) / POINTS_MAX as f64;
        let round =
            STRETCHES_MIN.into_iter().map(|minutes| minutes * 60.0).find(|stretch| *stretch >= least_s);
        let stretch_s = round.unwrap_or_else(|| (least_s / 86_400.0).ceil() * 86_400.0);
        let count = ((to_s - from_s) / stretch_s).ceil() as usize;
        let units = [(86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes")];
        let unit = units.into_iter().find(|(seconds, _)| to_s - from_s >= 2.0 * seconds).unwrap_or(units[2]);
        Some(Self { from_s, to_s, stretch_s, count, unit })
    }

    fn index(&self, at_s: f64) -> usize {
        // A row's time is its minute's end: its middle tells the stretch.
        (((at_s - 30.0 - self.from_s) / self.stretch_s).max(0.0) as usize).min(self.count - 1)
    }

    fn label(&self, at_s: f64) -> String {
        let value = (at_s / self.unit.0 * 100.0).round() / 100.0;
        value.to_string()
    }
}

struct Panel {
    name: &'static str,
    lines: Vec<Line>,
}

struct Line {
    name: String,
    colour: RGBColor,
    shape: Shape,
    /// One value per stretch.
    values: Vec<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Solid,
    Dashed,
    Filled,
}

fn panels(minutes: &[MinuteRow], times: &Times) -> Vec<Panel> {
    let total = |cell: fn(&MinuteRow) -> f64| peaks(minutes.iter(), times, cell);
    let line = |name: &str, colour, shape, values| Line { name: name.to_owned(), colour, shape, values };
    let arrivals = vec![
        line("arrived", colour::BLUE, Shape::Filled, total(|minute| minute.arrived as f64)),
        line("done", colour::GREEN, Shape::Solid, total(|minute| minute.done as f64)),
        line("lost", colour::VERMILLION, Shape::Filled, total(|minute| minute.lost as f64)),
    ];
    let jobs = vec![
        line("waiting", colour::ORANGE, Shape::Filled, total(|minute| f64::from(minute.waiting))),
        line("running", colour::BLUE, Shape::Solid, total(|minute| f64::from(minute.running))),
    ];
    vec![
        Panel { name: "jobs per minute", lines: arrivals },
        Panel { name: "jobs", lines: jobs },
        Panel { name: "instances", lines: instances(minutes, times) },
    ]
}

/// One line per group, the largest first; beyond [`GROUPS_MAX`] groups the rest in one. Then the number wanted.
fn instances(minutes: &[MinuteRow], times: &Times) -> Vec<Line> {
    let held = |minute: &MinuteRow| f64::from(minute.ready) + f64::from(minute.draining);
    let mut totals: BTreeMap<&str, f64> = BTreeMap::new();
    for minute in minutes {
        *totals.entry(&minute.group).or_default() += held(minute);
    }
    let mut groups: Vec<(&str, f64)> = totals.into_iter().collect();
    groups.sort_by(|a, b| b.1.total_cmp(&a.1));
    let named: Vec<&str> = groups.iter().take(GROUPS_MAX).map(|(name, _)| *name).collect();
    let mut lines = Vec::new();
    for (place, name) in named.iter().enumerate() {
        let values = peaks(minutes.iter().filter(|minute| minute.group == *name), times, held);
        lines.push(Line {
            name: (*name).to_owned(),
            colour: GROUP_COLOURS[place],
            shape: Shape::Solid,
            values,
        });
    }
    if groups.len() > GROUPS_MAX {
        let rest = minutes.iter().filter(|minute| !named.contains(&minute.group.as_str()));
        let name = format!("{} others", groups.len() - GROUPS_MAX);
        let values = peaks(rest, times, held);
        lines.push(Line { name, colour: GROUP_COLOURS[GROUPS_MAX], shape: Shape::Solid, values });
    }
    let wanted = peaks(minutes.iter(), times, |minute| f64::from(minute.target));
    lines.push(Line {
        name: "wanted, all".to_owned(),
        colour: colour::BLACK,
        shape: Shape::Dashed,
        values: wanted,
    });
    lines
}

/// The sum over groups at each minute, and of those the largest in each stretch.
fn peaks<'a>(
    minutes: impl Iterator<Item = &'a MinuteRow>,
    times: &Times,
    cell: impl Fn(&MinuteRow) -> f64,
) -> Vec<f64> {
    let mut sums: BTreeMap<u64, (usize, f64)> = BTreeMap::new();
    for minute in minutes.filter(|minute| minute.at_s.is_finite()) {
        let sum = sums.entry((minute.at_s * 1e3).to_bits()).or_insert((times.index(minute.at_s), 0.0));
        sum.1 += cell(minute);
    }
    let mut values = vec![0.0_f64; times.count];
    for (index, sum) in sums.into_values() {
        values[index] = values[index].max(sum);
    }
    values
}

fn draw(title: &str, area: &Area<'_>, times: &Times, panels: &[Panel]) -> Drawn {
    write(area, title, (LEFT, 16), &text(TITLE_PX, colour::BLACK))?;
    let mut top = TOP;
    for (place, panel) in panels.iter().enumerate() {
        let frame = Frame { area, times, top, bottom: top + PANEL };
        frame.draw(panel, place + 1 == panels.len())?;
        top += PANEL + GAP;
    }
    Ok(())
}

fn write(area: &Area<'_>, words: &str, at: (i32, i32), style: &TextStyle<'_>) -> Drawn {
    Ok(area.draw(&Text::new(words.to_owned(), at, style.clone()))?)
}

/// One panel's place on the page.
struct Frame<'a, 'b> {
    area: &'a Area<'b>,
    times: &'a Times,
    top: i32,
    bottom: i32,
}

impl Frame<'_, '_> {
    fn draw(&self, panel: &Panel, last: bool) -> Drawn {
        let most = panel.lines.iter().flat_map(|line| &line.values).copied().fold(0.0, f64::max);
        let axis = Axis::linear(most, 3);
        self.grid(&axis, last)?;
        let sideways = text(LABEL_PX, colour::BLACK)
            .transform(FontTransform::Rotate270)
            .pos(Pos::new(HPos::Center, VPos::Center));
        write(self.area, panel.name, (22, (self.top + self.bottom) / 2), &sideways)?;
        for (place, line) in panel.lines.iter().enumerate() {
            self.line(line, &axis)?;
            self.legend(line, place as i32)?;
        }
        self.path(
            vec![(LEFT, self.top), (LEFT, self.bottom), (RIGHT, self.bottom)],
            colour::GREY.stroke_width(1),
        )
    }

    fn path(&self, points: Vec<(i32, i32)>, style: ShapeStyle) -> Drawn {
        Ok(self.area.draw(&PathElement::new(points, style))?)
    }

    fn grid(&self, axis: &Axis, last: bool) -> Drawn {
        let ticks = text(TICK_PX, colour::GREY);
        for tick in &axis.ticks {
            let y = self.y(*tick, axis);
            self.path(vec![(LEFT, y), (RIGHT, y)], colour::PALE.stroke_width(1))?;
            let style = ticks.pos(Pos::new(HPos::Right, VPos::Center));
            write(self.area, &axis.label(*tick), (LEFT - 8, y), &style)?;
        }
        let (scale, unit) = self.times.unit;
        let span = Axis::linear((self.times.to_s - self.times.from_s) / scale, 8);
        let start = self.times.from_s / scale;
        for tick in span.ticks.iter().filter(|tick| *tick * scale <= self.times.to_s - self.times.from_s) {
            let x = self.x(self.times.from_s + tick * scale);
            self.path(vec![(x, self.top), (x, self.bottom)], colour::PALE.stroke_width(1))?;
            if last {
                let style = ticks.pos(Pos::new(HPos::Center, VPos::Top));
                let words =
                    if start == 0.0 { span.label(*tick) } else { self.times.label((start + tick) * scale) };
                write(self.area, &words, (x, self.bottom + 8), &style)?;
            }
        }
        if last {
            let style = text(LABEL_PX, colour::BLACK).pos(Pos::new(HPos::Center, VPos::Top));
            let peak = match self.times.stretch_s / 60.0 {
                1.0 => String::new(),
                minutes => format!("; each point is the peak of {minutes} min"),
            };
            let words = format!("time from the start ({unit}){peak}");
            write(self.area, &words, ((LEFT + RIGHT) / 2, self.bottom + 32), &style)?;
        }
        Ok(())
    }

    fn x(&self, at_s: f64) -> i32 {
        let share = (at_s - self.times.from_s) / (self.times.to_s - self.times.from_s);
        LEFT + (share * f64::from(RIGHT - LEFT)).round() as i32
    }

    fn y(&self, value: f64, axis: &Axis) -> i32 {
        self.bottom - (axis.place(value) * f64::from(self.bottom - self.top)).round() as i32
    }

    fn line(&self, line: &Line, axis: &Axis) -> Drawn {
        let middle = |index: usize| {
            let from = self.times.from_s + index as f64 * self.times.stretch_s;
            self.x((from + self.times.stretch_s / 2.0).min(self.times.to_s))
        };
        let points: Vec<(i32, i32)> = line
            .values
            .iter()
            .enumerate()
            .map(|(index, value)| (middle(index), self.y(*value, axis)))
            .collect();
        match line.shape {
            Shape::Solid => self.path(points, line.colour.stroke_width(2)),
            Shape::Dashed => {
                for dash in dashes(&points) {
                    self.path(dash, line.colour.stroke_width(2))?;
                }
                Ok(())
            }
            Shape::Filled => {
                let mut outline = vec![(points[0].0, self.bottom)];
                outline.extend(&points);
                outline.push((points[points.len() - 1].0, self.bottom));
                self.area.draw(&Polygon::new(outline, line.colour.mix(0.25).filled()))?;
                self.path(points, line.colour.stroke_width(1))
            }
        }
    }

    fn legend(&self, line: &Line, place: i32) -> Drawn {
        let (x, y) = (RIGHT + 18, self.top + 10 + place * 22);
        let ends = [(x, y), (x + 26, y)];
        match line.shape {
            Shape::Solid => self.path(ends.to_vec(), line.colour.stroke_width(2))?,
            Shape::Dashed => {
                self.path(vec![(x, y), (x + 10, y)], line.colour.stroke_width(2))?;
                self.path(vec![(x + 16, y), (x + 26, y)], line.colour.stroke_width(2))?;
            }
            Shape::Filled => {
                let box_around = vec![(x, y - 6), (x + 26, y - 6), (x + 26, y + 6), (x, y + 6)];
                self.area.draw(&Polygon::new(box_around, line.colour.mix(0.25).filled()))?;
                self.path(vec![(x, y - 6), (x + 26, y - 6)], line.colour.stroke_width(1))?;
            }
        }
        let style = text(TICK_PX, colour::BLACK).pos(Pos::new(HPos::Left, VPos::Center));
        let name: String = match line.name.chars().count() {
            0..=20 => line.name.clone(),
            _ => line.name.chars().take(19).chain(['\u{2026}']).collect(),
        };
        write(self.area, &name, (x + 34, y), &style)
    }
}

/// Cuts a path into dashes of 7 pixels with gaps of 5, measured along it.
fn dashes(points: &[(i32, i32)]) -> Vec<Vec<(i32, i32)>> {
    const ON: f64 = 7.0;
    const PERIOD: f64 = 12.0;
    let mut dashes = Vec::new();
    let mut current: Vec<(i32, i32)> = Vec::new();
    let mut walked = 0.0;
    for pair in points.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        let (dx, dy) = (f64::from(to.0 - from.0), f64::from(to.1 - from.1));
        let length = dx.hypot(dy);
        let steps = length.ceil().max(1.0) as usize;
        for step in 0..=steps {
            let share = step as f64 / steps as f64;
            let at = (from.0 + (dx * share).round() as i32, from.1 + (dy * share).round() as i32);
            if (walked + length * share) % PERIOD < ON {
                current.push(at);
            } else if !current.is_empty() {
                dashes.push(straightened(std::mem::take(&mut current)));
            }
        }
        walked += length;
    }
    if !current.is_empty() {
        dashes.push(straightened(current));
    }
    dashes.retain(|dash| dash.len() > 1);
    dashes
}

/// Drops points that repeat or lie between two of the same row or column.
fn straightened(points: Vec<(i32, i32)>) -> Vec<(i32, i32)> {
    let mut kept: Vec<(i32, i32)> = Vec::new();
    for point in points {
        if kept.last() == Some(&point) {
            continue;
        }
        if let [.., a, b] = kept.as_slice()
            && ((a.0 == b.0 && b.0 == point.0) || (a.1 == b.1 && b.1 == point.1))
        {
            kept.pop();
        }
        kept.push(point);
    }
    kept
}
