//! How much memory the GPUs have that a run may land on: from the spec, or from the labels that
//! GPU feature discovery puts on nodes.

use std::collections::BTreeMap;

use crate::finetune::VLFineTuneSpec;
use crate::quantity;
use crate::workers::{Device, Gpu};

/// Label with the memory of a node's GPUs in MiB; GPU feature discovery sets it.
pub const MEMORY_LABEL: &str = "nvidia.com/gpu.memory";
/// Label with the product name of a node's GPUs.
pub const PRODUCT_LABEL: &str = "nvidia.com/gpu.product";
/// Prefix of the resources of MIG slices, for example `nvidia.com/mig-3g.40gb`.
const MIG_PREFIX: &str = "nvidia.com/mig-";

/// Labels of one node.
pub type NodeLabels = BTreeMap<String, String>;

/// Memory of one GPU, bytes, over all nodes that a run may land on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuMemory {
    /// What a run can count on.
    pub smallest: i64,
    /// Beyond it, a run fits nowhere.
    pub largest: i64,
}

impl GpuMemory {
    /// The same on every node.
    pub fn of(bytes: i64) -> Self {
        Self {
            smallest: bytes,
            largest: bytes,
        }
    }
}

/// What the spec itself says of the memory of one GPU.
pub fn given(spec: &VLFineTuneSpec) -> Option<GpuMemory> {
    let gpu = gpu_of(spec)?;
    let bytes = gpu
        .memory
        .as_ref()
        .and_then(|memory| quantity::parse(&memory.0));
    let bytes = bytes.map(|bytes| bytes as i64);
    // The profile's name holds it: 3g.40gb.
    bytes
        .or_else(|| mig_bytes(&gpu.resource_name))
        .map(GpuMemory::of)
}

/// The memory of one GPU over the nodes whose labels fit the spec; `None` if none is labelled.
pub fn on_nodes(spec: &VLFineTuneSpec, nodes: &[NodeLabels]) -> Option<GpuMemory> {
    let gpu = gpu_of(spec)?;
    let label = match gpu.resource_name.starts_with(MIG_PREFIX) {
        true => format!("{}.memory", gpu.resource_name),
        false => MEMORY_LABEL.to_owned(),
    };
    let selected = nodes
        .iter()
        .filter(|labels| is_selected(spec, &gpu, labels));
    let sizes: Vec<i64> = selected
        .filter_map(|labels| labels.get(&label)?.parse::<i64>().ok())
        .filter(|mebibytes| (1..=1 << 24).contains(mebibytes))
        .map(|mebibytes| mebibytes << 20)
        .collect();
    Some(GpuMemory {
        smallest: sizes.iter().copied().min()?,
        largest: sizes.iter().copied().max()?,
    })
}

/// The GPU of a spec, with what is implied where it names none.
fn gpu_of(spec: &VLFineTuneSpec) -> Option<Gpu> {
    let workers = &spec.workers;
    (workers.device == Device::Gpu).then(|| workers.gpu.clone().unwrap_or_default())
}

fn is_selected(spec: &VLFineTuneSpec, gpu: &Gpu, labels: &NodeLabels) -> bool {
    let has = |key: &str, value: &String| labels.get(key) == Some(value);
    let product = gpu.product.as_ref();
    spec.workers
        .node_selector
        .iter()
        .all(|(key, value)| has(key, value))
        && product.is_none_or(|product| has(PRODUCT_LABEL, product))
}

/// `nvidia.com/mig-3g.40gb` -> 40 GiB. Source: NVIDIA's names of MIG profiles.
fn mig_bytes(resource: &str) -> Option<i64> {
    let profile = resource.strip_prefix(MIG_PREFIX)?;
    let (_, size) = profile.split_once('.')?;
    let digits = size.split("gb").next()?;
    let gibibytes: i64 = digits.parse().ok()?;
    (1..=1024).contains(&gibibytes).then_some(gibibytes << 30)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::load_str;
    use crate::load::tests::MINIMAL;

    fn spec(extra: &str) -> VLFineTuneSpec {
        load_str(&format!("{MINIMAL}{extra}")).unwrap().spec
    }

    fn node(labels: &[(&str, &str)]) -> NodeLabels {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        labels.iter().map(owned).collect()
    }

    #[test]
    fn the_spec_comes_first() {
        let given_by = |extra: &str| given(&spec(extra)).map(|gpu| gpu.smallest);
        assert_eq!(
            given_by("  workers: { gpu: { memory: 80Gi } }"),
            Some(80 << 30)
        );
        let slice = "  workers: { gpu: { resourceName: nvidia.com/mig-3g.40gb } }";
        assert_eq!(given_by(slice), Some(40 << 30));
        assert_eq!(given_by(""), None);
        assert_eq!(given_by("  workers: { device: CPU }"), None);
        let odd = "  workers: { gpu: { resourceName: nvidia.com/mig-shared } }";
        assert_eq!(given_by(odd), None);
    }

    #[test]
    fn nodes_that_fit_the_selector_count() {
        let (gpu, product) = (MEMORY_LABEL, PRODUCT_LABEL);
        let nodes = [
            node(&[(gpu, "40960"), (product, "A100"), ("zone", "a")]),
            node(&[(gpu, "81559"), (product, "H100"), ("zone", "a")]),
            node(&[("zone", "b")]),
            node(&[(gpu, "many"), ("zone", "a")]),
        ];
        let found = |extra: &str| {
            on_nodes(&spec(extra), &nodes).map(|gpu| (gpu.smallest >> 20, gpu.largest >> 20))
        };
        assert_eq!(found(""), Some((40_960, 81_559)));
        assert_eq!(
            found("  workers: { gpu: { product: H100 } }"),
            Some((81_559, 81_559))
        );
        assert_eq!(found("  workers: { nodeSelector: { zone: b } }"), None);
    }

    #[test]
    fn slices_have_labels_of_their_own() {
        let nodes = [node(&[
            (MEMORY_LABEL, "81559"),
            ("nvidia.com/mig-1g.10gb.memory", "9728"),
        ])];
        let slice = spec("  workers: { gpu: { resourceName: nvidia.com/mig-1g.10gb } }");
        assert_eq!(on_nodes(&slice, &nodes), Some(GpuMemory::of(9728 << 20)));
    }
}
