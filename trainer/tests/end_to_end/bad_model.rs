//! Model folders whose files are missing, broken, absurd, or do not belong together: file or
//! tensor is named, nothing panics, and nothing absurd is allocated (the trainer runs in a bounded
//! address space).

use std::fs;

use serde_json::{Value, json};
use tch::Tensor;
use trainer::checkpoint::{TensorFile, write_tensors};
use vlft_crds::status::FailureClass;

use crate::fixture::{FULL, Fixture, each};

type Change = fn(&Fixture);

const CONFIG: &str = "model/config.json";
const WEIGHTS: &str = "model/model.safetensors";
const IMAGES: &str = "model/preprocessor_config.json";
const NORM: &str = "model.norm.weight";
const TEMPLATE: &str = "model/chat_template.jinja";

/// Name of the case, what is broken, and what the message must hold.
const TABLE: &[(&str, Change, &[&str])] = &[
    (
        "no folder",
        |f| fs::rename(f.path("model"), f.path("elsewhere")).unwrap(),
        &["spec.model.uri", "/model", "does not exist"],
    ),
    // Tokenizer and template.
    (
        "no tokenizer",
        |f| remove(f, "model/tokenizer.json"),
        &["/model", "has no tokenizer.json", "copy it"],
    ),
    (
        "half a tokenizer",
        |f| halve(f, "model/tokenizer.json"),
        &["tokenizer.json"],
    ),
    (
        "an empty tokenizer",
        |f| f.write("model/tokenizer.json", "{}"),
        &["tokenizer.json"],
    ),
    (
        "half a tokenizer_config",
        |f| halve(f, "model/tokenizer_config.json"),
        &["tokenizer_config.json", "not JSON"],
    ),
    (
        "another model's tokenizer",
        |f| f.edit(CONFIG, |c| c["image_token_id"] = 5.into()),
        &[
            "<|image_pad|>",
            "token 5",
            "take both files from the same model",
        ],
    ),
    (
        "a template with an error",
        |f| f.write(TEMPLATE, "{% for %}"),
        &["chat template line 1"],
    ),
    (
        "a template without end",
        |f| {
            f.write(TEMPLATE, "{% for a in range(9999) %}{% for b in range(9999) %}{{ a * b }}{% endfor %}{% endfor %}")
        },
        &["chat template", "own chat_template.jinja"],
    ),
    (
        "a template without images",
        |f| f.write(TEMPLATE, "{% for m in messages %}{{ m.role }}{% endfor %}"),
        &["chat template", "0 times for one image"],
    ),
    // config.json
    (
        "no config",
        |f| remove(f, CONFIG),
        &["config.json", "Hugging Face checkpoint"],
    ),
    (
        "half a config",
        |f| halve(f, CONFIG),
        &["config.json", "EOF"],
    ),
    (
        "a list as config",
        |f| f.write(CONFIG, "[]"),
        &["config.json", "no JSON object"],
    ),
    (
        "not UTF-8",
        |f| f.write(CONFIG, b"\xff\xfe"),
        &["config.json"],
    ),
    (
        "no architecture",
        |f| f.edit(CONFIG, |c| c["architectures"] = Value::Null),
        &[
            "architectures[0] is absent",
            "Qwen2VLForConditionalGeneration",
        ],
    ),
    (
        "unknown architecture",
        |f| f.edit(CONFIG, |c| c["architectures"] = json!(["MambaVL"])),
        &[
            "architectures[0] is MambaVL",
            "Qwen2VLForConditionalGeneration",
        ],
    ),
    (
        "no image token",
        |f| f.edit(CONFIG, |c| c["image_token_id"] = Value::Null),
        &["image_token_id", "is missing"],
    ),
    // Files that do not belong together.
    (
        "another hidden size",
        |f| {
            f.edit(CONFIG, |c| {
                c["hidden_size"] = 256.into();
                c["vision_config"]["hidden_size"] = 256.into();
                c["num_attention_heads"] = 8.into();
            })
        },
        &["model.embed_tokens.weight is [", "the model needs ["],
    ),
    (
        "a layer too many",
        |f| f.edit(CONFIG, |c| c["num_hidden_layers"] = 3.into()),
        &["model.layers.2.", "missing"],
    ),
    (
        "a layer too few",
        |f| f.edit(CONFIG, |c| c["num_hidden_layers"] = 1.into()),
        &["model.layers.1.", "unexpected"],
    ),
    (
        "a vision layer too many",
        |f| f.edit(CONFIG, |c| c["vision_config"]["depth"] = 3.into()),
        &["visual.blocks.2.", "missing"],
    ),
    // Weights.
    (
        "no weights",
        |f| remove(f, WEIGHTS),
        &["neither model.safetensors nor model.safetensors.index.json"],
    ),
    (
        "empty weights",
        |f| f.write(WEIGHTS, ""),
        &["model.safetensors", "cut off"],
    ),
    (
        "half the weights",
        |f| halve(f, WEIGHTS),
        &["model.safetensors", "cut off"],
    ),
    (
        "weights without their last byte",
        |f| {
            let bytes = fs::read(f.path(WEIGHTS)).unwrap();
            f.write(WEIGHTS, &bytes[..bytes.len() - 1]);
        },
        &["model.safetensors", "cut off"],
    ),
    (
        "a header of 2^64 bytes",
        |f| f.write(WEIGHTS, [0xff; 64]),
        &["model.safetensors", "no safetensors file"],
    ),
    (
        "no safetensors",
        |f| f.write(WEIGHTS, "PK\u{3}\u{4} pickled".repeat(10)),
        &["model.safetensors", "no safetensors file"],
    ),
    (
        "a tensor is missing",
        |f| rewrite(f, |name, tensor| (name != NORM).then_some(tensor)),
        &["model.norm.weight", "missing"],
    ),
    (
        "a tensor of another shape",
        |f| {
            rewrite(f, |name, tensor| {
                Some(if name == NORM {
                    tensor.narrow(0, 0, 64)
                } else {
                    tensor
                })
            })
        },
        &["model.norm.weight is [64], the model needs [128]"],
    ),
    (
        "a tensor of integers",
        |f| {
            rewrite(f, |name, tensor| {
                Some(if name == NORM {
                    tensor.to_kind(tch::Kind::Int64)
                } else {
                    tensor
                })
            })
        },
        &["model.norm.weight", "I64"],
    ),
    (
        "weights that are no numbers",
        |f| {
            rewrite(f, |name, tensor| {
                Some(if name == NORM {
                    tensor * f64::NAN
                } else {
                    tensor
                })
            })
        },
        &["not finite", "learningRate"],
    ),
    (
        "a shard is missing",
        |f| {
            f.write(
                "model/model.safetensors.index.json",
                r#"{"weight_map": {"a": "model-00001-of-00002.safetensors"}}"#,
            )
        },
        &["model-00001-of-00002.safetensors", "missing"],
    ),
    (
        "a shard elsewhere",
        |f| {
            f.write(
                "model/model.safetensors.index.json",
                r#"{"weight_map": {"a": "../../etc/passwd"}}"#,
            )
        },
        &["model.safetensors.index.json", "no file name"],
    ),
    // Preprocessor.
    (
        "no preprocessor",
        |f| remove(f, IMAGES),
        &["neither preprocessor_config.json", "copy it"],
    ),
    (
        "half a preprocessor",
        |f| halve(f, IMAGES),
        &["preprocessor_config.json", "JSON"],
    ),
    (
        "a deviation of 0",
        |f| f.edit(IMAGES, |c| c["image_std"] = json!([0, 0, 0])),
        &["preprocessor_config.json", "image_std"],
    ),
    (
        "another filter",
        |f| f.edit(IMAGES, |c| c["resample"] = 5.into()),
        &["preprocessor_config.json", "resample"],
    ),
    (
        "a scale of 0",
        |f| f.edit(IMAGES, |c| c["rescale_factor"] = 0.into()),
        &["preprocessor_config.json", "rescale_factor"],
    ),
    (
        "patches of another size",
        |f| f.edit(IMAGES, |c| c["patch_size"] = 16.into()),
        &["patch_size", "16", "14"],
    ),
    (
        "squares of another size",
        |f| f.edit(IMAGES, |c| c["merge_size"] = 1.into()),
        &["merge_size", "1", "2"],
    ),
    (
        "frames of another number",
        |f| f.edit(IMAGES, |c| c["temporal_patch_size"] = 1.into()),
        &["temporal_patch_size", "1", "2"],
    ),
    (
        "images of 10^18 pixels",
        |f| {
            f.edit(IMAGES, |c| {
                c["min_pixels"] = json!(1_000_000_000_000_000_000_u64);
                c["max_pixels"] = json!(2_000_000_000_000_000_000_u64);
            })
        },
        &["preprocessor_config.json", "min_pixels"],
    ),
];

