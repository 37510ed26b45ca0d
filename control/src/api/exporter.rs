//! The metrics page: OpenMetrics text of what is counted and how things stand. No job's id is a label.

use std::fmt::{Debug, Error, Formatter};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError, RwLock};

use policy::records::{InstanceEnd, JobOutcome};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::audit::Audit;
use super::counters::{ANSWERS, Counters, STATUSES};
use super::histogram::Histogram;
use super::names::Names;
use super::route::Route;
use crate::shell::Handle;

/// Reads everything at the moment in which it is asked.
struct Exporter {
    handle: Handle,
    counters: Arc<Counters>,
    names: Arc<RwLock<Arc<Names>>>,
    audit: Audit,
}

/// The registry with our one collector.
pub(crate) fn registry(
    handle: Handle,
    counters: Arc<Counters>,
    names: Arc<RwLock<Arc<Names>>>,
    audit: Audit,
) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exporter { handle, counters, names, audit }));
    registry
}

impl Debug for Exporter {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result<(), Error> {
        f.write_str("Exporter")
    }
}

impl Collector for Exporter {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut page = Page { encoder };
        self.jobs(&mut page)?;
        self.fleet(&mut page)?;
        self.journal(&mut page)?;
        self.traces(&mut page)?;
        self.http(&mut page)
    }
}

