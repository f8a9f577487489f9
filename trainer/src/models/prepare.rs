//! Every family's side inputs: the tower's and the decoder's, and where the two meet.

use tch::{Device, Tensor};

use super::language::{LanguageLayouts, RowOrder};
use super::vision::VisionPrepare;
use crate::batch::{Batch, VisionBatch};
use crate::engine::{Precision, PrepareBatch, SideInputs, VisionSide};
use crate::error::Result;

/// Side inputs out of a tower's and a decoder's.
pub struct Prepare {
    pub language: LanguageLayouts,
    pub vision: Box<dyn VisionPrepare>,
}

impl Prepare {
    fn vision_side(
        &self,
        vision: &VisionBatch,
        order: &RowOrder,
        precision: Precision,
        device: Device,
    ) -> Result<VisionSide> {
        let prepared = self.vision.prepare(vision, precision, device)?;
        let mut rows_n = order.rows(&vision.placeholder_positions_n)?;
        if let Some(features) = prepared.feature_order {
            rows_n = rows_n.f_index_select(0, &Tensor::f_from_slice(&features)?)?;
        }
        let arrangement_s = prepared.arrangement.map(|rows| {
            let rows = Tensor::f_from_slice(&rows)?;
            rows.f_to_device(device)
        });
        Ok(VisionSide {
            pixel_values_pd: prepared.pixel_values_pd,
            layouts: prepared.layouts,
            placeholder_rows_n: rows_n.f_to_device(device)?,
            positions: prepared.positions,
            arrangement_s: arrangement_s.transpose()?,
        })
    }
}

impl PrepareBatch for Prepare {
    fn prepare(&self, batch: &Batch, precision: Precision, device: Device) -> Result<SideInputs> {
        let order = RowOrder::of(batch)?;
        let ids_t = order.apply(&batch.input_ids_t, 0)?;
        let vision = batch.vision.as_ref();
        let vision = vision
            .map(|vision| self.vision_side(vision, &order, precision, device))
            .transpose()?;
        let language = self.language.layouts(batch, &order, precision, device)?;
        let order_t = order.order_t.map(|order| order.f_to_device(device));
        Ok(SideInputs {
            input_ids_t: ids_t.f_to_device(device)?,
            order_t: order_t.transpose()?,
            language,
            vision,
        })
    }
}
