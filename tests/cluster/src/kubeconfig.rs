//! Kubeconfig files (JSON, which every YAML reader takes).

use crate::layout::{API_PORT, CONTROL_PLANE, Layout};
use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::fs;

/// Writes the kubeconfig of a component, and its own into the state folder for `admin`.
pub fn write(layout: &Layout, user: &str, host_side: &str) -> Result<()> {
    let (path, address) = match user {
        "admin" => (layout.kubeconfig(), host_side),
        _ => (
            layout.pki().join(format!("{user}.kubeconfig")),
            CONTROL_PLANE,
        ),
    };
    let text = serde_json::to_string_pretty(&document(layout, user, address)?)?;
    // A reader never sees half a file.
    let partial = path.with_extension("partial");
    fs::write(&partial, text).with_context(|| format!("cannot write {}", partial.display()))?;
    fs::rename(&partial, &path).with_context(|| format!("cannot write {}", path.display()))
}

/// Certificates are inside the file, so that it can be copied.
fn document(layout: &Layout, user: &str, address: &str) -> Result<Value> {
    let encoded = |file: String| -> Result<String> {
        let path = layout.pki().join(file);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(STANDARD.encode(bytes))
    };
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": layout.name,
        "clusters": [{ "name": layout.name, "cluster": {
            "server": format!("https://{address}:{API_PORT}"),
            "certificate-authority-data": encoded("ca.crt".into())?,
        }}],
        "users": [{ "name": user, "user": {
            "client-certificate-data": encoded(format!("{user}.crt"))?,
            "client-key-data": encoded(format!("{user}.key"))?,
        }}],
        "contexts": [{ "name": layout.name, "context": { "cluster": layout.name, "user": user } }],
    }))
}