/// Keys of config.json (`/` leads into a section), values they cannot have.
const ABSURD: &[(&str, &[&str])] = &[
    (
        "hidden_size",
        &[
            "0",
            "-128",
            "128.5",
            "\"128\"",
            "1099511627776",
            "9223372036854775807",
            "1e300",
        ],
    ),
    (
        "intermediate_size",
        &["0", "1099511627776", "9223372036854775807"],
    ),
    (
        "num_hidden_layers",
        &["0", "-1", "1000000", "1099511627776", "9223372036854775807"],
    ),
    ("num_attention_heads", &["0", "3", "1099511627776"]),
    ("num_key_value_heads", &["0", "3", "1099511627776"]),
    (
        "vocab_size",
        &["0", "-1", "1099511627776", "9223372036854775807"],
    ),
    ("rms_norm_eps", &["-1", "\"small\""]),
    ("rope_theta", &["0", "-1"]),
    ("attention_dropout", &["-1", "1.5"]),
    ("hidden_act", &["\"sine\"", "5"]),
    ("image_token_id", &["-1", "1099511627776"]),
    ("use_sliding_window", &["5"]),
    (
        "rope_scaling",
        &[
            "null",
            "5",
            "{\"type\": \"yarn\"}",
            "{\"mrope_section\": [9223372036854775807, 9223372036854775807, 2]}",
            "{\"mrope_section\": []}",
            "{\"mrope_section\": [16]}",
        ],
    ),
    ("vision_config", &["null", "5", "{}"]),
    ("vision_config/depth", &["0", "1000000", "1099511627776"]),
    (
        "vision_config/embed_dim",
        &["0", "1099511627776", "9223372036854775807"],
    ),
    ("vision_config/num_heads", &["0", "3", "1099511627776"]),
    ("vision_config/mlp_ratio", &["-1", "0", "1e300"]),
    ("vision_config/patch_size", &["0", "1099511627776"]),
    ("vision_config/temporal_patch_size", &["0", "1099511627776"]),
    (
        "vision_config/spatial_merge_size",
        &["0", "8589934592", "1099511627776"],
    ),
    (
        "vision_config/in_channels",
        &["-3", "0", "1099511627776", "\"three\""],
    ),
];

