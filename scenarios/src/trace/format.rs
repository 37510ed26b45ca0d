//! Which public format a file is in, told from its first bytes, never from its name.

use std::fmt;

use serde::Serialize;

/// The formats that are known without a mapping, and the plain ones that need a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TraceFormat {
    /// alibaba/clusterdata `cluster-trace-v2026-GenAI`: one row per image request, 1 s resolution.
    AlibabaGenai,
    /// AzurePublicDataset `AzureLLMInferenceTrace_*`: one row per request, 100 ns resolution.
    AzureLlm,
    /// alibaba/ServeGen client windows: a rate and a law of gaps per client and 600 s window.
    ServegenClients,
    /// World Cup 98: requests per UTC minute.
    WorldCup,
    /// Numenta Anomaly Benchmark: one value per 5 minutes.
    NabCounts,
    /// skypilot-org/spot-traces: nodes up at each tick.
    SpotAvailability,
    /// AWS spot price changes.
    SpotPrices,
    /// AWS Spot Advisor snapshot.
    SpotAdvisor,
    /// Any CSV, read through a mapping.
    Csv,
    /// One JSON object per line, read through a mapping.
    Jsonl,
    /// Rows handed in by the caller.
    Rows,
}

impl fmt::Display for TraceFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AlibabaGenai => "an Alibaba GenAI request trace",
            Self::AzureLlm => "an Azure LLM request trace",
            Self::ServegenClients => "a table of ServeGen client rates",
            Self::WorldCup => "World Cup 98 counts per minute",
            Self::NabCounts => "NAB counts per 5 minutes",
            Self::SpotAvailability => "a spot availability trace",
            Self::SpotPrices => "a spot price history",
            Self::SpotAdvisor => "a Spot Advisor snapshot",
            Self::Csv => "a plain CSV trace",
            Self::Jsonl => "a JSON-lines trace",
            Self::Rows => "a table of rows",
        })
    }
}

/// Columns that tell a known CSV format; all must be in the header.
const SIGNATURES: [(TraceFormat, &[&str]); 4] = [
    (TraceFormat::AlibabaGenai, &["gmt_create", "exec_time_seconds"]),
    (TraceFormat::AzureLlm, &["TIMESTAMP", "ContextTokens", "GeneratedTokens"]),
    (TraceFormat::ServegenClients, &["client_id", "window_start_s", "rate_rps", "pattern"]),
    (
        TraceFormat::SpotPrices,
        &["timestamp_utc", "availability_zone", "instance_type", "spot_price_usd_per_hour"],
    ),
];

impl TraceFormat {
    /// Tells the format from the first bytes of the (unpacked) file; `None` when it is not a known one.
    ///
    /// JSON lines that are no spot file come out as [`TraceFormat::Jsonl`]; an unknown CSV as `None`.
    #[must_use]
    pub fn detect(head: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(head);
        let text = text.trim_start_matches('\u{feff}').trim_start();
        if text.starts_with('{') {
            return Some(match text {
                t if t.contains("\"gap_seconds\"") => Self::SpotAvailability,
                t if t.contains("\"spot_advisor\"") || t.contains("\"instance_types\"") => Self::SpotAdvisor,
                _ => Self::Jsonl,
            });
        }
        let header: Vec<&str> = text.lines().next()?.split(',').map(|c| c.trim().trim_matches('"')).collect();
        match header.as_slice() {
            ["period", "count"] => return Some(Self::WorldCup),
            ["timestamp", "value"] => return Some(Self::NabCounts),
            _ => {}
        }
        let known = SIGNATURES.iter().find(|(_, columns)| columns.iter().all(|c| header.contains(c)));
        known.map(|(format, _)| *format)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_tells_the_format() {
        let check =
            |head: &str, expected| assert_eq!(TraceFormat::detect(head.as_bytes()), expected, "{head}");
        check("gmt_create,predict_type,exec_time_seconds\n", Some(TraceFormat::AlibabaGenai));
        check("TIMESTAMP,ContextTokens,GeneratedTokens\r\n", Some(TraceFormat::AzureLlm));
        check(
            "client_id,window_start_s,rate_rps,cv,pattern,param1,param2\n",
            Some(TraceFormat::ServegenClients),
        );
        check("\u{feff}period,count\n", Some(TraceFormat::WorldCup));
        check("\"timestamp\",\"value\"\n", Some(TraceFormat::NabCounts));
        check("{\"metadata\": {\"gap_seconds\": 195}, \"data\": [", Some(TraceFormat::SpotAvailability));
        check("{\"instance_types\":{\"", Some(TraceFormat::SpotAdvisor));
        check("{\"at\": 1}\n{\"at\": 2}\n", Some(TraceFormat::Jsonl));
        check("when,who\n1,2\n", None);
        check("", None);
    }
}
