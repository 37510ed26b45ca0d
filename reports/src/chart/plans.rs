//! Cost of a thousand jobs against latency, one mark per plan: front line, objective line, chosen plan.

use plotters::coord::Shift;
use plotters::element::{Circle, Cross, EmptyElement, PathElement, Polygon, Rectangle, Text};
use plotters::prelude::{DrawingArea, IntoDrawingArea, RGBColor, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, ShapeStyle, TextStyle, WHITE};

use super::axis::{Axis, Scale};
use super::{ChartError, LABEL_PX, TICK_PX, TITLE_PX, colour, labelled, text};
use crate::front::{PlanChart, PlanPoint, Standing};

const WIDTH: i32 = 960;
const HEIGHT: i32 = 600;
/// Frame of the plot, pixels.
const LEFT: i32 = 92;
const RIGHT: i32 = WIDTH - 30;
const TOP: i32 = 92;
const BOTTOM: i32 = HEIGHT - 76;
/// Width of a letter as a share of the line's height, on the wide side; the SVG has no font to measure.
const LETTER_WIDTH: f64 = 0.4;
/// Labels longer than this are cut: the table beside the chart holds them in full.
const LABEL_LETTERS_MAX: usize = 36;
/// Labels beyond these make a crowd unreadable.
const LABELS_MAX: usize = 24;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws the plans of a search as an SVG document.
///
/// # Errors
/// No plans, or a value that no axis can hold.
pub fn plan_chart(chart: &PlanChart) -> Result<String, ChartError> {
    chart.check()?;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH as u32, HEIGHT as u32)).into_drawing_area();
        area.fill(&WHITE).map_err(ChartError::draw)?;
        Picture::new(chart, &area).draw().map_err(ChartError::draw)?;
        area.present().map_err(ChartError::draw)?;
    }
    let label = format!(
        "{}: cost of 1000 jobs against {}, {} plans",
        chart.title,
        chart.latency_name,
        chart.points.len()
    );
    Ok(labelled(svg, &label))
}

struct Picture<'a, 'b> {
    chart: &'a PlanChart,
    area: &'a Area<'b>,
    latency: Axis,
    cost: Axis,
    front: Vec<usize>,
    /// Boxes that labels must leave free: x from, x to, y from, y to.
    taken: Vec<[i32; 4]>,
    /// Boxes of lines, which a label crosses only where it has no other place.
    lines: Vec<[i32; 4]>,
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

impl<'a, 'b> Picture<'a, 'b> {
    fn new(chart: &'a PlanChart, area: &'a Area<'b>) -> Self {
        let latencies = chart.points.iter().map(|point| point.latency_s).chain(chart.latency_objective_s);
        Self {
            chart,
            area,
            latency: Axis::around(latencies, 7),
            cost: Axis::around(chart.points.iter().map(|point| point.usd_per_1000_jobs), 6),
            front: chart.front(),
            taken: Vec::new(),
            lines: Vec::new(),
        }
    }

    fn draw(mut self) -> Drawn {
        self.write(&self.chart.title, (LEFT, 16), &text(TITLE_PX, colour::BLACK))?;
        self.axes()?;
        self.objective()?;
        self.front_line()?;
        self.marks()?;
        self.labels()?;
        self.legend()
    }

    fn at(&self, point: &PlanPoint) -> (i32, i32) {
        (self.x(point.latency_s), self.y(point.usd_per_1000_jobs))
    }

    fn x(&self, latency_s: f64) -> i32 {
        LEFT + (self.latency.place(latency_s) * f64::from(RIGHT - LEFT)).round() as i32
    }

    fn y(&self, usd: f64) -> i32 {
        BOTTOM - (self.cost.place(usd) * f64::from(BOTTOM - TOP)).round() as i32
    }

    fn write(&self, words: &str, at: (i32, i32), style: &TextStyle<'_>) -> Drawn {
        Ok(self.area.draw(&Text::new(words.to_owned(), at, style.clone()))?)
    }

    fn line(&self, points: Vec<(i32, i32)>, style: ShapeStyle) -> Drawn {
        Ok(self.area.draw(&PathElement::new(points, style))?)
    }

