//! Hugging Face image processor configuration, as transformers 4 and 5 write it.

use std::path::Path;

use serde_json::{Map, Value};

use super::config::{ConfigJson, Section, limits};
use crate::error::{Error, Result};

/// The two files a checkpoint may keep it in. transformers 5 nests it in the former.
const NESTED: &str = "processor_config.json";
const FLAT: &str = "preprocessor_config.json";

/// What every family does to pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct PixelConfig {
    pub do_resize: bool,
    pub resample: Resample,
    pub do_rescale: bool,
    pub rescale_factor: f64,
    pub do_normalize: bool,
    pub image_mean: [f64; 3],
    pub image_std: [f64; 3],
}

/// Filters of antialiased resizing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resample {
    Lanczos,
    Bilinear,
    Bicubic,
}

/// A run's own area limits, pixels; they outrank the checkpoint's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PixelLimits {
    pub min_pixels: Option<u64>,
    pub max_pixels: Option<u64>,
}

/// OpenAI CLIP's statistics, bicubic: what most processors assume.
pub const CLIP_PIXELS: PixelConfig = PixelConfig {
    do_resize: true,
    resample: Resample::Bicubic,
    do_rescale: true,
    rescale_factor: 1.0 / 255.0,
    do_normalize: true,
    image_mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
    image_std: [0.268_629_54, 0.261_302_58, 0.275_777_11],
};
/// SigLIP's: one half for everything.
pub const HALF_PIXELS: PixelConfig = PixelConfig {
    image_mean: [0.5; 3],
    image_std: [0.5; 3],
    ..CLIP_PIXELS
};

impl PixelConfig {
    /// Reads a processor's section; `defaults` are the family's.
    pub fn read(s: Section, defaults: &Self) -> Result<Self> {
        let flag = |key: &str, default: bool| -> Result<bool> {
            let said = s.flag(key)?;
            Ok(said.unwrap_or(default))
        };
        Ok(Self {
            do_resize: flag("do_resize", defaults.do_resize)?,
            resample: resample(s)?.unwrap_or(defaults.resample),
            do_rescale: flag("do_rescale", defaults.do_rescale)?,
            rescale_factor: s.positive_or("rescale_factor", 1e6, defaults.rescale_factor)?,
            do_normalize: flag("do_normalize", defaults.do_normalize)?,
            image_mean: channels(s, "image_mean")?.unwrap_or(defaults.image_mean),
            image_std: positive(s, channels(s, "image_std")?.unwrap_or(defaults.image_std))?,
        })
    }
}

/// A processor's size: `{"height", "width"}`, one side of a square, or the shorter side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    Exact { height: u32, width: u32 },
    ShortestEdge(u32),
}

impl Size {
    /// Reads `key`; a plain integer means the shorter side where `plain_is_edge`, else a square.
    pub fn read(s: Section, key: &str, plain_is_edge: bool) -> Result<Option<Self>> {
        let Some(value) = s.get(key) else {
            return Ok(None);
        };
        let side = |value: Option<&Value>| {
            let side = value?.as_i64().filter(|n| (1..=limits::PIXELS).contains(n));
            side.and_then(|side| u32::try_from(side).ok())
        };
        let exact = side(value.get("height")).zip(side(value.get("width")));
        let size = match (exact, side(value.get("shortest_edge")), side(Some(value))) {
            (Some((height, width)), ..) => Some(Self::Exact { height, width }),
            (None, Some(edge), _) => Some(Self::ShortestEdge(edge)),
            (None, None, Some(edge)) if plain_is_edge => Some(Self::ShortestEdge(edge)),
            (None, None, Some(side)) => Some(Self::Exact {
                height: side,
                width: side,
            }),
            _ => None,
        };
        size.map(Some).ok_or_else(|| {
            let problem = format!(
                "is {value}; it must hold height and width, or shortest_edge, of 1 to {} pixels",
                limits::PIXELS
            );
            s.error(key, &problem)
        })
    }
}

/// The image processor's configuration of a checkpoint folder: the nested form outranks the flat
/// file, as in transformers. A user error if neither is there.
pub fn read(folder: &Path) -> Result<ConfigJson> {
    if let Some(mut processor) = read_json(&folder.join(NESTED))?
        && let Some(Value::Object(nested)) = processor.remove("image_processor")
    {
        return Ok(ConfigJson::of(NESTED, nested));
    }
    match read_json(&folder.join(FLAT))? {
        Some(flat) => Ok(ConfigJson::of(FLAT, flat)),
        None => Err(Error::User(format!(
            "{}: the checkpoint has neither {FLAT} nor a {NESTED} with `image_processor`; copy it \
             from the model it was made from",
            folder.display()
        ))),
    }
}

