//! CLIP-like towers as a whole: their config and their units.

use super::{
    BlockNames, CLIP_BLOCK, EmbeddingNames, EmbeddingShape, INTERN_BLOCK, PatchEmbeddings,
    VisionBlock, VisionBlockShape,
};
use crate::engine::{ParameterSpec, SideInputs, Stream, Tower, Unit, UnitContext, Weights};
use crate::error::{Error, Result};
use crate::models::builder::UnitBuilder;
use crate::models::config::{Section, limits};
use crate::models::hf::Prefix;
use crate::models::layers::{Activation, Norm, NormKind};
use crate::models::options::ModelOptions;
use tch::Tensor;

/// Sizes of a tower that takes square tiles.
#[derive(Debug, Clone)]
pub struct TowerConfig {
    pub style: &'static TowerStyle,
    pub width: i64,
    pub heads: i64,
    pub mlp_width: i64,
    pub layers: i64,
    /// Side of a patch, and of the images that the position table is for, pixels.
    pub patch: i64,
    pub image: i64,
    pub activation: Activation,
    pub norm_eps: f64,
    pub norm: NormKind,
    /// Biases of query, key and value, and norms of both.
    pub qkv_bias: bool,
    pub qk_norm: Option<NormKind>,
}

/// What distinguishes the towers.
#[derive(Debug)]
pub struct TowerStyle {
    pub embeddings: EmbeddingNames,
    pub block: &'static BlockNames,
    /// Path of block `N` up to its number, e.g. `encoder.layers`.
    pub layers: &'static str,
    /// Behind the last block, where features are taken from there.
    pub post_norm: &'static str,
    pub patch_bias: bool,
    /// What transformers assumes where a config is silent.
    pub activation: &'static str,
    pub norm_eps: f64,
}

impl TowerStyle {
    /// OpenAI's CLIP: a class token, and a norm before the blocks.
    pub const CLIP: Self = Self {
        embeddings: EmbeddingNames {
            patch: "embeddings.patch_embedding",
            class: Some("embeddings.class_embedding"),
            positions: "embeddings.position_embedding.weight",
            // transformers' own spelling.
            norm: Some("pre_layrnorm"),
            batched: false,
        },
        block: &CLIP_BLOCK,
        layers: "encoder.layers",
        post_norm: "post_layernorm",
        patch_bias: false,
        activation: "quick_gelu",
        norm_eps: 1e-5,
    };
    /// SigLIP, also as Idefics3 has it.
    pub const SIGLIP: Self = Self {
        embeddings: EmbeddingNames {
            class: None,
            norm: None,
            ..Self::CLIP.embeddings
        },
        patch_bias: true,
        activation: "gelu_pytorch_tanh",
        norm_eps: 1e-6,
        ..Self::CLIP
    };
}

impl TowerStyle {
    /// InternViT as transformers has it.
    pub const INTERN: Self = Self {
        embeddings: EmbeddingNames {
            patch: "embeddings.patch_embeddings.projection",
            class: Some("embeddings.cls_token"),
            positions: "embeddings.position_embeddings",
            norm: None,
            batched: true,
        },
        block: &INTERN_BLOCK,
        layers: "encoder.layer",
        post_norm: "layernorm",
        patch_bias: true,
        activation: "gelu",
        norm_eps: 1e-6,
    };
}

/// Default sizes of a tower, for configs that leave them out.
#[derive(Debug, Clone, Copy)]
pub struct TowerDefaults {
    pub width: i64,
    pub heads: i64,
    pub mlp_width: i64,
    pub layers: i64,
    pub patch: i64,
    pub image: i64,
}

/// CLIP ViT-B/32, which transformers assumes.
pub const CLIP_DEFAULTS: TowerDefaults = TowerDefaults {
    width: 768,
    heads: 12,
    mlp_width: 3072,
    layers: 12,
    patch: 32,
    image: 224,
};
/// SigLIP base, likewise.
pub const SIGLIP_DEFAULTS: TowerDefaults = TowerDefaults {
    patch: 16,
    ..CLIP_DEFAULTS
};

