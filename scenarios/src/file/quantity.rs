//! Values with units as they stand in a file: checked when they are read, so that a mistake knows its place.

use std::borrow::Cow;
use std::fmt;

use policy::units::{Bytes, Duration, Ratio, Usd, UsdPerHour};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};

macro_rules! quantity {
    ($($(#[$doc:meta])* $name:ident($inner:ty): $parse:expr, $what:literal, $example:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub(crate) struct $name(pub(crate) $inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Read;
                impl Visitor<'_> for Read {
                    type Value = $name;

                    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(out, concat!("a ", $what, " like \"", $example, "\""))
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        $parse(text).map($name).map_err(E::custom)
                    }

                    fn visit_i64<E: de::Error>(self, bare: i64) -> Result<$name, E> {
                        Err(E::custom(no_unit(&bare, $what, $example)))
                    }

                    fn visit_f64<E: de::Error>(self, bare: f64) -> Result<$name, E> {
                        Err(E::custom(no_unit(&bare, $what, $example)))
                    }
                }
                deserializer.deserialize_any(Read)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "description": concat!("A ", $what, " with its unit."),
                    "examples": [$example],
                })
            }
        }
    )*};
}

quantity! {
    /// A time.
    Time(Duration): Duration::parse, "duration", "90s";
    /// A size.
    Size(Bytes): Bytes::parse, "size", "80GiB";
    /// An amount of money.
    Money(Usd): Usd::parse, "amount", "0.04 USD";
    /// A price of holding one instance.
    HourlyPrice(UsdPerHour): UsdPerHour::parse, "price", "3.06 USD/h";
    /// Events per second.
    Rate(f64): parse_rate, "rate", "300/s";
    /// Bytes per second.
    Throughput(u64): parse_throughput, "throughput", "100MB/s";
}

fn no_unit(bare: &dyn fmt::Display, what: &str, example: &str) -> String {
    format!("`{bare}` has no unit; write a {what} as text, like \"{example}\"")
}

/// Seconds in each unit of time that a rate may have.
const RATE_UNITS: [(&str, f64); 4] = [("s", 1.0), ("min", 60.0), ("h", 3600.0), ("d", 86_400.0)];

/// Reads `"300/s"`, `"18_000/min"`, `"2.5/h"`, `"1e6/d"` as events per second.
fn parse_rate(text: &str) -> Result<f64, String> {
    let Some((number, unit)) = text.split_once('/') else {
        return Err(format!("`{text}` has no unit; write a rate like \"300/s\" (units: /s, /min, /h, /d)"));
    };
    let Some((_, seconds)) = RATE_UNITS.iter().find(|(name, _)| *name == unit.trim()) else {
        return Err(format!(
            "`/{}` in `{text}` is not a unit of rate; use one of /s, /min, /h, /d",
            unit.trim()
        ));
    };
    match number.trim().replace('_', "").parse::<f64>() {
        Ok(count) if count < 0.0 => Err(format!("`{text}` is not a rate: it must not be negative")),
        Ok(count) if count.is_finite() => Ok(count / seconds),
        Ok(_) => Err(format!("`{text}` is not a rate: the number is not finite")),
        Err(_) => Err(format!("`{text}` is not a rate: the number cannot be read; write it like \"300/s\"")),
    }
}

/// Reads `"100MB/s"` as bytes per second, at least one.
fn parse_throughput(text: &str) -> Result<u64, String> {
    let Some(size) = text.trim().strip_suffix("/s") else {
        return Err(format!("`{text}` is not a throughput; write a size per second like \"100MB/s\""));
    };
    match Bytes::parse(size).map_err(|error| error.to_string())?.get() {
        0 => Err(format!("`{text}` moves nothing; a throughput must be above 0")),
        bytes => Ok(bytes),
    }
}

/// A probability or share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Share(pub(crate) Ratio);

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ratio::new(f64::deserialize(deserializer)?).map(Self).map_err(de::Error::custom)
    }
}

impl JsonSchema for Share {
    fn schema_name() -> Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "description": "A probability or share, as a fraction of 1.",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_per_second() {
        for (text, per_s) in [("300/s", 300.0), ("18_000/min", 300.0), ("7.2e3/h", 2.0), ("86400 / d", 1.0)] {
            assert_eq!(parse_rate(text), Ok(per_s), "{text}");
        }
        for bad in ["300", "300/week", "-1/s", "inf/s", "NaN/s", "/s", "1e400/s"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn throughput_is_a_size_per_second() {
        assert_eq!(parse_throughput("100MB/s"), Ok(100_000_000));
        for bad in ["100MB", "0B/s", "100/s", "5MB/min"] {
            assert!(parse_throughput(bad).is_err(), "{bad}");
        }
    }
}
