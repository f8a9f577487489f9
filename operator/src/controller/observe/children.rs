//! The children that the watches have seen, by the VLFineTune they belong to.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::ResourceExt;
use kube::runtime::watcher::Event;
use tokio::sync::watch;

use super::reduced::owner_key;

/// Namespace and name of a VLFineTune.
pub type Key = (String, String);

/// A child as last seen.
#[derive(Debug)]
pub struct Child<K> {
    pub object: Arc<K>,
    /// Whether it is deleted. The last state of a deleted pod is evidence for the verdict on
    /// its attempt, so it stays until the attempt is over.
    pub gone: bool,
}

impl<K> Clone for Child<K> {
    fn clone(&self) -> Self {
        Self {
            object: Arc::clone(&self.object),
            gone: self.gone,
        }
    }
}

#[derive(Debug)]
struct Inner<K> {
    by_owner: HashMap<Key, BTreeMap<String, Child<K>>>,
    /// Names listed since the last restart of the watch.
    listed: HashSet<(Key, String)>,
}

/// All children of one kind. Reads are cheap: one map look-up for each VLFineTune.
#[derive(Debug)]
pub struct Children<K> {
    inner: Mutex<Inner<K>>,
    synced: watch::Sender<bool>,
}

impl<K> Default for Children<K> {
    fn default() -> Self {
        let inner = Inner {
            by_owner: HashMap::new(),
            listed: HashSet::new(),
        };
        Self {
            inner: Mutex::new(inner),
            synced: watch::Sender::new(false),
        }
    }
}

impl<K: kube::Resource> Children<K> {
    /// Takes in one event of the watch; returns the VLFineTunes it concerns.
    pub fn record(&self, event: Event<K>) -> Vec<Key> {
        let mut inner = self.lock();
        match event {
            Event::Init => {
                inner.listed.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                let Some(key) = owner_key(&object) else {
                    return Vec::new();
                };
                inner.listed.insert((key.clone(), object.name_any()));
                inner.put(&key, object, false);
                vec![key]
            }
            Event::InitDone => {
                self.synced.send_replace(true);
                inner.mark_unlisted_gone()
            }
            Event::Apply(object) => inner.put_by_owner(object, false),
            Event::Delete(object) => inner.put_by_owner(object, true),
        }
    }

    /// The children of one VLFineTune, deleted ones included.
    pub fn of(&self, key: &Key) -> Vec<Child<K>> {
        let inner = self.lock();
        let children = inner.by_owner.get(key);
        children
            .map(|by_name| by_name.values().cloned().collect())
            .unwrap_or_default()
    }

    /// Forgets deleted children of a VLFineTune for which `keep` says no.
    pub fn forget_gone(&self, key: &Key, keep: impl Fn(&K) -> bool) {
        let mut inner = self.lock();
        if let Some(by_name) = inner.by_owner.get_mut(key) {
            by_name.retain(|_, child| !child.gone || keep(&child.object));
            if by_name.is_empty() {
                inner.by_owner.remove(key);
            }
        }
    }

    /// Returns once the watch has listed everything.
    pub async fn wait_until_synced(&self) {
        // An error means that the sender is gone, and it lives as long as `self`.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: kube::Resource> Inner<K> {
    fn put_by_owner(&mut self, object: K, gone: bool) -> Vec<Key> {
        let Some(key) = owner_key(&object) else {
            return Vec::new();
        };
        self.put(&key, object, gone);
        vec![key]
    }

    fn put(&mut self, key: &Key, object: K, gone: bool) {
        let by_name = self.by_owner.entry(key.clone()).or_default();
        by_name.insert(
            object.name_any(),
            Child {
                object: Arc::new(object),
                gone,
            },
        );
    }

    fn mark_unlisted_gone(&mut self) -> Vec<Key> {
        let mut touched = Vec::new();
        for (key, by_name) in &mut self.by_owner {
            for (name, child) in by_name.iter_mut().filter(|(_, child)| !child.gone) {
                if !self.listed.contains(&(key.clone(), name.clone())) {
                    child.gone = true;
                    touched.push(key.clone());
                }
            }
        }
        self.listed = HashSet::new();
        touched
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;

    fn child(name: &str) -> ConfigMap {
        serde_json::from_value(json!({ "metadata": {
            "name": name, "namespace": "ns", "labels": { "vlft.dev/finetune": "a" } } }))
        .unwrap()
    }

    fn key() -> Key {
        ("ns".to_owned(), "a".to_owned())
    }

    fn seen(children: &Children<ConfigMap>) -> Vec<(String, bool)> {
        children
            .of(&key())
            .into_iter()
            .map(|child| (child.object.name_any(), child.gone))
            .collect()
    }

    #[test]
    fn deleted_children_stay_as_evidence_until_forgotten() {
        let children = Children::default();
        children.record(Event::Apply(child("one")));
        assert_eq!(children.record(Event::Delete(child("one"))), vec![key()]);
        assert_eq!(seen(&children), vec![("one".to_owned(), true)]);
        children.forget_gone(&key(), |_| true);
        assert_eq!(seen(&children).len(), 1);
        children.forget_gone(&key(), |_| false);
        assert!(seen(&children).is_empty());
    }

    #[test]
    fn a_restarted_watch_finds_what_was_deleted_meanwhile() {
        let children = Children::default();
        assert!(!children.is_synced());
        for name in ["one", "two"] {
            children.record(Event::Apply(child(name)));
        }
        children.record(Event::Init);
        children.record(Event::InitApply(child("two")));
        assert_eq!(children.record(Event::InitDone), vec![key()]);
        assert!(children.is_synced());
        assert_eq!(
            seen(&children),
            vec![("one".to_owned(), true), ("two".to_owned(), false)]
        );
    }

    #[test]
    fn children_without_our_label_are_nobodys() {
        let children = Children::default();
        assert!(
            children
                .record(Event::Apply(ConfigMap::default()))
                .is_empty()
        );
    }
}