/// Whether each of `keys` that is there makes squares of `side` pixels, which the tower takes.
pub fn exactly(s: Section, keys: &[&str], side: i64) -> Result<()> {
    for key in keys {
        let sides = match Size::read(s, key, true)? {
            None => continue,
            Some(Size::Exact { height, width }) => [height, width],
            Some(Size::ShortestEdge(edge)) => [edge, edge],
        };
        if sides.iter().any(|made| i64::from(*made) != side) {
            let problem = format!("is {sides:?}; the tower takes squares of {side} pixels");
            return Err(s.error(key, &problem));
        }
    }
    Ok(())
}

/// PIL's numbers of the filters.
fn resample(s: Section) -> Result<Option<Resample>> {
    match s.get("resample").map(Value::as_i64) {
        None => Ok(None),
        Some(Some(1)) => Ok(Some(Resample::Lanczos)),
        Some(Some(2)) => Ok(Some(Resample::Bilinear)),
        Some(Some(3)) => Ok(Some(Resample::Bicubic)),
        Some(_) => Err(s.error(
            "resample",
            "is not supported; use 1 (Lanczos), 2 (bilinear) or 3 (bicubic)",
        )),
    }
}

fn channels(s: Section, key: &str) -> Result<Option<[f64; 3]>> {
    let Some(value) = s.get(key) else {
        return Ok(None);
    };
    let numbers = value
        .as_array()
        .and_then(|list| list.iter().map(Value::as_f64).collect::<Option<Vec<_>>>());
    let three = numbers.and_then(|list| <[f64; 3]>::try_from(list).ok());
    let finite = three.filter(|three| three.iter().all(|value| value.is_finite()));
    finite
        .map(Some)
        .ok_or_else(|| s.error(key, &format!("is {value}, not three numbers")))
}

fn positive(s: Section, std: [f64; 3]) -> Result<[f64; 3]> {
    match std.iter().all(|value| *value > 0.0) {
        true => Ok(std),
        false => Err(s.error("image_std", &format!("is {std:?}; all must be positive"))),
    }
}

/// The file's JSON object, or `None` if there is no such file.
fn read_json(path: &Path) -> Result<Option<Map<String, Value>>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::Storage(format!("{}: {error}", path.display()))),
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| Error::User(format!("{}: not a JSON object: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixels(text: &str) -> Result<PixelConfig> {
        let json = ConfigJson::of("p.json", serde_json::from_str(text).unwrap());
        PixelConfig::read(json.top(), &CLIP_PIXELS)
    }

    #[test]
    fn what_is_silent_is_the_familys() {
        assert_eq!(pixels("{}").unwrap(), CLIP_PIXELS);
        let config = pixels(r#"{"resample": 1, "image_mean": [0, 0, 0], "do_resize": null}"#);
        let expected = PixelConfig {
            resample: Resample::Lanczos,
            image_mean: [0.0; 3],
            ..CLIP_PIXELS
        };
        assert_eq!(config.unwrap(), expected);
    }

    #[test]
    fn nonsense_is_named_with_its_file() {
        for (text, key) in [
            (r#"{"image_std": [1, 0, 1]}"#, "p.json: image_std"),
            (r#"{"image_mean": 0.5}"#, "p.json: image_mean"),
            (r#"{"rescale_factor": 0}"#, "p.json: rescale_factor"),
            (r#"{"resample": 9}"#, "p.json: resample"),
            (r#"{"do_resize": "yes"}"#, "p.json: do_resize"),
        ] {
            let message = pixels(text).unwrap_err().to_string();
            assert!(message.starts_with(key), "{message}");
        }
    }

    #[test]
    fn sizes_have_three_spellings() {
        let size = |text: &str| {
            let json = ConfigJson::of("p.json", serde_json::from_str(text).unwrap());
            Size::read(json.top(), "size", true)
        };
        let exact = Size::Exact {
            height: 2,
            width: 3,
        };
        assert_eq!(
            size(r#"{"size": {"height": 2, "width": 3}}"#).unwrap(),
            Some(exact)
        );
        let edge = Some(Size::ShortestEdge(4));
        assert_eq!(size(r#"{"size": {"shortest_edge": 4}}"#).unwrap(), edge);
        assert_eq!(size(r#"{"size": 4}"#).unwrap(), edge);
        assert_eq!(size("{}").unwrap(), None);
        assert!(size(r#"{"size": {"shortest_edge": 99999999}}"#).is_err());
    }
}
