//! Laws of chance as they stand in a file: a text is a constant, a table with one key names another law.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::quantity::Time;

/// A law of a time: `"400ms"` (always the same) or one of the shapes.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(untagged, rename = "Law")]
pub(crate) enum LawFile {
    /// Always the same.
    Constant(Time),
    /// Lognormal.
    Lognormal {
        /// By `mean` and `cv`, or by `p50` and `p99`.
        lognormal: LognormalFile,
    },
    /// Exponential.
    Exponential {
        /// By its mean.
        exponential: MeanFile,
    },
    /// Evenly between two times.
    Uniform {
        /// The two times.
        uniform: UniformFile,
    },
    /// Weibull.
    Weibull {
        /// By mean and shape.
        weibull: WeibullFile,
    },
    /// Pareto.
    Pareto {
        /// By mean and tail index.
        pareto: ParetoFile,
    },
    /// Straight lines between measured quantiles.
    Quantiles {
        /// Quantiles at evenly spaced probabilities from 0 to 1; at least two, ascending.
        quantiles: Vec<Time>,
    },
}

/// A lognormal law: either `mean` and `cv`, or `p50` and `p99`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LognormalFile {
    /// Mean.
    pub(crate) mean: Option<Time>,
    /// Standard deviation over mean, above 0.
    pub(crate) cv: Option<f64>,
    /// Median.
    pub(crate) p50: Option<Time>,
    /// 99th percentile.
    pub(crate) p99: Option<Time>,
}

/// A law that its mean decides.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MeanFile {
    /// Mean.
    pub(crate) mean: Time,
}

/// Two bounds.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UniformFile {
    /// Shortest.
    pub(crate) low: Time,
    /// Longest.
    pub(crate) high: Time,
}

/// A Weibull law.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WeibullFile {
    /// Mean.
    pub(crate) mean: Time,
    /// Shape, above 0; below 1 is heavy-tailed.
    pub(crate) shape: f64,
}

/// A Pareto law.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ParetoFile {
    /// Mean.
    pub(crate) mean: Time,
    /// Tail index, above 1.
    pub(crate) tail: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum LawName {
    Constant,
    Lognormal,
    Exponential,
    Uniform,
    Weibull,
    Pareto,
    Quantiles,
}

impl<'de> Deserialize<'de> for LawFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = LawFile;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(
                    "a duration like \"400ms\" or a law like { lognormal = { mean = \"400ms\", cv = 0.3 } }",
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<LawFile, E> {
                policy::units::Duration::parse(text)
                    .map(|time| LawFile::Constant(Time(time)))
                    .map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, bare: i64) -> Result<LawFile, E> {
                Err(E::custom(format!("`{bare}` has no unit; write a duration as text, like \"400ms\"")))
            }

            fn visit_f64<E: de::Error>(self, bare: f64) -> Result<LawFile, E> {
                Err(E::custom(format!("`{bare}` has no unit; write a duration as text, like \"400ms\"")))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LawFile, A::Error> {
                let Some(name) = map.next_key::<LawName>()? else {
                    return Err(de::Error::custom("the law is empty; write a duration or one law"));
                };
                let law = match name {
                    LawName::Constant => LawFile::Constant(map.next_value()?),
                    LawName::Lognormal => LawFile::Lognormal { lognormal: map.next_value()? },
                    LawName::Exponential => LawFile::Exponential { exponential: map.next_value()? },
                    LawName::Uniform => LawFile::Uniform { uniform: map.next_value()? },
                    LawName::Weibull => LawFile::Weibull { weibull: map.next_value()? },
                    LawName::Pareto => LawFile::Pareto { pareto: map.next_value()? },
                    LawName::Quantiles => LawFile::Quantiles { quantiles: map.next_value()? },
                };
                match map.next_key::<String>()? {
                    None => Ok(law),
                    Some(other) => Err(de::Error::custom(format!(
                        "a time follows one law, and `{other}` stands beside the first; remove one"
                    ))),
                }
            }
        }
        deserializer.deserialize_any(Read)
    }
}
