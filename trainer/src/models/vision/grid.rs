//! Side inputs of towers that take images at their own size (Qwen): patches in merge order,
//! rotary positions by row and column, attention within an image or within windows.

use tch::{Device, Tensor};

use super::{PreparedVision, VisionPrepare, learned};
use crate::batch::VisionBatch;
use crate::engine::{AttentionLayout, Precision, Rotary, Segments, TablePositions};
use crate::error::{Error, Result};
use crate::models::language::angles;
use crate::models::layers::{inverse_frequencies, rotary};

/// What of a tower's config its side inputs depend on.
#[derive(Debug)]
pub struct GridTower {
    /// `[D/4]`.
    frequencies: Tensor,
    merge: i64,
    /// Side of a window, merged squares; layout 1 then attends within windows.
    window: Option<i64>,
    /// Side of a square table of learned positions, patches.
    table_side: Option<i64>,
}

/// An image (or frame): height and width, patches.
type Frame = [i64; 2];

/// Patches in the engine's order.
struct Order {
    /// The batch's merged square that each of the engine's squares is.
    squares: Vec<i64>,
    images: Segments,
    windows: Segments,
}

impl GridTower {
    pub fn new(head_size: i64, theta: f64, merge: i64) -> Result<Self> {
        Ok(Self {
            frequencies: inverse_frequencies(head_size / 2, theta)?,
            merge,
            window: None,
            table_side: None,
        })
    }

    /// With windows of `side` merged squares as layout 1.
    pub fn with_windows(self, side: i64) -> Self {
        Self {
            window: Some(side),
            ..self
        }
    }

    /// With learned positions, interpolated from a table of `side` by `side`.
    pub fn with_table(self, side: i64) -> Self {
        Self {
            table_side: Some(side),
            ..self
        }
    }

    /// `(row, column)` of each patch: merge blocks in raster order, patches in raster order
    /// inside each block, as the processor lays them out.
    fn patch_positions(&self, frames: &[Frame]) -> Vec<[i64; 2]> {
        let merge = self.merge;
        let mut positions = Vec::new();
        for [height, width] in frames {
            for block_row in 0..height / merge {
                for block_column in 0..width / merge {
                    for inner in 0..merge * merge {
                        let row = block_row * merge + inner / merge;
                        positions.push([row, block_column * merge + inner % merge]);
                    }
                }
            }
        }
        positions
    }

    /// `[P, D/2]` angles: the first half turns by the row, the second by the column.
    fn angles(&self, positions: &[[i64; 2]]) -> Result<Tensor> {
        let flat = positions.as_flattened();
        let positions_2p = Tensor::f_from_slice(flat)?.f_view([-1, 2])?.f_tr()?;
        let half = usize::try_from(self.frequencies.size1()?).unwrap_or(0);
        let axis_h = [vec![0; half], vec![1; half]].concat();
        let both = Tensor::f_cat(&[&self.frequencies, &self.frequencies], 0)?;
        angles(&positions_2p, &both, &axis_h)
    }

    /// Images by size, so that equal ones attend as one batch; within an image windows by size.
    fn order(&self, frames: &[Frame]) -> Order {
        let unit = self.merge * self.merge;
        let squares = |[h, w]: &Frame| h * w / unit;
        let mut starts = Vec::with_capacity(frames.len());
        let mut next = 0;
        for frame in frames {
            starts.push(next);
            next += squares(frame);
        }
        let mut by_size: Vec<(&Frame, i64)> = frames.iter().zip(starts).collect();
        by_size.sort_by_key(|(frame, _)| squares(frame));
        let images = by_size.iter().map(|(frame, _)| squares(frame) * unit);
        let images = Segments::in_order(images);
        let mut order = Vec::new();
        let mut lengths = Vec::new();
        for ([height, width], start) in by_size {
            for window in self.windows(height / self.merge, width / self.merge) {
                lengths.push(window.len() as i64 * unit);
                order.extend(window.iter().map(|square| start + square));
            }
        }
        Order {
            squares: order,
            images,
            windows: Segments::in_order(lengths),
        }
    }

    /// The squares of each window of an image of `rows` by `columns` squares, smaller windows
    /// first; without windows the image as a whole.
    fn windows(&self, rows: i64, columns: i64) -> Vec<Vec<i64>> {
        let Some(side) = self.window else {
            return vec![(0..rows * columns).collect()];
        };
        let step = usize::try_from(side).unwrap_or(1).max(1);
        let mut windows = Vec::new();
        for top in (0..rows).step_by(step) {
            for left in (0..columns).step_by(step) {
                let (bottom, right) = ((top + side).min(rows), (left + side).min(columns));
                let row = |y: i64| (left..right).map(move |x| y * columns + x);
                windows.push((top..bottom).flat_map(row).collect::<Vec<i64>>());
            }
        }
        windows.sort_by_key(Vec::len);
        windows
    }

