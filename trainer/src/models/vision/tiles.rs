//! Side inputs of towers that take square tiles of one size (CLIP, SigLIP, InternVL).

use tch::{Device, Kind, Tensor};

use super::{PreparedVision, VisionPrepare};
use crate::batch::VisionBatch;
use crate::engine::{AttentionLayout, Precision, Segments, TablePositions};
use crate::error::{Error, Result};

/// Which row of `[features; separator]` each output row is.
pub type Arrange = Box<dyn Fn(&VisionBatch) -> Vec<i64> + Send>;

/// What of a tower's config its side inputs depend on.
pub struct TileTower {
    /// Patches along a tile's side.
    pub side: i64,
    /// Whether each tile has a class token.
    pub class: bool,
    /// Features that the projector makes of a tile.
    pub features: i64,
    /// For towers whose table of learned positions is not as large as a tile: the table's side.
    pub table_side: Option<i64>,
    /// Arranges the tiles' features and separators, for projectors that do.
    pub arrange: Option<Arrange>,
}

impl TileTower {
    fn check(&self, vision: &VisionBatch) -> Result<i64> {
        let side = self.side;
        let fits = |[_, h, w]: &[i64; 3]| (*h, *w) == (side, side);
        let tiles: i64 = vision.grids_thw.iter().map(|grid| grid[0]).sum();
        let (rows, _) = vision.pixel_values_pd.size2()?;
        let placeholders = vision.placeholder_positions_n.size1()?;
        let features = tiles * self.features;
        // An arrangement leaves features out and puts separators in; it is checked by itself.
        let counted = self.arrange.is_some() || placeholders == features;
        if vision.grids_thw.iter().all(fits) && rows == tiles * side * side && counted {
            return Ok(tiles);
        }
        Err(Error::Bug(format!(
            "{tiles} tiles of {side}x{side} patches give {features} features; there are {rows} \
             patches and {placeholders} placeholders"
        )))
    }

    fn arrangement(&self, vision: &VisionBatch) -> Result<Option<Vec<i64>>> {
        let arranged = self.arrange.as_ref().map(|arrange| arrange(vision));
        let placeholders = vision.placeholder_positions_n.size1()?;
        match &arranged {
            Some(rows) if rows.len() as i64 != placeholders => Err(Error::Bug(format!(
                "{} arranged features for {placeholders} placeholders",
                rows.len()
            ))),
            _ => Ok(arranged),
        }
    }

    fn positions(&self, tiles: i64, device: Device) -> Result<Option<TablePositions>> {
        let Some(table) = self.table_side else {
            return Ok(None);
        };
        let rows_1p = nearest(self.side, table)?.f_repeat([tiles])?;
        Ok(Some(TablePositions {
            rows_kp: rows_1p.f_unsqueeze(0)?.f_to_device(device)?,
            weights_kp: None,
        }))
    }
}

/// Rows of a `table` by `table` table for the patches of a `side` by `side` tile, `[side * side]`:
/// the fraction of the way along each axis decides. The arithmetic is float32 step by step, as in
/// transformers, since fractions fall on the boundaries.
fn nearest(side: i64, table: i64) -> Result<Tensor> {
    let float = (Kind::Float, Device::Cpu);
    let step = 1.0 / table as f64;
    let boundaries = Tensor::f_arange_start_step(step, 1.0, step, float)?;
    let one = Tensor::f_full([1], side as f64, float)?.f_reciprocal()?;
    let fractions = Tensor::f_arange(side, float)?
        .f_mul(&one)?
        .f_clamp_max(1.0 - 1e-6)?;
    let buckets = fractions.f_bucketize(&boundaries, false, true)?;
    let rows = buckets.f_unsqueeze(1)?.f_mul_scalar(table)?;
    Ok(rows.f_add(&buckets.f_unsqueeze(0)?)?.f_flatten(0, 1)?)
}

impl VisionPrepare for TileTower {
    fn prepare(
        &self,
        vision: &VisionBatch,
        precision: Precision,
        device: Device,
    ) -> Result<PreparedVision> {
        let tiles = self.check(vision)?;
        let length = self.side * self.side + i64::from(self.class);
        let segments = Segments {
            groups: vec![(length, tiles)],
        };
        let pixels = vision.pixel_values_pd.f_to_device(device)?;
        Ok(PreparedVision {
            pixel_values_pd: pixels.f_to_kind(precision.compute())?,
            layouts: vec![AttentionLayout::plain(segments, None, false)],
            feature_order: None,
            positions: self.positions(tiles, device)?,
            arrangement: self.arrangement(vision)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_tile_as_large_as_its_table_takes_every_row() {
        for side in [2, 26, 27, 32] {
            let rows = Vec::<i64>::try_from(nearest(side, side).unwrap()).unwrap();
            let first = rows.first().copied();
            assert_eq!((rows.len() as i64, first), (side * side, Some(0)));
            assert!(rows.iter().all(|row| *row < side * side));
        }
        let halved = Vec::<i64>::try_from(nearest(2, 4).unwrap()).unwrap();
        assert_eq!(halved, [0, 2, 8, 10]);
    }
}
