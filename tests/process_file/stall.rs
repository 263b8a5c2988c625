//! An answer that stops half-way and keeps its connection.
use tollgate_sim::{Fault, SimProvider};

use crate::common::{Job, Provider, chat, said};

#[test]
fn a_stalled_answer_ends_in_an_error_row_and_holds_up_nothing() {
    let provider = Provider::with_faults(SimProvider::builder(), |document| {
        if document["messages"][0]["content"] == "row 1" {
            Fault::StallBody {
                bytes: 10,
                cut_after: None,
            }
        } else {
            Fault::None
        }
    });
    let job = Job::of((0..3).map(chat));
    let args = ["--timeout-secs", "0.5", "--max-attempts", "2"];
    let output = job.run(&provider, &args);
    assert_eq!(said(&output, "results"), 2);
    assert_eq!(said(&output, "errors"), 1);
    let lines = job.lines();
    let failed = lines.iter().find(|line| line["error"].is_object());
    let failed = failed.expect("an error row");
    assert_eq!(failed["metadata"]["id"], 1);
    assert_eq!(failed["error"]["code"], "idle_timeout", "{failed}");
}
