//! What the families' processors share.

use super::config::ConfigJson;
use super::image_config::PixelLimits;
use crate::error::{Error, Result};
use crate::processor::Placeholder;

/// The token `text`, whose id config.json has under the first of `keys` that is there.
pub fn token(config: &ConfigJson, keys: &[&str], text: &str) -> Result<Placeholder> {
    let top = config.top();
    let key = keys.iter().find(|key| top.get(key).is_some());
    let key = key.or(keys.first()).copied().unwrap_or_default();
    let value = top.get(key).ok_or_else(|| top.error(key, "is missing"))?;
    let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
    let id = id.ok_or_else(|| top.error(key, &format!("is {value}, which is no token id")))?;
    Ok(Placeholder {
        text: text.to_owned(),
        id,
    })
}

/// For families whose images have one size: a run's own area limits would be ignored, so they
/// are refused.
pub fn no_pixel_limits(limits: PixelLimits) -> Result<()> {
    if limits == PixelLimits::default() {
        return Ok(());
    }
    Err(Error::User(
        "dataset.minPixels and dataset.maxPixels: this model takes images of one size, which its \
         preprocessor_config.json decides; leave both out"
            .to_owned(),
    ))
}
