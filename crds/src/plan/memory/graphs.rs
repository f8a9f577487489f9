//! What autograd keeps of one unit, by what its layers compute.
//! Legend: T tokens, P patches, H hidden, W vision width, F MLP width, c bytes of the compute kind.
//! Source: `trainer/src/models`; docs/memory.md lists the tensors.

use super::groups::Group;
use crate::plan::model_shape::{DecoderShape, ModelShape, UnitKind, VisionShape};

/// Rows of one forward pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows {
    pub tokens: i128,
    pub patches: i128,
}

/// What backward needs besides what was kept.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extra {
    pub activations: i128,
    /// The gradient of one weight before it is added, or one dequantised weight.
    pub working: i128,
}

/// Which tensors autograd keeps of a unit.
#[derive(Debug, Clone, Copy)]
struct Keeps {
    compute: i128,
    /// Inputs of linear layers: their weights or matrices beside them train.
    inputs: bool,
    /// Normed rows before the norm's own weight.
    normed: bool,
}

impl Keeps {
    fn of(group: &Group, compute: i128) -> Self {
        Self {
            compute,
            inputs: group.trains || group.lora.is_some(),
            normed: group.trains,
        }
    }

    fn if_inputs(self, bytes: i128) -> i128 {
        if self.inputs { bytes } else { 0 }
    }

    /// Bytes of a root-mean-square norm for each entry of a row: the float32 copy that it makes
    /// of narrower rows, the normed rows, the output.
    fn rms_norm(self) -> i128 {
        let wide = if self.compute < 4 { 4 } else { 0 };
        let normed = if self.normed { self.compute } else { 0 };
        wide + normed + self.if_inputs(self.compute)
    }
}

/// Side inputs that every unit reads: token ids, labels and rotations; pixels and rotations.
pub(super) fn side_bytes(shape: &ModelShape, rows: Rows, compute: i128) -> (i128, i128) {
    let mut text = 24 * rows.tokens;
    let mut images = compute * rows.patches * i128::from(shape.image.patch_values);
    for unit in &shape.units {
        match unit.kind {
            UnitKind::Decoder(decoder) => {
                text += 2 * compute * rows.tokens * i128::from(decoder.head_size);
            }
            UnitKind::Vision(vision) if vision.rotary => {
                let head = i128::from(vision.width / vision.heads.max(1));
                images += 2 * compute * rows.patches * head;
            }
            _ => {}
        }
    }
    (text, images)
}

/// The streams that one unit reads, which recomputation starts from.
pub(super) fn input_bytes(group: &Group, rows: Rows, compute: i128) -> i128 {
    let (count, width) = match group.unit.kind {
        UnitKind::PatchEmbed { .. } => return 0,
        UnitKind::Vision(shape) => (rows.patches, shape.width),
        UnitKind::Projector { width, .. } => (rows.patches, width),
        UnitKind::Embedding => return 0,
        UnitKind::Decoder(shape) => (rows.tokens, shape.hidden),
        UnitKind::Head => return 0,
    };
    compute * count * i128::from(width)
}

/// What autograd keeps of one unit, its input apart.
pub(super) fn graph_bytes(group: &Group, rows: Rows, compute: i128) -> i128 {
    let keeps = Keeps::of(group, compute);
    let own = match group.unit.kind {
        UnitKind::PatchEmbed { .. } | UnitKind::Embedding | UnitKind::Head => 0,
        UnitKind::Vision(shape) => rows.patches * vision_row(shape, keeps),
        UnitKind::Decoder(shape) => rows.tokens * decoder_row(shape, keeps),
        UnitKind::Projector {
            width,
            merge,
            inner,
            output,
        } => {
            let [width, merge, inner, output] = [width, merge, inner, output].map(i128::from);
            let features = rows.patches / merge.max(1);
            let normed = keeps.if_inputs(compute * rows.patches * width);
            let hidden = compute * inner + keeps.if_inputs(compute * inner);
            normed + features * (hidden + compute * output)
        }
    };
    own + adapter_bytes(group, rows, compute)
}

