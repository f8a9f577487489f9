//! What the API server's audit log says a client did, and what roles allow.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

/// A verb on a resource: `patch vlft.dev/vlfinetunes/status`.
pub type Right = String;

/// The audit log of the cluster that `KUBECONFIG` names; tests/cluster writes it beside it.
///
/// # Errors
/// When there is none: on other clusters it has to be turned on.
fn log_file() -> Result<PathBuf> {
    let kubeconfig =
        PathBuf::from(std::env::var_os("KUBECONFIG").context("KUBECONFIG is not set")?);
    let folder = kubeconfig.parent().context("KUBECONFIG has no folder")?;
    Ok(folder.join("logs/audit.log"))
}

/// What `user` did with leave, and what it was denied.
pub struct Used {
    pub allowed: BTreeSet<Right>,
    pub denied: BTreeSet<Right>,
}

/// Reads the log from its beginning to now.
///
/// # Errors
/// When it cannot be read.
pub fn used_by(user: &str) -> Result<Used> {
    let path = log_file()?;
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut used = Used {
        allowed: BTreeSet::new(),
        denied: BTreeSet::new(),
    };
    // The API server may be in the middle of its last line.
    let events = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    for event in events.filter(|event| event["user"]["username"] == user) {
        let verb = event["verb"].as_str().unwrap_or_default();
        let Some(resource) = resource_of(&event["objectRef"]) else {
            continue;
        };
        // A namespace that is being removed refuses new objects with 403 too: what the roles
        // forbid is what the authorizer says they do.
        let forbidden = event["annotations"]["authorization.k8s.io/decision"] == "forbid";
        match event["responseStatus"]["code"].as_i64() {
            Some(403) if forbidden => used.denied.insert(format!("{verb} {resource}")),
            Some(403) => continue,
            // An apply that makes its object needs both verbs.
            Some(201) if verb == "patch" => used.allowed.insert(format!("create {resource}")),
            _ => used.allowed.insert(format!("{verb} {resource}")),
        };
    }
    // While a release is being uninstalled its roles go before its pods.
    used.denied = &used.denied - &used.allowed;
    Ok(used)
}

/// `group/resource/subresource` as far as there is one; nothing for paths like /version.
fn resource_of(object: &Value) -> Option<String> {
    let parts = ["apiGroup", "resource", "subresource"].map(|part| object[part].as_str());
    parts[1]?;
    Some(parts.into_iter().flatten().collect::<Vec<_>>().join("/"))
}

/// What a role's rules allow.
pub fn granted_by(role: &Value) -> BTreeSet<Right> {
    let mut granted = BTreeSet::new();
    for rule in role["rules"].as_array().into_iter().flatten() {
        for (verb, group, resource) in product(rule) {
            let group = if group.is_empty() {
                group
            } else {
                format!("{group}/")
            };
            granted.insert(format!("{verb} {group}{resource}"));
        }
    }
    granted
}

fn product(rule: &Value) -> Vec<(String, String, String)> {
    let words = |field: &str| -> Vec<String> {
        let list = rule[field].as_array().into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let (verbs, groups, resources) = (words("verbs"), words("apiGroups"), words("resources"));
    let mut product = Vec::new();
    for verb in &verbs {
        for group in &groups {
            for resource in &resources {
                product.push((verb.clone(), group.clone(), resource.clone()));
            }
        }
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_and_events_are_written_alike() {
        let role = json!({"rules": [
            {"apiGroups": ["vlft.dev"], "resources": ["vlfinetunes/status"], "verbs": ["patch"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
        ]});
        let granted: Vec<_> = granted_by(&role).into_iter().collect();
        assert_eq!(
            granted,
            [
                "list pods",
                "patch vlft.dev/vlfinetunes/status",
                "watch pods"
            ]
        );
        let status =
            json!({"apiGroup": "vlft.dev", "resource": "vlfinetunes", "subresource": "status"});
        assert_eq!(resource_of(&status).unwrap(), "vlft.dev/vlfinetunes/status");
        assert_eq!(resource_of(&json!({"resource": "pods"})).unwrap(), "pods");
        assert_eq!(resource_of(&json!({})), None);
    }
}