    fn axes(&self) -> Drawn {
        let ticks = text(TICK_PX, colour::GREY);
        let below = ticks.pos(Pos::new(HPos::Center, VPos::Top));
        let beside = ticks.pos(Pos::new(HPos::Right, VPos::Center));
        for tick in &self.latency.ticks {
            let x = self.x(*tick);
            self.line(vec![(x, TOP), (x, BOTTOM)], colour::PALE.stroke_width(1))?;
            self.write(&self.latency.label(*tick), (x, BOTTOM + 8), &below)?;
        }
        for tick in &self.cost.ticks {
            let y = self.y(*tick);
            self.line(vec![(LEFT, y), (RIGHT, y)], colour::PALE.stroke_width(1))?;
            self.write(&self.cost.label(*tick), (LEFT - 8, y), &beside)?;
        }
        self.line(vec![(LEFT, TOP), (LEFT, BOTTOM), (RIGHT, BOTTOM)], colour::GREY.stroke_width(1))?;
        let name = text(LABEL_PX, colour::BLACK);
        let latency = format!("{} (s{})", self.chart.latency_name, log_note(&self.latency));
        let middle = (LEFT + RIGHT) / 2;
        self.write(&latency, (middle, BOTTOM + 36), &name.pos(Pos::new(HPos::Center, VPos::Top)))?;
        let cost = format!("cost of 1000 jobs (USD{})", log_note(&self.cost));
        let sideways = name
            .transform(plotters::style::FontTransform::Rotate270)
            .pos(Pos::new(HPos::Center, VPos::Center));
        self.write(&cost, (22, (TOP + BOTTOM) / 2), &sideways)
    }

    fn objective(&mut self) -> Drawn {
        let Some(latency_s) = self.chart.latency_objective_s else { return Ok(()) };
        let x = self.x(latency_s);
        for y in (TOP..BOTTOM).step_by(10) {
            self.line(vec![(x, y), (x, (y + 6).min(BOTTOM))], colour::VERMILLION.stroke_width(2))?;
        }
        let words = format!("objective {latency_s} s");
        let wide = width_of(&words, TICK_PX);
        let fits = x + wide + 12 <= RIGHT;
        let (start, from, anchor) =
            if fits { (x + 6, x + 6, HPos::Left) } else { (x - 6 - wide, x - 6, HPos::Right) };
        self.taken.push([start, start + wide, TOP - 2, TOP + 20]);
        self.lines.push([x - 1, x + 1, TOP, BOTTOM]);
        let style = text(TICK_PX, colour::VERMILLION).pos(Pos::new(anchor, VPos::Top));
        self.write(&words, (from, TOP + 2), &style)
    }

    /// Steps, not slopes: between two plans there is nothing to buy.
    fn front_line(&mut self) -> Drawn {
        let mut path: Vec<(i32, i32)> = Vec::new();
        for index in &self.front {
            let (x, y) = self.at(&self.chart.points[*index]);
            if let Some((_, before)) = path.last().copied() {
                path.push((x, before));
            }
            path.push((x, y));
        }
        self.lines.extend(path.windows(2).map(|ends| {
            let (a, b) = (ends[0], ends[1]);
            [a.0.min(b.0) - 2, a.0.max(b.0) + 2, a.1.min(b.1) - 2, a.1.max(b.1) + 2]
        }));
        self.line(path, colour::BLUE.stroke_width(2))
    }

    /// The chosen plan last, so that nothing covers it.
    fn marks(&mut self) -> Drawn {
        let mut order: Vec<usize> = (0..self.chart.points.len()).collect();
        order.sort_by_key(|index| self.chart.points[*index].standing == Standing::Chosen);
        for index in order {
            let point = &self.chart.points[index];
            let at = self.at(point);
            let reach = if point.standing == Standing::Chosen { 15 } else { 7 };
            self.taken.push([at.0 - reach, at.0 + reach, at.1 - reach, at.1 + reach]);
            self.mark(at, point.standing, self.front.contains(&index))?;
        }
        Ok(())
    }

    /// Chosen: a ringed diamond. Meets: a disc on the front, a square off it. Misses: a cross.
    fn mark(&self, (x, y): (i32, i32), standing: Standing, on_front: bool) -> Drawn {
        match (standing, on_front) {
            (Standing::Chosen, _) => {
                let diamond = vec![(x, y - 9), (x + 9, y), (x, y + 9), (x - 9, y)];
                self.area.draw(&Circle::new((x, y), 14, colour::BLACK.stroke_width(2)))?;
                self.area.draw(&Polygon::new(diamond, colour::GREEN.filled()))?;
            }
            (Standing::Meets, true) => self.area.draw(&Circle::new((x, y), 6, colour::BLUE.filled()))?,
            (Standing::Meets, false) => {
                self.area.draw(&Rectangle::new([(x - 5, y - 5), (x + 5, y + 5)], colour::SKY.filled()))?;
            }
            (Standing::Misses, _) => {
                self.area.draw(
                    &(EmptyElement::at((x, y)) + Cross::new((0, 0), 5, colour::VERMILLION.stroke_width(2))),
                )?;
            }
        }
        Ok(())
    }

