//! Token embedding, with vision features put in place of placeholders.

use tch::Tensor;

use crate::engine::{Param, ParameterSpec, SideInputs, Stream, Unit, UnitContext, Weights};
use crate::error::{Error, Result};
use crate::models::builder::UnitBuilder;

/// `embed_tokens`, then the scatter of projected vision features.
#[derive(Debug)]
pub struct TokenEmbedding {
    name: String,
    parameters: Vec<ParameterSpec>,
    table: Param,
    scale: Option<f64>,
}

impl TokenEmbedding {
    /// Rows of the table are multiplied with `scale`; features that replace them are not.
    pub fn new(mut builder: UnitBuilder, shape: [i64; 2], scale: Option<f64>) -> Self {
        let table = builder.parameter("weight", &shape);
        Self {
            name: builder.module(),
            parameters: builder.finish(),
            table,
            scale,
        }
    }

    fn scaled(&self, rows_th: &Tensor) -> Result<Tensor> {
        let Some(scale) = self.scale else {
            return Ok(rows_th.shallow_clone());
        };
        // Rounded to the rows' kind first, as transformers does.
        let factor = Tensor::f_from_slice(&[scale])?.f_to_kind(rows_th.kind())?;
        Ok(rows_th.f_mul(&factor.f_to_device(rows_th.device())?)?)
    }

    /// The table's name on disk, for a tied output head.
    pub fn table_name(&self) -> String {
        self.parameters
            .first()
            .map(|p| p.name.clone())
            .unwrap_or_default()
    }
}

impl Unit for TokenEmbedding {
    fn name(&self) -> &str {
        &self.name
    }

    fn parameters(&self) -> &[ParameterSpec] {
        &self.parameters
    }

    fn reads(&self, side: &SideInputs) -> &[Stream] {
        if side.vision.is_some() {
            &[Stream::Vision]
        } else {
            &[]
        }
    }

    fn writes(&self) -> &[Stream] {
        &[Stream::Hidden]
    }

    fn active(&self, _side: &SideInputs) -> bool {
        true
    }

    fn lookup(&self) -> Option<Param> {
        Some(self.table)
    }

    fn forward(
        &self,
        _weights: &Weights,
        inputs: &[Tensor],
        context: &UnitContext,
    ) -> Result<Vec<Tensor>> {
        match (inputs, &context.side.vision) {
            ([rows_th], None) => Ok(vec![self.scaled(rows_th)?]),
            ([features_nh, rows_th], Some(vision)) => {
                Ok(vec![self.scaled(rows_th)?.f_index_copy(
                    0,
                    &vision.placeholder_rows_n,
                    features_nh,
                )?])
            }
            _ => Err(Error::Bug(
                "the embedding reads vision features and rows".into(),
            )),
        }
    }
}
