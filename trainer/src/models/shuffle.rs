//! Pixel shuffle: squares of patches become one row.

use tch::Tensor;

use crate::error::Result;

/// `[I * side * side, D]` patches of tiles to `[I * (side / scale)^2, D * scale^2]`: the patches
/// of a square one after the other, squares in raster order.
pub fn pixel_shuffle(x: &Tensor, side: i64, scale: i64) -> Result<Tensor> {
    let squares = side / scale;
    let width = x.size2()?.1;
    // Tile, square's row, row in it, square's column, column in it.
    let x = x.f_view([-1, squares, scale, squares, scale, width])?;
    let x = x.f_permute([0, 1, 3, 2, 4, 5])?;
    Ok(x.f_reshape([-1, width * scale * scale])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_come_in_raster_order() {
        let patches = Tensor::arange(16, (tch::Kind::Int64, tch::Device::Cpu)).view([16, 1]);
        let shuffled = pixel_shuffle(&patches, 4, 2).unwrap().view(-1);
        let expected = [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15];
        assert_eq!(Vec::<i64>::try_from(shuffled).unwrap(), expected);
    }
}
