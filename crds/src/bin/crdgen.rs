//! Prints the custom resource definition as YAML.

use kube::CustomResourceExt;

fn main() -> Result<(), serde_yaml::Error> {
    print!("{}", serde_yaml::to_string(&vlft_crds::VLFineTune::crd())?);
    Ok(())
}
