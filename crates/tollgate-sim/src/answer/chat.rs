//! OpenAI chat completions.
use std::fmt::Write;

use super::{Dialect, Made, filler};

fn finish(made: &Made, tokens: u64) -> &'static str {
    if made.cut(tokens) { "length" } else { "stop" }
}

fn usage(made: &Made, output: u64) -> String {
    let (input, cached) = (made.billed.input, made.billed.cached);
    format!(
        r#"{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":{},"prompt_tokens_details":{{"cached_tokens":{cached},"audio_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}}"#,
        input + output
    )
}

pub(super) fn document(made: &Made) -> String {
    let Made {
        id, created, model, ..
    } = made;
    let mut text = format!(
        r#"{{"id":"chatcmpl-{id}","object":"chat.completion","created":{created},"model":{model},"choices":["#
    );
    for (index, &tokens) in made.outputs.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let (content, finish) = (filler(tokens), finish(made, tokens));
        let _ = write!(
            text,
            r#"{comma}{{"index":{index},"message":{{"role":"assistant","content":"{content}","refusal":null,"annotations":[]}},"logprobs":null,"finish_reason":"{finish}"}}"#
        );
    }
    let usage = usage(made, made.billed.output);
    let _ = write!(
        text,
        r#"],"usage":{usage},"service_tier":"default","system_fingerprint":"fp_sim"}}"#
    );
    text
}

pub(super) struct Chat;

impl Chat {
    fn chunk(made: &Made, choices: &str, usage: Option<&str>) -> String {
        let Made {
            id, created, model, ..
        } = made;
        let usage = match usage {
            Some(usage) => format!(r#","usage":{usage}"#),
            None if made.include_usage => r#","usage":null"#.to_owned(),
            None => String::new(),
        };
        format!(
            "data: {{\"id\":\"chatcmpl-{id}\",\"object\":\"chat.completion.chunk\",\"created\":{created},\"model\":{model},\
             \"service_tier\":\"default\",\"system_fingerprint\":\"fp_sim\",\"choices\":[{choices}]{usage}}}\n\n"
        )
    }

    fn choice(index: usize, delta: &str, finish: Option<&str>) -> String {
        let finish = finish.map_or("null".to_owned(), |finish| format!("\"{finish}\""));
        format!(r#"{{"index":{index},"delta":{delta},"logprobs":null,"finish_reason":{finish}}}"#)
    }
}

impl Dialect for Chat {
    fn open(&self, made: &Made) -> Vec<String> {
        let role = r#"{"role":"assistant","content":"","refusal":null}"#;
        let usage = made.usage_on_every.then(|| usage(made, 0));
        (0..made.outputs.len())
            .map(|index| Self::chunk(made, &Self::choice(index, role, None), usage.as_deref()))
            .collect()
    }

    fn delta(&self, made: &Made, answer: usize, text: &str, out: u64, _: u64) -> String {
        let delta = format!(r#"{{"content":"{text}"}}"#);
        let usage = made.usage_on_every.then(|| usage(made, out));
        Self::chunk(made, &Self::choice(answer, &delta, None), usage.as_deref())
    }

    fn close(&self, made: &Made) -> Vec<String> {
        let usage = usage(made, made.billed.output);
        let last = made.outputs.len().saturating_sub(1);
        let mut events: Vec<_> = made
            .outputs
            .iter()
            .enumerate()
            .map(|(index, &tokens)| {
                let choice = Self::choice(index, "{}", Some(finish(made, tokens)));
                let here = made.usage_on_every || (made.usage_on_choice && index == last);
                Self::chunk(made, &choice, here.then_some(&usage))
            })
            .collect();
        if made.include_usage && !made.usage_on_choice && !made.usage_on_every {
            events.push(Self::chunk(made, "", Some(&usage)));
        }
        if !made.no_done {
            events.push("data: [DONE]\n\n".to_owned());
        }
        events
    }
}
