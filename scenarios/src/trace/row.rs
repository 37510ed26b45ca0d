//! One row of a trace on its way in, whichever format it came from.

use std::borrow::Cow;

/// A request, or a count of requests in the bin that starts at `at_ns`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Row<'a> {
    /// Nanoseconds since 1970 where the trace has calendar times, else since the column's own zero.
    pub at_ns: i64,
    /// Requests in the bin that starts here; `None` for a single request at this time.
    pub count: Option<f64>,
    /// Execution time, s.
    pub exec_s: Option<f64>,
    pub size: Option<f64>,
    pub region: Option<Cow<'a, str>>,
    pub class: Option<Cow<'a, str>>,
    pub model: Option<Cow<'a, str>>,
}
