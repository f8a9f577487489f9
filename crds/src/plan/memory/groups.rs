//! A method laid over a model: which parameters of which units train, and what is added.

use crate::finetune::VLFineTuneSpec;
use crate::method::{Lora, Method};
use crate::plan::model_shape::{ModelShape, ParameterShape, Tower, UnitKind, UnitShape};
use crate::plan::resolve::{self, TrainedTowers};

/// Elements that each parameter's place in a flat buffer is rounded up to (64 bytes in bfloat16).
pub(in crate::plan) const ALIGN: i128 = 32;

/// `count` units that are treated alike.
#[derive(Debug, Clone)]
pub(in crate::plan) struct Group<'a> {
    pub unit: &'a UnitShape,
    pub count: i128,
    /// Whether the model's own parameters train.
    pub trains: bool,
    /// Matrices beside linear layers.
    pub lora: Option<LoraHere>,
    /// Width of a bottleneck adapter after the unit.
    pub bottleneck: Option<i128>,
    /// Whether linear layers are held in NF4, and their scales quantised again.
    pub quantised: Option<bool>,
}

/// The low-rank matrices of one unit.
#[derive(Debug, Clone)]
pub(in crate::plan) struct LoraHere {
    pub rank: i128,
    pub dropout: bool,
    /// The linear layers they stand by: inputs and outputs.
    pub layers: Vec<(i128, i128)>,
}

/// One trained parameter.
#[derive(Debug, Clone, Copy)]
pub(in crate::plan) struct Span {
    pub numel: i128,
    pub decay: bool,
}

pub(in crate::plan) fn groups<'a>(
    shape: &'a ModelShape,
    spec: &'a VLFineTuneSpec,
) -> Vec<Group<'a>> {
    let towers = resolve::towers(spec);
    let layers = shape.language_layers();
    let units = shape.units.iter();
    units
        .flat_map(|unit| of_unit(unit, &spec.method, towers, layers))
        .collect()
}

fn of_unit<'a>(
    unit: &'a UnitShape,
    method: &'a Method,
    towers: TrainedTowers,
    layers: i64,
) -> Vec<Group<'a>> {
    let in_tower = contains(towers, unit.tower);
    let mut group = Group {
        unit,
        count: i128::from(unit.count),
        trains: in_tower && method.full.is_some(),
        lora: None,
        bottleneck: None,
        quantised: None,
    };
    let quantised = method.qlora.as_ref();
    let lora = method.lora.as_ref().or(quantised.map(|q| &q.lora));
    if let Some(lora) = lora.filter(|_| in_tower) {
        group.lora = lora_here(unit, lora);
    }
    group.quantised = quantised.map(|qlora| qlora.double_quantization);
    let is_block = matches!(unit.kind, UnitKind::Decoder(_) | UnitKind::Vision(_));
    if let Some(adapter) = method.adapter.as_ref().filter(|_| in_tower && is_block) {
        group.bottleneck = Some(i128::from(adapter.bottleneck));
    }
    match &method.freeze {
        Some(freeze) if matches!(unit.kind, UnitKind::Decoder(_)) => {
            last_layers(group, freeze.trainable_layers.min(layers))
        }
        _ => vec![group],
    }
}

/// The decoder blocks below, and the last ones that train.
fn last_layers(group: Group, trained: i64) -> Vec<Group> {
    let trained = i128::from(trained);
    let below = Group {
        count: (group.count - trained).max(0),
        ..group.clone()
    };
    let last = Group {
        count: trained,
        trains: true,
        ..group
    };
    vec![below, last]
}

fn contains(towers: TrainedTowers, tower: Tower) -> bool {
    match tower {
        Tower::Vision => towers.vision,
        Tower::Projector => towers.projector,
        Tower::Language => towers.language,
    }
}

fn lora_here(unit: &UnitShape, lora: &Lora) -> Option<LoraHere> {
    let parameters = unit.list.iter();
    let layers: Vec<_> = parameters
        .filter(|parameter| is_target(parameter, &lora.target_modules))
        .filter_map(|parameter| parameter.linear)
        .map(|(inputs, outputs)| (i128::from(inputs), i128::from(outputs)))
        .collect();
    (!layers.is_empty()).then_some(LoraHere {
        rank: i128::from(lora.rank),
        dropout: lora.dropout > 0.0,
        layers,
    })
}

