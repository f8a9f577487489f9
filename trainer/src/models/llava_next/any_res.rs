//! How LLaVA-NeXT cuts an image of any resolution into tiles, and which features it keeps.

use std::ops::Range;

use crate::error::Result;
use crate::models::config::{Section, limits};

/// Resolutions that images are brought to, and the tower's size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnyRes {
    /// `(height, width)`, pixels, multiples of `tile`.
    pub resolutions: Vec<(i64, i64)>,
    /// Side of a tile, pixels and patches.
    pub tile: i64,
    pub side: i64,
}

/// What of an image's patch grid is not padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Tiles along height and width.
    pub tiles: (i64, i64),
    pub rows: Range<i64>,
    pub columns: Range<i64>,
}

impl AnyRes {
    /// Reads `image_grid_pinpoints` of `s`.
    pub fn read(s: Section, tile: i64, side: i64) -> Result<Self> {
        let key = "image_grid_pinpoints";
        let resolutions = match s.get(key) {
            None => [(1, 2), (2, 1), (2, 2), (3, 1), (1, 3)]
                .map(|(h, w)| (336 * h, 336 * w))
                .to_vec(),
            Some(value) => {
                let pair = |pair: &serde_json::Value| {
                    let sides = pair.as_array()?.iter().map(|side| side.as_i64());
                    match sides.collect::<Option<Vec<_>>>()?.as_slice() {
                        [height, width] => Some((*height, *width)),
                        _ => None,
                    }
                };
                let list = value
                    .as_array()
                    .and_then(|list| list.iter().map(pair).collect());
                list.ok_or_else(|| s.error(key, "must be a list of [height, width]"))?
            }
        };
        let fits = |side: i64| side % tile == 0 && (tile..=limits::PIXELS).contains(&side);
        if resolutions.is_empty() || !resolutions.iter().all(|(h, w)| fits(*h) && fits(*w)) {
            let problem =
                format!("must name sides that are multiples of the tower's {tile} pixels");
            return Err(s.error(key, &problem));
        }
        Ok(Self {
            resolutions,
            tile,
            side,
        })
    }

    /// The resolution `(height, width)` that keeps most of an image, and then wastes least.
    pub fn best(&self, (height, width): (i64, i64)) -> (i64, i64) {
        let quality = |&(to_h, to_w): &(i64, i64)| {
            let (h, w) = (height as f64, width as f64);
            let scale = (to_w as f64 / w).min(to_h as f64 / h);
            let kept = (w * scale) as i64 * (h * scale) as i64;
            let kept = kept.min(height * width);
            (kept, kept - to_h * to_w)
        };
        let mut best = (self.tile, self.tile);
        let mut best_quality = (i64::MIN, i64::MIN);
        for resolution in &self.resolutions {
            // The first of equals stays.
            if quality(resolution) > best_quality {
                (best, best_quality) = (*resolution, quality(resolution));
            }
        }
        best
    }

    /// The size `(height, width)` that fills `target` on one axis and fits on the other.
    pub fn fitted((height, width): (i64, i64), (to_h, to_w): (i64, i64)) -> (i64, i64) {
        let (h, w) = (height as f64, width as f64);
        let (scale_w, scale_h) = (to_w as f64 / w, to_h as f64 / h);
        if scale_w < scale_h {
            (((h * scale_w).ceil() as i64).min(to_h), to_w)
        } else {
            (to_h, ((w * scale_h).ceil() as i64).min(to_w))
        }
    }

    /// The patches of an image of this `(height, width)` that are not padding.
    pub fn kept(&self, (height, width): (i64, i64)) -> Kept {
        let (best_h, best_w) = self.best((height, width));
        let tiles = (best_h / self.tile, best_w / self.tile);
        let (rows, columns) = (tiles.0 * self.side, tiles.1 * self.side);
        let (h, w) = (height as f64, width as f64);
        let (grid_h, grid_w) = (rows as f64, columns as f64);
        let without = |current: i64, kept: f64| {
            let padding = (current - truncated(kept)).div_euclid(2);
            padding..current - padding
        };
        let (rows, columns) = match w / h > grid_w / grid_h {
            true => (without(rows, h * (grid_w / w)), 0..columns),
            false => (0..rows, without(columns, w * (grid_h / h))),
        };
        Kept {
            tiles,
            rows,
            columns,
        }
    }

    /// For each image of these `(height, width)`, in their order: the features of the whole image,
    /// then row by row those of the tiles, a separator behind each row. The separator is the row
    /// behind all features.
    pub fn arrangement(&self, originals_hw: &[[i64; 2]]) -> Vec<i64> {
        let tile = self.side * self.side;
        let kept: Vec<Kept> = originals_hw
            .iter()
            .map(|[h, w]| self.kept((*h, *w)))
            .collect();
        let separator: i64 = kept.iter().map(|kept| kept.count() * tile).sum();
        let mut arrangement = Vec::new();
        let mut start = 0;
        for kept in kept {
            arrangement.extend(start..start + tile);
            for row in kept.rows.clone() {
                for column in kept.columns.clone() {
                    let nth = row / self.side * kept.tiles.1 + column / self.side;
                    let inside = row % self.side * self.side + column % self.side;
                    arrangement.push(start + (1 + nth) * tile + inside);
                }
                arrangement.push(separator);
            }
            start += kept.count() * tile;
        }
        arrangement
    }
}

impl Kept {
    /// Tiles, the whole image's included.
    pub fn count(&self) -> i64 {
        self.tiles.0 * self.tiles.1 + 1
    }

    /// Features of an image whose tiles have `side` patches along each side, separators included.
    pub fn features(&self, side: i64) -> i64 {
        let (rows, columns) = (&self.rows, &self.columns);
        side * side + (rows.end - rows.start) * (columns.end - columns.start + 1)
    }
}

/// Python's `int(round(value, 7))`.
fn truncated(value: f64) -> i64 {
    ((value * 1e7).round_ties_even() / 1e7) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any_res() -> AnyRes {
        AnyRes {
            resolutions: vec![(2, 4), (4, 2), (4, 4)],
            tile: 2,
            side: 2,
        }
    }

    #[test]
    fn the_resolution_that_keeps_most_and_wastes_least_is_chosen() {
        assert_eq!(any_res().best((10, 20)), (2, 4));
        assert_eq!(any_res().best((20, 10)), (4, 2));
        assert_eq!(any_res().best((9, 10)), (4, 4));
        assert_eq!(AnyRes::fitted((10, 40), (2, 4)), (1, 4));
    }

    #[test]
    fn padding_is_left_out_and_rows_are_separated() {
        let kept = any_res().kept((10, 40));
        assert_eq!((kept.rows.clone(), kept.columns.clone()), (0..2, 0..4));
        // Half of the padding is less than a patch: it stays, as in transformers.
        let arrangement = any_res().arrangement(&[[10, 40]]);
        assert_eq!(arrangement.len() as i64, kept.features(2));
        let tiles = [4, 5, 8, 9, 12, 6, 7, 10, 11, 12];
        assert_eq!(arrangement, [[0, 1, 2, 3].as_slice(), &tiles].concat());
    }
}
