//! `config.json` -> [`ModelShape`], for each family the catalog has.

use serde_json::Value;

use super::units::{DecoderShape, Parameters, UnitKind, VisionShape, language, vision_block};
use super::{ImageShape, ModelShape, Tower};

/// A `config.json` that no shape can be read from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("config.json: {field} is missing or not an integer from 1 to {largest}")]
    Field { field: String, largest: i64 },
    #[error(
        "config.json: the memory of `{0}` cannot be estimated; known are qwen2_vl, qwen2_5_vl, llava, idefics3 and smolvlm"
    )]
    Family(String),
}

/// Largest width that is believed; with [`MANY`] and [`FEW`] all counts stay within 64 bits.
const WIDE: i64 = 1 << 18;
/// Most layers, heads and entries of a head.
const MANY: i64 = 1 << 12;
/// Largest patch merge, channel count and the like.
const FEW: i64 = 16;
/// Largest vocabulary.
const WORDS: i64 = 1 << 22;
/// Pixels that Qwen's preprocessor resizes the largest image to.
const QWEN_MAX_PIXELS: i64 = 12_845_056;

/// Reads the shape of a model from its Hugging Face configuration.
pub fn read_config(json: &Value) -> Result<ModelShape, ConfigError> {
    let family = json.get("model_type").and_then(Value::as_str);
    match family.unwrap_or_default() {
        "qwen2_vl" => qwen(json, false),
        "qwen2_5_vl" => qwen(json, true),
        "llava" => llava(json),
        "idefics3" | "smolvlm" => idefics3(json),
        other => Err(ConfigError::Family(other.to_owned())),
    }
}

/// A section of the configuration, with its name for messages.
#[derive(Clone, Copy)]
struct Section<'a> {
    json: Option<&'a Value>,
    name: &'static str,
}

impl<'a> Section<'a> {
    fn of(json: &'a Value, name: &'static str) -> Self {
        let json = json.get(name);
        Self { json, name }
    }

    /// The section `text_config`, or the top of a flat configuration.
    fn text(json: &'a Value) -> Self {
        let name = "text_config";
        let nested = json
            .get(name)
            .filter(|text| text.get("hidden_size").is_some());
        let json = Some(nested.unwrap_or(json));
        Self { json, name }
    }

    fn get(&self, key: &str, largest: i64) -> Result<i64, ConfigError> {
        let value = self.json.and_then(|json| json.get(key)?.as_i64());
        let field = || format!("{}.{key}", self.name);
        value
            .filter(|value| (1..=largest).contains(value))
            .ok_or_else(|| ConfigError::Field {
                field: field(),
                largest,
            })
    }

    fn or(&self, key: &str, largest: i64, default: i64) -> Result<i64, ConfigError> {
        let present = self.json.and_then(|json| json.get(key));
        match present {
            None | Some(Value::Null) => Ok(default),
            Some(_) => self.get(key, largest),
        }
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.json?.get(key)?.as_bool()
    }

    fn decoder(&self, qkv_bias: bool) -> Result<DecoderShape, ConfigError> {
        let (hidden, heads) = (
            self.get("hidden_size", WIDE)?,
            self.get("num_attention_heads", MANY)?,
        );
        Ok(DecoderShape {
            hidden,
            heads,
            key_value_heads: self.or("num_key_value_heads", MANY, heads)?,
            head_size: self.or("head_dim", MANY, (hidden / heads).max(1))?,
            mlp_width: self.get("intermediate_size", WIDE)?,
            qkv_bias,
        })
    }
}

/// Puts the towers together; the vision tower and projector are the family's own.
fn assemble(
    json: &Value,
    mut units: Vec<super::UnitShape>,
    qkv_bias: bool,
    image: ImageShape,
) -> Result<ModelShape, ConfigError> {
    let text = Section::text(json);
    let decoder = text.decoder(qkv_bias)?;
    let vocabulary = text.get("vocab_size", WORDS)?;
    let top = json.get("tie_word_embeddings").and_then(Value::as_bool);
    let tied = top.or(text.flag("tie_word_embeddings")).unwrap_or(false);
    let layers = text.get("num_hidden_layers", MANY)?;
    units.extend(language(decoder, layers, vocabulary, tied));
    let family = json.get("model_type").and_then(Value::as_str);
    Ok(ModelShape {
        family: family.unwrap_or_default().to_owned(),
        units,
        hidden: decoder.hidden,
        vocabulary,
        tied,
        image,
    })
}

