//! `--otlp` and `--trace-sample` of `headroom serve`.

use clap::Args;
use control::trace::{RATIO, TraceSettings};

/// Traces of jobs.
#[derive(Args, Clone, Debug)]
pub(crate) struct TraceArgs {
    /// Send traces of jobs to this OpenTelemetry collector (OTLP over HTTP), like http://127.0.0.1:4318. Default: as
    /// OTEL_EXPORTER_OTLP_ENDPOINT says; no traces where it says nothing.
    #[arg(long, value_name = "URL", value_parser = super::serve::web_address)]
    otlp: Option<String>,
    /// Share of the jobs that are traced where their clients do not say, 0 to 1.
    #[arg(long, value_name = "RATIO", default_value_t = RATIO, value_parser = ratio)]
    trace_sample: f64,
}

impl TraceArgs {
    /// What the options and the environment want.
    pub(crate) fn settings(&self) -> Option<TraceSettings> {
        TraceSettings::wished(self.otlp.as_deref(), self.trace_sample)
    }

    /// What worker processes are told of it; the environment they have anyway.
    pub(crate) fn words(&self) -> Vec<String> {
        self.otlp.iter().flat_map(|url| ["--otlp".to_owned(), url.clone()]).collect()
    }
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| format!("`{text}` is no share between 0 and 1"))
}
