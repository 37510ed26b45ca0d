//! What a profile says, and how scenarios take it over: TOML that a scenario `extends`. Measures nothing.

use std::fmt::Write;

use serde::Serialize;

use super::spread::Spread;
use crate::numerals::{figure, time};
use crate::table::{Align, Table};

/// A measured model on a device.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Profile {
    /// The model folder, as it was given.
    pub(super) model: String,
    /// `cpu`, or the name of the GPU.
    pub(super) device: String,
    /// The processor, its cores and the driver.
    pub(super) host: String,
    /// When, in UTC.
    pub(super) date: String,
    pub(super) version: &'static str,
    pub(super) seed: u64,
    /// Memory of the device held by one replica that serves the stage's kind of request, bytes.
    pub(super) memory_bytes: u64,
    /// Replicas of that size which the memory that was free has room for, this one counted; `None` without a figure.
    pub(super) replicas_max: Option<u64>,
    /// Opening the device and the folder, loading weights and programs, with the files in the page cache.
    pub(super) load: Spread,
    /// The same with the files on the disk alone; `None` where the system does not empty its cache on request.
    pub(super) load_from_disk: Option<Spread>,
    /// The first request after loading, less a later one of the same kind; 0 where it was no slower.
    pub(super) warm_up_s: f64,
    /// One for each combination of size, frames and steps, alone on the device.
    pub(super) alone: Vec<Row>,
    /// One for each number of replicas at once, at the first combination.
    pub(super) dense: Vec<Dense>,
}

/// What one kind of request takes.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) steps: u32,
    pub(super) frames: u32,
    pub(super) width: u32,
    pub(super) height: u32,
    /// Prompt, or the picture of an image-to-video model, to context.
    pub(super) text: Spread,
    /// Start image to latents.
    pub(super) encode: Spread,
    /// One denoising step.
    pub(super) step: Spread,
    /// Latents to all frames.
    pub(super) decode: Spread,
    /// A whole request without writing the file.
    pub(super) total: Spread,
}

/// What several replicas at once do to each other.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Dense {
    pub(super) replicas: u32,
    pub(super) total: Spread,
    /// Median over that of one replica, at least 1.
    pub(super) slowdown: f64,
}

/// Names that the profile has in a scenario.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'a> {
    pub(super) stage: &'a str,
    pub(super) pool: &'a str,
}

impl Profile {
    /// Rows of the size and the frames that stand first: they differ in steps, most first.
    fn ladder(&self) -> Vec<&Row> {
        let first = &self.alone[0];
        let kind = |row: &Row| (row.frames, row.width, row.height);
        let mut rows: Vec<&Row> = self.alone.iter().filter(|row| kind(row) == kind(first)).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.steps));
        rows
    }

    /// A part of a scenario: one stage, its quality ladder where several numbers of steps were measured, its slow-down
    /// where several replicas were; all other measurements as comments.
    pub(super) fn toml(&self, names: Names) -> String {
        let ladder = self.ladder();
        let best = ladder[0];
        let mut text = self.head(best);
        let quantiles: Vec<String> = best.total.quantiles().into_iter().map(seconds).collect();
        let mut line =
            |args: std::fmt::Arguments| writeln!(text, "{args}").expect("text can be written to text");
        line(format_args!(
            "\n[[pipeline.stage]]\nname = {}\npool = {}",
            quoted(names.stage),
            quoted(names.pool)
        ));
        line(format_args!("time = {{ quantiles = [{}] }}", quantiles.join(", ")));
        if ladder.len() > 1 {
            line(format_args!("quality = true"));
        }
        if self.dense.len() > 1 {
            let factors: Vec<String> = self.dense.iter().map(|dense| factor(dense.slowdown)).collect();
            line(format_args!("slowdown = [{}]", factors.join(", ")));
        }
        if ladder.len() > 1 {
            line(format_args!("\n# What each level is worth to users is not measured; state it as `value`."));
            for row in &ladder {
                let relative = row.total.median() / best.total.median();
                let name = quoted(&format!("{}-steps", row.steps));
                line(format_args!(
                    "[[policy.quality_level]]\nname = {name}\nservice_factor = {}",
                    factor(relative)
                ));
            }
        }
        text
    }

    fn head(&self, best: &Row) -> String {
        let Self { device, host, date, version, .. } = self;
        let model = self.model.escape_debug();
        let mut text = format!(
            "# Service times of the model `{model}`, measured on {date} (UTC) by headroom {version}.\n\
             # Device: {device}; {host}.\n# Request: {} frames of {} x {} pixels from a start image; its time is that of \
             {} steps, without queue, transfers or writing the file.\n# Memory of the device: {} MiB for one \
             replica; free for {} with weights of their own.\n# Start-up: {} to load from the page cache (median of \
             {}), {} from the disk, {} to warm up.\n\
             # In a scenario: startup = {{ weights = {} }}\n",
            best.frames,
            best.width,
            best.height,
            best.steps,
            figure(self.memory_bytes as f64 / 1024.0 / 1024.0),
            self.replicas_max.map_or_else(|| "an unknown number".to_owned(), |max| max.to_string()),
            time(self.load.median()),
            self.load.count(),
            self.load_from_disk
                .as_ref()
                .map_or_else(|| "not measured".to_owned(), |load| time(load.median())),
            time(self.warm_up_s),
            seconds(self.load_from_disk.as_ref().unwrap_or(&self.load).median() + self.warm_up_s),
        );
        text.push_str(
            "#\n# A scenario takes this file over with `extends`, or by copying what is below.\n#\n",
        );
        for line in self.tables().lines() {
            text.push_str(format!("# {line}").trim_end());
            text.push('\n');
        }
        text
    }

    /// All measurements, for people.
    pub(super) fn tables(&self) -> String {
        let right = [
            "steps", "frames", "size", "text", "encode", "step", "decode", "total", "least", "most", "times",
        ];
        let mut table = Table::new(&right.map(|name| (name, Align::Right)));
        for row in &self.alone {
            let counts =
                [row.steps.to_string(), row.frames.to_string(), format!("{}x{}", row.width, row.height)];
            let parts =
                [&row.text, &row.encode, &row.step, &row.decode, &row.total].map(|part| time(part.median()));
            let spread = [time(row.total.min()), time(row.total.max()), row.total.count().to_string()];
            table.push(counts.into_iter().chain(parts).chain(spread).collect());
        }
        let mut text = table.text("");
        if self.dense.len() > 1 {
            let names = ["replicas", "total", "least", "most", "slow-down"];
            let mut table = Table::new(&names.map(|name| (name, Align::Right)));
            for dense in &self.dense {
                let Dense { replicas, total, slowdown } = dense;
                let times = [total.median(), total.min(), total.max()].map(time);
                let cells = [replicas.to_string()].into_iter().chain(times).chain([figure(*slowdown)]);
                table.push(cells.collect());
            }
            text.push('\n');
            text.push_str(&table.text(""));
        }
        text
    }
}

