//! Tables, Parquet, charts and exports made from record rows.