/// Qwen2-VL, and Qwen2.5-VL with its gated vision MLP.
fn qwen(json: &Value, gated: bool) -> Result<ModelShape, ConfigError> {
    let vision = Section::of(json, "vision_config");
    let width = vision.get(if gated { "hidden_size" } else { "embed_dim" }, WIDE)?;
    let hidden = Section::text(json).get("hidden_size", WIDE)?;
    let mlp_width = match gated {
        true => vision.get("intermediate_size", WIDE)?,
        false => vision.or("mlp_ratio", 64, 4)? * width,
    };
    let (patch, merge) = (
        vision.or("patch_size", 1024, 14)?,
        vision.or("spatial_merge_size", FEW, 2)?,
    );
    let channels = vision.or("in_channels", FEW, 3)?;
    let patch_values = channels * vision.or("temporal_patch_size", FEW, 2)? * patch * patch;
    let shape = VisionShape {
        width,
        mlp_width,
        heads: vision.get("num_heads", MANY)?,
        fused: true,
        rotary: true,
        gated,
        quick_gelu: !gated,
    };
    let merged = width * merge * merge;
    let mut merger = Parameters::default().vector("ln_q", width);
    if !gated {
        merger = merger.vector("ln_q", width);
    }
    let merger = merger
        .linear("mlp.0", merged, merged, true)
        .linear("mlp.2", merged, hidden, true);
    let projector = UnitKind::Projector {
        width,
        merge: merge * merge,
        inner: merged,
        output: hidden,
    };
    let units = vec![
        Parameters::default()
            .table("patch_embed", width * patch_values)
            .unit(Tower::Vision, 1, UnitKind::PatchEmbed { width }),
        vision_block(shape, vision.get("depth", MANY)?),
        merger.unit(Tower::Projector, 1, projector),
    ];
    let pixels_per_token = patch * patch * merge * merge;
    let image = ImageShape {
        patch_values,
        patches_per_token: merge * merge,
        pixels_per_token: Some(pixels_per_token),
        max_tokens: (QWEN_MAX_PIXELS / pixels_per_token).max(1),
    };
    assemble(json, units, true, image)
}

/// A CLIP or SigLIP tower: patch embedding with learned positions, blocks, final norm.
struct Encoder {
    width: i64,
    patch_values: i64,
    /// Patches of one image or tile.
    patches: i64,
    units: Vec<super::UnitShape>,
}

fn encoder(json: &Value, clip: bool) -> Result<Encoder, ConfigError> {
    let vision = Section::of(json, "vision_config");
    let width = vision.get("hidden_size", WIDE)?;
    let (image, patch) = (
        vision.get("image_size", WIDE)?,
        vision.get("patch_size", 1024)?,
    );
    let patches = (image / patch).max(1).pow(2);
    let patch_values = 3 * patch * patch;
    let mut embed = Parameters::default().table("patch_embedding", width * patch_values);
    // CLIP has a class token and no bias, SigLIP the reverse.
    embed = match clip {
        true => embed
            .vector("class_embedding", width)
            .table("position_embedding", (patches + 1) * width)
            .vector("pre_layrnorm", width)
            .vector("pre_layrnorm", width),
        false => embed
            .vector("patch_embedding", width)
            .table("position_embedding", patches * width),
    };
    // The tower's last norm runs with the first unit's patches and weighs as little.
    embed = embed
        .vector("post_layernorm", width)
        .vector("post_layernorm", width);
    let shape = VisionShape {
        width,
        mlp_width: vision.get("intermediate_size", WIDE)?,
        heads: vision.get("num_attention_heads", MANY)?,
        fused: false,
        rotary: false,
        gated: false,
        quick_gelu: clip,
    };
    let units = vec![
        embed.unit(Tower::Vision, 1, UnitKind::PatchEmbed { width }),
        vision_block(shape, vision.get("num_hidden_layers", MANY)?),
    ];
    Ok(Encoder {
        width,
        patch_values,
        patches,
        units,
    })
}

fn llava(json: &Value) -> Result<ModelShape, ConfigError> {
    let hidden = Section::text(json).get("hidden_size", WIDE)?;
    let Encoder {
        width,
        patch_values,
        patches,
        mut units,
    } = encoder(json, true)?;
    let projector = UnitKind::Projector {
        width,
        merge: 1,
        inner: hidden,
        output: hidden,
    };
    units.push(
        Parameters::default()
            .linear("linear_1", width, hidden, true)
            .linear("linear_2", hidden, hidden, true)
            .unit(Tower::Projector, 1, projector),
    );
    let image = ImageShape {
        patch_values,
        patches_per_token: 1,
        pixels_per_token: None,
        max_tokens: patches,
    };
    assemble(json, units, false, image)
}

/// Idefics3 and SmolVLM: tiles of one size, neighbouring patches folded into channels.
fn idefics3(json: &Value) -> Result<ModelShape, ConfigError> {
    let hidden = Section::text(json).get("hidden_size", WIDE)?;
    let top = Section {
        json: Some(json),
        name: "(top)",
    };
    let fold = top.get("scale_factor", FEW)?.pow(2);
    let Encoder {
        width,
        patch_values,
        patches,
        mut units,
    } = encoder(json, false)?;
    let projector = UnitKind::Projector {
        width,
        merge: fold,
        inner: 0,
        output: hidden,
    };
    units.push(
        Parameters::default()
            .linear("modality_projection", width * fold, hidden, false)
            .unit(Tower::Projector, 1, projector),
    );
    let image = ImageShape {
        patch_values,
        patches_per_token: fold,
        pixels_per_token: None,
        // 4 x 4 tiles and the whole image beside them: the preprocessor's default.
        max_tokens: 17 * patches / fold,
    };
    assemble(json, units, false, image)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let mut config = json!({ "model_type": "qwen2_vl", "hidden_size": 8, "vision_config":
            { "embed_dim": 4, "num_heads": 2, "depth": 1 } });
        let error = read_config(&config).unwrap_err().to_string();
        assert!(error.contains("text_config.num_attention_heads"), "{error}");
        config["hidden_size"] = json!(-1);
        let error = read_config(&config).unwrap_err().to_string();
        assert!(error.contains("hidden_size"), "{error}");
        config["hidden_size"] = json!(i64::MAX);
        assert!(read_config(&config).is_err());
    }

    #[test]
    fn unknown_families_are_told_with_the_known_ones() {
        let error = read_config(&json!({ "model_type": "bert" })).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("bert") && text.contains("qwen2_vl"), "{text}");
    }
}
