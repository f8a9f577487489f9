//! A pre-norm transformer block over patches, with fused query-key-value.

use tch::Tensor;

use crate::engine::{ParameterSpec, SideInputs, Stream, Unit, UnitContext, Weights};
use crate::error::{Error, Result};
use crate::models::builder::UnitBuilder;
use crate::models::layers::{Activation, LayerNorm, Linear, attend, rotate};

/// Sizes of a [`VisionBlock`].
#[derive(Debug, Clone, Copy)]
pub struct VisionBlockShape {
    pub width: i64,
    pub heads: i64,
    pub mlp_width: i64,
    pub activation: Activation,
    pub norm_eps: f64,
    /// Which of the tower's attention layouts it uses.
    pub layout: usize,
}

/// `norm1`, attention, `norm2`, MLP, as Qwen2-VL's `blocks.N`.
#[derive(Debug)]
pub struct VisionBlock {
    name: String,
    parameters: Vec<ParameterSpec>,
    shape: VisionBlockShape,
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl VisionBlock {
    pub fn new(mut b: UnitBuilder, shape: VisionBlockShape) -> Self {
        let VisionBlockShape {
            width,
            mlp_width,
            norm_eps,
            ..
        } = shape;
        let norm = |b: &mut UnitBuilder, name: &str| LayerNorm {
            weight: b.parameter(&format!("{name}.weight"), &[width]),
            bias: b.parameter(&format!("{name}.bias"), &[width]),
            size: width,
            eps: norm_eps,
        };
        let norm1 = norm(&mut b, "norm1");
        let qkv = b.linear("attn.qkv", width, 3 * width, true);
        let proj = b.linear("attn.proj", width, width, true);
        let norm2 = norm(&mut b, "norm2");
        let fc1 = b.linear("mlp.fc1", width, mlp_width, true);
        let fc2 = b.linear("mlp.fc2", mlp_width, width, true);
        let (name, parameters) = (b.module(), b.finish());
        Self {
            name,
            parameters,
            shape,
            norm1,
            qkv,
            proj,
            norm2,
            fc1,
            fc2,
        }
    }

    fn attention(&self, x: &Tensor, weights: &Weights, context: &UnitContext) -> Result<Tensor> {
        let vision = context.side.vision.as_ref();
        let layout = vision.and_then(|v| v.layouts.get(self.shape.layout));
        let layout = layout.ok_or_else(|| Error::Bug("no layout for the vision tower".into()))?;
        let VisionBlockShape { width, heads, .. } = self.shape;
        let qkv = self.qkv.forward(x, weights, context)?;
        let qkv = qkv.f_view([-1, 3, heads, width / heads])?;
        let [query, key, value] = <[Tensor; 3]>::try_from(qkv.f_unbind(1)?)
            .map_err(|_| Error::Bug("query, key and value are three".into()))?;
        let (query, key) = match &layout.rotary {
            Some(rotary) => (rotate(&query, rotary)?, rotate(&key, rotary)?),
            None => (query, key),
        };
        let attended = attend(&query, &key, &value, layout, 0.0)?;
        self.proj.forward(&attended, weights, context)
    }

    fn mlp(&self, x: &Tensor, weights: &Weights, context: &UnitContext) -> Result<Tensor> {
        let inner = self
            .shape
            .activation
            .forward(&self.fc1.forward(x, weights, context)?)?;
        self.fc2.forward(&inner, weights, context)
    }
}

impl Unit for VisionBlock {
    fn name(&self) -> &str {
        &self.name
    }

    fn parameters(&self) -> &[ParameterSpec] {
        &self.parameters
    }

    fn reads(&self, _side: &SideInputs) -> &[Stream] {
        &[Stream::Vision]
    }

    fn writes(&self) -> &[Stream] {
        &[Stream::Vision]
    }

    fn active(&self, side: &SideInputs) -> bool {
        side.vision.is_some()
    }

    fn random(&self) -> bool {
        [self.qkv, self.proj, self.fc1, self.fc2]
            .iter()
            .any(Linear::random)
    }

    fn forward(
        &self,
        weights: &Weights,
        inputs: &[Tensor],
        context: &UnitContext,
    ) -> Result<Vec<Tensor>> {
        let [x] = inputs else {
            return Err(Error::Bug("a vision block reads one stream".into()));
        };
        let x = x.f_add(&self.attention(&self.norm1.forward(x, weights)?, weights, context)?)?;
        Ok(vec![x.f_add(&self.mlp(
            &self.norm2.forward(&x, weights)?,
            weights,
            context,
        )?)?])
    }
}
