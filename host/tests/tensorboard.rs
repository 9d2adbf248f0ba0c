//! TensorBoard reads our event files: a second opinion from a reader that shares no code
//! with ours.
//!
//! Runs where the interpreter named by `EYAS_PYTHON`, or else `python3`, has tensorboard.

use std::process::Command;

use eyas_host::runs::events::{EVENT_FILE, Scalar, cut_after, first_record};

/// Without arguments only tells whether TensorBoard is there; else prints `tag step value`.
const SCRIPT: &str = r#"
import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
if len(sys.argv) > 1:
    events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
    events.Reload()
    for tag in sorted(events.Tags()["scalars"]):
        for event in events.Scalars(tag):
            print(tag, event.step, event.value, event.wall_time)
"#;

fn python() -> Option<String> {
    let python = std::env::var("EYAS_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let probe = Command::new(&python).args(["-c", SCRIPT]).output();
    probe
        .is_ok_and(|probe| probe.status.success())
        .then_some(python)
}

#[test]
fn tensorboard_reads_what_was_written_also_after_a_resume() {
    let Some(python) = python() else {
        eprintln!(
            "skipped: tensorboard is not installed (EYAS_PYTHON names an interpreter that has it)"
        );
        return;
    };
    let scalar = |tag: &str, step: u64| Scalar {
        wall_time: 1.5e9 + step as f64,
        step,
        tag: tag.to_owned(),
        value: step as f32 / 4.0,
    };
    let mut bytes = first_record(1.5e9);
    for step in [10, 20, 300] {
        bytes.extend(scalar("training/loss", step).record());
    }
    bytes.extend(scalar("validation/recall_at_1", 300).record());
    // Gone on with at step 20, after a kill in the middle of a record.
    bytes.truncate(bytes.len() - 5);
    let mut resumed = cut_after(&bytes, 20, 1.5e9);
    resumed.extend(scalar("training/loss", 30).record());
    resumed.extend(scalar("validation/recall_at_1", 30).record());

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(EVENT_FILE), resumed).unwrap();
    let output = Command::new(python)
        .args(["-c", SCRIPT])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "training/loss 10 2.5 1500000010.0\n\
         training/loss 20 5.0 1500000020.0\n\
         training/loss 30 7.5 1500000030.0\n\
         validation/recall_at_1 30 7.5 1500000030.0\n"
    );
}
