//! A pre-norm transformer block over patches, as every supported tower has it.

use tch::Tensor;

use crate::engine::{Param, ParameterSpec, SideInputs, Stream, Unit, UnitContext, Weights};
use crate::error::{Error, Result};
use crate::models::builder::UnitBuilder;
use crate::models::layers::{
    Activation, AttentionOptions, Linear, Mlp, Norm, NormKind, attend, rotate,
};

/// Sizes and kind of a [`VisionBlock`].
#[derive(Debug, Clone, Copy)]
pub struct VisionBlockShape {
    pub width: i64,
    pub heads: i64,
    pub mlp_width: i64,
    pub activation: Activation,
    pub norm: NormKind,
    pub names: &'static BlockNames,
    /// Biases of query, key and value.
    pub qkv_bias: bool,
    /// Norms over the whole width of queries and keys (InternVL).
    pub qk_norm: Option<NormKind>,
}

/// What a tower calls the parts of its blocks.
#[derive(Debug)]
pub struct BlockNames {
    pub norms: [&'static str; 2],
    pub projections: ProjectionNames,
    pub output: &'static str,
    pub mlp: MlpNames,
    /// Learned factors of both branches (InternVL).
    pub scales: Option<[&'static str; 2]>,
}

/// One matrix for query, key and value, or three.
#[derive(Debug)]
pub enum ProjectionNames {
    Fused(&'static str),
    Apart([&'static str; 3]),
}

/// An MLP with or without a gate.
#[derive(Debug)]
pub enum MlpNames {
    Plain([&'static str; 2]),
    /// Gate, up, down.
    Gated([&'static str; 3]),
}

/// Qwen2-VL's `blocks.N`.
pub const QWEN2_VL_BLOCK: BlockNames = BlockNames {
    norms: ["norm1", "norm2"],
    projections: ProjectionNames::Fused("attn.qkv"),
    output: "attn.proj",
    mlp: MlpNames::Plain(["mlp.fc1", "mlp.fc2"]),
    scales: None,
};
/// Qwen2.5-VL's.
pub const QWEN2_5_VL_BLOCK: BlockNames = BlockNames {
    mlp: MlpNames::Gated(["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]),
    ..QWEN2_VL_BLOCK
};
/// Qwen3-VL's.
pub const QWEN3_VL_BLOCK: BlockNames = BlockNames {
    mlp: MlpNames::Plain(["mlp.linear_fc1", "mlp.linear_fc2"]),
    ..QWEN2_VL_BLOCK
};
/// CLIP's and SigLIP's `encoder.layers.N`.
pub const CLIP_BLOCK: BlockNames = BlockNames {
    norms: ["layer_norm1", "layer_norm2"],
    projections: ProjectionNames::Apart([
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
    ]),
    output: "self_attn.out_proj",
    mlp: MlpNames::Plain(["mlp.fc1", "mlp.fc2"]),
    scales: None,
};
/// InternVL's `encoder.layer.N`.
pub const INTERN_BLOCK: BlockNames = BlockNames {
    norms: ["layernorm_before", "layernorm_after"],
    projections: ProjectionNames::Apart([
        "attention.q_proj",
        "attention.k_proj",
        "attention.v_proj",
    ]),
    output: "attention.projection_layer",
    mlp: MlpNames::Plain(["mlp.fc1", "mlp.fc2"]),
    scales: Some(["lambda_1", "lambda_2"]),
};

/// Norm, attention, norm, MLP; each branch is added to what goes in.
#[derive(Debug)]
pub struct VisionBlock {
    name: String,
    parameters: Vec<ParameterSpec>,
    heads: i64,
    norms: [Norm; 2],
    projections: Projections,
    head_norms: Option<[Norm; 2]>,
    output: Linear,
    mlp: Mlp,
    scales: Option<[Param; 2]>,
    /// Which of the tower's attention layouts it uses.
    layout: usize,
}

#[derive(Debug)]
enum Projections {
    Fused(Linear),
    Apart([Linear; 3]),
}

impl VisionBlock {
    /// `layout` is an index into the tower's layouts.
    pub fn new(mut b: UnitBuilder, shape: VisionBlockShape, layout: usize) -> Self {
        let VisionBlockShape {
            width,
            heads,
            names,
            ..
        } = shape;
        let norms = names.norms.map(|name| b.norm(name, width, shape.norm));
        let bias = shape.qkv_bias;
        let projections = match &names.projections {
            ProjectionNames::Fused(name) => {
                Projections::Fused(b.linear(name, width, 3 * width, bias))
            }
            ProjectionNames::Apart(names) => {
                Projections::Apart(names.map(|name| b.linear(name, width, width, bias)))
            }
        };
        let head_norms = shape.qk_norm.map(|kind| {
            ["attention.q_norm", "attention.k_norm"].map(|name| b.norm(name, width, kind))
        });
        Self {
            heads,
            norms,
            projections,
            head_norms,
            output: b.linear(names.output, width, width, true),
            mlp: mlp(&mut b, &shape),
            scales: names
                .scales
                .map(|names| names.map(|name| b.parameter(name, &[width]))),
            layout,
            name: b.module(),
            parameters: b.finish(),
        }
    }

    /// Queries, keys and values, `[P, N, D]` each.
    fn project(&self, x: &Tensor, weights: &Weights, context: &UnitContext) -> Result<[Tensor; 3]> {
        let (rows, width) = x.size2()?;
        let size = width / self.heads;
        match &self.projections {
            Projections::Fused(fused) => {
                let all = fused.forward(x, weights, context)?;
                let all = all.f_view([rows, 3, self.heads, size])?;
                <[Tensor; 3]>::try_from(all.f_unbind(1)?)
                    .map_err(|_| Error::Bug("query, key and value are three".into()))
            }
            Projections::Apart([query, key, value]) => {
                let project = |linear: &Linear, norm: Option<&Norm>| -> Result<Tensor> {
                    let mut y = linear.forward(x, weights, context)?;
                    if let Some(norm) = norm {
                        y = norm.forward(&y, weights)?;
                    }
                    Ok(y.f_view([rows, self.heads, size])?)
                };
                let norms = self.head_norms.as_ref();
                Ok([
                    project(query, norms.map(|norms| &norms[0]))?,
                    project(key, norms.map(|norms| &norms[1]))?,
                    project(value, None)?,
                ])
            }
        }
    }

    fn attention(&self, x: &Tensor, weights: &Weights, context: &UnitContext) -> Result<Tensor> {
        let vision = context.side.vision.as_ref();
        let layout = vision.and_then(|v| v.layouts.get(self.layout));
        let layout = layout.ok_or_else(|| Error::Bug("no layout for the vision tower".into()))?;
        let [mut query, mut key, value] = self.project(x, weights, context)?;
        if let Some(rotary) = &layout.rotary {
            query = rotate(&query, rotary)?;
            key = rotate(&key, rotary)?;
        }
        let attended = attend(&query, &key, &value, layout, AttentionOptions::default())?;
        self.output.forward(&attended, weights, context)
    }

    fn scaled(&self, branch: usize, y: Tensor, weights: &Weights) -> Result<Tensor> {
        match self.scales.and_then(|scales| scales.get(branch).copied()) {
            Some(scale) => Ok(y.f_mul(&weights[scale])?),
            None => Ok(y),
        }
    }

    fn linears(&self) -> Vec<Linear> {
        let mut linears = vec![self.output];
        match self.projections {
            Projections::Fused(fused) => linears.push(fused),
            Projections::Apart(three) => linears.extend(three),
        }
        linears
    }
}

fn mlp(b: &mut UnitBuilder, shape: &VisionBlockShape) -> Mlp {
    let VisionBlockShape {
        width,
        mlp_width,
        activation,
        ..
    } = *shape;
    match shape.names.mlp {
        MlpNames::Plain([up, down]) => Mlp::Plain {
            up: b.linear(up, width, mlp_width, true),
            down: b.linear(down, mlp_width, width, true),
            activation,
        },
        MlpNames::Gated([gate, up, down]) => Mlp::Gated {
            gate: b.linear(gate, width, mlp_width, true),
            up: b.linear(up, width, mlp_width, true),
            down: b.linear(down, mlp_width, width, true),
            activation,
        },
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
        self.mlp.random() || self.linears().iter().any(Linear::random)
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
        let [before, between] = &self.norms;
        let attended = self.attention(&before.forward(x, weights)?, weights, context)?;
        let x = x.f_add(&self.scaled(0, attended, weights)?)?;
        let inner = self
            .mlp
            .forward(&between.forward(&x, weights)?, weights, context)?;
        Ok(vec![x.f_add(&self.scaled(1, inner, weights)?)?])
    }
}
