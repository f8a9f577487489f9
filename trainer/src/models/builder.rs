//! Declares a unit's parameters: layers are built with it and keep the handles.

use super::hf::{PEFT_PREFIX, Prefix};
use super::layers::{LayerNorm, Linear, Lora, Norm, NormKind, RmsNorm};
use super::options::{Method, ModelOptions};
use crate::engine::{Init, Param, ParameterSpec, Tower};

/// The parameters of one unit while it is being built. Module path = checkpoint name.
pub struct UnitBuilder<'a> {
    options: &'a ModelOptions,
    prefix: &'a Prefix,
    tower: Tower,
    path: String,
    parameters: Vec<ParameterSpec>,
}

impl<'a> UnitBuilder<'a> {
    /// A unit at `path` (no final dot) below a prefix.
    pub fn new(options: &'a ModelOptions, prefix: &'a Prefix, tower: Tower, path: &str) -> Self {
        Self {
            options,
            prefix,
            tower,
            path: path.to_owned(),
            parameters: Vec::new(),
        }
    }

    /// The unit's module path, for messages.
    pub fn module(&self) -> String {
        format!("{}{}", self.prefix.module, self.path)
    }

    pub fn finish(self) -> Vec<ParameterSpec> {
        self.parameters
    }

    /// Declares the checkpoint's tensor `name`, relative to the unit.
    pub fn parameter(&mut self, name: &str, shape: &[i64]) -> Param {
        let trainable =
            matches!(self.options.method, Method::Full) && self.options.towers.contains(self.tower);
        let name = format!("{}{}", self.prefix.disk, join(&self.path, name));
        self.declare(name, shape, trainable, Init::Checkpoint)
    }

    /// Declares `name.weight [outputs, inputs]` and perhaps `name.bias [outputs]`; under LoRA
    /// also the adapter, if the module is a target.
    pub fn linear(&mut self, name: &str, inputs: i64, outputs: i64, bias: bool) -> Linear {
        let weight = self.parameter(&format!("{name}.weight"), &[outputs, inputs]);
        let bias = bias.then(|| self.parameter(&format!("{name}.bias"), &[outputs]));
        let lora = self.lora(name, inputs, outputs);
        Linear { weight, bias, lora }
    }

    /// Declares `name.weight [width]`, and `name.bias [width]` where the kind has one.
    pub fn norm(&mut self, name: &str, width: i64, kind: NormKind) -> Norm {
        match kind {
            NormKind::Rms { eps } => Norm::Rms(self.rms_norm(name, width, eps, false)),
            NormKind::RmsPlusOne { eps } => Norm::Rms(self.rms_norm(name, width, eps, true)),
            NormKind::Layer { eps } => Norm::Layer(LayerNorm {
                weight: self.parameter(&join(name, "weight"), &[width]),
                bias: self.parameter(&join(name, "bias"), &[width]),
                size: width,
                eps,
            }),
        }
    }

    fn rms_norm(&mut self, name: &str, width: i64, eps: f64, plus_one: bool) -> RmsNorm {
        let weight = self.parameter(&join(name, "weight"), &[width]);
        RmsNorm {
            weight,
            eps,
            plus_one,
        }
    }

    fn lora(&mut self, name: &str, inputs: i64, outputs: i64) -> Option<Lora> {
        let options = self.options;
        let Method::Lora(lora) = &options.method else {
            return None;
        };
        let module = format!("{}{}", self.prefix.module, join(&self.path, name));
        if !options.towers.contains(self.tower) || !lora.targets.matches(&module) {
            return None;
        }
        // PEFT's initial values: Kaiming-uniform with a = sqrt(5) for A, zeros for B.
        #[allow(clippy::cast_precision_loss)]
        let bound = 1.0 / (inputs as f64).sqrt();
        let stem = format!("{PEFT_PREFIX}{module}");
        let a = format!("{stem}.lora_A.weight");
        let b = format!("{stem}.lora_B.weight");
        let a = self.declare(a, &[lora.rank, inputs], true, Init::Uniform { bound });
        let b = self.declare(b, &[outputs, lora.rank], true, Init::Zeros);
        #[allow(clippy::cast_precision_loss)]
        let scale = lora.alpha / lora.rank as f64;
        Some(Lora {
            a,
            b,
            scale,
            dropout: lora.dropout,
        })
    }

    fn declare(&mut self, name: String, shape: &[i64], trainable: bool, init: Init) -> Param {
        let shape = shape.to_vec();
        self.parameters.push(ParameterSpec {
            name,
            shape,
            tower: self.tower,
            trainable,
            init,
        });
        Param(self.parameters.len() - 1)
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}