impl Exporter {
    fn jobs(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner).clone();
        let classes = || names.classes.iter().zip(self.counters.classes.iter());
        let mut rows = Vec::new();
        for (name, counts) in classes() {
            for (answer, count) in ANSWERS.into_iter().zip(&counts.submitted) {
                rows.push(([("class", name.as_str()), ("outcome", answer)], count.load(Relaxed)));
            }
        }
        page.counters("headroom_jobs_submitted", "Submissions by class and answer", &rows)?;
        let mut rows = Vec::new();
        for (name, counts) in classes() {
            for (outcome, count) in JobOutcome::ALL.into_iter().zip(&counts.ended) {
                rows.push(([("class", name.as_str()), ("outcome", outcome.name())], count.load(Relaxed)));
            }
        }
        page.counters("headroom_jobs_ended", "Jobs that ended, by class and outcome", &rows)?;
        let waits: Vec<_> =
            classes().map(|(name, counts)| ([("class", name.as_str())], &counts.wait)).collect();
        let help = "Time of ended jobs in queues and between attempts";
        page.histograms("headroom_job_wait_seconds", help, &waits)?;
        let services: Vec<_> =
            classes().map(|(name, counts)| ([("class", name.as_str())], &counts.service)).collect();
        page.histograms("headroom_job_service_seconds", "Time of ended jobs being served", &services)?;
        let figures = self.handle.figures();
        page.gauge("headroom_jobs", "Jobs in the system", figures.jobs as f64)?;
        page.counter("headroom_job_retries", "Attempts after the first", figures.totals.retries)?;
        let help = "Reports under an old lease, refused";
        page.counter("headroom_fenced_results", help, figures.totals.stale)?;
        page.gauge("headroom_webhooks_pending", "Announcements not settled", figures.webhooks as f64)?;
        page.counter(
            "headroom_rows_lost",
            "Records that were not counted",
            self.counters.rows_lost.load(Relaxed),
        )
    }

    fn fleet(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let figures = self.handle.figures();
        let mut rows = Vec::new();
        for (pool, ready, starting, draining) in &figures.pools {
            for (state, count) in [("ready", ready), ("starting", starting), ("draining", draining)] {
                rows.push(([("pool", pool.as_str()), ("state", state)], f64::from(*count)));
            }
        }
        page.gauges("headroom_instances", "Instances by pool and state", &rows)?;
        page.gauge("headroom_workers", "Workers connected", figures.workers as f64)?;
        let interrupted = self.counters.instances_by(InstanceEnd::Interrupted);
        let rows: Vec<_> =
            interrupted.iter().map(|(pool, count)| ([("pool", pool.as_str())], *count)).collect();
        page.counters("headroom_interruptions", "Instances taken by the provider", &rows)?;
        let refused = self.counters.instances_by(InstanceEnd::Refused);
        let rows: Vec<_> = refused.iter().map(|(pool, count)| ([("pool", pool.as_str())], *count)).collect();
        page.counters("headroom_launches_refused", "Launches that gave no instance", &rows)?;
        let spent = figures.spent_nanousd as f64 / 1e9;
        page.gauge("headroom_spend_usd", "Spent since the journal began, US dollars", spent)?;
        let burn = figures.burn_nanousd_per_hour as f64 / 1e9;
        page.gauge("headroom_burn_usd_per_hour", "Spent per hour now, US dollars", burn)?;
        let is_held = if figures.hold.is_some() { 1.0 } else { 0.0 };
        page.gauge("headroom_launches_held", "1 while nothing may be launched", is_held)
    }

    fn journal(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let shared = self.handle.shared();
        page.counter("headroom_commits", "Commits of the journal", shared.commits.load(Relaxed))?;
        let help = "Commands made durable; over commits it is the size of a batch";
        page.counter("headroom_commit_commands", help, shared.commands.load(Relaxed))?;
        let seconds = shared.commit_nanos.load(Relaxed) as f64 / 1e9;
        let help = "Time spent in commits; over commits it is the time of one";
        let mut metric =
            page.encoder.encode_descriptor("headroom_commit_seconds", help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, f64, f64>(&seconds, None)?;
        let longest = shared.commit_max_nanos.load(Relaxed) as f64 / 1e9;
        page.gauge("headroom_commit_max_seconds", "Longest commit since the start", longest)?;
        let is_writable = if shared.is_writable.load(Relaxed) { 1.0 } else { 0.0 };
        page.gauge("headroom_journal_writable", "1 while the journal takes commits", is_writable)?;
        page.gauge("headroom_epoch", "Planes that had this journal", self.handle.figures().epoch as f64)
    }

    fn traces(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let Some(traces) = self.handle.shared().traces() else { return Ok(()) };
        let counts = traces.outbox().counts();
        let help = "Spans that the trace collector took";
        page.counter("headroom_trace_spans_exported", help, counts.exported.load(Relaxed))?;
        let dropped = [
            ([("reason", "queue-full")], counts.dropped_full.load(Relaxed)),
            ([("reason", "not-taken")], counts.dropped_refused.load(Relaxed)),
        ];
        page.counters("headroom_trace_spans_dropped", "Spans that are in no trace, by reason", &dropped)?;
        let help = "Jobs that are not traced since too many are";
        page.counter("headroom_trace_jobs_skipped", help, counts.jobs_skipped.load(Relaxed))
    }

    fn http(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let statuses: Vec<String> = STATUSES.iter().map(u16::to_string).chain(["other".to_owned()]).collect();
        let mut rows = Vec::new();
        let mut durations = Vec::new();
        for route in Route::ALL {
            let counts = self.counters.requests[route as usize].iter();
            let before = rows.len();
            for (status, count) in statuses.iter().zip(counts) {
                let count = count.load(Relaxed);
                if count > 0 {
                    rows.push(([("route", route.template()), ("code", status.as_str())], count));
                }
            }
            if rows.len() > before {
                durations.push(([("route", route.template())], &self.counters.durations[route as usize]));
            }
        }
        page.counters("headroom_http_requests", "Requests by route and status", &rows)?;
        let help = "Time to the head of the answer, long polls included";
        page.histograms("headroom_http_request_duration_seconds", help, &durations)?;
        let counters = &self.counters;
        let open = counters.connections.load(Relaxed) as f64;
        page.gauge("headroom_http_connections", "Connections open", open)?;
        page.gauge("headroom_http_streams", "Streams of events open", counters.streams() as f64)?;
        for (name, help, count) in [
            (
                "headroom_http_connections_refused",
                "Connections above the limit",
                &counters.connections_refused,
            ),
            ("headroom_http_unauthorized", "Requests without a valid key", &counters.unauthorized),
            ("headroom_http_rate_limited", "Requests above their key's rate", &counters.too_fast),
            ("headroom_tls_handshakes_failed", "TLS handshakes that failed", &counters.handshakes_failed),
        ] {
            page.counter(name, help, count.load(Relaxed))?;
        }
        page.counter(
            "headroom_audit_entries_lost",
            "Entries that are not in the audit log",
            self.audit.lost(),
        )?;
        let build = [("version", env!("CARGO_PKG_VERSION"))];
        page.gauges("headroom_build_info", "1, with the version as a label", &[(build, 1.0)])
    }
}

/// A page that is being written.
struct Page<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Page<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        self.encoder
            .encode_descriptor(name, help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, u64, f64>(&value, None)
    }

    fn counters<L: EncodeLabelSet, V: prometheus_client::encoding::EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        rows: &[(L, V)],
    ) -> Result<(), Error> {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in rows {
            metric.encode_family(labels)?.encode_counter::<NoLabelSet, V, f64>(value, None)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> Result<(), Error> {
        self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn gauges<L: EncodeLabelSet>(&mut self, name: &str, help: &str, rows: &[(L, f64)]) -> Result<(), Error> {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in rows {
            metric.encode_family(labels)?.encode_gauge(value)?;
        }
        Ok(())
    }

    fn histograms<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        rows: &[(L, &Histogram)],
    ) -> Result<(), Error> {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, histogram) in rows {
            let (sum, count, buckets) = histogram.read();
            metric.encode_family(labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}
