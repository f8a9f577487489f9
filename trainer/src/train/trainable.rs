//! Refuses a run that would train nothing, or less than it was asked to.

use crate::error::{Error, Result};
use crate::models::hf::PEFT_PREFIX;
use crate::models::{LoraTargets, Method};

/// A user error unless something of `trainable` (parameter names) trains, and every LoRA target
/// stands for at least one module of it.
pub(super) fn check<'a>(
    method: &Method,
    trainable: impl Iterator<Item = &'a str> + Clone,
) -> Result<()> {
    let modules = trainable.clone().filter_map(lora_module);
    let unmatched = match method {
        Method::Lora(lora) => unmatched(&lora.targets, modules),
        _ => Vec::new(),
    };
    if !unmatched.is_empty() {
        return Err(Error::User(format!(
            "spec.method.lora.targetModules: {} is no linear layer of the towers that train; name \
             layers as config and checkpoint do (q_proj, for example), or leave the field out for \
             all of them",
            unmatched.join(", ")
        )));
    }
    match trainable.clone().next() {
        Some(_) => Ok(()),
        None => Err(Error::User(
            "spec.method: nothing would train; switch on a tower or change targetModules".into(),
        )),
    }
}

fn lora_module(name: &str) -> Option<&str> {
    name.strip_prefix(PEFT_PREFIX)?
        .strip_suffix(".lora_A.weight")
}

/// The targets that no module matches, as written.
fn unmatched<'a>(
    targets: &LoraTargets,
    modules: impl Iterator<Item = &'a str> + Clone,
) -> Vec<String> {
    match targets {
        LoraTargets::AllLinear => Vec::new(),
        LoraTargets::Pattern(pattern) => match modules.clone().next() {
            Some(_) => Vec::new(),
            None => vec![format!("`{pattern}`")],
        },
        LoraTargets::Suffixes(names) => {
            let idle = names.iter().filter(|name| {
                let one = LoraTargets::Suffixes(vec![(*name).clone()]);
                !modules.clone().any(|module| one.matches(module))
            });
            idle.map(|name| format!("`{name}`")).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::LoraOptions;

    fn lora(targets: &[&str]) -> Method {
        let targets: Vec<String> = targets.iter().map(|&name| name.to_owned()).collect();
        Method::Lora(LoraOptions {
            rank: 4,
            alpha: 8.0,
            dropout: 0.0,
            targets: LoraTargets::parse(&targets).unwrap(),
        })
    }

    const NAMES: [&str; 2] = [
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight",
    ];

    #[test]
    fn each_target_without_a_module_is_named() {
        check(&lora(&["q_proj"]), NAMES.into_iter()).unwrap();
        check(&lora(&[]), NAMES.into_iter()).unwrap();
        let error = check(&lora(&["q_proj", "qproj", "proj"]), NAMES.into_iter()).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("targetModules: `qproj`, `proj` is"),
            "{message}"
        );
    }

    #[test]
    fn a_run_in_which_nothing_trains_is_refused() {
        for method in [Method::Full, lora(&[]), lora(&[".*none.*"])] {
            let error = check(&method, std::iter::empty()).unwrap_err();
            assert!(
                matches!(&error, Error::User(m) if m.contains("spec.method")),
                "{error}"
            );
        }
        check(&Method::Full, NAMES.into_iter()).unwrap();
    }
}