    /// Chosen plan first, then the front, then the rest; a label that finds no free place is left out.
    fn labels(&mut self) -> Drawn {
        let rank = |index: usize| match (self.chart.points[index].standing, self.front.contains(&index)) {
            (Standing::Chosen, _) => 0,
            (_, true) => 1,
            (Standing::Meets, false) => 2,
            (Standing::Misses, false) => 3,
        };
        let mut order: Vec<usize> = (0..self.chart.points.len()).collect();
        order.sort_by_key(|index| (rank(*index), *index));
        for index in order.into_iter().take(LABELS_MAX) {
            let point = &self.chart.points[index];
            let words = shortened(&point.label);
            let reach = if point.standing == Standing::Chosen { 19 } else { 11 };
            let (mark, wide) = (self.at(point), width_of(&words, TICK_PX));
            let clear = self.free_place(mark, reach, wide, &self.lines);
            if let Some((at, pos, taken)) = clear.or_else(|| self.free_place(mark, reach, wide, &[])) {
                self.taken.push(taken);
                let [left, right, top, bottom] = taken;
                self.area.draw(&Rectangle::new([(left, top), (right, bottom)], WHITE.mix(0.85).filled()))?;
                self.write(&words, at, &text(TICK_PX, label_colour(point.standing)).pos(pos))?;
            }
        }
        Ok(())
    }

    /// A place beside the mark at (x, y) where a text of that width covers no mark, no label and none of `lines`, with
    /// its anchor and its box.
    fn free_place(
        &self,
        (x, y): (i32, i32),
        reach: i32,
        wide: i32,
        lines: &[[i32; 4]],
    ) -> Option<((i32, i32), Pos, [i32; 4])> {
        let high = (f64::from(TICK_PX) * 0.8) as i32;
        let near = reach * 3 / 4;
        let places = [
            ((x + reach, y), HPos::Left, VPos::Center),
            ((x + near, y - near), HPos::Left, VPos::Bottom),
            ((x + near, y + near), HPos::Left, VPos::Top),
            ((x - reach, y), HPos::Right, VPos::Center),
            ((x - near, y + near), HPos::Right, VPos::Top),
            ((x - near, y - near), HPos::Right, VPos::Bottom),
            ((x, y - reach), HPos::Center, VPos::Bottom),
            ((x, y + reach), HPos::Center, VPos::Top),
        ];
        places.into_iter().find_map(|(at, across, along)| {
            let left = match across {
                HPos::Left => at.0,
                HPos::Center => at.0 - wide / 2,
                HPos::Right => at.0 - wide,
            };
            let top = match along {
                VPos::Top => at.1,
                VPos::Center => at.1 - high / 2,
                VPos::Bottom => at.1 - high,
            };
            let (right, bottom) = (left + wide, top + high);
            let inside = left > LEFT && right < RIGHT + 20 && top > TOP - 4 && bottom < BOTTOM;
            let clear =
                |taken: &[i32; 4]| right < taken[0] || left > taken[1] || bottom < taken[2] || top > taken[3];
            let free = inside && self.taken.iter().chain(lines).all(clear);
            free.then_some((at, Pos::new(across, along), [left, right, top, bottom]))
        })
    }

    fn legend(&self) -> Drawn {
        let has = |wanted: Standing, front: bool| {
            let mut points = self.chart.points.iter().enumerate();
            points.any(|(index, point)| {
                point.standing == wanted
                    && (wanted != Standing::Meets || self.front.contains(&index) == front)
            })
        };
        let entries = [
            (Standing::Chosen, true, "recommended"),
            (Standing::Meets, true, "meets objective, on the front"),
            (Standing::Meets, false, "meets objective, beaten"),
            (Standing::Misses, false, "misses objective"),
        ];
        let (mut x, y) = (LEFT + 16, 64);
        for (standing, on_front, words) in
            entries.into_iter().filter(|(standing, front, _)| has(*standing, *front))
        {
            self.mark((x, y), standing, on_front)?;
            let style = text(TICK_PX, colour::BLACK).pos(Pos::new(HPos::Left, VPos::Center));
            self.write(words, (x + 20, y), &style)?;
            x += 20 + width_of(words, TICK_PX) + 34;
        }
        Ok(())
    }
}

fn log_note(axis: &Axis) -> &'static str {
    if axis.scale == Scale::Log { ", log scale" } else { "" }
}

fn label_colour(standing: Standing) -> RGBColor {
    if standing == Standing::Misses { colour::GREY } else { colour::BLACK }
}

fn width_of(words: &str, size: u32) -> i32 {
    (words.chars().count() as f64 * f64::from(size) * LETTER_WIDTH).ceil() as i32
}

fn shortened(label: &str) -> String {
    if label.chars().count() <= LABEL_LETTERS_MAX {
        return label.to_owned();
    }
    label.chars().take(LABEL_LETTERS_MAX - 1).chain(['\u{2026}']).collect()
}
