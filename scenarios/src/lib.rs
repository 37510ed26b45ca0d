//! What-if files: schema, defaults, diagnostics, price catalog, traces.