/// Names match the last path components. A pattern is taken to match every linear layer: the
/// estimate is then an upper bound.
fn is_target(parameter: &ParameterShape, targets: &[String]) -> bool {
    let pattern = |name: &String| name.contains(['*', '(', '[', '\\', '^', '$', '|']);
    match targets {
        [] => true,
        [one] if one == "all-linear" || pattern(one) => true,
        names => names.iter().any(|name| {
            let rest = parameter.module.strip_suffix(name.as_str());
            let whole = rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
            // A path longer than the module's names the unit as well.
            whole || name.ends_with(&format!(".{}", parameter.module))
        }),
    }
}

impl Group<'_> {
    /// What trains in one unit.
    pub fn spans(&self) -> Vec<Span> {
        let own = self.unit.list.iter().filter(|_| self.trains);
        let mut spans: Vec<Span> = own
            .map(|parameter| Span {
                numel: i128::from(parameter.numel),
                decay: parameter.decay,
            })
            .collect();
        if let Some(LoraHere { rank, layers, .. }) = &self.lora {
            let matrices = layers.iter().flat_map(|(i, o)| [rank * i, rank * o]);
            spans.extend(matrices.map(|numel| Span { numel, decay: true }));
        }
        if let Some(inner) = self.bottleneck {
            let width = self.width();
            let matrices = [(inner * width, true), (inner * width, true)];
            let biases = [(inner, false), (width, false)];
            let all = matrices.into_iter().chain(biases);
            spans.extend(all.map(|(numel, decay)| Span { numel, decay }));
        }
        spans
    }

    /// Trained parameters of all units of the group, without padding.
    pub fn trained_numel(&self) -> i128 {
        self.count * self.spans().iter().map(|span| span.numel).sum::<i128>()
    }

    /// Elements of one unit's flat buffers, each padded to a multiple of `multiple`.
    pub fn buffer_elements(&self, multiple: i128) -> i128 {
        let spans = self.spans();
        let of = |decay: bool| -> i128 {
            let spans = spans.iter().filter(|span| span.decay == decay);
            let length: i128 = spans.map(|span| round_up(span.numel, ALIGN)).sum();
            round_up(length, multiple)
        };
        of(true) + of(false)
    }

    /// Bytes of one unit's frozen parameters in a flat buffer padded to a multiple of `multiple`.
    pub fn frozen_bytes_padded(&self, compute: i128, multiple: i128) -> i128 {
        if self.trains {
            return 0;
        }
        let parameters = self.unit.list.iter();
        let length: i128 = parameters
            .map(|parameter| round_up(i128::from(parameter.numel), ALIGN))
            .sum();
        compute * round_up(length, multiple)
    }

    /// Bytes of one unit's frozen parameters.
    pub fn frozen_bytes(&self, compute: i128) -> i128 {
        if self.trains {
            return 0;
        }
        let parameters = self.unit.list.iter();
        parameters
            .map(|parameter| {
                let numel = i128::from(parameter.numel);
                match self.quantised.filter(|_| parameter.linear.is_some()) {
                    Some(double) => nf4_bytes(numel, double),
                    None => numel * compute,
                }
            })
            .sum()
    }

    /// Elements of the largest matrix of one unit.
    pub fn largest_matrix(&self) -> i128 {
        let parameters = self.unit.list.iter();
        let largest = parameters
            .map(|parameter| i128::from(parameter.numel))
            .max();
        largest.unwrap_or(0)
    }

    /// Whether a gradient reaches anything of the unit.
    pub fn is_trained(&self) -> bool {
        self.count > 0 && (self.trains || self.lora.is_some() || self.bottleneck.is_some())
    }

    fn width(&self) -> i128 {
        i128::from(match self.unit.kind {
            UnitKind::Decoder(shape) => shape.hidden,
            UnitKind::Vision(shape) => shape.width,
            _ => 0,
        })
    }
}

/// Four bits a weight and a scale for each 64 (float32, or eight bits with a float32 for each
/// 256 of them). Source: QLoRA (Dettmers et al. 2023), section 3.
fn nf4_bytes(numel: i128, double: bool) -> i128 {
    let scales = numel.div_euclid(64) + 1;
    let scale_bytes = match double {
        true => scales + 4 * (scales.div_euclid(256) + 1),
        false => 4 * scales,
    };
    numel.div_euclid(2) + 1 + scale_bytes
}

pub(in crate::plan) fn round_up(length: i128, multiple: i128) -> i128 {
    let multiple = multiple.max(1);
    (length + multiple - 1).div_euclid(multiple) * multiple
}