/// Inner rows of low-rank matrices and bottlenecks, and what dropout keeps.
fn adapter_bytes(group: &Group, rows: Rows, compute: i128) -> i128 {
    let count = match group.unit.kind {
        UnitKind::Decoder(_) => rows.tokens,
        _ => rows.patches,
    };
    let mut bytes = 0;
    if let Some(lora) = &group.lora {
        let layers = i128::try_from(lora.layers.len()).unwrap_or(0);
        bytes += count * layers * lora.rank * compute;
        if lora.dropout {
            let inputs: i128 = lora.layers.iter().map(|(inputs, _)| inputs).sum();
            bytes += count * inputs * (compute + 1);
        }
    }
    bytes + 2 * compute * count * group.bottleneck.unwrap_or(0)
}

/// Bytes of one token in one decoder block.
fn decoder_row(shape: DecoderShape, keeps: Keeps) -> i128 {
    let [hidden, heads, inner] = [shape.hidden, shape.heads, shape.mlp_width].map(i128::from);
    let head = i128::from(shape.head_size);
    let (query, key) = (heads * head, i128::from(shape.key_value_heads) * head);
    let c = keeps.compute;
    // The second norm keeps its input where it makes no float32 copy of it.
    let between = if c < 4 { 0 } else { c * hidden };
    let norms = 2 * hidden * keeps.rms_norm() + between;
    // Rotated queries, keys, values, output; the log of each row's sum in float32.
    let attention = c * (2 * query + 2 * key) + 4 * heads;
    // Gate, activated gate, up; their product.
    let mlp = 3 * c * inner + keeps.if_inputs(c * inner);
    norms + attention + mlp
}

/// Bytes of one patch in one vision block.
fn vision_row(shape: VisionShape, keeps: Keeps) -> i128 {
    let [width, inner, heads] = [shape.width, shape.mlp_width, shape.heads].map(i128::from);
    let c = keeps.compute;
    let norms = match shape.gated {
        true => 2 * width * keeps.rms_norm() + if c < 4 { 0 } else { c * width },
        // A layer norm keeps its input and two float32 numbers.
        false => c * width + keeps.if_inputs(2 * c * width) + 16,
    };
    // Values stay in the fused matrix's output; rotation makes new queries and keys.
    let rotated = if shape.fused && shape.rotary {
        2 * width
    } else {
        0
    };
    let attention = c * (3 * width + rotated + width) + 4 * heads;
    let activated = match (shape.gated, shape.quick_gelu) {
        (true, _) => 3,
        (false, true) => 2,
        (false, false) => 1,
    };
    let mlp = activated * c * inner + keeps.if_inputs(c * inner);
    norms + attention + mlp
}

/// What backward through one unit makes: gradients of the widest rows, of the unit's output and
/// input, and of one weight at a time.
pub(super) fn backward_extra(group: &Group, rows: Rows, compute: i128) -> Extra {
    let (count, width, inner) = match group.unit.kind {
        UnitKind::Decoder(shape) => (rows.tokens, shape.hidden, shape.mlp_width),
        UnitKind::Vision(shape) => (rows.patches, shape.width, shape.mlp_width),
        UnitKind::Projector { width, .. } => (rows.patches, width, width),
        UnitKind::PatchEmbed { width } => (rows.patches, width, 0),
        UnitKind::Embedding | UnitKind::Head => {
            return Extra::default();
        }
    };
    let (width, inner) = (i128::from(width), i128::from(inner));
    let ends = 2 * compute * count * width;
    let one_weight = match group.trains || group.quantised.is_some() {
        true => compute * group.largest_matrix(),
        false => 0,
    };
    // Both inner gradients at once, or one beside the weight's gradient.
    let inner = compute * count * inner;
    Extra {
        activations: ends + inner,
        working: one_weight.max(inner),
    }
}
