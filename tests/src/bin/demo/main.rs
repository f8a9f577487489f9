//! The demo: fine-tunes `examples/digits.yaml` on the cluster of `KUBECONFIG` and reports what
//! came out. `scripts/demo.sh` brings the cluster, the images and Helm.

mod accuracy;
mod install;
mod summary;
mod volume;
mod watch;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use kube::Client;

/// Namespace the demo runs in; pod security is enforced as `restricted`.
pub const NAMESPACE: &str = "vlft-demo";
/// Claim that the example names.
pub const CLAIM: &str = "vlft-examples";
/// Name of the VLFineTune in the example.
pub const NAME: &str = "digits";

/// What `scripts/demo.sh` hands over.
pub struct Settings {
    pub root: PathBuf,
    pub operator_image: String,
    pub trainer_image: String,
    pub helm: String,
    /// Fewer steps than the example's, for a short run of the same path.
    pub max_steps: Option<i64>,
}

impl Settings {
    fn from_environment() -> Result<Self> {
        let variable = |name: &str| {
            std::env::var(name).with_context(|| format!("{name} is not set; run `make demo`"))
        };
        Ok(Self {
            root: variable("VLFT_ROOT")?.into(),
            operator_image: variable("VLFT_OPERATOR_IMAGE")?,
            trainer_image: variable("VLFT_TRAINER_IMAGE")?,
            helm: variable("VLFT_HELM")?,
            max_steps: std::env::var("VLFT_DEMO_STEPS")
                .ok()
                .map(|steps| steps.parse().context("VLFT_DEMO_STEPS must be a number"))
                .transpose()?,
        })
    }

    /// The example, with a smaller `maxSteps` where asked for.
    pub fn example(&self) -> Result<vlft_crds::VLFineTune> {
        let path = self.root.join("examples/digits.yaml");
        let mut finetune = vlft_crds::load::load_file(&path)?;
        if let Some(steps) = self.max_steps {
            finetune.spec.training.max_steps = Some(steps);
        }
        Ok(finetune)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let settings = Settings::from_environment()?;
    let client = Client::try_default()
        .await
        .context("no cluster: is KUBECONFIG set?")?;
    let start = Instant::now();
    say("installing the operator from its chart");
    install::install(&settings, &client).await?;
    say("filling the volume: a randomly initialised model and the digits");
    volume::fill(&settings, &client).await?;
    say("kubectl apply -f examples/digits.yaml");
    let finetune = watch::apply(&settings, &client).await?;
    let finished = watch::until_finished(&client, &finetune).await?;
    say("reading the held-out digits with the trained model (greedy generation)");
    let accuracy = accuracy::measure(&settings, &client, &finished).await?;
    let summary = summary::Summary::collect(&client, &finished, &accuracy, start.elapsed()).await?;
    summary.print();
    write(&settings.root.join("out/demo/summary.json"), &summary)
}

/// Says what happens now.
pub fn say(what: &str) {
    println!("== {what}");
}

fn write(path: &Path, summary: &summary::Summary) -> Result<()> {
    let folder = path.parent().context("the summary has no folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    std::fs::write(path, serde_json::to_string_pretty(summary)? + "\n")
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("figures: out/demo/summary.json");
    Ok(())
}
