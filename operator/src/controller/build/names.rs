//! Names of the children. The VLFineTune's name has at most 40 characters, so that each of
//! these is a valid label and host name.

/// Job and ConfigMap of an attempt.
pub fn attempt(finetune: &str, attempt: i64) -> String {
    format!("{finetune}-{attempt}")
}

/// Headless Service and NetworkPolicy of the trainer pods.
pub fn workers(finetune: &str) -> String {
    format!("{finetune}-workers")
}

/// The claim that is made where the spec names no existing one.
pub fn checkpoint_claim(finetune: &str) -> String {
    format!("{finetune}-checkpoints")
}
