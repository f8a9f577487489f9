//! AdamW (Loshchilov and Hutter 2019) over libtorch's fused kernel, with a state that can be
//! saved under checkpoint names.

use tch::{Kind, Tensor};
use torch_ext::AdamWSlice;

use super::LearningRates;
use crate::engine::FlatBuffer;
use crate::error::{Error, Result};

/// What stays the same for the whole run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWSettings {
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    /// Decoupled decay of the buffers whose key says so; the others are never decayed.
    pub weight_decay: f64,
}

/// Moments of one flat buffer, in its kind, and its own step count: a buffer that nothing
/// touched keeps both, as PyTorch does for `grad = None`.
#[derive(Debug)]
struct BufferState {
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    /// float32 scalar, as the fused kernel wants it; whole numbers up to 2^24 are exact.
    step: Tensor,
}

/// One parameter's optimizer state as a checkpoint holds it.
#[derive(Debug)]
pub struct StateTensor {
    /// `<checkpoint name>.{exp_avg,exp_avg_sq,step}`
    pub name: String,
    pub tensor: Tensor,
}

/// The optimizer over all trainable buffers, in the store's order.
#[derive(Debug)]
pub struct AdamW {
    settings: AdamWSettings,
    states: Vec<BufferState>,
}

impl AdamW {
    /// Zero moments for each buffer, on its device.
    pub fn new(buffers: &[FlatBuffer], settings: AdamWSettings) -> Result<Self> {
        let states = buffers
            .iter()
            .map(|buffer| {
                Ok(BufferState {
                    exp_avg: buffer.weights.f_zeros_like()?,
                    exp_avg_sq: buffer.weights.f_zeros_like()?,
                    step: Tensor::f_zeros([0i64; 0], (Kind::Float, buffer.weights.device()))?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { settings, states })
    }

    /// Updates every touched buffer in place at the current `rates`.
    pub fn step(&mut self, buffers: &[FlatBuffer], rates: &LearningRates) -> Result<()> {
        let Self { settings, states } = self;
        if buffers.len() != states.len() {
            return Err(Error::Bug(
                "the optimizer was made for other buffers".into(),
            ));
        }
        for (buffer, state) in buffers.iter().zip(states.iter_mut()) {
            if buffer.touched {
                let _ = state.step.f_add_scalar_(1.0)?;
            }
        }
        let mut touched: Vec<_> = buffers
            .iter()
            .zip(states.iter())
            .filter(|(buffer, _)| buffer.touched)
            .collect();
        // One fused call for all buffers that share rate, decay and kind.
        while let Some((first, _)) = touched.first() {
            let key = first.key;
            let (same, others) = touched.into_iter().partition(|(buffer, _)| {
                let other = buffer.key;
                rates.of(other.tower) == rates.of(key.tower)
                    && (other.decay, other.dtype) == (key.decay, key.dtype)
            });
            let same: Vec<_> = same;
            // Where the state is offloaded, gradients come to it.
            let home =
                |(buffer, _): &(&FlatBuffer, _)| buffer.grad.f_to_device(buffer.weights.device());
            let grads = same.iter().map(home).collect::<Result<Vec<_>, _>>()?;
            let slices = same.iter().zip(&grads);
            let slices: Vec<_> = slices.map(|((b, s), grad)| slice(b, grad, s)).collect();
            let decay = if key.decay {
                settings.weight_decay
            } else {
                0.0
            };
            torch_ext::fused_adamw_(&slices, call(settings, rates.of(key.tower), decay), None)?;
            touched = others;
        }
        Ok(())
    }

    /// This process's part of the state under checkpoint names: moments in the parameter's own
    /// shape, or `[piece]` where buffers are sharded. Views: to be copied before the next step.
    pub fn named_state(&self, buffers: &[FlatBuffer]) -> Result<Vec<StateTensor>> {
        let mut all = Vec::new();
        for (buffer, state) in buffers.iter().zip(&self.states) {
            for span in &buffer.spans {
                let mut push = |part: &str, tensor: Option<Tensor>| {
                    let name = format!("{}.{part}", span.name);
                    all.extend(tensor.map(|tensor| StateTensor { name, tensor }));
                };
                push("exp_avg", buffer.piece(span, &state.exp_avg)?);
                push("exp_avg_sq", buffer.piece(span, &state.exp_avg_sq)?);
                // Once: by whoever holds the first element.
                let first = buffer.owned.contains(&span.offset);
                push("step", first.then(|| state.step.shallow_clone()));
            }
        }
        Ok(all)
    }

    /// Copies this process's part of a saved state in; `lookup` finds a whole tensor by the names
    /// of [`Self::named_state`], in its parameter's shape or flat.
    pub fn load_named(
        &mut self,
        buffers: &[FlatBuffer],
        lookup: &dyn Fn(&str) -> Result<Tensor>,
    ) -> Result<()> {
        for (buffer, state) in buffers.iter().zip(&mut self.states) {
            for span in &buffer.spans {
                let moment = |part: &str| {
                    let name = format!("{}.{part}", span.name);
                    fitting(lookup(&name)?, &name, span.numel())
                };
                buffer.copy_in(span, &state.exp_avg, &moment("exp_avg")?)?;
                buffer.copy_in(span, &state.exp_avg_sq, &moment("exp_avg_sq")?)?;
                let name = format!("{}.step", span.name);
                let step = fitting(lookup(&name)?, &name, 1)?.f_view([0i64; 0])?;
                tch::no_grad(|| state.step.f_copy_(&step))?;
            }
        }
        Ok(())
    }
}

/// The tensor, if it has as many elements as wanted.
fn fitting(saved: Tensor, name: &str, elements: i64) -> Result<Tensor> {
    if saved.numel() as i64 == elements {
        return Ok(saved);
    }
    Err(Error::User(format!(
        "optimizer state `{name}` has shape {:?} in the checkpoint but {elements} elements here; \
         resume with the model and method of the checkpoint",
        saved.size()
    )))
}

fn slice<'a>(buffer: &'a FlatBuffer, grad: &'a Tensor, state: &'a BufferState) -> AdamWSlice<'a> {
    AdamWSlice {
        parameter: &buffer.weights,
        grad,
        exp_avg: &state.exp_avg,
        exp_avg_sq: &state.exp_avg_sq,
        step: &state.step,
    }
}

fn call(settings: &AdamWSettings, lr: f64, weight_decay: f64) -> torch_ext::AdamW {
    torch_ext::AdamW {
        lr,
        beta1: settings.beta1,
        beta2: settings.beta2,
        weight_decay,
        eps: settings.eps,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tch::Device;
    use vlft_crds::training::LrScheduler;

    use super::*;
    use crate::engine::{GroupKey, Span, Tower};
    use crate::optim::{Schedule, clip_grad_norm, grad_norm};

    fn buffer(name: &str, values: &[f64], tower: Tower, decay: bool, dtype: Kind) -> FlatBuffer {
        let weights = Tensor::from_slice(values).to_kind(dtype);
        let key = GroupKey {
            dtype,
            tower,
            decay,
        };
        let span = Span {
            name: name.to_owned(),
            shape: vec![values.len() as i64],
            offset: 0,
        };
        FlatBuffer::alone(key, vec![span], weights)
    }

    fn three(dtype: Kind) -> Vec<FlatBuffer> {
        vec![
            buffer("a", &[1.0, -2.0, 0.5], Tower::Vision, true, dtype),
            buffer("b", &[0.25, 4.0], Tower::Language, false, dtype),
            buffer("c", &[3.0], Tower::Language, false, dtype),
        ]
    }

    const SETTINGS: AdamWSettings = AdamWSettings {
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-6,
        weight_decay: 0.1,
    };

    const GRADS: [[Option<&[f64]>; 3]; 5] = [
        [Some(&[0.3, 0.0, -4.0]), Some(&[1.0, -1.0]), None],
        [Some(&[0.1, 0.2, 0.3]), Some(&[0.0, 0.5]), Some(&[2.0])],
        [Some(&[-3.0, 1.0, 1.0]), Some(&[0.1, 0.1]), Some(&[-1.0])],
        [
            Some(&[0.01, 0.02, 0.03]),
            Some(&[0.04, 0.05]),
            Some(&[0.06]),
        ],
        [Some(&[5.0, -5.0, 1.0]), Some(&[2.0, 2.0]), None],
    ];

    fn train(buffers: &mut [FlatBuffer], optimizer: &mut AdamW, steps: std::ops::Range<usize>) {
        let peak = LearningRates {
            vision: 0.02,
            projector: 9.0,
            language: 0.05,
        };
        let schedule = Schedule {
            shape: LrScheduler::Cosine,
            warmup_steps: 2,
            total_steps: 6,
        };
        for step in steps {
            for (buffer, grad) in buffers.iter_mut().zip(GRADS[step]) {
                buffer.touched = grad.is_some();
                let values = grad.map_or(vec![f64::NAN], <[f64]>::to_vec);
                if buffer.touched {
                    let values = Tensor::from_slice(&values);
                    buffer.grad.copy_(&values);
                }
            }
            let norm = grad_norm(buffers).unwrap();
            clip_grad_norm(buffers, norm, 1.0).unwrap();
            let rates = peak.scaled(schedule.factor(step as u64));
            optimizer.step(buffers, &rates).unwrap();
        }
    }

    fn values(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor.to_kind(Kind::Double)).unwrap()
    }

    /// `torch.optim.AdamW` with two groups, `LambdaLR` and `clip_grad_norm_` on the same numbers
    /// (torch 2.13.0, float64); `c` had `grad = None` in the first and last step.
    #[test]
    fn five_steps_equal_those_of_pytorch() {
        let mut buffers = three(Kind::Double);
        let mut optimizer = AdamW::new(&buffers, SETTINGS).unwrap();
        train(&mut buffers, &mut optimizer, 0..5);
        let expected = [
            vec![
                1.002_982_702_629_33,
                -2.020_387_399_090_208,
                0.510_792_400_429_036_2,
            ],
            vec![0.159_123_022_866_729_58, 3.974_913_337_614_962],
            vec![2.937_433_761_428_693_4],
        ];
        for (buffer, expected) in buffers.iter().zip(expected) {
            for (got, want) in values(&buffer.weights).iter().zip(expected) {
                assert!((got - want).abs() < 1e-12, "{got} {want}");
            }
        }
        assert_eq!(optimizer.states[2].step.double_value(&[]), 3.0);
    }

    #[test]
    fn the_global_norm_equals_that_of_pytorch_and_skips_untouched_buffers() {
        let mut buffers = three(Kind::Double);
        buffers[0].grad = Tensor::from_slice(&[0.3, 0.0, -4.0]);
        buffers[1].grad = Tensor::from_slice(&[1.0, -1.0]);
        buffers[2].grad = Tensor::from_slice(&[f64::NAN]);
        buffers[0].touched = true;
        buffers[1].touched = true;
        let norm = grad_norm(&buffers).unwrap();
        assert!((norm - 4.253_234_063_627_348).abs() < 1e-14, "{norm}");
        clip_grad_norm(&mut buffers, norm, 1.0).unwrap();
        let clipped = grad_norm(&buffers).unwrap();
        assert!((clipped - 1.0).abs() < 1e-6, "{clipped}");
        buffers[2].touched = true;
        assert!(grad_norm(&buffers).unwrap().is_nan());
    }

    #[test]
    fn a_saved_state_continues_bit_for_bit() {
        let mut whole = three(Kind::Float);
        let mut optimizer = AdamW::new(&whole, SETTINGS).unwrap();
        train(&mut whole, &mut optimizer, 0..3);
        let saved: HashMap<_, _> = optimizer
            .named_state(&whole)
            .unwrap()
            .into_iter()
            .map(|state| (state.name, state.tensor.copy()))
            .collect();
        let mut resumed = three(Kind::Float);
        for (resumed, whole) in resumed.iter_mut().zip(&whole) {
            resumed.weights.copy_(&whole.weights);
        }
        let mut again = AdamW::new(&resumed, SETTINGS).unwrap();
        again
            .load_named(&resumed, &|name| Ok(saved[name].shallow_clone()))
            .unwrap();
        train(&mut whole, &mut optimizer, 3..5);
        train(&mut resumed, &mut again, 3..5);
        for (resumed, whole) in resumed.iter().zip(&whole) {
            assert_eq!(resumed.weights, whole.weights);
        }
    }

    #[test]
    fn bfloat16_states_follow_float32_within_their_precision() {
        let (mut half, mut full) = (three(Kind::BFloat16), three(Kind::Float));
        for buffers in [&mut half, &mut full] {
            let mut optimizer = AdamW::new(buffers, SETTINGS).unwrap();
            assert_eq!(optimizer.states[0].exp_avg.kind(), buffers[0].key.dtype);
            train(buffers, &mut optimizer, 0..5);
        }
        for (half, full) in half.iter().zip(&full) {
            for (got, want) in values(&half.weights).iter().zip(values(&full.weights)) {
                // Three roundings to 8 significant bits each of five steps.
                assert!(
                    (got - want).abs() < 0.03 * want.abs().max(1.0),
                    "{got} {want}"
                );
            }
        }
    }

    #[test]
    fn a_state_of_another_shape_is_refused_by_name() {
        let buffers = three(Kind::Float);
        let mut optimizer = AdamW::new(&buffers, SETTINGS).unwrap();
        let other = Tensor::zeros([7], (Kind::Float, Device::Cpu));
        let error = optimizer
            .load_named(&buffers, &|_| Ok(other.shallow_clone()))
            .unwrap_err();
        assert!(error.to_string().contains("`a.exp_avg`"), "{error}");
    }
}
