//! W3C trace contexts, version 00: which trace a span belongs to, and which span it hangs at.

use std::fmt;
use std::str::FromStr;

/// The flag that a trace is wanted.
const SAMPLED: u8 = 1;

/// Names one span of one trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; never 0.
    pub trace: u128,
    /// The span; never 0.
    pub span: u64,
    /// Whether whoever began the trace wants it kept.
    pub is_sampled: bool,
}

/// A text that is no trace context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no trace context; they look like 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]
pub struct ContextError;

impl FromStr for TraceContext {
    type Err = ContextError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('-').take(5).collect();
        let ["00", trace, span, flags] = parts[..] else { return Err(ContextError) };
        let hex = |part: &str, length| {
            let is_hex = part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            (part.len() == length && is_hex).then_some(())
        };
        let parse = || {
            hex(trace, 32)?;
            hex(span, 16)?;
            hex(flags, 2)?;
            let trace = u128::from_str_radix(trace, 16).ok().filter(|trace| *trace != 0)?;
            let span = u64::from_str_radix(span, 16).ok().filter(|span| *span != 0)?;
            let flags = u8::from_str_radix(flags, 16).ok()?;
            Some(Self { trace, span, is_sampled: flags & SAMPLED != 0 })
        };
        parse().ok_or(ContextError)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace, span, is_sampled } = self;
        write!(f, "00-{trace:032x}-{span:016x}-{:02x}", if *is_sampled { SAMPLED } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_trace_span_and_wish() {
        let check = |flags: &str, is_sampled| {
            let text = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
            let context = TraceContext {
                trace: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c,
                span: 0xb7ad_6b71_6920_3331,
                is_sampled,
            };
            assert_eq!(text.parse(), Ok(context), "{flags}");
        };
        check("01", true);
        check("03", true);
        check("00", false);
        check("02", false);
        let small = TraceContext { trace: 1, span: 2, is_sampled: true };
        assert_eq!(small.to_string(), "00-00000000000000000000000000000001-0000000000000002-01");
        assert_eq!(small.to_string().parse(), Ok(small));
    }

    #[test]
    fn anything_else_is_no_context() {
        for bad in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
        ] {
            assert_eq!(bad.parse::<TraceContext>(), Err(ContextError), "{bad}");
        }
    }
}
