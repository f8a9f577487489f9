//! A toy vision-language model: three streams, one of them read twice, tied or untied head.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use crate::batch::{Batch, Cursor, VisionBatch};
use crate::engine::*;
use crate::error::{Error, Result};

pub const VISION: &[&str] = &["patch.w", "tower.w", "tower.deep"];
pub const LANGUAGE: &[&str] = &["table", "mix.w", "deep.w", "late.w", "norm.w", "head.w"];

const HIDDEN: i64 = 6;
const VOCABULARY: i64 = 11;
const PIXELS: i64 = 5;

type Forward = fn(&Weights, &[Tensor], &UnitContext, f64) -> Result<Vec<Tensor>>;

/// How a toy differs from the plain one.
#[derive(Clone, Copy)]
pub struct ToyOptions {
    pub tied: bool,
    pub frozen: &'static [&'static str],
    pub dropout: f64,
    pub precision: Precision,
}

impl Default for ToyOptions {
    fn default() -> Self {
        Self {
            tied: false,
            frozen: &[],
            dropout: 0.0,
            precision: Precision::Float64,
        }
    }
}

struct ToyUnit {
    name: &'static str,
    parameters: Vec<ParameterSpec>,
    reads: &'static [Stream],
    reads_text_only: &'static [Stream],
    writes: &'static [Stream],
    needs_vision: bool,
    table: bool,
    dropout: f64,
    forward: Forward,
}

impl Unit for ToyUnit {
    fn name(&self) -> &str {
        self.name
    }
    fn parameters(&self) -> &[ParameterSpec] {
        &self.parameters
    }
    fn reads(&self, side: &SideInputs) -> &[Stream] {
        if side.vision.is_some() {
            self.reads
        } else {
            self.reads_text_only
        }
    }
    fn writes(&self) -> &[Stream] {
        self.writes
    }
    fn active(&self, side: &SideInputs) -> bool {
        !self.needs_vision || side.vision.is_some()
    }
    fn lookup(&self) -> Option<Param> {
        self.table.then_some(Param(0))
    }
    fn random(&self) -> bool {
        self.dropout > 0.0
    }
    fn forward(&self, w: &Weights, inputs: &[Tensor], c: &UnitContext) -> Result<Vec<Tensor>> {
        let dropout = if c.training { self.dropout } else { 0.0 };
        (self.forward)(w, inputs, c, dropout)
    }
}

fn rows<'a>(context: &'a UnitContext) -> &'a Tensor {
    &context.side.vision.as_ref().unwrap().placeholder_rows_n
}

fn patch(w: &Weights, _: &[Tensor], c: &UnitContext, _: f64) -> Result<Vec<Tensor>> {
    Ok(vec![
        c.side
            .vision
            .as_ref()
            .unwrap()
            .pixel_values_pd
            .matmul(&w[Param(0)])
            .tanh(),
    ])
}

fn tower(w: &Weights, x: &[Tensor], _: &UnitContext, _: f64) -> Result<Vec<Tensor>> {
    Ok(vec![
        &x[0] + x[0].matmul(&w[Param(0)]).tanh(),
        x[0].matmul(&w[Param(1)]),
    ])
}

fn embed(_: &Weights, x: &[Tensor], c: &UnitContext, _: f64) -> Result<Vec<Tensor>> {
    match x {
        [vision, rows_th] => Ok(vec![rows_th.index_copy(0, rows(c), vision)]),
        [rows_th] => Ok(vec![rows_th.shallow_clone()]),
        _ => Err(Error::Bug("one or two inputs".into())),
    }
}

fn mix(w: &Weights, x: &[Tensor], _: &UnitContext, dropout: f64) -> Result<Vec<Tensor>> {
    let inner = x[0].matmul(&w[Param(0)]).tanh();
    let inner = if dropout > 0.0 {
        inner.dropout(dropout, true)
    } else {
        inner
    };
    Ok(vec![&x[0] + inner])
}

/// Adds the deep stream, scaled by a weight, to the rows that came from vision.
fn deep(w: &Weights, x: &[Tensor], c: &UnitContext, _: f64) -> Result<Vec<Tensor>> {
    match x {
        [hidden, deep] => Ok(vec![hidden.index_add(0, rows(c), &(deep * &w[Param(0)]))]),
        _ => Ok(vec![&x[0] * (&w[Param(0)] + 1.0)]),
    }
}

