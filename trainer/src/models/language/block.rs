//! A pre-norm decoder block with grouped-query attention and a gated MLP.

use tch::Tensor;

use super::config::TextConfig;
use crate::engine::{
    AttentionLayout, ParameterSpec, SideInputs, Stream, Unit, UnitContext, Weights,
};
use crate::error::{Error, Result};
use crate::models::builder::UnitBuilder;
use crate::models::layers::{AttentionOptions, Linear, Mlp, Norm, attend, attend_cached, rotate};

/// `input_layernorm`, `self_attn`, `post_attention_layernorm`, `mlp`; Gemma 3 has a norm behind
/// attention and MLP too.
#[derive(Debug)]
pub struct DecoderBlock {
    name: String,
    parameters: Vec<ParameterSpec>,
    input_norm: Norm,
    attention: Attention,
    /// Behind attention, before its output is added.
    attention_norm: Option<Norm>,
    mlp_norm: Norm,
    mlp: Mlp,
    output_norm: Option<Norm>,
}

#[derive(Debug)]
struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    /// Over each head's queries and keys.
    head_norms: Option<[Norm; 2]>,
    head_size: i64,
    options: AttentionOptions,
    /// Which of the model's attention layouts it uses.
    layout: usize,
}

impl DecoderBlock {
    /// `layout` is the block's kind of attention, an index into `config.kinds`.
    pub fn new(mut b: UnitBuilder, config: &TextConfig, layout: usize) -> Self {
        let (hidden, norm) = (config.hidden, config.norm);
        let input_norm = b.norm("input_layernorm", hidden, norm);
        let attention = Attention::new(&mut b, config, layout);
        let behind = b.norm("post_attention_layernorm", hidden, norm);
        // Where norms stand on both sides, that name is the one behind attention.
        let (attention_norm, mlp_norm, output_norm) = match config.sandwich {
            false => (None, behind, None),
            true => (
                Some(behind),
                b.norm("pre_feedforward_layernorm", hidden, norm),
                Some(b.norm("post_feedforward_layernorm", hidden, norm)),
            ),
        };
        let (width, bias) = (config.mlp_width, config.mlp_bias);
        let mlp = Mlp::Gated {
            gate: b.linear("mlp.gate_proj", hidden, width, bias),
            up: b.linear("mlp.up_proj", hidden, width, bias),
            down: b.linear("mlp.down_proj", width, hidden, bias),
            activation: config.activation,
        };
        Self {
            name: b.module(),
            parameters: b.finish(),
            input_norm,
            attention,
            attention_norm,
            mlp_norm,
            mlp,
            output_norm,
        }
    }
}

impl Attention {
    fn new(b: &mut UnitBuilder, config: &TextConfig, layout: usize) -> Self {
        let (hidden, size) = (config.hidden, config.head_size);
        let (queries, keys) = (config.heads * size, config.key_value_heads * size);
        let bias = config.qkv_bias;
        Self {
            query: b.linear("self_attn.q_proj", hidden, queries, bias),
            key: b.linear("self_attn.k_proj", hidden, keys, bias),
            value: b.linear("self_attn.v_proj", hidden, keys, bias),
            output: b.linear("self_attn.o_proj", queries, hidden, config.output_bias),
            head_norms: config.qk_norm.then(|| {
                ["q_norm", "k_norm"].map(|n| b.norm(&format!("self_attn.{n}"), size, config.norm))
            }),
            head_size: size,
            options: AttentionOptions {
                scale: config.attention_scale,
                dropout: config.attention_dropout,
            },
            layout,
        }
    }

    fn forward(&self, x: &Tensor, weights: &Weights, context: &UnitContext) -> Result<Tensor> {
        let layout = context.side.language.get(self.layout);
        let layout = layout.ok_or_else(|| Error::Bug("no layout for the language model".into()))?;
        let heads = |projection: &Linear| -> Result<Tensor> {
            let y = projection.forward(x, weights, context)?;
            Ok(y.f_view([y.size2()?.0, -1, self.head_size])?)
        };
        let value = heads(&self.value)?;
        let (mut query, mut key) = (heads(&self.query)?, heads(&self.key)?);
        if let Some([query_norm, key_norm]) = &self.head_norms {
            query = query_norm.forward(&query, weights)?;
            key = key_norm.forward(&key, weights)?;
        }
        if let Some(rotary) = &layout.rotary {
            query = rotate(&query, rotary)?;
            key = rotate(&key, rotary)?;
        }
        let attended = self.attend([&query, &key, &value], layout, context)?;
        self.output.forward(&attended, weights, context)
    }

    fn attend(
        &self,
        [query, key, value]: [&Tensor; 3],
        layout: &AttentionLayout,
        context: &UnitContext,
    ) -> Result<Tensor> {
        let mut options = self.options;
        if !context.training {
            options.dropout = 0.0;
        }
        match &context.cache {
            None => attend(query, key, value, layout, options),
            Some(cache) => attend_cached(query, &cache.extend(key, value)?, layout, options),
        }
    }

    fn random(&self) -> bool {
        let linears = [self.query, self.key, self.value, self.output];
        self.options.dropout > 0.0 || linears.iter().any(Linear::random)
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
        self.attention.random() || self.mlp.random()
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
        let optional = |norm: &Option<Norm>, y: Tensor| match norm {
            Some(norm) => norm.forward(&y, weights),
            None => Ok(y),
        };
        let normed = self.input_norm.forward(x, weights)?;
        let attended = self.attention.forward(&normed, weights, context)?;
        let x = x.f_add(&optional(&self.attention_norm, attended)?)?;
        let normed = self.mlp_norm.forward(&x, weights)?;
        let inner = self.mlp.forward(&normed, weights, context)?;
        Ok(vec![x.f_add(&optional(&self.output_norm, inner)?)?])
    }
}
