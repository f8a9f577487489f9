//! The shape of a model, from its `config.json`: its units in execution order with the size of
//! each parameter. Memory, communication and step time are computed from it alone.

mod catalog;
mod config;
mod units;

pub use catalog::{CatalogEntry, in_catalog, names as catalog_names};
pub use config::{ConfigError, read_config};
pub use units::{DecoderShape, ParameterShape, UnitKind, UnitShape, VisionShape};

/// Part of a vision-language model that a method can train or freeze.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tower {
    Vision,
    Projector,
    Language,
}

/// How images become patches and tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageShape {
    /// Values of one flattened patch: what the patch embedding reads.
    pub patch_values: i64,
    /// Patches that become one token of the language model.
    pub patches_per_token: i64,
    /// Pixels that become one token, where the resolution is dynamic; `None` where every image
    /// is resized to one size.
    pub pixels_per_token: Option<i64>,
    /// Most tokens of one image, as the model's own preprocessor limits it.
    pub max_tokens: i64,
}

impl ImageShape {
    /// Most tokens of one image of at most `max_pixels` (absent: the preprocessor's own limit).
    pub fn tokens(&self, max_pixels: Option<i64>) -> i64 {
        match (max_pixels, self.pixels_per_token) {
            (Some(pixels), Some(each)) => (pixels / each.max(1)).max(1),
            _ => self.max_tokens,
        }
    }
}

/// A model's units and sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelShape {
    /// `model_type` of its `config.json`.
    pub family: String,
    /// In execution order; the last one is the output head.
    pub units: Vec<UnitShape>,
    pub hidden: i64,
    pub vocabulary: i64,
    /// Whether the output head is the token embedding.
    pub tied: bool,
    pub image: ImageShape,
}

impl ModelShape {
    /// Parameters of one tower.
    pub fn parameters_of(&self, tower: Tower) -> i64 {
        let units = self.units.iter().filter(|unit| unit.tower == tower);
        units.map(|unit| unit.count * unit.parameters()).sum()
    }

    /// All parameters, a tied head counted once.
    pub fn parameters(&self) -> i64 {
        self.units
            .iter()
            .map(|unit| unit.count * unit.parameters())
            .sum()
    }

    /// Decoder blocks of the language model.
    pub fn language_layers(&self) -> i64 {
        let blocks = self.units.iter();
        let blocks = blocks.filter(|unit| matches!(unit.kind, UnitKind::Decoder(_)));
        blocks.map(|unit| unit.count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names and totals of the published checkpoints (`total_parameters` of their safetensors
    /// index), and the language model's share.
    const PUBLISHED: &[(&str, i64)] = &[
        ("Qwen/Qwen2-VL-2B-Instruct", 2_208_985_600),
        ("Qwen/Qwen2-VL-7B-Instruct", 8_291_375_616),
        ("Qwen/Qwen2-VL-72B-Instruct", 73_405_560_320),
        ("Qwen/Qwen2.5-VL-3B-Instruct", 3_754_622_976),
        ("Qwen/Qwen2.5-VL-7B-Instruct", 8_292_166_656),
        ("Qwen/Qwen2.5-VL-72B-Instruct", 73_410_777_344),
        ("llava-hf/llava-1.5-7b-hf", 7_063_427_072),
        ("llava-hf/llava-1.5-13b-hf", 13_351_494_656),
        ("HuggingFaceTB/SmolVLM-256M-Instruct", 256_484_928),
        ("HuggingFaceTB/SmolVLM-500M-Instruct", 507_482_304),
        ("HuggingFaceTB/SmolVLM-Instruct", 2_246_272_880),
        ("HuggingFaceM4/Idefics3-8B-Llama3", 8_462_086_384),
    ];

    #[test]
    fn parameter_counts_are_the_published_ones() {
        for (name, total) in PUBLISHED {
            let entry = in_catalog(name).unwrap_or_else(|| panic!("{name} is not in the catalog"));
            assert_eq!(entry.shape.parameters(), *total, "{name}");
        }
        assert_eq!(catalog_names().len(), PUBLISHED.len());
    }

    #[test]
    fn towers_of_qwen2_vl_7b() {
        let shape = in_catalog("Qwen/Qwen2-VL-7B-Instruct").unwrap().shape;
        assert_eq!(shape.parameters_of(Tower::Language), 7_615_616_512);
        assert_eq!(shape.parameters_of(Tower::Projector), 44_575_744);
        assert_eq!(shape.parameters_of(Tower::Vision), 631_183_360);
        assert_eq!(shape.language_layers(), 28);
    }

    #[test]
    fn tokens_of_an_image_follow_its_pixels_or_the_preprocessor() {
        let qwen = in_catalog("Qwen/Qwen2-VL-7B-Instruct").unwrap().shape.image;
        assert_eq!(qwen.tokens(Some(28 * 28 * 256)), 256);
        assert_eq!(qwen.tokens(None), 16_384);
        let llava = in_catalog("llava-hf/llava-1.5-7b-hf").unwrap().shape.image;
        assert_eq!(llava.tokens(Some(28 * 28)), 576);
    }
}
