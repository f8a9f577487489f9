//! Units, the granule of recompute, sharding and memory accounting, with their parameters.

use super::Tower;

/// One parameter of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterShape {
    /// Module path below the unit, for example `self_attn.q_proj`.
    pub module: &'static str,
    pub numel: i64,
    /// Whether it is a matrix: weight decay applies, and so it lies in another flat buffer.
    pub decay: bool,
    /// Inputs and outputs, if it is the weight of a linear layer that an adapter can stand by.
    pub linear: Option<(i64, i64)>,
}

/// What a unit computes, as far as its activations differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitKind {
    /// Flattened patches to patch states.
    PatchEmbed {
        width: i64,
    },
    Vision(VisionShape),
    /// Patch states to features of the language model: `inner` is the width of its hidden layer,
    /// 0 if it is a single matrix.
    Projector {
        width: i64,
        merge: i64,
        inner: i64,
        output: i64,
    },
    Embedding,
    Decoder(DecoderShape),
    /// Final norm, projection to the vocabulary and loss.
    Head,
}

/// A transformer block over patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VisionShape {
    pub width: i64,
    pub mlp_width: i64,
    pub heads: i64,
    /// Query, key and value come from one matrix.
    pub fused: bool,
    pub rotary: bool,
    /// Root-mean-square norm and gated MLP, as in the language model.
    pub gated: bool,
    /// `x * sigmoid(1.702 x)`, which keeps one more tensor for backward.
    pub quick_gelu: bool,
}

/// A decoder block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecoderShape {
    pub hidden: i64,
    pub heads: i64,
    pub key_value_heads: i64,
    pub head_size: i64,
    pub mlp_width: i64,
    pub qkv_bias: bool,
}

/// `count` equal units that follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitShape {
    pub tower: Tower,
    pub count: i64,
    pub kind: UnitKind,
    pub list: Vec<ParameterShape>,
}

impl UnitShape {
    /// Parameters of one of them.
    pub fn parameters(&self) -> i64 {
        self.list.iter().map(|parameter| parameter.numel).sum()
    }
}

/// Declares a unit's parameters.
#[derive(Debug, Default)]
pub(super) struct Parameters(Vec<ParameterShape>);

impl Parameters {
    /// `[outputs, inputs]`, with a bias if `bias`.
    pub fn linear(self, module: &'static str, inputs: i64, outputs: i64, bias: bool) -> Self {
        let weight = ParameterShape {
            module,
            numel: inputs * outputs,
            decay: true,
            linear: Some((inputs, outputs)),
        };
        let parameters = self.push(weight);
        match bias {
            true => parameters.vector(module, outputs),
            false => parameters,
        }
    }

    /// A bias or a norm's weight.
    pub fn vector(self, module: &'static str, numel: i64) -> Self {
        self.push(ParameterShape {
            module,
            numel,
            decay: false,
            linear: None,
        })
    }

    /// A matrix that no adapter stands by: embeddings, convolutions, the output head.
    pub fn table(self, module: &'static str, numel: i64) -> Self {
        self.push(ParameterShape {
            module,
            numel,
            decay: true,
            linear: None,
        })
    }

    fn push(mut self, parameter: ParameterShape) -> Self {
        self.0.push(parameter);
        self
    }

    pub fn unit(self, tower: Tower, count: i64, kind: UnitKind) -> UnitShape {
        UnitShape {
            tower,
            count,
            kind,
            list: self.0,
        }
    }
}

/// A Llama or Qwen2 decoder block.
pub(super) fn decoder(shape: DecoderShape, layers: i64) -> UnitShape {
    let DecoderShape {
        hidden,
        heads,
        key_value_heads,
        head_size,
        mlp_width,
        qkv_bias,
    } = shape;
    let (query, key) = (heads * head_size, key_value_heads * head_size);
    Parameters::default()
        .vector("input_layernorm", hidden)
        .linear("self_attn.q_proj", hidden, query, qkv_bias)
        .linear("self_attn.k_proj", hidden, key, qkv_bias)
        .linear("self_attn.v_proj", hidden, key, qkv_bias)
        .linear("self_attn.o_proj", query, hidden, false)
        .vector("post_attention_layernorm", hidden)
        .linear("mlp.gate_proj", hidden, mlp_width, false)
        .linear("mlp.up_proj", hidden, mlp_width, false)
        .linear("mlp.down_proj", mlp_width, hidden, false)
        .unit(Tower::Language, layers, UnitKind::Decoder(shape))
}

/// Token embedding, decoder blocks, final norm and head.
pub(super) fn language(
    shape: DecoderShape,
    layers: i64,
    vocabulary: i64,
    tied: bool,
) -> [UnitShape; 3] {
    let hidden = shape.hidden;
    let embedding = Parameters::default().table("embed_tokens", vocabulary * hidden);
    let mut head = Parameters::default().vector("norm", hidden);
    if !tied {
        head = head.table("lm_head", vocabulary * hidden);
    }
    [
        embedding.unit(Tower::Language, 1, UnitKind::Embedding),
        decoder(shape, layers),
        head.unit(Tower::Language, 1, UnitKind::Head),
    ]
}

/// A vision block, with query, key and value fused (Qwen2-VL) or apart (CLIP, SigLIP).
pub(super) fn vision_block(shape: VisionShape, layers: i64) -> UnitShape {
    let VisionShape {
        width,
        mlp_width,
        fused,
        gated,
        ..
    } = shape;
    let norm = |parameters: Parameters, module| match gated {
        true => parameters.vector(module, width),
        false => parameters.vector(module, width).vector(module, width),
    };
    let mut block = norm(Parameters::default(), "norm1");
    block = match fused {
        true => {
            block
                .linear("attn.qkv", width, 3 * width, true)
                .linear("attn.proj", width, width, true)
        }
        false => block
            .linear("self_attn.q_proj", width, width, true)
            .linear("self_attn.k_proj", width, width, true)
            .linear("self_attn.v_proj", width, width, true)
            .linear("self_attn.out_proj", width, width, true),
    };
    block = norm(block, "norm2");
    block = match gated {
        true => block
            .linear("mlp.gate_proj", width, mlp_width, true)
            .linear("mlp.up_proj", width, mlp_width, true)
            .linear("mlp.down_proj", mlp_width, width, true),
        false => block
            .linear("mlp.fc1", width, mlp_width, true)
            .linear("mlp.fc2", mlp_width, width, true),
    };
    block.unit(Tower::Vision, layers, UnitKind::Vision(shape))
}
