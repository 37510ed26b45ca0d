//! Arrivals, classes and clients.

use policy::model::{ClassId, JobClass};
use policy::units::Duration;

use super::Resolver;
use super::names::unique;
use crate::defaults;
use crate::diagnostics::{ErrorKind, Key};
use crate::file::named::Named;
use crate::file::quantity::{Rate, Share, Time};
use crate::file::workload::{ArrivalsFile, DecayFile, SourceFile};
use crate::scenario::{Arrivals, Clients, Decay, Generator, Reask, Shape, Source, TraceSource};

/// Highest priority number.
const PRIORITY_MAX: u8 = 7;
/// Times a client may ask again, and the longest bound that keeps re-asking finite.
const REASK_TIMES_MAX: u32 = 1000;
/// How far the shares of a region mix may sum from 1: rounding of decimal fractions, not more.
const MIX_TOLERANCE: f64 = 1e-9;

impl Resolver<'_> {
    pub(super) fn classes(&mut self) -> Vec<JobClass> {
        let stated = self.file.objective.deadline.map(|Time(deadline)| deadline);
        if self.file.workload.class.is_empty() {
            return vec![JobClass {
                name: defaults::CLASS_NAME.to_owned(),
                priority: defaults::PRIORITY,
                deadline: stated,
                expires: defaults::EXPIRES,
            }];
        }
        let mut classes = Vec::new();
        for (index, class) in self.file.workload.class.iter().enumerate() {
            let key = Key::of("workload.class").at(index);
            let priority = class.priority.unwrap_or(defaults::PRIORITY);
            if priority > PRIORITY_MAX {
                let message = format!("priority {priority} is outside 0..={PRIORITY_MAX}");
                self.problems.add(ErrorKind::Value, &key.at("priority"), message);
            }
            let deadline = self.lasting_if_stated(&key.at("deadline"), class.deadline).or(stated);
            let expires = class.expires.unwrap_or(defaults::EXPIRES);
            if expires && deadline.is_none() {
                let message = "a job can only expire at a deadline; state `deadline`";
                self.problems.add(ErrorKind::Conflict, &key.at("expires"), message);
            }
            classes.push(JobClass { name: class.name.clone(), priority, deadline, expires });
        }
        classes
    }

    pub(super) fn sources(&mut self) -> Vec<Source> {
        let files = &self.file.workload.source;
        if files.is_empty() {
            let message = "there is no source of arrivals; add [[workload.source]]";
            self.problems.add(ErrorKind::Missing, &Key::of("workload"), message);
        }
        let name = |(index, source): (usize, &SourceFile)| {
            source.name.clone().unwrap_or_else(|| format!("source-{}", index + 1))
        };
        let names: Vec<String> = files.iter().enumerate().map(name).collect();
        unique(&mut self.problems, &Key::of("workload.source"), "source", &names, Some("name"));
        let mut sources = Vec::new();
        for (index, (source, name)) in files.iter().zip(names).enumerate() {
            let key = Key::of("workload.source").at(index);
            let class = source.class.as_deref().map_or(Some(0), |class| {
                self.problems.find(&key.at("class"), "job class", class, &self.names.classes)
            });
            sources.push(Source {
                name,
                arrivals: self.arrivals(&key.at("arrivals"), &source.arrivals),
                class: ClassId(class.unwrap_or_default() as u16),
                region_share: self.region_share(&key.at("region_mix"), source.region_mix.as_ref()),
                rate_factor: source
                    .factor
                    .map_or(defaults::RATE_FACTOR, |factor| self.not_negative(&key.at("factor"), factor)),
            });
        }
        sources
    }

    fn region_share(&mut self, key: &Key, mix: Option<&Named<f64>>) -> Vec<f64> {
        let mut shares = vec![0.0; self.names.regions.len()];
        let Some(mix) = mix else {
            shares[0] = 1.0;
            return shares;
        };
        for (region, share) in mix.iter() {
            let key = key.at(region);
            if !(0.0..=1.0).contains(share) {
                self.problems.add(ErrorKind::Value, &key, format!("a share of {share} is outside 0..=1"));
            }
            if let Some(index) = self.problems.find(&key, "region", region, &self.names.regions) {
                shares[index] = *share;
            }
        }
        let sum: f64 = mix.iter().map(|(_, share)| share).sum();
        if (sum - 1.0).abs() > MIX_TOLERANCE {
            self.problems.add(
                ErrorKind::Conflict,
                key,
                format!("the shares sum to {sum}, and must sum to 1"),
            );
        }
        shares
    }

    fn arrivals(&mut self, key: &Key, file: &ArrivalsFile) -> Arrivals {
        let (shape, burstiness, burst_window) = match file {
            ArrivalsFile::Constant { rate: Rate(rate_per_s), burstiness, burst_window } => {
                (Shape::Constant { rate_per_s: *rate_per_s }, burstiness, burst_window)
            }
            ArrivalsFile::Diurnal { rate, amplitude, period, peak_at, burstiness, burst_window } => {
                let (Rate(rate_per_s), Share(amplitude)) = (*rate, *amplitude);
                let period = period.map_or(defaults::DIURNAL_PERIOD, |Time(period)| period);
                let period = self.lasting(&key.at("period"), period);
                let peak_at = peak_at.map_or(defaults::DIURNAL_PEAK_AT, |Time(peak_at)| peak_at);
                (Shape::Diurnal { rate_per_s, amplitude, period, peak_at }, burstiness, burst_window)
            }
            ArrivalsFile::Viral { base, peak, start, rise, half_life, decay, burstiness, burst_window } => {
                let (base_per_s, peak_per_s) = self.rise(key, *base, *peak);
                let decay = match decay {
                    None => defaults::DECAY,
                    Some(DecayFile::Exponential) => Decay::Exponential,
                    Some(DecayFile::Power) => Decay::Power,
                };
                let rise = self.lasting(&key.at("rise"), rise.0);
                let half_life = self.lasting(&key.at("half_life"), half_life.0);
                let shape = Shape::Viral { base_per_s, peak_per_s, start: start.0, rise, half_life, decay };
                (shape, burstiness, burst_window)
            }
            ArrivalsFile::Launch { base, peak, start, ramp, hold, half_life, burstiness, burst_window } => {
                let (base_per_s, peak_per_s) = self.rise(key, *base, *peak);
                let half_life = self.lasting(&key.at("half_life"), half_life.0);
                let (start, ramp, hold) = (start.0, ramp.0, hold.0);
                let shape = Shape::Launch { base_per_s, peak_per_s, start, ramp, hold, half_life };
                (shape, burstiness, burst_window)
            }
            ArrivalsFile::Trace { path, start, time_factor, repeat, jobs_total } => {
                let time_factor = time_factor.unwrap_or(defaults::TRACE_TIME_FACTOR);
                return Arrivals::Trace(TraceSource {
                    path: self.existing_file(&key.at("path"), path),
                    start: start.map_or(defaults::TRACE_START, |Time(start)| start),
                    time_factor: self.positive(&key.at("time_factor"), time_factor),
                    repeat: repeat.unwrap_or(defaults::TRACE_REPEAT),
                    jobs_total: *jobs_total,
                });
            }
        };
        let burstiness = self.not_negative(&key.at("burstiness"), burstiness.unwrap_or(defaults::BURSTINESS));
        let burst_window = burst_window.map_or(defaults::BURST_WINDOW, |Time(window)| window);
        let burst_window = self.lasting(&key.at("burst_window"), burst_window);
        Arrivals::Generator(Generator { shape, burstiness, burst_window })
    }

    /// Both rates of a wave, whose peak must not lie below its base.
    fn rise(&mut self, key: &Key, Rate(base): Rate, Rate(peak): Rate) -> (f64, f64) {
        if peak < base {
            let message = format!("the peak of {peak}/s lies below the base of {base}/s");
            self.problems.add(ErrorKind::Conflict, &key.at("peak"), message);
        }
        (base, peak)
    }

    pub(super) fn clients(&mut self) -> Clients {
        let file = &self.file.workload.clients;
        let key = Key::of("workload.clients");
        let patience = file.patience.as_ref().map(|law| self.law(&key.at("patience"), law));
        let reask = file.reask.as_ref().map(|reask| {
            let key = key.at("reask");
            let times_max = reask.times_max.unwrap_or(defaults::REASK_TIMES_MAX);
            if times_max > REASK_TIMES_MAX {
                let message = format!("{times_max} times are too many; at most {REASK_TIMES_MAX}");
                self.problems.add(ErrorKind::Overflow, &key.at("times_max"), message);
            }
            let delay = self.law(&key.at("delay"), &reask.delay);
            Reask { probability: reask.probability.0, delay, times_max }
        });
        Clients { patience, reask }
    }

    /// A time that may be stated, or stays away; where stated it must last.
    pub(super) fn lasting_if_stated(&mut self, key: &Key, stated: Option<Time>) -> Option<Duration> {
        stated.map(|Time(value)| self.lasting(key, value))
    }
}
