//! What the capture asks QEMU before it stops the guest.

use crate::error::{CaptureError, clip};
use crate::qmp::Qmp;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

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

/// How long QEMU may take to clean up behind a dump.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(2);

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
    wait_for_cleanup(qmp)
}

/// Waits until QEMU has cleaned up behind its last dump.
///
/// QEMU 7.2 counts a dump as completed, in `query-dump` and by its event, before the thread that wrote it has closed its
/// descriptor. A dump that begins in between has *its* descriptor closed and ends early: 6 of 2,000 on a busy host.
/// The dump blocks migration until it is cleaned up, and that can be seen.
fn wait_for_cleanup(qmp: &mut Qmp) -> Result<(), CaptureError> {
    let deadline = Instant::now() + CLEANUP_TIMEOUT;
    while let Some(migrate) = known(qmp.execute("query-migrate", &Value::Null))? {
        let names_dump =
            |reason: &Value| reason.as_str().is_some_and(|text| text.contains("dump-guest-memory"));
        let is_blocked =
            migrate["blocked-reasons"].as_array().is_some_and(|reasons| reasons.iter().any(names_dump));
        // It takes microseconds; if it takes long, the dump itself will say what is wrong.
        if !is_blocked || Instant::now() > deadline {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
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