fn norm(w: &Weights, x: &[Tensor], _: &UnitContext, _: f64) -> Result<Vec<Tensor>> {
    let rms = x[0]
        .square()
        .mean_dim([-1i64].as_slice(), true, None::<Kind>)
        .sqrt();
    Ok(vec![&x[0] / rms * &w[Param(0)]])
}

struct Random;

impl TensorSource for Random {
    fn tensor(&self, name: &str) -> Result<Tensor> {
        let shape: Vec<i64> = shape(name).to_vec();
        let parts: Vec<u64> = name.bytes().map(u64::from).collect();
        let _generator = seeded(derive_seed(&parts));
        Ok(Tensor::randn(shape, (Kind::Double, Device::Cpu)) * 0.7)
    }
}

fn shape(name: &str) -> &'static [i64] {
    match name {
        "patch.w" => &[PIXELS, HIDDEN],
        "table" | "head.w" => &[VOCABULARY, HIDDEN],
        "deep.w" | "late.w" | "norm.w" => &[HIDDEN],
        _ => &[HIDDEN, HIDDEN],
    }
}

struct Identity;

impl PrepareBatch for Identity {
    fn prepare(&self, batch: &Batch, precision: Precision, _: Device) -> Result<SideInputs> {
        let (segments, order) = Segments::sorted(&batch.segments);
        let order_t = order.map(|o| Tensor::from_slice(&o));
        let sorted = |x: &Tensor| match &order_t {
            Some(order) => x.index_select(0, order),
            None => x.shallow_clone(),
        };
        let vision = batch.vision.as_ref().map(|v| VisionSide {
            pixel_values_pd: v.pixel_values_pd.to_kind(precision.compute()),
            layouts: Vec::new(),
            placeholder_rows_n: match &order_t {
                Some(order) => order
                    .argsort(0, false)
                    .index_select(0, &v.placeholder_positions_n),
                None => v.placeholder_positions_n.shallow_clone(),
            },
            positions: None,
            arrangement_s: None,
        });
        let language = vec![AttentionLayout::plain(segments, None, true)];
        let input_ids_t = sorted(&batch.input_ids_t);
        Ok(SideInputs {
            input_ids_t,
            order_t,
            language,
            vision,
        })
    }
}

pub struct Toy(ToyOptions);

impl Toy {
    pub fn new(options: ToyOptions) -> Self {
        Self(options)
    }

    fn spec(&self, name: &str) -> ParameterSpec {
        let tower = if VISION.contains(&name) {
            Tower::Vision
        } else {
            Tower::Language
        };
        let trainable = !self.0.frozen.contains(&name);
        let shape = shape(name).to_vec();
        ParameterSpec {
            name: name.into(),
            shape,
            tower,
            trainable,
            init: Init::Checkpoint,
        }
    }

    fn unit(
        &self,
        name: &'static str,
        parameters: &[&str],
        reads: &'static [Stream],
        writes: &'static [Stream],
        forward: Forward,
    ) -> ToyUnit {
        ToyUnit {
            name,
            parameters: parameters.iter().map(|p| self.spec(p)).collect(),
            reads,
            reads_text_only: if name == "embed" {
                &[]
            } else {
                &[Stream::Hidden]
            },
            writes,
            needs_vision: writes.contains(&Stream::Vision),
            table: name == "embed",
            dropout: if name == "mix" { self.0.dropout } else { 0.0 },
            forward,
        }
    }

    fn units(&self) -> Vec<ToyUnit> {
        use Stream::{DeepStack, Hidden, Vision};
        vec![
            self.unit("patch", &["patch.w"], &[], &[Vision], patch),
            self.unit(
                "tower",
                &["tower.w", "tower.deep"],
                &[Vision],
                &[Vision, DeepStack(0)],
                tower,
            ),
            self.unit("embed", &["table"], &[Vision], &[Hidden], embed),
            self.unit("mix", &["mix.w"], &[Hidden], &[Hidden], mix),
            self.unit(
                "deep",
                &["deep.w"],
                &[Hidden, DeepStack(0)],
                &[Hidden],
                deep,
            ),
            self.unit(
                "late",
                &["late.w"],
                &[Hidden, DeepStack(0)],
                &[Hidden],
                deep,
            ),
        ]
    }

    fn norm(&self) -> ToyUnit {
        self.unit(
            "norm",
            &["norm.w"],
            &[Stream::Hidden],
            &[Stream::Hidden],
            norm,
        )
    }

