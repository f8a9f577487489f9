//! Forward passes that keep no graph: validation loss, logits, generation.

use tch::Tensor;

use super::{LossOutput, UnitModel};
use crate::batch::Batch;
use crate::engine::streams::Streams;
use crate::engine::{KeyValueCache, SideInputs, Stream, walk};
use crate::error::Result;

impl UnitModel {
    /// The loss alone: no graph, no dropout. Where parameters are sharded, all processes call
    /// this or [`Self::accompany_loss`] equally often.
    pub fn loss(&self, batch: &Batch) -> Result<LossOutput> {
        let _guard = tch::no_grad_guard();
        let side = self
            .prepare
            .prepare(batch, self.options.precision, self.options.device)?;
        let supervised = self.supervised(batch, &side)?;
        if !self.agree(supervised.is_some())? {
            return Ok(LossOutput::default());
        }
        let hidden_th = self.hidden(&side)?;
        let Some(supervised) = supervised else {
            self.accompany_head()?;
            return Ok(LossOutput::default());
        };
        let rows_sh = hidden_th.f_index_select(0, &supervised.rows_s)?;
        let (normed_sh, _) = self.norm(&side, &rows_sh, false)?;
        let loss = self.chunked_loss().loss(&normed_sh, &supervised.labels_s)?;
        let supervised = supervised.labels_s.size1()?;
        Ok(LossOutput {
            loss_sum: f64::try_from(loss)?,
            supervised,
        })
    }

    /// Takes part in the others' [`Self::loss`] without a batch of our own.
    pub fn accompany_loss(&self) -> Result<()> {
        let _guard = tch::no_grad_guard();
        if !self.agree(false)? {
            return Ok(());
        }
        walk::accompany(&self.units, &self.store)?;
        self.accompany_head()
    }

    /// `[T, V]` logits of every position, in the batch's own order and the compute kind; no
    /// graph, no dropout.
    pub fn logits(&self, batch: &Batch) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let side = self
            .prepare
            .prepare(batch, self.options.precision, self.options.device)?;
        let (normed_th, _) = self.norm(&side, &self.hidden(&side)?, false)?;
        let logits_tv = self.chunked_loss().logits(&normed_th)?;
        match &side.order_t {
            None => Ok(logits_tv),
            Some(order_t) => Ok(logits_tv.f_index_select(0, &order_t.f_argsort(0, false)?)?),
        }
    }

    /// Runs `B` equally long segments on top of the rows that `cache` already holds of each, and
    /// returns the `[B, V]` logits of each segment's last row, in the compute kind.
    pub fn extend(&self, batch: &Batch, cache: &KeyValueCache) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let side = self
            .prepare
            .prepare(batch, self.options.precision, self.options.device)?;
        let mut walk = self.walk(&side, None);
        walk.cache = Some(cache);
        let mut streams = Streams::default();
        walk.forward(&mut streams)?;
        let hidden_th = streams.take(Stream::Hidden)?;
        let (rows, width) = hidden_th.size2()?;
        let length = rows / (batch.segments.len() as i64).max(1);
        let last_bh = hidden_th.f_view([-1, length, width])?.f_select(1, -1)?;
        let (normed_bh, _) = self.norm(&side, &last_bh, false)?;
        self.chunked_loss().logits(&normed_bh)
    }

    /// Last hidden states `[T, H]`, before the final norm.
    fn hidden(&self, side: &SideInputs) -> Result<Tensor> {
        let mut streams = Streams::default();
        self.walk(side, None).forward(&mut streams)?;
        streams.take(Stream::Hidden)
    }
}
