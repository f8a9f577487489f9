//! Small Qwen2-VL models to start from nothing: their configuration and their tensors.

use serde_json::{Value, json};

use crate::models::random::RandomTensor;

/// Size of a model that `trainer init` makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Preset {
    /// 0.7 million parameters: learns a small data set on two CPU cores in a minute.
    Tiny,
    /// 65 million parameters.
    Small,
}

/// Token ids that config.json names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenIds {
    /// Size of the vocabulary, special tokens included.
    pub vocabulary: usize,
    pub end_of_text: u32,
    pub end_of_turn: u32,
    pub vision_start: u32,
    pub vision_end: u32,
    pub vision_pad: u32,
    pub image_pad: u32,
    pub video_pad: u32,
}

struct Shape {
    hidden: usize,
    mlp_width: usize,
    layers: usize,
    heads: usize,
    key_value_heads: usize,
    vision_width: usize,
    vision_depth: usize,
    vision_heads: usize,
}

const PATCH: usize = 14;
const TEMPORAL_PATCH: usize = 2;
const MERGE: usize = 2;
const VISION_MLP_RATIO: usize = 4;

impl Preset {
    fn shape(self) -> Shape {
        match self {
            Self::Tiny => Shape {
                hidden: 128,
                mlp_width: 384,
                layers: 2,
                heads: 4,
                key_value_heads: 2,
                vision_width: 64,
                vision_depth: 2,
                vision_heads: 2,
            },
            Self::Small => Shape {
                hidden: 512,
                mlp_width: 2048,
                layers: 10,
                heads: 8,
                key_value_heads: 4,
                vision_width: 512,
                vision_depth: 8,
                vision_heads: 8,
            },
        }
    }

    /// config.json in the form of the published checkpoints, which transformers 4 and 5 read.
    pub fn config(self, ids: &TokenIds) -> Value {
        let shape = self.shape();
        let half_head = shape.hidden / shape.heads / 2;
        // The published split: two eighths for time, three each for rows and columns.
        let time = half_head / 4;
        let row = (half_head - time) / 2;
        json!({
            "architectures": ["Qwen2VLForConditionalGeneration"],
            "model_type": "qwen2_vl",
            "attention_dropout": 0.0,
            "bos_token_id": ids.end_of_text,
            "eos_token_id": ids.end_of_turn,
            "pad_token_id": ids.end_of_text,
            "vision_start_token_id": ids.vision_start,
            "vision_end_token_id": ids.vision_end,
            "vision_token_id": ids.vision_pad,
            "image_token_id": ids.image_pad,
            "video_token_id": ids.video_pad,
            "vocab_size": ids.vocabulary,
            "hidden_act": "silu",
            "hidden_size": shape.hidden,
            "initializer_range": INITIALIZER_RANGE,
            "intermediate_size": shape.mlp_width,
            "max_position_embeddings": 32768,
            "max_window_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_hidden_layers": shape.layers,
            "num_key_value_heads": shape.key_value_heads,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1_000_000.0,
            "rope_scaling": {"type": "mrope", "mrope_section": [time, row, half_head - time - row]},
            "sliding_window": 32768,
            "use_sliding_window": false,
            "use_cache": true,
            "tie_word_embeddings": true,
            "torch_dtype": "float32",
            "vision_config": vision_config(&shape),
        })
    }

    /// preprocessor_config.json: the published processor's values.
    pub fn preprocessor_config(self) -> Value {
        json!({
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2VLProcessor",
            "do_convert_rgb": true,
            "do_normalize": true,
            "do_rescale": true,
            "do_resize": true,
            "image_mean": [0.481_454_66, 0.457_827_5, 0.408_210_73],
            "image_std": [0.268_629_54, 0.261_302_58, 0.275_777_11],
            "max_pixels": 28 * 28 * 1280,
            "merge_size": MERGE,
            "min_pixels": 56 * 56,
            "patch_size": PATCH,
            "resample": 3,
            "rescale_factor": 1.0 / 255.0,
            "size": {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280},
            "temporal_patch_size": TEMPORAL_PATCH,
        })
    }