impl TowerConfig {
    pub fn read(s: Section, style: &'static TowerStyle, defaults: TowerDefaults) -> Result<Self> {
        let norm_eps = s.positive_or("layer_norm_eps", 1.0, style.norm_eps)?;
        let config = Self {
            style,
            width: s.integer_up_to_or("hidden_size", limits::WIDTH, defaults.width)?,
            heads: s.integer_up_to_or("num_attention_heads", limits::HEADS, defaults.heads)?,
            mlp_width: s.integer_up_to_or(
                "intermediate_size",
                limits::WIDTH,
                defaults.mlp_width,
            )?,
            layers: s.integer_up_to_or("num_hidden_layers", limits::LAYERS, defaults.layers)?,
            patch: s.square("patch_size", limits::PIXELS, defaults.patch)?,
            image: s.square("image_size", limits::PIXELS, defaults.image)?,
            activation: Activation::from_name(
                s.text_or("hidden_act", style.activation)?,
                "vision_config.hidden_act",
            )?,
            norm_eps,
            norm: NormKind::Layer { eps: norm_eps },
            qkv_bias: true,
            qk_norm: None,
        };
        config.check(s)?;
        Ok(config)
    }

    fn check(&self, s: Section) -> Result<()> {
        if self.width % self.heads != 0 {
            return Err(s.error("hidden_size", "must be a multiple of num_attention_heads"));
        }
        if self.image < self.patch || self.side() > 1024 {
            let problem = format!(
                "is {}; it must hold 1 to 1024 patches of {}",
                self.image, self.patch
            );
            return Err(s.error("image_size", &problem));
        }
        three_channels(s, "num_channels")
    }

    /// Patches along an image's side.
    pub fn side(&self) -> i64 {
        self.image / self.patch
    }

    pub fn has_class(&self) -> bool {
        self.style.embeddings.class.is_some()
    }

    /// Rows of the position table.
    fn positions(&self) -> i64 {
        self.side() * self.side() + i64::from(self.has_class())
    }

    fn block(&self) -> VisionBlockShape {
        VisionBlockShape {
            width: self.width,
            heads: self.heads,
            mlp_width: self.mlp_width,
            activation: self.activation,
            norm: self.norm,
            names: self.style.block,
            qkv_bias: self.qkv_bias,
            qk_norm: self.qk_norm,
        }
    }

    /// Embeddings and the first `layers` blocks; with `post_norm` also the norm behind the last.
    pub fn units(
        &self,
        prefix: &Prefix,
        layers: i64,
        post_norm: bool,
        options: &ModelOptions,
    ) -> Vec<Box<dyn Unit>> {
        let at = |path: &str| UnitBuilder::new(options, prefix, Tower::Vision, path);
        let shape = EmbeddingShape {
            width: self.width,
            kernel: &[3, self.patch, self.patch],
            positions: self.positions(),
            bias: self.style.patch_bias,
            norm: self.norm,
        };
        let embeddings = PatchEmbeddings::new(at(""), &self.style.embeddings, shape);
        let mut units: Vec<Box<dyn Unit>> = vec![Box::new(embeddings)];
        for layer in 0..layers {
            let path = format!("{}.{layer}", self.style.layers);
            units.push(Box::new(VisionBlock::new(at(&path), self.block(), 0)));
        }
        if post_norm {
            let norm = VisionNorm::new(at(self.style.post_norm), self.width, self.norm);
            units.push(Box::new(norm));
        }
        units
    }
}

/// Towers are built for RGB.
pub fn three_channels(s: Section, key: &str) -> Result<()> {
    match s.get(key) {
        None => Ok(()),
        Some(value) if value.as_i64() == Some(3) => Ok(()),
        Some(value) => Err(s.error(key, &format!("is {value}; images have 3 channels"))),
    }
}

/// The norm behind a tower's last block.
#[derive(Debug)]
pub struct VisionNorm {
    name: String,
    parameters: Vec<ParameterSpec>,
    norm: Norm,
}

impl VisionNorm {
    pub fn new(mut builder: UnitBuilder, width: i64, kind: NormKind) -> Self {
        let norm = builder.norm("", width, kind);
        Self {
            name: builder.module(),
            parameters: builder.finish(),
            norm,
        }
    }
}

impl Unit for VisionNorm {
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

    fn forward(
        &self,
        weights: &Weights,
        inputs: &[Tensor],
        _context: &UnitContext,
    ) -> Result<Vec<Tensor>> {
        let [x] = inputs else {
            return Err(Error::Bug("the tower's norm reads one stream".into()));
        };
        Ok(vec![self.norm.forward(x, weights)?])
    }
}
