//! Anthropic messages.
use super::{Dialect, Made, filler, named};

fn stop(made: &Made) -> &'static str {
    if made.cut(made.billed.output) {
        "max_tokens"
    } else {
        "end_turn"
    }
}

/// Input counts without the cached part, as ever with Anthropic.
fn usage(made: &Made, output: u64) -> String {
    let (input, cached) = (made.billed.input - made.billed.cached, made.billed.cached);
    format!(
        r#"{{"input_tokens":{input},"cache_creation_input_tokens":0,"cache_read_input_tokens":{cached},"output_tokens":{output},"service_tier":"standard"}}"#
    )
}

pub(super) fn document(made: &Made) -> String {
    let Made { id, model, .. } = made;
    let (text, stop, usage) = (
        filler(made.billed.output),
        stop(made),
        usage(made, made.billed.output),
    );
    format!(
        r#"{{"id":"msg_{id}","type":"message","role":"assistant","model":{model},"content":[{{"type":"text","text":"{text}"}}],"stop_reason":"{stop}","stop_sequence":null,"usage":{usage}}}"#
    )
}

pub(super) struct Messages;

impl Dialect for Messages {
    fn open(&self, made: &Made) -> Vec<String> {
        let Made { id, model, .. } = made;
        let usage = usage(made, made.billed.output.min(1));
        vec![
            named(
                "message_start",
                &format!(
                    r#"{{"type":"message_start","message":{{"id":"msg_{id}","type":"message","role":"assistant","model":{model},"content":[],"stop_reason":null,"stop_sequence":null,"usage":{usage}}}}}"#
                ),
            ),
            named(
                "content_block_start",
                r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
            ),
            named("ping", r#"{"type": "ping"}"#),
        ]
    }

    fn delta(&self, _: &Made, _: usize, text: &str, _: u64, _: u64) -> String {
        named(
            "content_block_delta",
            &format!(
                r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":"{text}"}}}}"#
            ),
        )
    }

    fn close(&self, made: &Made) -> Vec<String> {
        let (stop, usage) = (stop(made), usage(made, made.billed.output));
        let mut events = vec![
            named(
                "content_block_stop",
                r#"{"type":"content_block_stop","index":0}"#,
            ),
            named(
                "message_delta",
                &format!(
                    r#"{{"type":"message_delta","delta":{{"stop_reason":"{stop}","stop_sequence":null}},"usage":{usage}}}"#
                ),
            ),
        ];
        if !made.no_done {
            events.push(named("message_stop", r#"{"type":"message_stop"}"#));
        }
        events
    }
}
