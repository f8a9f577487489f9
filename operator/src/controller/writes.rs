//! Which of our own writes the watch has not shown yet: a decision on an older object would
//! only run into a conflict.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The newest resource version that this process wrote, by UID.
#[derive(Debug, Default)]
pub struct Writes {
    by_uid: Mutex<HashMap<String, u64>>,
}

impl Writes {
    /// Notes what a write returned.
    pub fn record(&self, meta: &ObjectMeta) {
        if let (Some(uid), Some(version)) = (meta.uid.clone(), version(meta)) {
            self.lock().insert(uid, version);
        }
    }

    /// Whether an object read is at least as new as what we wrote last. Resource versions of
    /// one object are ordered numbers; one that is none counts as current.
    pub fn is_current(&self, meta: &ObjectMeta) -> bool {
        let written = self
            .lock()
            .get(meta.uid.as_deref().unwrap_or_default())
            .copied();
        match (written, version(meta)) {
            (Some(written), Some(read)) => read >= written,
            _ => true,
        }
    }

    /// Forgets a write that ran into a conflict, or whose object is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.by_uid.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn version(meta: &ObjectMeta) -> Option<u64> {
    meta.resource_version.as_deref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(version: &str) -> ObjectMeta {
        ObjectMeta {
            uid: Some("u".to_owned()),
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn older_objects_than_our_last_write_are_not_current() {
        let writes = Writes::default();
        assert!(writes.is_current(&meta("9")));
        writes.record(&meta("10"));
        assert!(!writes.is_current(&meta("9")));
        assert!(writes.is_current(&meta("10")));
        assert!(writes.is_current(&meta("opaque")));
        writes.forget("u");
        assert!(writes.is_current(&meta("9")));
    }
}