    fn check(&self, vision: &VisionBatch) -> Result<()> {
        let merge = self.merge;
        let uneven =
            |[t, h, w]: &&[i64; 3]| *t < 1 || h % merge != 0 || w % merge != 0 || h * w < 1;
        if let Some(grid) = vision.grids_thw.iter().find(uneven) {
            return Err(Error::Bug(format!(
                "grid {grid:?} is no multiple of the merge size {merge}"
            )));
        }
        let patches: i64 = vision
            .grids_thw
            .iter()
            .map(|grid| grid.iter().product::<i64>())
            .sum();
        let (rows, _) = vision.pixel_values_pd.size2()?;
        let placeholders = vision.placeholder_positions_n.size1()?;
        if patches != rows || patches != placeholders * merge * merge {
            return Err(Error::Bug(format!(
                "grids ask for {patches} patches, there are {rows}, and {placeholders} placeholders"
            )));
        }
        Ok(())
    }

    fn layouts(&self, order: Order, turned: Rotary) -> Vec<AttentionLayout> {
        let plain = |segments, rotary| AttentionLayout::plain(segments, Some(rotary), false);
        let again = Rotary {
            cos_td: turned.cos_td.shallow_clone(),
            signed_sin_td: turned.signed_sin_td.shallow_clone(),
        };
        let mut layouts = vec![plain(order.images, turned)];
        if self.window.is_some() {
            layouts.push(plain(order.windows, again));
        }
        layouts
    }

    fn table(
        &self,
        frames: &[Frame],
        order_p: &Tensor,
        device: Device,
    ) -> Result<Option<TablePositions>> {
        let Some(side) = self.table_side else {
            return Ok(None);
        };
        let positions = learned::interpolated(frames, side, self.merge)?;
        let pick = |x: &Tensor| x.f_index_select(1, order_p)?.f_to_device(device);
        let weights_kp = positions.weights_kp.as_ref().map(pick).transpose()?;
        Ok(Some(TablePositions {
            rows_kp: pick(&positions.rows_kp)?,
            weights_kp,
        }))
    }
}

impl VisionPrepare for GridTower {
    fn prepare(
        &self,
        vision: &VisionBatch,
        precision: Precision,
        device: Device,
    ) -> Result<PreparedVision> {
        self.check(vision)?;
        let frames = frames(&vision.grids_thw);
        let order = self.order(&frames);
        let unit = self.merge * self.merge;
        let patches = order.squares.iter();
        let patches: Vec<i64> = patches
            .flat_map(|square| square * unit..(square + 1) * unit)
            .collect();
        let order_p = Tensor::f_from_slice(&patches)?;
        let angles_ph = self
            .angles(&self.patch_positions(&frames))?
            .f_index_select(0, &order_p)?;
        let pixels = vision.pixel_values_pd.f_to_device(device)?;
        let pixels = match order.squares.is_sorted() {
            true => pixels,
            false => pixels.f_index_select(0, &order_p.f_to_device(device)?)?,
        };
        let kind = precision.compute();
        Ok(PreparedVision {
            pixel_values_pd: pixels.f_to_kind(kind)?,
            feature_order: Some(order.squares.clone()),
            positions: self.table(&frames, &order_p, device)?,
            layouts: self.layouts(order, rotary(&angles_ph, kind, device)?),
            arrangement: None,
        })
    }
}

/// Each frame attends within itself.
fn frames(grids_thw: &[[i64; 3]]) -> Vec<Frame> {
    let repeated = |[t, h, w]: &[i64; 3]| (0..*t).map(|_| [*h, *w]).collect::<Vec<_>>();
    grids_thw.iter().flat_map(repeated).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_tile_an_image_smaller_ones_first() {
        let tower = GridTower::new(8, 1e4, 2).unwrap().with_windows(2);
        let expected = [vec![8], vec![2, 5], vec![6, 7], vec![0, 1, 3, 4]];
        assert_eq!(tower.windows(3, 3), expected);
        assert_eq!(tower.windows(1, 2), [vec![0, 1]]);
    }

    #[test]
    fn images_are_kept_by_size_and_squares_stay_whole() {
        let tower = GridTower::new(8, 1e4, 2).unwrap().with_windows(2);
        let order = tower.order(&[[4, 6], [2, 2]]);
        assert_eq!(order.squares, [6, 2, 5, 0, 1, 3, 4]);
        assert_eq!(order.images.groups, [(4, 1), (24, 1)]);
        assert_eq!(order.windows.groups, [(4, 1), (8, 1), (16, 1)]);
    }
}
