//! What the capture asks QEMU before it stops the guest.

use crate::error::{CaptureError, clip};
use crate::qmp::Qmp;
use serde_json::{Value, json};

/// Whether the guest runs, in QEMU's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// As in `running`, `paused`, `save-vm`.
    pub(crate) name: String,
    pub(crate) is_running: bool,
}

/// Asks for the state of the guest.
pub(crate) fn status(qmp: &mut Qmp) -> Result<Status, CaptureError> {
    let status = qmp.execute("query-status", &Value::Null)?;
    match (status["status"].as_str(), status["running"].as_bool()) {
        (Some(name), Some(is_running)) => Ok(Status { name: clip(name), is_running }),
        _ => Err(malformed("query-status", &status)),
    }
}

/// QEMU's name of the guest's architecture.
pub(crate) fn target(qmp: &mut Qmp) -> Result<String, CaptureError> {
    let target = qmp.execute("query-target", &Value::Null)?;
    target["arch"].as_str().map(clip).ok_or_else(|| malformed("query-target", &target))
}

/// The threads of the vCPUs, by their numbers in QEMU's pid namespace.
pub(crate) fn vcpu_threads(qmp: &mut Qmp) -> Result<Vec<Option<i32>>, CaptureError> {
    let cpus = qmp.execute("query-cpus-fast", &Value::Null)?;
    let threads = cpus.as_array().map(|cpus| {
        let thread = |cpu: &Value| cpu["thread-id"].as_i64().and_then(|tid| i32::try_from(tid).ok());
        cpus.iter().map(thread).collect()
    });
    threads.ok_or_else(|| malformed("query-cpus-fast", &cpus))
}

/// Refuses guests that cannot be dumped.
pub(crate) fn check(qmp: &mut Qmp, status: &Status) -> Result<(), CaptureError> {
    if status.name == "inmigrate" {
        let advice = "it is still arriving from another host: wait until it runs";
        return Err(CaptureError::State { state: status.name.clone(), advice });
    }
    let arguments = json!({ "path": "/machine", "property": "confidential-guest-support" });
    if let Some(Value::String(path)) = known(qmp.execute("qom-get", &arguments))?
        && !path.is_empty()
    {
        return Err(CaptureError::Confidential {
            by: format!("confidential-guest-support is {}", clip(&path)),
        });
    }
    if known(qmp.execute("query-sev", &Value::Null))?.is_some_and(|sev| sev["enabled"] == true) {
        return Err(CaptureError::Confidential { by: "SEV is enabled".to_owned() });
    }
    if known(qmp.execute("query-dump", &Value::Null))?.is_some_and(|dump| dump["status"] == "active") {
        let advice = "another dump of it is being written: wait for its end";
        return Err(CaptureError::State { state: status.name.clone(), advice });
    }
    Ok(())
}

/// The answer; `None` if QEMU does not know the question.
fn known(answer: Result<Value, CaptureError>) -> Result<Option<Value>, CaptureError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(CaptureError::Refused { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn malformed(command: &str, value: &Value) -> CaptureError {
    CaptureError::Malformed { during: format!("to `{command}`"), said: clip(&value.to_string()) }
}
