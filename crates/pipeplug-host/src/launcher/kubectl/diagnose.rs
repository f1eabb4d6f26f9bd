//! Diagnosis of kubectl's exit.

use super::Kubectl;
use crate::launcher::Diagnosis;
use crate::process::WaitStatus;

/// The plugin's own exit status is kubectl's, so that what it prints is all there is to tell the
/// two apart by.
pub(super) fn diagnose(
    kubectl: &Kubectl,
    status: WaitStatus,
    stderr: &[String],
) -> Option<Diagnosis> {
    if status.code()? == 0 {
        return None;
    }
    let says =
        |texts: &[&str]| stderr.iter().any(|line| texts.iter().any(|text| line.contains(text)));
    let image = &kubectl.image;
    Some(
        if says(&[
            "error: context",
            "error: no context",
            "error loading config",
            "invalid configuration",
        ]) {
            Diagnosis::permanent(
                "kubectl's configuration has no such context: `kubectl config get-contexts` lists \
                 them",
            )
        } else if says(&[
            "Unable to connect to the server",
            "The connection to the server",
            "TLS handshake timeout",
        ]) {
            Diagnosis::passing(
                "the cluster does not answer: is it up, and the current context the right one?",
            )
        } else if says(&["Unauthorized", "must be logged in"]) {
            Diagnosis::permanent(
                "the cluster wants a login: `kubectl get pods` in a terminal shows how",
            )
        } else if says(&["Error from server (Forbidden)"]) {
            Diagnosis::permanent(
                "the cluster forbids it: this user has to be allowed to create, attach to and \
                 delete pods there",
            )
        } else if says(&["Error from server (NotFound): namespaces"]) {
            Diagnosis::permanent("there is no such namespace: `kubectl get namespaces` lists them")
        } else if says(&[
            "Error from server (Invalid)",
            "Error from server (BadRequest)",
            "Invalid value",
        ]) {
            Diagnosis::permanent("the cluster rejects the description of the pod")
        } else if says(&["ErrImagePull", "ImagePullBackOff", "InvalidImageName"]) {
            Diagnosis::permanent(format!(
                "the image {image:?} cannot be pulled: check its name, and the cluster's login"
            ))
        } else if says(&["timed out waiting for the condition"]) {
            Diagnosis::passing(format!(
                "the pod did not run in time: the image {image:?} cannot be pulled, or no machine \
                 has room; `kubectl get events` shows which"
            ))
        } else if says(&[
            "terminated (StartError)",
            "ContainerCannotRun",
            "executable file not found",
        ]) {
            Diagnosis::permanent(format!(
                "there is no such program in the image {image:?}, or it is built for another \
                 machine"
            ))
        } else if says(&["terminated (OOMKilled)"]) {
            Diagnosis::passing(
                "it needed more memory than its limit: `Kubectl::limit`, --limit memory=…",
            )
        } else if says(&["error: unknown flag", "error: Invalid JSON"]) {
            Diagnosis::permanent(
                "kubectl does not know an option or a command: a newer kubectl \
                                  may",
            )
        } else if says(&["lost connection to pod", "error: stream"]) {
            Diagnosis::passing("the connection to the pod was lost, which ends the plugin there")
        } else {
            return None;
        },
    )
}
