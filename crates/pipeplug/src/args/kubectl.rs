//! Options for plugins in a Kubernetes pod.

use clap::{Args, ValueEnum};
use pipeplug_host::launcher::{Kubectl, PullPolicy};

/// Option of `launcher.rs` that each option below requires.
const LAUNCHER: &str = "kubectl";

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Pod (with --kubectl)")]
pub(crate) struct KubectlArgs {
    /// Namespace of the pod [default: that of the context]
    #[arg(long, value_name = "NAME", requires = LAUNCHER)]
    namespace: Option<String>,

    /// Context of kubectl's configuration [default: the current one]
    #[arg(long, value_name = "NAME", requires = LAUNCHER)]
    context: Option<String>,

    /// Resource request of the pod: cpu=500m, memory=64Mi; repeatable [default: the namespace's]
    #[arg(long = "request", value_name = "NAME=QUANTITY", value_parser = parse_resource, requires = LAUNCHER)]
    requests: Vec<Resource>,

    /// Resource limit of the pod: cpu=1, memory=128Mi; repeatable [default: the namespace's]
    #[arg(long = "limit", value_name = "NAME=QUANTITY", value_parser = parse_resource, requires = LAUNCHER)]
    limits: Vec<Resource>,

    /// When the cluster pulls the image [default: the cluster's choice]
    #[arg(long, value_name = "WHEN", requires = LAUNCHER)]
    image_pull_policy: Option<PolicyArg>,

    /// Other fields of the pod, as JSON: '{"spec":{"nodeSelector":{"disk":"ssd"}}}'
    #[arg(long, value_name = "JSON", requires = LAUNCHER)]
    overrides: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PolicyArg {
    Always,
    IfNotPresent,
    Never,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Resource {
    name: String,
    quantity: String,
}

impl KubectlArgs {
    pub(crate) fn kubectl(&self, image: &str) -> Kubectl {
        let mut kubectl = Kubectl::new(image);
        if let Some(namespace) = &self.namespace {
            kubectl = kubectl.namespace(namespace);
        }
        if let Some(context) = &self.context {
            kubectl = kubectl.context(context);
        }
        for Resource { name, quantity } in &self.requests {
            kubectl = kubectl.request(name, quantity);
        }
        for Resource { name, quantity } in &self.limits {
            kubectl = kubectl.limit(name, quantity);
        }
        if let Some(policy) = self.image_pull_policy {
            kubectl = kubectl.pull_policy(match policy {
                PolicyArg::Always => PullPolicy::Always,
                PolicyArg::IfNotPresent => PullPolicy::IfNotPresent,
                PolicyArg::Never => PullPolicy::Never,
            });
        }
        if let Some(json) = &self.overrides {
            kubectl = kubectl.overrides(json);
        }
        kubectl
    }
}

fn parse_resource(text: &str) -> Result<Resource, String> {
    match text.split_once('=') {
        Some((name, quantity)) if !name.is_empty() && !quantity.is_empty() => {
            Ok(Resource { name: name.to_owned(), quantity: quantity.to_owned() })
        }
        _ => Err("write NAME=QUANTITY, as in cpu=500m or memory=64Mi".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_have_a_name_and_a_quantity() {
        let cpu = Resource { name: "cpu".into(), quantity: "500m".into() };
        assert_eq!(parse_resource("cpu=500m"), Ok(cpu));
        for text in ["cpu", "=1", "cpu=", ""] {
            assert!(parse_resource(text).unwrap_err().contains("NAME=QUANTITY"), "{text}");
        }
    }
}
