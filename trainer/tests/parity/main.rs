//! The trainer against Hugging Face transformers: the real binary, small random checkpoints,
//! every parameter random. `make parity` runs this and prints the table.
//!
//! A family is data: `tests/reference/families/NAME.json`; inputs are `inputs.json`. To add a
//! family, write its file and add its name to the list below.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod compare;
mod curve;
mod digits;
mod export;
mod family;
mod forward;
mod generation;
mod mutation;
mod process;
mod reference;
mod table;
mod training;

/// One module of tests for each family, so that one can be run by its name.
macro_rules! families {
    ($($family:ident),* $(,)?) => {
        const FAMILIES: &[&str] = &[$(stringify!($family)),*];
        $(mod $family {
            const NAME: &str = stringify!($family);

            #[test]
            fn results_equal_those_of_transformers() {
                crate::forward::results_equal(NAME);
            }

            #[test]
            fn greedy_text_equals_that_of_transformers() {
                crate::generation::greedy_text_equals(NAME);
            }

            #[test]
            fn disturbing_any_tensor_is_noticed() {
                crate::mutation::disturbing_any_tensor_is_noticed(NAME);
            }

            #[test]
            fn an_adapter_loads_in_peft_and_merged_in_transformers() {
                crate::family::adapter_and_merged_load_elsewhere(NAME);
            }
        })*
    };
}

families!(
    qwen2_vl, qwen2_5_vl, qwen3_vl, llava, llava_next, idefics3, gemma3, internvl
);

#[test]
fn every_described_family_is_compared() {
    let mut described = reference::described_families();
    described.sort();
    let mut compared: Vec<_> = FAMILIES.iter().map(ToString::to_string).collect();
    compared.sort();
    assert_eq!(described, compared);
}
