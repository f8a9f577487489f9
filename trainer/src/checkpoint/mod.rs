//! Manifest, store, retention, export.
