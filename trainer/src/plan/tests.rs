use vlft_crds::load::load_str;

use super::*;

fn plan(extra: &str) -> Result<RunPlan> {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("data/train")).unwrap();
    std::fs::create_dir_all(root.path().join("models/vlm")).unwrap();
    let text = format!(
        "apiVersion: vlft.dev/v1alpha1\nkind: VLFineTune\nmetadata: {{ name: a }}\nspec:\n  \
         model: {{ uri: pvc://models/vlm }}\n  dataset: {{ train: [{{ uri: pvc://data/train }}] \
         }}\n{extra}"
    );
    let spec = load_str(&text).unwrap().spec;
    let volumes = Volumes::Mounted(root.path().to_owned());
    let place = Place {
        volumes: &volumes,
        run_folder: Path::new("/run"),
        attempt: 1,
        local_rank: 0,
        model_folder: "/run/model".into(),
        adapter_folder: "/run/adapter".into(),
    };
    RunPlan::new(spec, place)
}

const CPU: &str = "  workers: { device: CPU }\n";

#[test]
fn the_defaults_of_a_short_document() {
    let plan = plan(CPU).unwrap();
    assert_eq!(plan.model.engine.precision, Precision::Float32);
    assert_eq!(plan.model.engine.device, Device::Cpu);
    assert_eq!(plan.batch.micro_batch_size, 16);
    let Method::Lora(lora) = &plan.model.method else {
        panic!("{:?}", plan.model.method);
    };
    assert_eq!((lora.rank, lora.alpha), (16, 32.0));
    let towers = plan.model.towers;
    assert!(!towers.vision && !towers.projector && towers.language);
    assert_eq!(plan.export.max_shard_bytes, 5 << 30);
    // 100 samples in batches of 16, rounded up; 3 % of 7 steps, rounded up.
    assert_eq!(plan.total_steps(100), 7);
    assert_eq!(plan.schedule(7).warmup_steps, 1);
}

#[test]
fn a_gpu_run_computes_in_bfloat16_and_recomputes() {
    let plan = plan("").unwrap();
    assert_eq!(plan.model.engine.precision, Precision::BFloat16Mixed);
    assert!(plan.model.engine.device.is_cuda());
    assert!(plan.model.engine.recompute.language);
    assert_eq!(plan.batch.micro_batch_size, GPU_MICRO_BATCH);
}

#[test]
fn rates_and_switches_of_towers_arrive() {
    let extra = "  method:\n    full: {}\n    towers: { vision: { train: false }, projector: { \
                 learningRate: 0.5 } }\n  training: { learningRate: 0.1, maxSteps: 3, warmupSteps: \
                 2 }\n";
    let plan = plan(&format!("{CPU}{extra}")).unwrap();
    assert!(!plan.model.towers.vision && plan.model.towers.projector);
    let rates = plan.rates;
    assert_eq!((rates.projector, rates.language), (0.5, 0.1));
    assert_eq!(plan.total_steps(1_000_000), 3);
    assert_eq!(plan.schedule(3).warmup_steps, 2);
}

#[test]
fn rslora_scales_by_the_root_of_the_rank() {
    let extra = "  method: { lora: { rank: 16, alpha: 8, useRslora: true } }\n";
    let plan = plan(&format!("{CPU}{extra}")).unwrap();
    let Method::Lora(lora) = plan.model.method else {
        panic!("not LoRA");
    };
    assert_eq!(lora.alpha / lora.rank as f64, 8.0 / 4.0);
}

#[test]
fn what_is_not_there_yet_is_refused_by_field() {
    for (extra, part) in [
        ("  method: { qlora: {} }\n", "spec.method.qlora"),
        ("  precision: Float16Mixed\n", "spec.precision"),
        (
            "  output: { maxShardSize: 1.5Gi }\n",
            "spec.output.maxShardSize",
        ),
    ] {
        let message = plan(&format!("{CPU}{extra}")).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn quantities_are_bytes() {
    for (text, bytes) in [
        ("5Gi", Some(5 << 30)),
        ("100M", Some(100_000_000)),
        ("7", Some(7)),
    ] {
        assert_eq!(bytes_of_quantity(text), bytes);
    }
    for text in ["", "Gi", "1.5Gi", "0", "99999999999Ti", "1e3"] {
        assert_eq!(bytes_of_quantity(text), None, "{text}");
    }
}