    pub fn model(&self, recompute: bool, loss_chunk: Option<i64>) -> UnitModel {
        let units = self
            .units()
            .into_iter()
            .map(|u| Box::new(u) as Box<dyn Unit>)
            .collect();
        let projection = if self.0.tied {
            Projection::Tied("table".into())
        } else {
            Projection::Own(self.spec("head.w"))
        };
        let head = Head {
            norm: Box::new(self.norm()),
            projection,
        };
        let options = EngineOptions {
            precision: self.0.precision,
            device: Device::Cpu,
            recompute: Recompute {
                vision: recompute,
                language: recompute,
            },
            loss_chunk,
            seed: 0,
        };
        let assembly = Assembly {
            units,
            head,
            prepare: Box::new(Identity),
        };
        UnitModel::new(assembly, options, &Random).unwrap()
    }

    /// Loss sum and the gradient of `loss / normaliser`, by one graph in float64.
    pub fn autograd(&self, batch: &Batch, normaliser: f64) -> (f64, Vec<(String, Tensor)>) {
        let mut leaves: BTreeMap<String, Tensor> = BTreeMap::new();
        for name in VISION.iter().chain(LANGUAGE) {
            let value = Random.tensor(name).unwrap();
            leaves.insert((*name).into(), value.set_requires_grad(true));
        }
        let side = Identity
            .prepare(batch, Precision::Float64, Device::Cpu)
            .unwrap();
        let context = UnitContext {
            side: &side,
            training: true,
            cache: None,
        };
        let mut streams: BTreeMap<Stream, Tensor> = BTreeMap::new();
        for unit in self.units().into_iter().chain([self.norm()]) {
            let names = unit.parameters.iter().map(|p| &p.name);
            let weights = Weights(names.map(|n| leaves[n].shallow_clone()).collect());
            let mut inputs: Vec<_> = unit
                .reads(&side)
                .iter()
                .map(|s| streams[s].shallow_clone())
                .collect();
            if unit.table {
                inputs.push(leaves["table"].index_select(0, &side.input_ids_t));
            }
            let outputs = unit.forward(&weights, &inputs, &context).unwrap();
            streams.extend(unit.writes.iter().copied().zip(outputs));
        }
        let head = &leaves[if self.0.tied { "table" } else { "head.w" }];
        let labels = batch
            .labels_t
            .index_select(0, side.order_t.as_ref().unwrap());
        let logits = streams[&Stream::Hidden].matmul(&head.tr());
        let loss = logits.cross_entropy_loss(
            &labels,
            None::<Tensor>,
            tch::Reduction::Sum,
            crate::batch::IGNORE_INDEX,
            0.0,
        );
        (&loss / normaliser).backward();
        let grads = leaves.into_iter().map(|(name, leaf)| (name, leaf.grad()));
        (
            f64::try_from(loss).unwrap(),
            grads.filter(|(_, g)| g.defined()).collect(),
        )
    }
}

/// Two segments, the longer first, with a picture in each.
pub fn batch() -> Batch {
    let _generator = seeded(7);
    let pixels = Tensor::randn([3, PIXELS], (Kind::Double, Device::Cpu));
    let vision = VisionBatch {
        pixel_values_pd: pixels,
        grids_thw: vec![[1, 1, 2], [1, 1, 1]],
        originals_hw: vec![[1, 2], [1, 1]],
        placeholder_positions_n: Tensor::from_slice(&[1i64, 2, 6]),
    };
    Batch {
        vision: Some(vision),
        ..text(&[3, 9, 9, 4, 3, 1, 9, 2], &[5, 3])
    }
}

/// One segment and no picture.
pub fn text_only_batch() -> Batch {
    text(&[4, 1, 0, 2], &[3, 1])
}

fn text(ids: &[i64], segments: &[i64]) -> Batch {
    const LABELS: [i64; 8] = [5, -100, 3, 0, -100, 10, -100, 2];
    let labels = &LABELS[..ids.len()];
    Batch {
        input_ids_t: Tensor::from_slice(ids),
        labels_t: Tensor::from_slice(labels),
        position_ids_at: Tensor::arange(ids.len() as i64, (Kind::Int64, Device::Cpu)).view([1, -1]),
        segments: segments.to_vec(),
        vision: None,
        supervised_tokens: labels.iter().filter(|l| **l != -100).count() as i64,
        cursor: Cursor {
            epoch: 0,
            sample: 0,
        },
    }
}
