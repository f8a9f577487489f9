//! LLaVA-NeXT (`LlavaNextForConditionalGeneration`): LLaVA whose images are also cut into tiles,
//! at the resolution that suits them best.

mod any_res;
mod newline;
pub mod processor;

use super::assembled::{Assembled, tied};
use super::builder::UnitBuilder;
use super::config::ConfigJson;
use super::hf::{IMAGE_NEWLINE, LANGUAGE_MODEL, LLAVA_PROJECTOR, VISION_TOWER};
use super::language::{Bidirectional, LanguageLayouts, decoder};
use super::llava;
use super::options::ModelOptions;
use super::prepare::Prepare;
use super::projector::TwoLayerProjector;
use super::vision::TileTower;
use super::weights::Weights;
use crate::engine::Tower;
use crate::error::Result;
use any_res::AnyRes;
use newline::ImageNewline;

/// LLaVA's config and the resolutions of tiles.
struct Config {
    llava: llava::Config,
    any_res: AnyRes,
}

impl Config {
    fn read(json: &ConfigJson) -> Result<Self> {
        let llava = llava::Config::read(json)?;
        let top = json.top();
        if llava.features() != llava.tower.side().pow(2) {
            let problem = "must leave out exactly the class token of a CLIP tower";
            return Err(top.error("vision_feature_select_strategy", problem));
        }
        let any_res = AnyRes::read(top, llava.tower.image, llava.tower.side())?;
        Ok(Self { llava, any_res })
    }
}

/// Units, head and side inputs of a checkpoint.
pub fn assemble(json: &ConfigJson, weights: &Weights, options: &ModelOptions) -> Result<Assembled> {
    let Config { llava, any_res } = Config::read(json)?;
    let prefix = VISION_TOWER.find(weights)?;
    let mut units = llava
        .tower
        .units(&prefix, llava.feature_layers, false, options);
    let projector = LLAVA_PROJECTOR.find(weights)?;
    let projector = UnitBuilder::new(options, &projector, Tower::Projector, "");
    let projector = TwoLayerProjector::new(projector, llava.projector());
    units.push(Box::new(projector));
    let newline = IMAGE_NEWLINE.find(weights)?;
    let newline = UnitBuilder::new(options, &newline, Tower::Projector, "");
    units.push(Box::new(ImageNewline::new(newline, llava.text.hidden)));
    let language = LANGUAGE_MODEL.find(weights)?;
    let tied = tied(json, weights)?;
    let decoder = decoder(&llava.text, &language, tied, weights, options);
    units.extend(decoder.units);
    let prepare = Prepare {
        language: LanguageLayouts::new(&llava.text, Bidirectional::No)?,
        vision: Box::new(TileTower {
            side: llava.tower.side(),
            class: llava.tower.has_class(),
            features: llava.features(),
            table_side: None,
            arrange: Some(Box::new(move |vision| {
                any_res.arrangement(&vision.originals_hw)
            })),
        }),
    };
    let assembled = Assembled::new(units, decoder.head, prepare);
    Ok(assembled.leaving(llava::unused(&llava, &prefix)))
}

/// What [`assemble`] reads of a config.
#[cfg(test)]
pub fn read(json: &ConfigJson) -> Result<()> {
    Config::read(json).map(|_| ())
}