    /// Every tensor, under the names of the published checkpoints.
    pub fn tensors(self, vocabulary: usize) -> Vec<RandomTensor> {
        let shape = self.shape();
        let mut tensors = vision_tensors(&shape);
        let hidden = shape.hidden;
        tensors.push(matrix("model.embed_tokens.weight", &[vocabulary, hidden]));
        for layer in 0..shape.layers {
            tensors.extend(decoder_tensors(&format!("model.layers.{layer}"), &shape));
        }
        tensors.push(RandomTensor::ones("model.norm.weight", hidden));
        tensors
    }
}

/// Standard deviation of a new matrix, as in transformers.
const INITIALIZER_RANGE: f64 = 0.02;

fn matrix(name: &str, shape: &[usize]) -> RandomTensor {
    RandomTensor::normal(name, shape, INITIALIZER_RANGE)
}

/// A linear layer `[outputs, inputs]` and its bias.
fn linear(name: &str, inputs: usize, outputs: usize) -> [RandomTensor; 2] {
    [
        matrix(&format!("{name}.weight"), &[outputs, inputs]),
        RandomTensor::zeros(&format!("{name}.bias"), outputs),
    ]
}

fn layer_norm(name: &str, width: usize) -> [RandomTensor; 2] {
    [
        RandomTensor::ones(&format!("{name}.weight"), width),
        RandomTensor::zeros(&format!("{name}.bias"), width),
    ]
}

fn vision_config(shape: &Shape) -> Value {
    json!({
        "model_type": "qwen2_vl",
        "depth": shape.vision_depth,
        "embed_dim": shape.vision_width,
        "hidden_act": "quick_gelu",
        "hidden_size": shape.hidden,
        "in_channels": 3,
        "in_chans": 3,
        "mlp_ratio": VISION_MLP_RATIO,
        "num_heads": shape.vision_heads,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "spatial_patch_size": PATCH,
        "temporal_patch_size": TEMPORAL_PATCH,
    })
}

fn vision_tensors(shape: &Shape) -> Vec<RandomTensor> {
    let width = shape.vision_width;
    let kernel = [width, 3, TEMPORAL_PATCH, PATCH, PATCH];
    let mut tensors = vec![matrix("visual.patch_embed.proj.weight", &kernel)];
    for block in 0..shape.vision_depth {
        let path = format!("visual.blocks.{block}");
        tensors.extend(layer_norm(&format!("{path}.norm1"), width));
        tensors.extend(layer_norm(&format!("{path}.norm2"), width));
        tensors.extend(linear(&format!("{path}.attn.qkv"), width, 3 * width));
        tensors.extend(linear(&format!("{path}.attn.proj"), width, width));
        let mlp_width = VISION_MLP_RATIO * width;
        tensors.extend(linear(&format!("{path}.mlp.fc1"), width, mlp_width));
        tensors.extend(linear(&format!("{path}.mlp.fc2"), mlp_width, width));
    }
    let merged = width * MERGE * MERGE;
    tensors.extend(layer_norm("visual.merger.ln_q", width));
    tensors.extend(linear("visual.merger.mlp.0", merged, merged));
    tensors.extend(linear("visual.merger.mlp.2", merged, shape.hidden));
    tensors
}

fn decoder_tensors(path: &str, shape: &Shape) -> Vec<RandomTensor> {
    let (hidden, mlp_width) = (shape.hidden, shape.mlp_width);
    let key_value = hidden / shape.heads * shape.key_value_heads;
    let attention = format!("{path}.self_attn");
    let mut tensors = Vec::new();
    tensors.extend(linear(&format!("{attention}.q_proj"), hidden, hidden));
    tensors.extend(linear(&format!("{attention}.k_proj"), hidden, key_value));
    tensors.extend(linear(&format!("{attention}.v_proj"), hidden, key_value));
    tensors.push(matrix(
        &format!("{attention}.o_proj.weight"),
        &[hidden, hidden],
    ));
    let mlp = format!("{path}.mlp");
    tensors.push(matrix(
        &format!("{mlp}.gate_proj.weight"),
        &[mlp_width, hidden],
    ));
    tensors.push(matrix(
        &format!("{mlp}.up_proj.weight"),
        &[mlp_width, hidden],
    ));
    tensors.push(matrix(
        &format!("{mlp}.down_proj.weight"),
        &[hidden, mlp_width],
    ));
    for norm in ["input_layernorm", "post_attention_layernorm"] {
        tensors.push(RandomTensor::ones(&format!("{path}.{norm}.weight"), hidden));
    }
    tensors
}