#[test]
fn each_is_named_by_file_or_tensor() {
    each(TABLE, |(name, change, parts)| {
        let fixture = Fixture::new();
        change(&fixture);
        println!("{name}");
        // More steps than maxNonFiniteSteps allows to be skipped.
        let ended = fixture.train(&FULL.replace("maxSteps: 6", "maxSteps: 12"));
        ended.failed(FailureClass::UserError, parts);
    });
}

#[test]
fn absurd_numbers_in_config_json_are_named() {
    let fixture = Fixture::new();
    let config: Value = serde_json::from_slice(&fs::read(fixture.path(CONFIG)).unwrap()).unwrap();
    let values = |(path, values): &(&'static str, &'static [&'static str])| {
        let path = *path;
        values.iter().map(move |value| (path, *value))
    };
    each(ABSURD.iter().flat_map(values), |(path, value)| {
        println!("{path}: {value}");
        let mut changed = config.clone();
        let place = changed.pointer_mut(&format!("/{path}"));
        *place.unwrap() = serde_json::from_str(value).unwrap();
        fixture.write(CONFIG, changed.to_string());
        let ended = fixture.train(FULL);
        let message = ended.failed(FailureClass::UserError, &[]).message;
        println!("    {}", message.chars().take(150).collect::<String>());
        // The weights name it where the config alone makes sense.
        let key = path.rsplit('/').next().unwrap();
        let named = message.contains(key) || message.contains("mrope_section");
        assert!(named || message.contains("the model needs"), "{message}");
    });
}

/// A head so large that its table of rotary frequencies would take two terabytes.
#[test]
fn numbers_that_fit_each_other_are_still_held_against_the_weights() {
    let fixture = Fixture::new();
    fixture.edit(CONFIG, |config| {
        let half = 1_i64 << 39;
        config["hidden_size"] = (half * 2).into();
        config["vision_config"]["hidden_size"] = (half * 2).into();
        config["num_attention_heads"] = 1.into();
        config["num_key_value_heads"] = 1.into();
        config["rope_scaling"]["mrope_section"] = json!([half / 2, half / 4, half / 4]);
    });
    fixture
        .train(FULL)
        .failed(FailureClass::UserError, &["hidden_size"]);
}

/// A run of which every step was skipped has trained nothing.
#[test]
fn a_run_that_never_took_a_step_is_no_success() {
    let fixture = Fixture::new();
    rewrite(&fixture, |name, tensor| {
        Some(if name == NORM {
            tensor * f64::NAN
        } else {
            tensor
        })
    });
    let ended = fixture.train(FULL);
    ended.failed(FailureClass::UserError, &["not finite", "6 steps"]);
    assert!(!fixture.path("out/model").exists());
}

fn remove(fixture: &Fixture, name: &str) {
    fs::remove_file(fixture.path(name)).unwrap();
}

fn halve(fixture: &Fixture, name: &str) {
    let bytes = fs::read(fixture.path(name)).unwrap();
    fixture.write(name, &bytes[..bytes.len() / 2]);
}

/// Writes the weights anew, with what `change` makes of each.
fn rewrite(fixture: &Fixture, change: impl Fn(&str, Tensor) -> Option<Tensor>) {
    let path = fixture.path(WEIGHTS);
    let file = TensorFile::open(&path).unwrap();
    let mut tensors = Vec::new();
    for name in file.names() {
        let tensor = file.tensor(&name).unwrap().copy();
        tensors.extend(change(&name, tensor).map(|tensor| (name, tensor)));
    }
    drop(file);
    let named = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    write_tensors(&path, named).unwrap();
}
