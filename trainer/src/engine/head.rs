//! Final norm, output head and cross-entropy, at supervised positions only.

use tch::{Kind, Tensor};

use super::{Param, ParameterSpec, ParameterStore, Unit};
use crate::error::Result;

/// The output head: final norm, then a bias-free projection to the vocabulary.
pub struct Head {
    /// Reads and writes `Hidden`; runs on the supervised rows alone.
    pub norm: Box<dyn Unit>,
    pub projection: Projection,
}

impl Head {
    /// V, the number of rows of the projection.
    pub(super) fn vocabulary(&self, units: &[Box<dyn Unit>]) -> i64 {
        let own = |spec: &ParameterSpec| spec.shape.first().copied();
        let found = match &self.projection {
            Projection::Own(spec) => own(spec),
            Projection::Tied(name) => units
                .iter()
                .flat_map(|u| u.parameters())
                .find(|p| &p.name == name)
                .and_then(own),
        };
        found.unwrap_or(1)
    }
}

/// The projection `[V, H]` to the vocabulary.
#[derive(Debug, Clone, PartialEq)]
pub enum Projection {
    /// A parameter of its own.
    Own(ParameterSpec),
    /// Another unit's parameter, usually the token embedding.
    Tied(String),
}

impl Projection {
    /// The projection as a unit of the store: its own parameters and the borrowed names.
    pub(super) fn places(&self) -> (&[ParameterSpec], &[String]) {
        match self {
            Self::Own(spec) => (std::slice::from_ref(spec), &[]),
            Self::Tied(name) => (&[], std::slice::from_ref(name)),
        }
    }
}

/// The only parameter of the projection.
const PROJECTION: Param = Param(0);

/// Cross-entropy through the projection, in chunks of rows whose backward runs inside.
/// Legend: S supervised rows, C rows of one chunk, H hidden, V vocabulary.
pub(super) struct ChunkedLoss<'a> {
    pub store: &'a ParameterStore,
    /// The projection's index in the store.
    pub unit: usize,
    /// Rows whose logits exist at once.
    pub chunk: i64,
}

impl ChunkedLoss<'_> {
    /// Summed loss of normed rows `[S, H]` against labels `[S]`, a float64 scalar.
    pub(super) fn loss(&self, rows_sh: &Tensor, labels_s: &Tensor) -> Result<Tensor> {
        let weights = self.store.gather(self.unit, false)?;
        let mut total = zero(rows_sh)?;
        for (rows_ch, labels_c) in self.chunks(rows_sh, labels_s)? {
            let (loss, _) = cross_entropy(&logits(&rows_ch, &weights[PROJECTION])?, &labels_c)?;
            total = total.f_add(&loss)?;
        }
        Ok(total)
    }

    /// As [`Self::loss`]; adds the projection's gradient of `loss / normaliser` and returns
    /// that of the rows, `[S, H]`, if `into_rows`.
    pub(super) fn loss_and_grad(
        &self,
        rows_sh: &Tensor,
        labels_s: &Tensor,
        normaliser: f64,
        into_rows: bool,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let weights = self.store.gather(self.unit, false)?;
        let weight_vh = weights[PROJECTION].f_detach()?;
        let mut grad_vh = self.store.grad_view(self.unit, PROJECTION)?;
        let mut total = zero(rows_sh)?;
        let mut row_grads = Vec::new();
        for (rows_ch, labels_c) in self.chunks(rows_sh, labels_s)? {
            let logits_cv = logits(&rows_ch, &weight_vh)?;
            let (loss, log_p_cv) = cross_entropy(&logits_cv, &labels_c)?;
            drop(logits_cv);
            total = total.f_add(&loss)?;
            let grad_cv = logit_grad(log_p_cv, &labels_c, normaliser)?.f_to_kind(rows_ch.kind())?;
            if into_rows {
                row_grads.push(grad_cv.f_mm(&weight_vh)?);
            }
            if let Some(grad_vh) = &mut grad_vh {
                add_outer(grad_vh, &grad_cv, &rows_ch)?;
            }
        }
        let grads = into_rows
            .then(|| Tensor::f_cat(&row_grads, 0))
            .transpose()?;
        Ok((total, grads))
    }

    /// `[R, V]` logits of normed rows `[R, H]`, in the compute kind.
    pub(super) fn logits(&self, rows_rh: &Tensor) -> Result<Tensor> {
        let weights = self.store.gather(self.unit, false)?;
        Ok(rows_rh.f_matmul(&weights[PROJECTION].f_tr()?)?)
    }

    fn chunks(&self, rows_sh: &Tensor, labels_s: &Tensor) -> Result<Vec<(Tensor, Tensor)>> {
        let rows = rows_sh.f_split(self.chunk, 0)?;
        let labels = labels_s.f_split(self.chunk, 0)?;
        Ok(rows.into_iter().zip(labels).collect())
    }
}

fn zero(like: &Tensor) -> Result<Tensor> {
    Ok(Tensor::f_zeros([], (Kind::Double, like.device()))?)
}

/// `[C, V]` logits in at least float32.
fn logits(rows_ch: &Tensor, weight_vh: &Tensor) -> Result<Tensor> {
    let logits = rows_ch.f_matmul(&weight_vh.f_tr()?)?;
    Ok(if logits.kind() == Kind::Double {
        logits
    } else {
        logits.f_to_kind(Kind::Float)?
    })
}

/// The summed loss (float64) and the log-probabilities `[C, V]`.
fn cross_entropy(logits_cv: &Tensor, labels_c: &Tensor) -> Result<(Tensor, Tensor)> {
    let log_p_cv = logits_cv.f_log_softmax(1, None::<Kind>)?;
    let picked = log_p_cv.f_gather(1, &labels_c.f_unsqueeze(1)?, false)?;
    Ok((picked.f_neg()?.f_sum(Kind::Double)?, log_p_cv))
}

/// `(softmax - one_hot) / normaliser`, in place of the log-probabilities.
fn logit_grad(log_p_cv: Tensor, labels_c: &Tensor, normaliser: f64) -> Result<Tensor> {
    let mut grad = log_p_cv.f_exp()?;
    let minus_one = Tensor::f_full([labels_c.size1()?, 1], -1.0, (grad.kind(), grad.device()))?;
    let mut grad = grad.f_scatter_add_(1, &labels_c.f_unsqueeze(1)?, &minus_one)?;
    Ok(grad.f_mul_scalar_(1.0 / normaliser)?)
}

/// `grad += left^T right`, without a `[V, H]` temporary where kinds agree.
fn add_outer(grad_vh: &mut Tensor, left_cv: &Tensor, right_ch: &Tensor) -> Result<()> {
    let left_vc = left_cv.f_tr()?;
    if grad_vh.kind() == left_vc.kind() {
        let _ = grad_vh.f_addmm_(&left_vc, right_ch)?;
    } else {
        let _ = grad_vh.f_add_(&left_vc.f_mm(right_ch)?)?;
    }
    Ok(())
}
