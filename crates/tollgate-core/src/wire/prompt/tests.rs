use super::*;

fn read(path: &str, body: &str) -> RequestFacts {
    let body = Bytes::copy_from_slice(body.as_bytes());
    RequestFacts::read(
        &Method::POST,
        &path.parse().unwrap(),
        &HeaderMap::new(),
        &body,
    )
}

fn chat(body: &str) -> RequestFacts {
    read("/v1/chat/completions", body)
}

// T27
#[test]
fn caps_in_all_spellings_are_recognised() {
    let cap = |path: &str, body: &str| {
        let facts = read(path, body);
        (facts.max_output_tokens, facts.max_output_field)
    };
    let chat = "/v1/chat/completions";
    assert_eq!(
        cap(chat, r#"{"max_tokens":64}"#),
        (Some(64), Some("max_tokens"))
    );
    assert_eq!(
        cap(chat, r#"{"max_tokens":0}"#),
        (Some(0), Some("max_tokens"))
    );
    assert_eq!(
        cap(chat, r#"{"max_tokens":"64"}"#),
        (Some(64), Some("max_tokens"))
    );
    assert_eq!(
        cap(chat, r#"{"max_tokens":64.0}"#),
        (Some(64), Some("max_tokens"))
    );
    assert_eq!(
        cap(chat, r#"{"max_tokens":63.5}"#),
        (Some(64), Some("max_tokens"))
    );
    for none in ["null", "-1", "\"many\"", "[]", "1e300", "true"] {
        assert_eq!(
            cap(chat, &format!("{{\"max_tokens\":{none}}}")),
            (None, None),
            "{none}"
        );
    }
    for (path, body, field) in [
        (
            "/v1/chat/completions",
            r#"{"max_completion_tokens":9}"#,
            "max_completion_tokens",
        ),
        (
            "/v1/responses",
            r#"{"max_output_tokens":9}"#,
            "max_output_tokens",
        ),
        ("/v1/messages", r#"{"max_tokens":9}"#, "max_tokens"),
        (
            "/v1/complete",
            r#"{"max_tokens_to_sample":9}"#,
            "max_tokens_to_sample",
        ),
        (
            "/v1beta/models/g:generateContent",
            r#"{"generationConfig":{"maxOutputTokens":9}}"#,
            "maxOutputTokens",
        ),
        (
            "/v1beta/models/g:generateContent",
            r#"{"generation_config":{"max_output_tokens":9}}"#,
            "max_output_tokens",
        ),
        (
            "/model/m/converse",
            r#"{"inferenceConfig":{"maxTokens":9}}"#,
            "maxTokens",
        ),
        (
            "/model/m/invoke",
            r#"{"textGenerationConfig":{"maxTokenCount":9}}"#,
            "maxTokenCount",
        ),
        (
            "/api/chat",
            r#"{"options":{"num_predict":9}}"#,
            "num_predict",
        ),
        (
            "/models/m",
            r#"{"parameters":{"max_new_tokens":9}}"#,
            "max_new_tokens",
        ),
    ] {
        assert_eq!(cap(path, body), (Some(9), Some(field)), "{path}");
    }
}

#[test]
fn the_largest_of_several_caps_counts() {
    let facts = chat(r#"{"max_tokens":10,"max_completion_tokens":500,"max_tokens":20}"#);
    assert_eq!(
        (facts.max_output_tokens, facts.max_output_field),
        (Some(500), Some("max_completion_tokens"))
    );
    // An escape in the key hides nothing.
    assert_eq!(
        chat(r#"{"max_t\u006fkens":70,"max_tokens":1}"#).max_output_tokens,
        Some(70)
    );
}

// T26
#[test]
fn several_answers_are_counted() {
    assert_eq!(chat("{}").answers, 1);
    assert_eq!(chat(r#"{"n":4}"#).answers, 4);
    assert_eq!(chat(r#"{"n":0}"#).answers, 1);
    assert_eq!(chat(r#"{"n":2,"best_of":5}"#).answers, 5);
    assert_eq!(
        read(
            "/v1beta/models/g:generateContent",
            r#"{"generationConfig":{"candidateCount":3}}"#
        )
        .answers,
        3
    );
    assert_eq!(chat(r#"{"n":99999999999}"#).answers, u32::MAX);
}

#[test]
fn inputs_may_be_text_texts_ids_or_lists_of_ids() {
    let facts = |input: &str| {
        let facts = read(
            "/v1/embeddings",
            &format!("{{\"model\":\"e\",\"input\":{input}}}"),
        );
        (facts.inputs, facts.prompt_chars, facts.prompt_token_ids)
    };
    assert_eq!(facts(r#""héllo""#), (Some(1), 5, 0));
    assert_eq!(facts(r#"["ab","c",""]"#), (Some(3), 3, 0));
    assert_eq!(facts("[1,2,3]"), (Some(1), 0, 3));
    assert_eq!(facts("[[1,2],[3],[]]"), (Some(3), 0, 3));
    assert_eq!(read("/v2/embed", r#"{"texts":["a","b"]}"#).inputs, Some(2));
    assert_eq!(
        read(
            "/v1beta/models/e:batchEmbedContents",
            r#"{"requests":[{"content":{}},{}]}"#
        )
        .inputs,
        Some(2)
    );
}

// T28
#[test]
fn text_is_counted_and_pictures_are_not_text() {
    let facts = chat(
        r#"{"messages":[
            {"role":"system","content":"abc"},
            {"role":"user","content":[
                {"type":"text","text":"d\u00e9f"},
                {"type":"image_url","image_url":{"url":"data:image/png;base64,AAAAAAAAAAAA","detail":"low"}},
                {"type":"input_audio","input_audio":{"data":"AAAAAAAA","format":"wav"}}]},
            {"role":"assistant","tool_calls":[{"id":"c1","type":"function","function":{"name":"fn","arguments":"{}"}}]}],
           "tools":[{"type":"function"}],"unknown":{"x":["yyyy"]},"temperature":0.1}"#,
    );
    assert_eq!(
        (facts.prompt_chars, facts.images, facts.messages),
        (3 + 3 + 2 + 2, 1, 3)
    );
    assert_eq!(facts.tool_chars, 21);
    let gemini = r#"{"systemInstruction":{"parts":[{"text":"ab"}]},"contents":[{"role":"user","parts":[{"text":"cd"},{"inlineData":{"mimeType":"image/png","data":"AAAA"}}]}]}"#;
    let facts = read("/v1beta/models/g:generateContent", gemini);
    assert_eq!(
        (facts.prompt_chars, facts.images, facts.messages),
        (4, 1, 1)
    );
    let anthropic = r#"{"system":[{"type":"text","text":"ab","cache_control":{"type":"ephemeral"}}],"messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}}]}]}"#;
    let facts = read("/v1/messages", anthropic);
    assert_eq!((facts.prompt_chars, facts.images), (2, 1));
}

#[test]
fn the_text_that_is_walked_again_is_the_text_that_was_counted() {
    let texts = |facts: &RequestFacts| {
        let mut texts = Vec::new();
        let all = facts.each_text(|text| texts.push(text.to_owned()));
        let chars: usize = texts.iter().map(|text| text.chars().count()).sum();
        assert_eq!(chars as u64, facts.prompt_chars);
        assert!(all);
        texts
    };
    let facts = chat(
        r#"{"user":"u","messages":[{"role":"system","content":"a\tb"},
            {"role":"user","name":"n","content":[{"type":"text","text":"d\u00e9\ud83d\ude00"},
                {"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA","detail":"low"}}]}],
           "tools":[{"type":"function"}]}"#,
    );
    assert_eq!(texts(&facts), ["a\tb", "n", "dé😀"]);
    let cohere = r#"{"message":"ab","chat_history":[{"message":"c"}],"preamble":"d"}"#;
    assert_eq!(texts(&read("/v1/chat", cohere)), ["ab", "c", "d"]);
    assert_eq!(
        texts(&read("/v1/embeddings", r#"{"input":["ab","c",7]}"#)),
        ["ab", "c"]
    );
    // Up to the broken place, both times.
    assert_eq!(texts(&chat(r#"{"prompt":"ab","input":["c""#)), ["ab"]);
    assert!(texts(&chat("[")).is_empty());
}

#[test]
fn the_text_of_a_form_is_not_walked_again() {
    let form = "--b\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\nhello\r\n--b--\r\n";
    let kind = "multipart/form-data; boundary=b".parse().unwrap();
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]);
    let uri = Uri::from_static("/v1/images/edits");
    let facts = RequestFacts::read(&Method::POST, &uri, &headers, &form.into());
    assert_eq!(facts.prompt_chars, 5);
    assert!(!facts.each_text(|_| ()), "and says so");
}

#[test]
fn streams_are_asked_for_by_document_or_path() {
    assert!(chat(r#"{"stream":true}"#).stream);
    assert!(!chat(r#"{"stream":null}"#).stream);
    assert!(
        !chat(r#"{"stream":true,"stream":false}"#).stream,
        "the last one counts"
    );
    assert!(read("/v1beta/models/g:streamGenerateContent", "{}").stream);
    assert!(
        read("/api/chat", "{}").stream,
        "Ollama streams unless told otherwise"
    );
    assert!(!read("/api/chat", r#"{"stream":false}"#).stream);
    assert!(read("/v1/audio/speech", r#"{"stream_format":"sse"}"#).stream);
    let facts = chat(r#"{"stream_options":{"include_usage":false}}"#);
    assert_eq!(facts.include_usage, Some(false));
}

#[test]
fn model_user_and_pins() {
    let facts = read(
        "/openai/deployments/mine/chat/completions",
        r#"{"model":"ignored","user":"u","safety_identifier":"s"}"#,
    );
    assert_eq!(
        (facts.model.as_deref(), facts.model_in),
        (Some("mine"), Some(ModelIn::Path))
    );
    assert_eq!(facts.dialect(), Dialect::Azure);
    assert_eq!(facts.user.as_deref(), Some("s"));
    assert_eq!(
        chat(r#"{"model":"a","model":"b"}"#).model.as_deref(),
        Some("b")
    );
    assert_eq!(
        read("/v1/messages", r#"{"metadata":{"user_id":"m"}}"#)
            .user
            .as_deref(),
        Some("m")
    );
    assert!(read("/v1/responses", r#"{"previous_response_id":"resp_1"}"#).pinned);
    assert!(!read("/v1/responses", r#"{"previous_response_id":null}"#).pinned);
    assert!(
        read(
            "/v1/responses",
            r#"{"input":[{"content":[{"type":"input_file","file_id":"f"}]}]}"#
        )
        .pinned
    );
    assert!(read("/v1/responses", r#"{"background":true}"#).background);
}

#[test]
fn a_file_within_the_document_is_neither_text_nor_bound_to_a_place() {
    let data = "A".repeat(4000);
    for part in [
        format!(
            r#"{{"type":"input_file","filename":"a.pdf","file_data":"data:application/pdf;base64,{data}"}}"#
        ),
        format!(r#"{{"type":"document_url","document_url":"data:application/pdf;base64,{data}"}}"#),
    ] {
        let facts = read(
            "/v1/responses",
            &format!(r#"{{"input":[{{"content":[{part}]}}]}}"#),
        );
        assert!(!facts.pinned, "{facts:?}");
        assert!(facts.prompt_chars < 100 && facts.images == 0, "{facts:?}");
    }
    let image = format!(
        r#"{{"messages":[{{"content":[{{"type":"image","image":"data:image/png;base64,{data}"}}]}}]}}"#
    );
    let facts = chat(&image);
    assert_eq!(
        (facts.images, facts.prompt_chars),
        (1, 0),
        "one picture, counted once"
    );
    let there = r#"{"contents":[{"parts":[{"file_data":{"file_uri":"u"}}]}]}"#;
    assert!(read("/v1beta/models/g:generateContent", there).pinned);
}

#[test]
fn all_of_a_tools_arguments_is_text_and_names_no_file_of_the_providers() {
    let data = "x".repeat(1_000);
    let arguments = format!(r#"{{"file_id":"f-1","data":"{data}","deep":[{{"type":"image"}}]}}"#);
    let anthropic = format!(
        r#"{{"messages":[{{"role":"assistant","content":[{{"type":"tool_use","input":{arguments},"id":"not counted"}}]}}]}}"#
    );
    let gemini = format!(
        r#"{{"contents":[{{"parts":[{{"functionCall":{{"name":"","args":{arguments}}}}}]}}]}}"#
    );
    for facts in [
        read("/v1/messages", &anthropic),
        read("/v1beta/models/g:generateContent", &gemini),
    ] {
        assert!(!facts.pinned, "{facts:?}");
        assert_eq!((facts.prompt_chars, facts.images), (1_008, 0));
    }
    // Behind the arguments all is as before.
    let behind = r#"{"messages":[{"content":[{"input":{"a":"b"}},{"file_id":"f"}]}]}"#;
    assert!(read("/v1/messages", behind).pinned);
}

#[test]
fn pictures_of_ollamas_generate_are_counted() {
    let body = r#"{"model":"llava","prompt":"What is it?","images":["aGVsbG8=","d29ybGQ="]}"#;
    assert_eq!(read("/api/generate", body).images, 2);
}

#[test]
fn the_same_path_of_two_vendors_is_told_by_the_document() {
    assert_eq!(
        read("/v1/chat", r#"{"message":"hi"}"#).endpoint,
        Endpoint::CohereChat
    );
    assert_eq!(
        read("/v1/chat", r#"{"messages":[]}"#).endpoint,
        Endpoint::ChatCompletions
    );
    assert_eq!(
        read("/v2/chat", r#"{"messages":[]}"#).endpoint,
        Endpoint::CohereChat
    );
}

#[test]
fn forms_and_coded_bodies() {
    let post = |kind: &'static str, value: &'static str, body: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(kind, value.parse().unwrap());
        let uri = Uri::from_static("/v1/audio/transcriptions");
        RequestFacts::read(
            &Method::POST,
            &uri,
            &headers,
            &Bytes::from_static(body.as_bytes()),
        )
    };
    let form =
        "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-x\r\n--b--\r\n";
    let facts = post("content-type", "multipart/form-data; boundary=b", form);
    assert_eq!(
        (facts.model.as_deref(), facts.model_in),
        (Some("whisper-x"), Some(ModelIn::Multipart))
    );
    assert_eq!(
        post("content-encoding", "gzip", r#"{"model":"m"}"#).model,
        None
    );
}

// X11
#[test]
fn what_is_no_llm_call_is_not_parsed() {
    let body = Bytes::from_static(br#"{"model":"m"}"#);
    let uri = Uri::from_static("/v1/vector_stores");
    let facts = RequestFacts::read(&Method::POST, &uri, &HeaderMap::new(), &body);
    assert_eq!((facts.endpoint, facts.model), (Endpoint::Other, None));
    let uri = Uri::from_static("/v1/chat/completions");
    let facts = RequestFacts::read(&Method::GET, &uri, &HeaderMap::new(), &body);
    assert_eq!(facts.endpoint, Endpoint::Other);
}

#[test]
fn debug_shows_neither_prompt_nor_user() {
    let facts =
        chat(r#"{"model":"m","user":"somebody","messages":[{"role":"user","content":"secret"}]}"#);
    let shown = format!("{facts:?} {:?}", Facts::new(facts.clone()));
    assert!(
        !shown.contains("secret") && !shown.contains("somebody"),
        "{shown}"
    );
}

#[test]
fn hostile_documents_cost_linear_time_and_no_stack() {
    for open in ["[", "{\"messages\":", "{\"messages\":[{\"content\":"] {
        let facts = chat(&open.repeat(100_000));
        assert_eq!(facts.max_output_tokens, None);
    }
    let wide = format!("{{\"messages\":[{}]}}", vec!["{}"; 200_000].join(","));
    assert_eq!(chat(&wide).messages, 200_000);
}

proptest::proptest! {
    #[test]
    fn arbitrary_bodies_never_panic(
        path in proptest::sample::select(vec!["/v1/chat/completions", "/v1/responses", "/api/chat", "/v1/embeddings", "/model/m/invoke"]),
        start in proptest::sample::select(vec!["", "{", "{\"input\":", "{\"messages\":[{", "{\"max_tokens\":"]),
        noise: Vec<u8>,
    ) {
        let body = Bytes::from([start.as_bytes(), &noise].concat());
        let facts = RequestFacts::read(&Method::POST, &path.parse().unwrap(), &HeaderMap::new(), &body);
        assert!(facts.each_text(|_| ()));
        let form: HeaderMap = [(header::CONTENT_TYPE, "multipart/form-data; boundary=b".parse().unwrap())].into_iter().collect();
        let _ = RequestFacts::read(&Method::POST, &path.parse().unwrap(), &form, &body);
    }
}

// F06
#[test]
fn what_a_request_needs_is_read_in_every_dialect() {
    use Capability::{JsonSchema, Prefill, Streaming, Tools, Vision};
    let all = [Streaming, Tools, JsonSchema, Vision, Prefill];
    let chat = "/v1/chat/completions";
    let gemini = "/v1beta/models/m:generateContent";
    for (path, body, needed) in [
        (
            chat,
            r#"{"messages":[{"role":"user","content":"Hi"}]}"#,
            &[][..],
        ),
        (
            chat,
            r#"{"stream":true,"tools":[{"type":"function"}]}"#,
            &[Streaming, Tools],
        ),
        (
            chat,
            r#"{"tools":[],"functions":null,"response_format":null}"#,
            &[],
        ),
        (chat, r#"{"response_format":{"type":"text"}}"#, &[]),
        (chat, r#"{"response_format":{"type":"json_object"}}"#, &[]),
        (
            chat,
            r#"{"response_format":{"json_schema":{},"type":"json_schema"}}"#,
            &[JsonSchema],
        ),
        (
            "/v1/responses",
            r#"{"input":"Hi","text":{"format":{"type":"json_schema"}}}"#,
            &[JsonSchema],
        ),
        (
            "/v1/responses",
            r#"{"input":"Hi","text":{"verbosity":"low"}}"#,
            &[],
        ),
        (
            "/v1/messages",
            r#"{"output_config":{"format":{"type":"json_schema"}}}"#,
            &[JsonSchema],
        ),
        (
            gemini,
            r#"{"generationConfig":{"responseSchema":{"type":"OBJECT"}}}"#,
            &[JsonSchema],
        ),
        (
            chat,
            r#"{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#,
            &[Vision],
        ),
        (
            "/v1/messages",
            r#"{"messages":[{"role":"user"},{"content":"{","role":"assistant"}]}"#,
            &[Prefill],
        ),
        (
            gemini,
            r#"{"contents":[{"role":"user"},{"role":"model","parts":[]}]}"#,
            &[Prefill],
        ),
        (
            chat,
            r#"{"messages":[{"role":"assistant"},{"role":"user"}]}"#,
            &[],
        ),
        (chat, r#"{"messages":[{"role":"assistant"},"odd"]}"#, &[]),
        (chat, r#"{"messages":"odd"}"#, &[]),
    ] {
        let facts = read(path, body);
        let found: Vec<_> = all.into_iter().filter(|one| facts.needs(*one)).collect();
        assert_eq!(found, needed, "{body}");
    }
}
