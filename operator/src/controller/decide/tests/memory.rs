//! Out of memory, before and after it happens; and what failures cost.

use vlft_crds::plan::gpu::GpuMemory;
use vlft_crds::run_policy::{ClassLimit, OomPolicy};
use vlft_crds::status::LostToCause;

use super::*;

/// A run on CPUs with eight samples a step, which adapts.
fn adapting() -> World {
    let mut world = World::new();
    world.finetune.spec.workers.device = vlft_crds::workers::Device::Cpu;
    world.finetune.spec.training.global_batch_size = 8;
    world.finetune.spec.run_policy.oom_policy = OomPolicy::Adapt;
    world.finetune.spec.run_policy.backoff_limit = 0;
    world
}

/// Claims and builds an attempt, which then ends with this exit code.
fn attempt_ends(world: &mut World, code: i32) -> Decision {
    assert_eq!(world.pass().action, Action::Claim);
    assert_eq!(world.pass().action, Action::Build);
    world.sees_job(json!({}));
    world.pass();
    world.fails(code)
}

#[test]
fn each_out_of_memory_takes_one_rung_and_none_counts() {
    let mut world = adapting();
    for (from, to) in [("8", "4"), ("4", "2"), ("2", "1")] {
        let end = attempt_ends(&mut world, 12);
        assert_eq!((end.phase, end.reason), (Phase::Restarting, "OutOfMemory"));
        let last = world.status().adjustments.last().unwrap().clone();
        assert_eq!((last.from.as_str(), last.to.as_str()), (from, to));
        assert_eq!(last.field, "training.microBatchSize");
        assert_eq!(last.attempt, world.status().attempt + 1);
        assert!(last.reason.contains("ran out of memory"), "{}", last.reason);
        let valid = validate(&world.finetune, &ClaimModes::new(), None, &defaults()).unwrap();
        let document = vlft_crds::load::load_str(&valid.document).unwrap();
        let training = document.spec.training;
        assert_eq!(training.micro_batch_size, to.parse().ok());
        assert_eq!(training.global_batch_size, 8);
    }
    // Another plan follows at once, and costs nothing of the limit of 0.
    attempt_ends(&mut world, 12);
    let last = world.status().adjustments.last().unwrap();
    assert_eq!(last.field, "training.gradientCheckpointing");
    assert_eq!(world.status().failures, 0);
    assert_eq!(world.status().ended["OutOfMemory"], 4);
}

#[test]
fn the_ladder_ends_in_words_that_help() {
    let mut world = adapting();
    let mut last = None;
    for _ in 0..30 {
        let end = attempt_ends(&mut world, 12);
        if end.phase == Phase::Failed {
            last = Some(end);
            break;
        }
    }
    let end = last.unwrap();
    assert_eq!(end.reason, "OutOfMemory");
    assert!(end.message.contains("oomMayReduce"), "{}", end.message);
    assert_eq!(world.status().phase, Phase::Failed);
}

#[test]
fn without_adapt_it_is_a_failure_like_any_other() {
    let mut world = adapting();
    world.finetune.spec.run_policy.oom_policy = OomPolicy::Fail;
    let end = attempt_ends(&mut world, 12);
    assert_eq!(
        (end.phase, end.reason),
        (Phase::Failed, retry::BACKOFF_LIMIT_EXCEEDED)
    );
    assert!(world.status().adjustments.is_empty());
}

#[test]
fn a_class_has_its_own_budget_even_for_disruptions() {
    let mut world = World::running();
    world.finetune.spec.run_policy.backoff_limit = 9;
    world.finetune.spec.run_policy.backoff_limit_per_class = vec![ClassLimit {
        class: FailureClass::Drained,
        limit: 1,
    }];
    assert_eq!(world.fails(14).phase, Phase::Restarting);
    let end = attempt_ends(&mut world, 14);
    assert_eq!(
        (end.phase, end.reason),
        (Phase::Failed, retry::BACKOFF_LIMIT_EXCEEDED)
    );
    assert!(
        end.message
            .contains("more than 1 attempts ended as Drained"),
        "{}",
        end.message
    );
}

fn seven_b(gib: i64) -> World {
    let mut world = World::new();
    world.finetune.spec.model.base_model = Some("Qwen/Qwen2-VL-7B-Instruct".to_owned());
    world.observed.gpu = Some(GpuMemory::of(gib << 30));
    world
}

