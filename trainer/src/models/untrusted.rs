//! That no number of a config.json gets by unchecked, for any family.

use serde_json::{Value, json};

use super::config::ConfigJson;
use super::qwen2_vl::config::{VisionConfig, read_text};
use super::{gemma3, idefics3, internvl, llava, llava_next, qwen2_5_vl, qwen3_vl, registry};
use crate::error::Result;

/// Reads everything that a family reads of a config.
type Read = fn(&ConfigJson) -> Result<()>;

fn qwen2_vl(json: &ConfigJson) -> Result<()> {
    let text = read_text(json)?;
    VisionConfig::qwen2(json.section("vision_config"), &text).map(|_| ())
}

fn text() -> Value {
    json!({
        "model_type": "llama", "vocab_size": 100, "hidden_size": 48, "intermediate_size": 80,
        "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8,
        "rms_norm_eps": 1e-6, "rope_theta": 1e4,
    })
}

fn mrope_text() -> Value {
    let mut text = text();
    text["rope_scaling"] = json!({"type": "mrope", "mrope_section": [1, 1, 2]});
    text
}

fn tiles() -> Value {
    json!({
        "hidden_size": 40, "intermediate_size": 56, "num_hidden_layers": 3,
        "num_attention_heads": 2, "image_size": 16, "patch_size": 4, "num_channels": 3,
    })
}

fn grid() -> Value {
    json!({
        "depth": 3, "embed_dim": 40, "num_heads": 2, "mlp_ratio": 4, "patch_size": 14,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3, "hidden_size": 48,
    })
}

/// The later towers' sizes, and what is one family's own.
fn newer_grid(own: &Value) -> Value {
    let mut vision = json!({
        "depth": 3, "hidden_size": 40, "intermediate_size": 56, "out_hidden_size": 48,
        "num_heads": 2, "patch_size": 14, "spatial_merge_size": 2,
    });
    let fields = vision.as_object_mut().unwrap();
    fields.extend(own.as_object().unwrap().clone());
    vision
}

/// Every family's reader and a config that it takes.
fn families() -> Vec<(Read, Value)> {
    let of = |text: Value, vision: Value, more: Value| {
        let mut config = more;
        config["text_config"] = text;
        config["vision_config"] = vision;
        config
    };
    vec![
        (qwen2_vl, of(mrope_text(), grid(), json!({}))),
        (
            qwen2_5_vl::read,
            of(
                mrope_text(),
                newer_grid(&json!({"window_size": 56, "fullatt_block_indexes": [1]})),
                json!({}),
            ),
        ),
        (
            qwen3_vl::read,
            of(
                mrope_text(),
                newer_grid(
                    &json!({"num_position_embeddings": 16, "deepstack_visual_indexes": [0]}),
                ),
                json!({}),
            ),
        ),
        (
            |c| llava::Config::read(c).map(|_| ()),
            of(text(), tiles(), json!({})),
        ),
        (
            llava_next::read,
            of(text(), tiles(), json!({"image_grid_pinpoints": [[16, 32]]})),
        ),
        (
            idefics3::read,
            of(text(), tiles(), json!({"scale_factor": 2})),
        ),
        (
            gemma3::read,
            of(text(), tiles(), json!({"mm_tokens_per_image": 4})),
        ),
        (
            internvl::read,
            of(text(), tiles(), json!({"downsample_ratio": 0.5})),
        ),
    ]
}

fn parsed(config: &Value) -> ConfigJson {
    ConfigJson::of("config.json", config.as_object().unwrap().clone())
}

/// Paths of all numbers, and of the numbers in lists, as JSON pointers.
fn numbers(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Number(_) => found.push(path.to_owned()),
        Value::Object(map) => {
            for (key, inner) in map {
                numbers(inner, &format!("{path}/{key}"), found);
            }
        }
        Value::Array(list) => {
            for (index, inner) in list.iter().enumerate() {
                numbers(inner, &format!("{path}/{index}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn every_number_is_bounded_and_named() {
    for (read, config) in families() {
        read(&parsed(&config)).unwrap();
        let mut paths = Vec::new();
        numbers(&config, "", &mut paths);
        assert!(paths.len() > 10);
        for path in paths {
            for nonsense in [json!(-7), json!(1e18), json!(1_u64 << 60), json!({"a": 1})] {
                let mut broken = config.clone();
                *broken.pointer_mut(&path).unwrap() = nonsense.clone();
                let Err(error) = read(&parsed(&broken)) else {
                    panic!("{path} may be {nonsense}");
                };
                let message = error.to_string();
                assert!(message.starts_with("config.json: "), "{path}: {message}");
            }
        }
    }
}

#[test]
fn an_unknown_architecture_lists_the_supported_ones() {
    let config = parsed(&json!({"architectures": ["FooForConditionalGeneration"]}));
    let message = registry::find(&config).unwrap_err().to_string();
    assert!(message.contains("FooForConditionalGeneration"), "{message}");
    for family in registry::FAMILIES {
        let named = |architecture: &&str| message.contains(architecture);
        assert!(family.architectures.iter().all(named), "{message}");
    }
}
