//! The engine against plain autograd, on a toy model with three streams.

mod toy;

use tch::{Kind, Tensor};

use super::*;
use toy::{Toy, ToyOptions, batch, text_only_batch};

/// Largest difference of any gradient, relative to the reference's norm.
fn largest_difference(model: &UnitModel, reference: &[(String, Tensor)]) -> f64 {
    let grads = model.parameters().named_grads().unwrap();
    let differences = grads.iter().map(|(name, grad)| {
        let (_, want) = reference.iter().find(|(n, _)| n == name).unwrap();
        let norm = f64::try_from(want.norm()).unwrap();
        assert!(norm > 1e-6, "{name} has no gradient to compare");
        f64::try_from((grad - want).norm()).unwrap() / norm
    });
    differences.fold(0.0, f64::max)
}

#[test]
fn gradients_equal_plain_autograd_tied_and_untied() {
    for tied in [false, true] {
        for recompute in [false, true] {
            let toy = Toy::new(ToyOptions {
                tied,
                ..ToyOptions::default()
            });
            let mut model = toy.model(recompute, Some(2));
            let batch = batch();
            let (loss, reference) = toy.autograd(&batch, 7.0);
            let output = model.forward_backward(&batch, 7.0, 1).unwrap();
            assert!((output.loss_sum - loss).abs() < 1e-12 * loss);
            assert_eq!(output.supervised, 5);
            let difference = largest_difference(&model, &reference);
            assert!(
                difference < 1e-12,
                "tied {tied} recompute {recompute}: {difference}"
            );
            assert!((model.loss(&batch).unwrap().loss_sum - loss).abs() < 1e-12 * loss);
        }
    }
}

#[test]
fn micro_batches_add_up_and_zero_grad_forgets_them() {
    let toy = Toy::new(ToyOptions::default());
    let mut model = toy.model(false, None);
    let (_, reference) = toy.autograd(&batch(), 5.0);
    for seed in 0..2 {
        model.forward_backward(&batch(), 10.0, seed).unwrap();
    }
    assert!(largest_difference(&model, &reference) < 1e-12);
    model.parameters_mut().zero_grad().unwrap();
    for (name, grad) in model.parameters().named_grads().unwrap() {
        assert_eq!(f64::try_from(grad.abs().max()).unwrap(), 0.0, "{name}");
    }
}

#[test]
fn frozen_parts_get_no_gradient_and_the_rest_is_unchanged() {
    for frozen in [toy::VISION, toy::LANGUAGE] {
        let toy = Toy::new(ToyOptions {
            frozen,
            ..ToyOptions::default()
        });
        let mut model = toy.model(false, None);
        let (_, reference) = toy.autograd(&batch(), 5.0);
        model.forward_backward(&batch(), 5.0, 1).unwrap();
        assert!(largest_difference(&model, &reference) < 1e-12);
        let trained = model.parameters().named_grads().unwrap();
        assert!(!trained.is_empty());
        assert!(trained.iter().all(|(name, _)| !frozen.contains(name)));
    }
}

#[test]
fn nothing_below_the_first_trainable_unit_keeps_a_graph() {
    let toy = Toy::new(ToyOptions {
        frozen: toy::VISION,
        ..ToyOptions::default()
    });
    let model = toy.model(false, None);
    assert_eq!(
        model.taped_units(&batch()).unwrap(),
        ["embed", "mix", "deep", "late"]
    );
    let toy = Toy::new(ToyOptions {
        frozen: toy::LANGUAGE,
        ..ToyOptions::default()
    });
    let model = toy.model(false, None);
    let taped = model.taped_units(&batch()).unwrap();
    assert_eq!(taped, ["patch", "tower", "embed", "mix", "deep", "late"]);
}

#[test]
fn a_text_only_batch_leaves_vision_untouched() {
    let toy = Toy::new(ToyOptions::default());
    let mut model = toy.model(false, None);
    model.forward_backward(&text_only_batch(), 3.0, 1).unwrap();
    for buffer in model.parameters().buffers() {
        let vision = buffer
            .spans
            .iter()
            .any(|s| toy::VISION.contains(&s.name.as_str()));
        assert_eq!(buffer.touched, !vision, "{:?}", buffer.spans);
    }
}

#[test]
fn recompute_repeats_dropout_exactly() {
    let grads = |recompute, seed| {
        let toy = Toy::new(ToyOptions {
            dropout: 0.5,
            ..ToyOptions::default()
        });
        let mut model = toy.model(recompute, None);
        let loss = model
            .forward_backward(&batch(), 1.0, seed)
            .unwrap()
            .loss_sum;
        let flat: Vec<_> = model
            .parameters()
            .buffers()
            .iter()
            .map(|b| b.grad.shallow_clone())
            .collect();
        (loss, Tensor::cat(&flat, 0))
    };
    let (kept, again, other) = (grads(false, 3), grads(true, 3), grads(false, 4));
    assert_eq!(kept.0, again.0);
    assert!(kept.1.equal(&again.1));
    assert_ne!(kept.0, other.0);
}

#[test]
fn mixed_precision_collects_float_gradients_near_the_exact_ones() {
    let toy = Toy::new(ToyOptions {
        precision: Precision::BFloat16Mixed,
        ..ToyOptions::default()
    });
    for recompute in [false, true] {
        let mut model = toy.model(recompute, None);
        let (_, reference) = toy.autograd(&batch(), 5.0);
        model.forward_backward(&batch(), 5.0, 1).unwrap();
        for buffer in model.parameters().buffers() {
            assert_eq!(
                (buffer.weights.kind(), buffer.grad.kind()),
                (Kind::Float, Kind::Float)
            );
        }
        let difference = largest_difference(&model, &reference);
        assert!(difference < 0.05, "{difference}");
    }
}

#[test]
fn a_batch_without_labels_has_no_loss_and_touches_nothing() {
    let toy = Toy::new(ToyOptions::default());
    let mut model = toy.model(false, None);
    let mut unlabelled = batch();
    unlabelled.labels_t = unlabelled.labels_t.full_like(crate::batch::IGNORE_INDEX);
    let output = model.forward_backward(&unlabelled, 1.0, 1).unwrap();
    assert_eq!(
        output,
        LossOutput {
            loss_sum: 0.0,
            supervised: 0
        }
    );
    assert!(model.parameters().buffers().iter().all(|b| !b.touched));
}

#[test]
fn logits_come_in_the_order_of_the_batch() {
    let toy = Toy::new(ToyOptions::default());
    let model = toy.model(false, None);
    let logits = model.logits(&batch()).unwrap();
    let log_p = logits.log_softmax(1, Kind::Double);
    let labels = batch().labels_t;
    let rows = labels
        .ne(crate::batch::IGNORE_INDEX)
        .nonzero()
        .squeeze_dim(1);
    let labels = labels.index_select(0, &rows).unsqueeze(1);
    let loss = -log_p
        .index_select(0, &rows)
        .gather(1, &labels, false)
        .sum(Kind::Double);
    let want = model.loss(&batch()).unwrap().loss_sum;
    assert!((f64::try_from(loss).unwrap() - want).abs() < 1e-12 * want);
}
