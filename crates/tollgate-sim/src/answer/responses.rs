//! OpenAI responses.
use super::{Dialect, Made, filler, named};

fn item(made: &Made, status: &str, text: Option<&str>) -> String {
    let content = text.map(part).unwrap_or_default();
    format!(
        r#"{{"id":"msg_{}","type":"message","status":"{status}","role":"assistant","content":[{content}]}}"#,
        made.id
    )
}

fn part(text: &str) -> String {
    format!(r#"{{"type":"output_text","annotations":[],"logprobs":[],"text":"{text}"}}"#)
}

/// The whole response object, as it stands in the document and in the stream's first and last events.
pub(super) fn document(made: &Made, status: &str) -> String {
    let Made {
        id, created, model, ..
    } = made;
    let tokens = made.billed.output;
    let cut = status == "completed" && made.cut(tokens);
    let status = if cut { "incomplete" } else { status };
    let incomplete = if cut {
        r#"{"reason":"max_output_tokens"}"#
    } else {
        "null"
    };
    let cap = made.cap.map_or("null".to_owned(), |cap| cap.to_string());
    let (output, usage) = if status == "in_progress" {
        (String::new(), "null".to_owned())
    } else {
        let (input, cached) = (made.billed.input, made.billed.cached);
        (
            item(made, status, Some(&filler(tokens))),
            format!(
                r#"{{"input_tokens":{input},"input_tokens_details":{{"cached_tokens":{cached}}},"output_tokens":{tokens},"output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":{}}}"#,
                input + tokens
            ),
        )
    };
    format!(
        r#"{{"id":"resp_{id}","object":"response","created_at":{created},"status":"{status}","background":false,"error":null,"incomplete_details":{incomplete},"max_output_tokens":{cap},"model":{model},"output":[{output}],"parallel_tool_calls":true,"previous_response_id":null,"service_tier":"default","store":false,"usage":{usage},"metadata":{{}}}}"#
    )
}

pub(super) struct Responses;

impl Dialect for Responses {
    fn open(&self, made: &Made) -> Vec<String> {
        let response = document(made, "in_progress");
        let item = item(made, "in_progress", None);
        let (id, part) = (&made.id, part(""));
        vec![
            named(
                "response.created",
                &format!(
                    r#"{{"type":"response.created","sequence_number":0,"response":{response}}}"#
                ),
            ),
            named(
                "response.in_progress",
                &format!(
                    r#"{{"type":"response.in_progress","sequence_number":1,"response":{response}}}"#
                ),
            ),
            named(
                "response.output_item.added",
                &format!(
                    r#"{{"type":"response.output_item.added","sequence_number":2,"output_index":0,"item":{item}}}"#
                ),
            ),
            named(
                "response.content_part.added",
                &format!(
                    r#"{{"type":"response.content_part.added","sequence_number":3,"item_id":"msg_{id}","output_index":0,"content_index":0,"part":{part}}}"#
                ),
            ),
        ]
    }

    fn delta(&self, made: &Made, _: usize, text: &str, _: u64, seq: u64) -> String {
        let (id, seq) = (&made.id, seq + 3);
        named(
            "response.output_text.delta",
            &format!(
                r#"{{"type":"response.output_text.delta","sequence_number":{seq},"item_id":"msg_{id}","output_index":0,"content_index":0,"delta":"{text}","logprobs":[]}}"#
            ),
        )
    }

    fn close(&self, made: &Made) -> Vec<String> {
        let text = filler(made.billed.output);
        let cut = made.cut(made.billed.output);
        let status = if cut { "incomplete" } else { "completed" };
        let (id, part, item) = (&made.id, part(&text), item(made, status, Some(&text)));
        // Deltas count one by one from 4; where several tokens share an event the numbers skip, which is allowed.
        let seq = made.billed.output + 4;
        let mut events = vec![
            named(
                "response.output_text.done",
                &format!(
                    r#"{{"type":"response.output_text.done","sequence_number":{seq},"item_id":"msg_{id}","output_index":0,"content_index":0,"text":"{text}","logprobs":[]}}"#
                ),
            ),
            named(
                "response.content_part.done",
                &format!(
                    r#"{{"type":"response.content_part.done","sequence_number":{},"item_id":"msg_{id}","output_index":0,"content_index":0,"part":{part}}}"#,
                    seq + 1
                ),
            ),
            named(
                "response.output_item.done",
                &format!(
                    r#"{{"type":"response.output_item.done","sequence_number":{},"output_index":0,"item":{item}}}"#,
                    seq + 2
                ),
            ),
        ];
        if !made.no_done {
            let name = if cut {
                "response.incomplete"
            } else {
                "response.completed"
            };
            let response = document(made, "completed");
            events.push(named(
                name,
                &format!(
                    r#"{{"type":"{name}","sequence_number":{},"response":{response}}}"#,
                    seq + 3
                ),
            ));
        }
        events
    }
}
