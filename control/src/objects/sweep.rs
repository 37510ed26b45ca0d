//! Removing objects that are too old, so that the store does not grow for ever.

use std::time::Duration;

use futures_util::StreamExt;

use super::Objects;
use super::key::Owner;
use crate::clock::unix_ms;

/// Sweeps now and then.
pub(super) async fn run(objects: &Objects) {
    let settings = &objects.0.settings;
    loop {
        for (place, keep) in [("outputs", settings.outputs_keep), ("inputs", settings.inputs_keep)] {
            let Some(keep) = keep else { continue };
            let removed = sweep(objects, place, keep).await;
            if removed > 0 {
                tracing::info!("{removed} {place} older than {} h were removed", keep.as_secs() / 3600);
            }
        }
        tokio::time::sleep(settings.sweep_every).await;
    }
}

/// Removes what is older than `keep`, and tells how many. What cannot be removed now is tried the next time.
async fn sweep(objects: &Objects, place: &str, keep: Duration) -> usize {
    let mut listed = objects.0.depot.list(place);
    let mut removed = 0;
    while let Some(found) = listed.next().await {
        let (key, meta) = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!("not all {place} can be listed: {error}");
                continue;
            }
        };
        let age_ms = (unix_ms() as i64).saturating_sub(meta.last_modified.timestamp_millis());
        if u128::try_from(age_ms).unwrap_or(0) < keep.as_millis() {
            continue;
        }
        // A job that takes longer than its outputs are kept still wants them.
        if let Owner::Job(job) = key.owner()
            && !matches!(objects.0.handle.job(job).await, Ok(None))
        {
            continue;
        }
        match objects.0.depot.delete(&key).await {
            Ok(()) => removed += 1,
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => tracing::warn!("`{key}` cannot be removed: {error}"),
        }
    }
    removed
}
