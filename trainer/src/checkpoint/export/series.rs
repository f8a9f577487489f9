//! What transformers 4 needs beside the files that transformers 5 writes. The same folder must
//! load in both: keys are added, none is changed.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

const CONFIG: &str = "config.json";
const PROCESSOR: &str = "processor_config.json";
const PREPROCESSOR: &str = "preprocessor_config.json";

/// Completes the configuration files of a model folder for both series of transformers.
pub(super) fn complete(folder: &Path) -> Result<()> {
    if let Some(mut config) = read(&folder.join(CONFIG))? {
        complete_config(&mut config);
        write(&folder.join(CONFIG), &config)?;
    }
    if folder.join(PREPROCESSOR).exists() {
        return Ok(());
    }
    match read(&folder.join(PROCESSOR))?
        .as_ref()
        .and_then(preprocessor)
    {
        Some(preprocessor) => write(&folder.join(PREPROCESSOR), &preprocessor),
        None => Ok(()),
    }
}

/// Series 5 keeps the rotary embedding in `rope_parameters` and the tied head at the top; series
/// 4 reads `rope_scaling` and `rope_theta`, and asks the text configuration whether the head is
/// tied. Series 4 in turn saves `architectures` in the text configuration only.
fn complete_config(config: &mut Value) {
    let tied = config.get("tie_word_embeddings").cloned();
    let Some(root) = config.as_object_mut() else {
        return;
    };
    if let Some(text) = root.get_mut("text_config").and_then(Value::as_object_mut) {
        complete_rope(text);
        if let Some(tied) = tied {
            text.entry("tie_word_embeddings").or_insert(tied);
        }
        let architectures = text
            .get("architectures")
            .filter(|value| value.is_array())
            .cloned();
        if let Some(architectures) = architectures {
            root.entry("architectures").or_insert(architectures);
        }
    } else {
        complete_rope(root);
    }
}

fn complete_rope(text: &mut Map<String, Value>) {
    let Some(rope) = text
        .get("rope_parameters")
        .and_then(Value::as_object)
        .cloned()
    else {
        return;
    };
    if let Some(theta) = rope.get("rope_theta").cloned() {
        text.entry("rope_theta").or_insert(theta);
    }
    let Some(section) = rope.get("mrope_section") else {
        return;
    };
    let scaling = json!({"type": "mrope", "rope_type": "default", "mrope_section": section});
    let present = text
        .get("rope_scaling")
        .is_some_and(|scaling| !scaling.is_null());
    if !present {
        text.insert("rope_scaling".to_owned(), scaling);
    }
}

/// Series 4's file of the image processor, out of series 5's file of the whole processor.
fn preprocessor(processor: &Value) -> Option<Value> {
    let mut image = processor.get("image_processor")?.clone();
    if let (Some(fields), Some(class)) = (image.as_object_mut(), processor.get("processor_class")) {
        fields.entry("processor_class").or_insert(class.clone());
    }
    Some(image)
}

/// The JSON of a file, or nothing where there is no such file.
fn read(path: &Path) -> Result<Option<Value>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(Error::storage("read", path, &cause)),
    };
    let value = serde_json::from_str(&text)
        .map_err(|cause| Error::User(format!("{}: not JSON: {cause}", path.display())))?;
    Ok(Some(value))
}

fn write(path: &Path, value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|cause| Error::Bug(format!("{}: {cause}", path.display())))?;
    std::fs::write(path, text + "\n").map_err(|cause| Error::storage("write", path, &cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_series_4_reads_is_added_and_nothing_is_changed() {
        let rope = json!({"rope_theta": 1e4, "rope_type": "default", "mrope_section": [1, 1, 2]});
        let mut config = json!({
            "tie_word_embeddings": true,
            "text_config": {"rope_parameters": rope, "hidden_size": 8},
        });
        let before = config.clone();
        complete_config(&mut config);
        let text = &config["text_config"];
        assert_eq!(text["rope_scaling"]["mrope_section"], json!([1, 1, 2]));
        assert_eq!(text["rope_theta"], json!(1e4));
        assert_eq!(text["tie_word_embeddings"], json!(true));
        assert_eq!(
            text["rope_parameters"],
            before["text_config"]["rope_parameters"]
        );
        let once = config.clone();
        complete_config(&mut config);
        assert_eq!(config, once);
    }

    #[test]
    fn a_configuration_of_series_4_stays_as_it_is() {
        let scaling = json!({"type": "mrope", "mrope_section": [4, 6, 6]});
        let mut config = json!({"rope_theta": 1e6, "rope_scaling": scaling, "hidden_size": 8});
        let before = config.clone();
        complete_config(&mut config);
        assert_eq!(config, before);
    }

    #[test]
    fn the_image_processor_gets_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let processor = json!({"processor_class": "P", "image_processor": {"patch_size": 14}});
        write(&folder.path().join(PROCESSOR), &processor).unwrap();
        complete(folder.path()).unwrap();
        let preprocessor = read(&folder.path().join(PREPROCESSOR)).unwrap();
        assert_eq!(
            preprocessor,
            Some(json!({"patch_size": 14, "processor_class": "P"}))
        );
    }
}
