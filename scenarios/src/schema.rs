//! The JSON Schema of scenario files, for editors and other programs.

use crate::file::ScenarioFile;

/// The schema of a scenario file, with its documentation.
pub fn json_schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(ScenarioFile);
    schema.insert("title".to_owned(), "headroom scenario".into());
    schema.to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schema_is_strict_and_documented() {
        let schema = json_schema();
        assert_eq!(schema["additionalProperties"], serde_json::Value::Bool(false));
        for section in
            ["workload", "pipeline", "storage", "fleet", "network", "queue", "policy", "run", "plan"]
        {
            assert!(schema["properties"][section].is_object(), "{section}");
        }
        let keda = schema["$defs"]["ScalingFile"]["oneOf"]
            .as_array()
            .and_then(|kinds| kinds.iter().find(|kind| kind["properties"]["kind"]["const"] == "keda"));
        assert!(keda.is_some(), "{}", schema["$defs"]["ScalingFile"]);
    }
}