/// Seconds as a TOML text with six digits.
fn seconds(value: f64) -> String {
    let decimals = (5 - value.max(1e-9).log10().floor() as i32).clamp(0, 9) as usize;
    format!("\"{value:.decimals$}s\"")
}

fn factor(value: f64) -> String {
    format!("{value:.3}")
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(steps: &[u32], replicas: u32) -> Profile {
        let spread = |base: f64| Spread::of([base, base * 1.1, base * 1.3]);
        let row = |&steps: &u32| Row {
            steps,
            frames: 16,
            width: 512,
            height: 512,
            text: spread(0.001),
            encode: spread(0.01),
            step: spread(0.05),
            decode: spread(0.06),
            total: spread(0.07 + 0.05 * f64::from(steps)),
        };
        let dense = |replicas: u32| Dense { replicas, total: spread(0.5), slowdown: f64::from(replicas) };
        Profile {
            model: "models/tiny\n[run]".to_owned(),
            device: "cpu".to_owned(),
            host: "two cores".to_owned(),
            date: "2026-01-02".to_owned(),
            version: "0.1.0",
            seed: 1,
            memory_bytes: 5 << 20,
            replicas_max: Some(7),
            load: spread(1.0),
            load_from_disk: Some(spread(3.0)),
            warm_up_s: 0.25,
            alone: steps.iter().map(row).collect(),
            dense: (1..=replicas).map(dense).collect(),
        }
    }

    /// The text extended by a scenario with a fleet.
    fn scenario(profile: &Profile) -> scenarios::scenario::Scenario {
        let folder = tempfile::tempdir().unwrap();
        let names = Names { stage: "animate", pool: "gpu" };
        std::fs::write(folder.path().join("profile.toml"), profile.toml(names)).unwrap();
        let text = "extends = \"profile.toml\"\n[[workload.source]]\narrivals = { kind = \"constant\", rate = \"1/s\" }\n\
                    [fleet.pool.gpu]\nprice = \"1 USD/h\"\ncount = 2\nslots = 2\n";
        let path = folder.path().join("launch.toml");
        std::fs::write(&path, text).unwrap();
        let loaded = scenarios::load(&path, &[]);
        loaded.unwrap_or_else(|errors| panic!("{errors:?}: {}", profile.toml(names))).scenario
    }

    #[test]
    fn scenarios_take_a_profile_over() {
        let found = scenario(&profile(&[4, 8, 1], 3));
        assert_eq!(found.stages.len(), 1);
        assert_eq!(found.stages[0].slowdown, [1.0, 2.0, 3.0]);
        let levels: Vec<(&str, f64)> =
            found.system.qualities.iter().map(|level| (level.name.as_str(), level.service_factor)).collect();
        assert_eq!(levels, [("8-steps", 1.0), ("4-steps", 0.574), ("1-steps", 0.255)]);
        let text = profile(&[4], 1).toml(Names { stage: "animate", pool: "gpu" });
        assert!(text.contains("weights = \"3.55000s\""), "{text}");
        assert!(text.contains("5 MiB for one replica; free for 7 with"), "{text}");
        let plain = scenario(&profile(&[4], 1));
        assert_eq!((plain.system.qualities.len(), plain.stages[0].slowdown.len()), (1, 0));
    }

    #[test]
    fn seconds_keep_six_digits() {
        let check = |value: f64, expected: &str| assert_eq!(seconds(value), expected);
        check(1.5, "\"1.50000s\"");
        check(0.001_234_567, "\"0.00123457s\"");
        check(123.456, "\"123.456s\"");
        check(0.0, "\"0.000000000s\"");
    }
}
