//! From flattened patches to patch states, with learned positions and perhaps a class token.

use tch::Tensor;

use crate::engine::{
    Param, ParameterSpec, SideInputs, Stream, TablePositions, Unit, UnitContext, VisionSide,
    Weights,
};
use crate::error::{Error, Result};
use crate::models::builder::UnitBuilder;
use crate::models::layers::{Norm, NormKind};

/// What a tower calls its embedding's parts.
#[derive(Debug)]
pub struct EmbeddingNames {
    /// The convolution.
    pub patch: &'static str,
    pub class: Option<&'static str>,
    /// The tensor itself, with `.weight` where it is an embedding.
    pub positions: &'static str,
    /// Behind the sum (CLIP).
    pub norm: Option<&'static str>,
    /// Whether class and positions have two leading axes of size one (ViT).
    pub batched: bool,
}

/// Sizes of a [`PatchEmbeddings`].
#[derive(Debug, Clone, Copy)]
pub struct EmbeddingShape<'a> {
    pub width: i64,
    /// The convolution's weight behind the output channels, e.g. `[3, 14, 14]`.
    pub kernel: &'a [i64],
    /// Rows of the position table, the class token's included.
    pub positions: i64,
    pub bias: bool,
    pub norm: NormKind,
}

/// A convolution whose kernel is its stride, run as the linear layer that it is; class token and
/// positions; perhaps a norm.
#[derive(Debug)]
pub struct PatchEmbeddings {
    name: String,
    parameters: Vec<ParameterSpec>,
    weight: Param,
    bias: Option<Param>,
    class: Option<Param>,
    positions: Param,
    norm: Option<Norm>,
    width: i64,
}

impl PatchEmbeddings {
    pub fn new(mut b: UnitBuilder, names: &EmbeddingNames, shape: EmbeddingShape) -> Self {
        let EmbeddingShape { width, kernel, .. } = shape;
        let leading: &[i64] = if names.batched { &[1, 1] } else { &[] };
        let kernel = [&[width], kernel].concat();
        let weight = b.parameter(&format!("{}.weight", names.patch), &kernel);
        let bias = format!("{}.bias", names.patch);
        let class = [leading, &[width]].concat();
        let positions: &[i64] = &[shape.positions, width];
        let table = match names.batched {
            true => [&[1], positions].concat(),
            false => positions.to_vec(),
        };
        Self {
            weight,
            bias: shape.bias.then(|| b.parameter(&bias, &[width])),
            class: names.class.map(|name| b.parameter(name, &class)),
            positions: b.parameter(names.positions, &table),
            norm: names.norm.map(|name| b.norm(name, width, shape.norm)),
            width,
            name: b.module(),
            parameters: b.finish(),
        }
    }

    /// `[P, D]`, or `[I * (1 + n), D]` with class tokens before the `n` patches of each tile.
    fn embed(&self, vision: &VisionSide, weights: &Weights) -> Result<Tensor> {
        let weight = weights[self.weight].f_view([self.width, -1])?;
        let bias = self.bias.map(|bias| &weights[bias]);
        let x_pd = vision.pixel_values_pd.f_linear(&weight, bias)?;
        let table_sd = weights[self.positions].f_view([-1, self.width])?;
        if let Some(positions) = &vision.positions {
            return Ok(x_pd.f_add(&blended(&table_sd, positions)?.f_to_kind(x_pd.kind())?)?);
        }
        let rows = table_sd.size2()?.0 - i64::from(self.class.is_some());
        let mut x_ind = x_pd.f_view([-1, rows, self.width])?;
        if let Some(class) = self.class {
            let tiles = x_ind.size3()?.0;
            let class = weights[class].f_view([1, 1, self.width])?;
            x_ind = Tensor::f_cat(
                &[&class.f_expand([tiles, 1, self.width], false)?, &x_ind],
                1,
            )?;
        }
        Ok(x_ind.f_add(&table_sd)?.f_view([-1, self.width])?)
    }
}

/// Rows of the table for each patch, `[P, D]`, in at least float32 where they are weighted.
fn blended(table_sd: &Tensor, positions: &TablePositions) -> Result<Tensor> {
    let (taps, patches) = positions.rows_kp.size2()?;
    let rows = positions.rows_kp.f_view([-1])?;
    let rows_kpd = table_sd
        .f_index_select(0, &rows)?
        .f_view([taps, patches, -1])?;
    match &positions.weights_kp {
        None => Ok(rows_kpd.f_select(0, 0)?),
        Some(weights_kp) => {
            let weighted = rows_kpd.f_mul(&weights_kp.f_unsqueeze(2)?)?;
            Ok(weighted.f_sum_dim_intlist([0i64].as_slice(), false, None::<tch::Kind>)?)
        }
    }
}

impl Unit for PatchEmbeddings {
    fn name(&self) -> &str {
        &self.name
    }

    fn parameters(&self) -> &[ParameterSpec] {
        &self.parameters
    }

    fn reads(&self, _side: &SideInputs) -> &[Stream] {
        &[]
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
        _inputs: &[Tensor],
        context: &UnitContext,
    ) -> Result<Vec<Tensor>> {
        let vision = context.side.vision.as_ref();
        let vision = vision.ok_or_else(|| Error::Bug("no pixels for the vision tower".into()))?;
        let x = self.embed(vision, weights)?;
        let normed = match &self.norm {
            Some(norm) => norm.forward(&x, weights)?,
            None => x,
        };
        Ok(vec![normed])
    }
}
