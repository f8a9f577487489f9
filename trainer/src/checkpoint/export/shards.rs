//! Weights in files of limited size, with the index that transformers reads.

use std::path::Path;

use serde_json::{Map, json};
use tch::Tensor;

use crate::checkpoint::write_tensors;
use crate::error::{Error, Result};
use crate::models::Weights;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Writes all tensors of `source`, with the values that `tensor` gives, in shards of at most
/// `max_bytes`; a tensor that is larger has a shard of its own.
pub(super) fn write(
    folder: &Path,
    source: &Weights,
    max_bytes: u64,
    tensor: &dyn Fn(&str) -> Result<Tensor>,
) -> Result<()> {
    let mut sizes = Vec::new();
    for name in source.names() {
        sizes.push((name, source.bytes(name)));
    }
    let shards = split(&sizes, max_bytes);
    let mut weight_map = Map::new();
    for (number, names) in shards.iter().enumerate() {
        let file = file_name(number, shards.len());
        let tensors = names
            .iter()
            .map(|name| Ok((*name, tensor(name)?)))
            .collect::<Result<Vec<_>>>()?;
        let named = tensors.iter().map(|(name, tensor)| (*name, tensor));
        write_tensors(&folder.join(&file), named)?;
        weight_map.extend(
            names
                .iter()
                .map(|name| ((*name).to_owned(), file.clone().into())),
        );
    }
    if shards.len() > 1 {
        let total: u64 = sizes.iter().map(|(_, bytes)| bytes).sum();
        let index = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
        let path = folder.join(INDEX);
        let text = serde_json::to_vec_pretty(&index)
            .map_err(|cause| Error::Bug(format!("index: {cause}")))?;
        std::fs::write(&path, text).map_err(|cause| Error::storage("write", &path, &cause))?;
    }
    Ok(())
}

fn file_name(number: usize, count: usize) -> String {
    match count {
        1 => SINGLE.to_owned(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
    }
}

/// Fills one shard after the other, in the order given.
fn split<'a>(sizes: &[(&'a str, u64)], max_bytes: u64) -> Vec<Vec<&'a str>> {
    let mut shards: Vec<Vec<&str>> = Vec::new();
    let mut used = 0;
    for &(name, bytes) in sizes {
        match shards.last_mut() {
            Some(shard) if used + bytes <= max_bytes => {
                shard.push(name);
                used += bytes;
            }
            _ => {
                shards.push(vec![name]);
                used = bytes;
            }
        }
    }
    shards
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_fill_up_in_order_and_a_giant_stands_alone() {
        let sizes = [("a", 4), ("b", 6), ("c", 1), ("d", 99), ("e", 5)];
        assert_eq!(
            split(&sizes, 10),
            [vec!["a", "b"], vec!["c"], vec!["d"], vec!["e"]]
        );
        assert_eq!(split(&sizes, 1000).len(), 1);
        assert_eq!(file_name(0, 1), "model.safetensors");
        assert_eq!(file_name(1, 3), "model-00002-of-00003.safetensors");
    }
}
