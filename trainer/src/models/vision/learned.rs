//! Learned positions for images that are not as large as the table.

use tch::Tensor;

use crate::engine::TablePositions;
use crate::error::Result;

/// For each patch of images of these heights and widths (patches, merge order), the four rows of
/// a `side` by `side` table around it and their weights: the table stretched over the image,
/// corners on corners, bilinear. In float32, as transformers computes it.
pub fn interpolated(frames: &[[i64; 2]], side: i64, merge: i64) -> Result<TablePositions> {
    let mut rows: [Vec<i64>; 4] = Default::default();
    let mut weights: [Vec<f32>; 4] = Default::default();
    for &[height, width] in frames {
        let vertical: Vec<_> = (0..height).map(|y| taps(y, height, side)).collect();
        let horizontal: Vec<_> = (0..width).map(|x| taps(x, width, side)).collect();
        for (y, x) in merge_order(height, width, merge) {
            let (Some(v), Some(h)) = (vertical.get(y), horizontal.get(x)) else {
                continue;
            };
            let corners = [(0, 0), (0, 1), (1, 0), (1, 1)];
            let columns = rows.iter_mut().zip(&mut weights);
            for ((rows, weights), (i, j)) in columns.zip(corners) {
                rows.push(v[i].0 * side + h[j].0);
                weights.push(v[i].1 * h[j].1);
            }
        }
    }
    Ok(TablePositions {
        rows_kp: Tensor::f_from_slice(&rows.concat())?.f_view([4, -1])?,
        weights_kp: Some(Tensor::f_from_slice(&weights.concat())?.f_view([4, -1])?),
    })
}

/// The two table rows around position `index` of `size` along one axis, and their weights.
fn taps(index: i64, size: i64, side: i64) -> [(i64, f32); 2] {
    let at = index as f32 * (side - 1) as f32 / (size - 1).max(1) as f32;
    let floor = at.floor();
    [0.0f32, 1.0].map(|offset| {
        let row = (floor as i64 + offset as i64).clamp(0, side - 1);
        (row, (1.0 - (at - floor - offset).abs()).max(0.0))
    })
}

/// `(row, column)` of each patch: merged squares in raster order, patches within them too.
fn merge_order(height: i64, width: i64, merge: i64) -> impl Iterator<Item = (usize, usize)> {
    let squares = (0..height / merge)
        .flat_map(move |top| (0..width / merge).map(move |left| (top * merge, left * merge)));
    let place = |at: i64| usize::try_from(at).unwrap_or(usize::MAX);
    squares.flat_map(move |(top, left)| {
        (0..merge * merge).map(move |i| (place(top + i / merge), place(left + i % merge)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corners_meet_and_the_middle_is_blended() {
        assert_eq!(taps(0, 3, 4), [(0, 1.0), (1, 0.0)]);
        assert_eq!(taps(1, 3, 4), [(1, 0.5), (2, 0.5)]);
        assert_eq!(taps(2, 3, 4), [(3, 1.0), (3, 0.0)]);
        assert_eq!(taps(0, 1, 4)[0], (0, 1.0));
    }

    #[test]
    fn patches_come_square_by_square() {
        let order: Vec<_> = merge_order(2, 4, 2).collect();
        let expected = [
            (0, 0),
            (0, 1),
            (1, 0),
            (1, 1),
            (0, 2),
            (0, 3),
            (1, 2),
            (1, 3),
        ];
        assert_eq!(order, expected);
    }
}
