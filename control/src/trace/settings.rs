//! Where spans go and whose are kept: options, and the standard variables of OpenTelemetry.

use super::ids::Sampler;

/// Path of traces below a collector's address (OTLP 1.x, HTTP).
const PATH: &str = "/v1/traces";

/// Variables that name a collector.
const COLLECTORS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Share of the jobs that are traced where nobody says: one in a hundred.
pub const RATIO: f64 = 0.01;

/// How traces are made.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceSettings {
    /// The collector, as a URL of its OTLP/HTTP receiver; as the standard variables say where there is none.
    pub collector: Option<String>,
    /// Share of the jobs that are traced where their clients do not say, 0 to 1.
    pub ratio: f64,
}

impl TraceSettings {
    /// The settings by option and environment; `None` when neither wants traces.
    pub fn wished(collector: Option<&str>, ratio: f64) -> Option<Self> {
        Self::by(collector, ratio, |name| std::env::var(name).ok())
    }

    fn by(collector: Option<&str>, ratio: f64, variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let is = |name: &str, value: &str| {
            variable(name).is_some_and(|found| found.trim().eq_ignore_ascii_case(value))
        };
        if let Some(collector) = collector {
            return Some(Self { collector: Some(collector.to_owned()), ratio });
        }
        let is_off = is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none");
        let is_named = COLLECTORS.iter().any(|name| variable(name).is_some_and(|url| !url.trim().is_empty()));
        (is_named && !is_off).then_some(Self { collector: None, ratio })
    }

    /// The URL that takes traces, where an option names the collector.
    pub(crate) fn endpoint(&self) -> Option<String> {
        let base = self.collector.as_deref()?.trim_end_matches('/');
        Some(if base.ends_with(PATH) { base.to_owned() } else { format!("{base}{PATH}") })
    }

    pub(crate) fn sampler(&self) -> Sampler {
        Sampler::new(self.ratio)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_comes_before_the_environment() {
        let check = |option: Option<&str>, variables: &[(&str, &str)], expected: Option<Option<&str>>| {
            let variable =
                |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, v)| (*v).to_owned());
            let settings = TraceSettings::by(option, 0.5, variable);
            let found = settings.as_ref().map(|settings| settings.collector.as_deref());
            assert_eq!(found, expected, "{option:?} {variables:?}");
        };
        let general = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318");
        check(None, &[], None);
        check(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")], None);
        check(None, &[general], Some(None));
        check(None, &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://a/x")], Some(None));
        check(None, &[general, ("OTEL_SDK_DISABLED", "True")], None);
        check(None, &[general, ("OTEL_TRACES_EXPORTER", "none")], None);
        check(Some("http://b"), &[general, ("OTEL_SDK_DISABLED", "true")], Some(Some("http://b")));
    }

    #[test]
    fn option_names_the_collector_or_its_path() {
        for (url, endpoint) in [
            ("http://c:4318", "http://c:4318/v1/traces"),
            ("http://c:4318/", "http://c:4318/v1/traces"),
            ("https://c/otlp", "https://c/otlp/v1/traces"),
            ("https://c/v1/traces", "https://c/v1/traces"),
        ] {
            let settings = TraceSettings { collector: Some(url.to_owned()), ratio: RATIO };
            assert_eq!(settings.endpoint().as_deref(), Some(endpoint));
        }
    }
}
