//! A pre-norm decoder block with grouped-query attention and a gated MLP.

use tch::Tensor;

use crate::engine::{ParameterSpec, SideInputs, Stream, Unit, UnitContext, Weights};
use crate::error::{Error, Result};
use crate::models::builder::UnitBuilder;
use crate::models::layers::{Activation, Linear, RmsNorm, attend, attend_cached, rotate};

/// Sizes of a [`DecoderBlock`].
#[derive(Debug, Clone, Copy)]
pub struct DecoderBlockShape {
    pub hidden: i64,
    pub heads: i64,
    pub key_value_heads: i64,
    pub head_size: i64,
    pub mlp_width: i64,
    pub activation: Activation,
    pub norm_eps: f64,
    /// Bias of query, key and value.
    pub qkv_bias: bool,
    pub attention_dropout: f64,
    /// Which of the model's attention layouts it uses.
    pub layout: usize,
}

/// `input_layernorm`, `self_attn`, `post_attention_layernorm`, `mlp`.
#[derive(Debug)]
pub struct DecoderBlock {
    name: String,
    parameters: Vec<ParameterSpec>,
    shape: DecoderBlockShape,
    input_norm: RmsNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    post_norm: RmsNorm,
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl DecoderBlock {
    pub fn new(mut b: UnitBuilder, shape: DecoderBlockShape) -> Self {
        let DecoderBlockShape {
            hidden,
            mlp_width,
            norm_eps: eps,
            qkv_bias,
            ..
        } = shape;
        let query_width = shape.heads * shape.head_size;
        let key_width = shape.key_value_heads * shape.head_size;
        let input_norm = RmsNorm {
            weight: b.parameter("input_layernorm.weight", &[hidden]),
            eps,
        };
        let q_proj = b.linear("self_attn.q_proj", hidden, query_width, qkv_bias);
        let k_proj = b.linear("self_attn.k_proj", hidden, key_width, qkv_bias);
        let v_proj = b.linear("self_attn.v_proj", hidden, key_width, qkv_bias);
        let o_proj = b.linear("self_attn.o_proj", query_width, hidden, false);
        let weight = b.parameter("post_attention_layernorm.weight", &[hidden]);
        let post_norm = RmsNorm { weight, eps };
        let gate_proj = b.linear("mlp.gate_proj", hidden, mlp_width, false);
        let up_proj = b.linear("mlp.up_proj", hidden, mlp_width, false);
        let down_proj = b.linear("mlp.down_proj", mlp_width, hidden, false);
        let (name, parameters) = (b.module(), b.finish());
        Self {
            name,
            parameters,
            shape,
            input_norm,
            q_proj,
            k_proj,
            v_proj,
            o_proj,
            post_norm,
            gate_proj,
            up_proj,
            down_proj,
        }
    }

    fn attention(&self, x: &Tensor, weights: &Weights, context: &UnitContext) -> Result<Tensor> {
        let layout = context.side.language.get(self.shape.layout);
        let layout = layout.ok_or_else(|| Error::Bug("no layout for the language model".into()))?;
        let heads = |projection: &Linear| -> Result<Tensor> {
            let y = projection.forward(x, weights, context)?;
            Ok(y.f_view([y.size2()?.0, -1, self.shape.head_size])?)
        };
        let (query, key, value) = (
            heads(&self.q_proj)?,
            heads(&self.k_proj)?,
            heads(&self.v_proj)?,
        );
        let (query, key) = match &layout.rotary {
            Some(rotary) => (rotate(&query, rotary)?, rotate(&key, rotary)?),
            None => (query, key),
        };
        let dropout = if context.training {
            self.shape.attention_dropout
        } else {
            0.0
        };
        let attended = match &context.cache {
            None => attend(&query, &key, &value, layout, dropout)?,
            Some(cache) => attend_cached(&query, &cache.extend(&key, &value)?, layout)?,
        };
        self.o_proj.forward(&attended, weights, context)
    }

    fn mlp(&self, x: &Tensor, weights: &Weights, context: &UnitContext) -> Result<Tensor> {
        let gate = self
            .shape
            .activation
            .forward(&self.gate_proj.forward(x, weights, context)?)?;
        let up = self.up_proj.forward(x, weights, context)?;
        self.down_proj.forward(&gate.f_mul(&up)?, weights, context)
    }

    fn linears(&self) -> [Linear; 7] {
        [
            self.q_proj,
            self.k_proj,
            self.v_proj,
            self.o_proj,
            self.gate_proj,
            self.up_proj,
            self.down_proj,
        ]
    }
}

impl Unit for DecoderBlock {
    fn name(&self) -> &str {
        &self.name
    }

    fn parameters(&self) -> &[ParameterSpec] {
        &self.parameters
    }

    fn reads(&self, _side: &SideInputs) -> &[Stream] {
        &[Stream::Hidden]
    }

    fn writes(&self) -> &[Stream] {
        &[Stream::Hidden]
    }

    fn active(&self, _side: &SideInputs) -> bool {
        true
    }

    fn random(&self) -> bool {
        self.shape.attention_dropout > 0.0 || self.linears().iter().any(Linear::random)
    }

    fn forward(
        &self,
        weights: &Weights,
        inputs: &[Tensor],
        context: &UnitContext,
    ) -> Result<Vec<Tensor>> {
        let [x] = inputs else {
            return Err(Error::Bug("a decoder block reads one stream".into()));
        };
        let normed = self.input_norm.forward(x, weights)?;
        let x = x.f_add(&self.attention(&normed, weights, context)?)?;
        let normed = self.post_norm.forward(&x, weights)?;
        Ok(vec![x.f_add(&self.mlp(&normed, weights, context)?)?])
    }
}
