//! Tools that the provider runs and charges beside the tokens are noticed in every shape.
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tollgate_core::wire::{answer::AnswerReader, prompt::Endpoint};

fn hosted(endpoint: Endpoint, body: &str) -> bool {
    let mut reader = AnswerReader::new(endpoint, StatusCode::OK, &HeaderMap::new());
    reader.feed(&Bytes::copy_from_slice(body.as_bytes()));
    reader.end();
    reader.answer().hosted_tools
}

// U14
#[test]
fn a_hosted_tool_shows_in_the_answer() {
    use Endpoint::{AnthropicMessages, ChatCompletions, GenerateContent, Responses};
    for (endpoint, body) in [
        (
            Responses,
            r#"{"object":"response","output":[{"type":"web_search_call","id":"ws_1"}]}"#,
        ),
        (
            Responses,
            "event: response.file_search_call.completed\ndata: {\"type\":\"response.file_search_call.completed\"}\n\n",
        ),
        (
            AnthropicMessages,
            r#"{"type":"message","usage":{"input_tokens":1,"server_tool_use":{"web_search_requests":2}}}"#,
        ),
        (
            AnthropicMessages,
            r#"{"type":"message","content":[{"type":"code_execution_tool_result","content":{}}]}"#,
        ),
        (
            AnthropicMessages,
            "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"content_block\":{\"type\":\"bash_code_execution_tool_result\"}}\n\n",
        ),
        (
            GenerateContent,
            r#"{"candidates":[{"groundingMetadata":{"webSearchQueries":["a"]}}]}"#,
        ),
        (
            ChatCompletions,
            r#"{"choices":[],"usage":{"prompt_tokens":1,"search_context_size":"low"}}"#,
        ),
        (
            ChatCompletions,
            r#"{"choices":[],"usage":{"prompt_tokens":1,"num_sources_used":3}}"#,
        ),
    ] {
        assert!(hosted(endpoint, body), "{body}");
    }
}

// U14
#[test]
fn an_answer_without_one_has_none() {
    use Endpoint::{AnthropicMessages, ChatCompletions, GenerateContent, Responses};
    for (endpoint, body) in [
        (
            Responses,
            r#"{"object":"response","output":[{"type":"function_call","name":"web_search_call"}],"tools":[{"type":"web_search","search_context_size":"low"}]}"#,
        ),
        (
            AnthropicMessages,
            r#"{"type":"message","content":[{"type":"tool_use"}],"usage":{"server_tool_use":{"web_search_requests":0}}}"#,
        ),
        (
            GenerateContent,
            r#"{"candidates":[{"groundingMetadata":{}}]}"#,
        ),
        (
            ChatCompletions,
            r#"{"choices":[],"usage":{"prompt_tokens":1,"num_sources_used":0}}"#,
        ),
        (
            ChatCompletions,
            r#"{"choices":[{"message":{"content":"web_search_call"}}]}"#,
        ),
    ] {
        assert!(!hosted(endpoint, body), "{body}");
    }
}