#[test]
fn a_doomed_run_books_nothing() {
    let mut world = seven_b(80);
    world.finetune.spec.method = serde_json::from_value(json!({ "full": {} })).unwrap();
    let decision = world.pass();
    assert_eq!(
        (decision.phase, decision.reason),
        (Phase::Rejected, "MemoryExceedsGPU")
    );
    assert!(
        decision.message.contains("would take"),
        "{}",
        decision.message
    );
    assert_eq!(world.condition("Accepted").unwrap().0, "False");
    assert_eq!(world.condition("MemoryAtRisk").unwrap().0, "True");
    let estimate = world.status().memory_estimate.as_ref().unwrap();
    assert!(estimate.states_bytes > estimate.gpu_bytes.unwrap());
    // A larger GPU joins.
    world.observed.gpu = Some(GpuMemory::of(192 << 30));
    assert_eq!(world.pass().action, Action::Claim);
}

#[test]
fn an_estimate_beyond_the_gpu_is_told_and_runs() {
    let mut world = seven_b(20);
    world.finetune.spec.training.micro_batch_size = Some(16);
    assert_eq!(world.pass().action, Action::Claim);
    let expected = ("True".into(), "EstimateExceedsGPU".into());
    assert_eq!(world.condition("MemoryAtRisk").unwrap(), expected);
    assert_eq!(world.attempt().micro_batch_size, None, "it was given");
}

#[test]
fn the_chosen_micro_batch_is_recorded_and_outlives_the_nodes() {
    let mut world = seven_b(80);
    world.pass();
    let chosen = world.attempt().micro_batch_size.unwrap();
    assert!(chosen > 1);
    assert_eq!(world.condition("MemoryAtRisk").unwrap().0, "False");
    world.pass();
    world.sees_job(json!({}));
    // While it runs, nodes are not looked at, and nothing that is known is forgotten.
    world.observed.gpu = None;
    world.pass();
    assert_eq!(world.condition("MemoryAtRisk").unwrap().1, "Fits");
    assert!(world.status().memory_estimate.is_some());
    world.finetune.spec.run_policy.oom_policy = OomPolicy::Adapt;
    world.fails(12);
    let adjustment = world.status().adjustments.last().unwrap();
    assert_eq!(adjustment.from, chosen.to_string());
}

#[test]
fn an_unknown_model_is_said_to_be_unknown() {
    let mut world = World::new();
    assert_eq!(world.pass().action, Action::Claim);
    let expected = ("Unknown".into(), "ModelUnknown".into());
    assert_eq!(world.condition("MemoryAtRisk").unwrap(), expected);
    assert_eq!(world.status().memory_estimate, None);
}

#[test]
fn lost_work_is_what_had_to_be_repeated() {
    let mut world = World::running();
    world.tells_step(8);
    world.later(590);
    // Eight steps within 600 s of the Job's creation.
    world.fails(101);
    assert_eq!(world.pass().action, Action::Claim);
    assert_eq!(world.pass().action, Action::Build);
    world.sees_job(json!({}));
    world.sees_pod(0, running());
    world.pass();
    assert_eq!(world.status().lost_work, None, "nobody knows yet");
    let attempt = world.status().attempt;
    world.observed.progress = Some(Progress {
        attempt,
        step: 6,
        total_steps: 10,
        resumed_from: serde_json::from_value(json!({ "step": 6, "digest": "d" })).ok(),
        ..Progress::default()
    });
    world.pass();
    let lost = world.status().lost_work.clone().unwrap();
    assert_eq!(lost.steps, 2);
    assert!((145..=155).contains(&lost.gpu_seconds), "{lost:?}");
    let of_bugs = LostToCause {
        steps: 2,
        gpu_seconds: lost.gpu_seconds,
    };
    assert_eq!(lost.by_cause, [("Bug".to_owned(), of_bugs)].into());
    assert_eq!(world.status().attempts[0].lost_steps, Some(2));
    world.pass();
    assert_eq!(world.status().lost_work, Some(lost), "it is entered once");
}

#[test]
fn an_attempt_without_a_step_lost_all_its_time() {
    let mut world = World::started();
    world.later(291);
    world.fails(101);
    world.pass();
    world.pass();
    world.sees_job(json!({}));
    world.sees_pod(0, running());
    world.tells_step(1);
    world.pass();
    let lost = world.status().lost_work.clone().unwrap();
    assert_eq!(lost.steps, 0);
    assert!((295..=305).contains(&lost.gpu_seconds), "{lost:?}");
}
