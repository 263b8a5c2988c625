//! Compressed answers read like the ones that are not, or are unknown.
#![allow(clippy::unwrap_used)]
use std::io::Write;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tollgate_core::wire::{
    answer::{Answer, AnswerReader, Caps},
    prompt::Endpoint,
    usage::Usage,
};

const CODINGS: [&str; 5] = ["gzip", "deflate", "raw deflate", "br", "zstd"];

const DOCUMENT: &str = r#"{"id":"c-1","model":"m-1","choices":[{"index":0,"finish_reason":"stop","message":{"content":"Hello there"}}],"usage":{"prompt_tokens":12,"completion_tokens":3,"total_tokens":15}}"#;

const EVENTS: [&str; 4] = [
    "data: {\"id\":\"c-1\",\"model\":\"m-1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello there\"}}]}\n\n",
    "data: {\"id\":\"c-1\",\"model\":\"m-1\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"id\":\"c-1\",\"model\":\"m-1\",\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":3,\"total_tokens\":15}}\n\n",
    "data: [DONE]\n\n",
];

/// Compresses pieces, each flushed as a server does that streams.
fn coded(coding: &str, pieces: &[&str]) -> Vec<Vec<u8>> {
    fn each<W: Write>(
        mut writer: W,
        pieces: &[&str],
        out: impl Fn(&mut W) -> &mut Vec<u8>,
        end: impl FnOnce(W) -> Vec<u8>,
    ) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for piece in pieces {
            writer.write_all(piece.as_bytes()).unwrap();
            writer.flush().unwrap();
            all.push(std::mem::take(out(&mut writer)));
        }
        all.push(end(writer));
        all
    }
    use flate2::{Compression, write};
    let level = Compression::default();
    match coding {
        "gzip" => each(
            write::GzEncoder::new(Vec::new(), level),
            pieces,
            |w| w.get_mut(),
            |w| w.finish().unwrap(),
        ),
        "deflate" => each(
            write::ZlibEncoder::new(Vec::new(), level),
            pieces,
            |w| w.get_mut(),
            |w| w.finish().unwrap(),
        ),
        "raw deflate" => each(
            write::DeflateEncoder::new(Vec::new(), level),
            pieces,
            |w| w.get_mut(),
            |w| w.finish().unwrap(),
        ),
        "br" => each(
            brotli::CompressorWriter::new(Vec::new(), 4096, 5, 18),
            pieces,
            |w| w.get_mut(),
            brotli::CompressorWriter::into_inner,
        ),
        "zstd" => each(
            zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap(),
            pieces,
            |w| w.get_mut(),
            |w| w.finish().unwrap(),
        ),
        other => panic!("{other}"),
    }
}

fn reader(coding: &str) -> AnswerReader {
    let name = coding.trim_start_matches("raw ");
    let headers = HeaderMap::from_iter([(
        header::CONTENT_ENCODING,
        HeaderValue::from_str(name).unwrap(),
    )]);
    AnswerReader::new(Endpoint::ChatCompletions, StatusCode::OK, &headers)
}

fn read(mut reader: AnswerReader, bytes: &[u8], size: usize) -> Answer {
    for chunk in bytes.chunks(size) {
        reader.feed(&Bytes::copy_from_slice(chunk));
        assert_eq!(reader.boundary(), reader.offset(), "no offset of the copy");
    }
    assert!(reader.usage_only_events().is_empty());
    reader.end();
    reader.into_answer()
}

// U17
#[test]
fn a_compressed_answer_reads_as_if_it_were_not() {
    for pieces in [&[DOCUMENT][..], &EVENTS] {
        let plain = AnswerReader::new(Endpoint::ChatCompletions, StatusCode::OK, &HeaderMap::new());
        let mut plain = plain;
        plain.feed(&Bytes::from(pieces.concat()));
        plain.end();
        let plain = format!("{:?}", plain.into_answer());
        assert!(plain.contains("Exact(15)") && plain.contains("complete: true"));
        for coding in CODINGS {
            let bytes = coded(coding, pieces).concat();
            for size in [1, 2, 7, 64, bytes.len()] {
                let answer = read(reader(coding), &bytes, size);
                assert_eq!(format!("{answer:?}"), plain, "{coding} in {size}");
            }
        }
    }
}

// U17
#[test]
fn what_has_come_of_a_stream_is_read_when_it_has_come() {
    for coding in CODINGS {
        let pieces = coded(coding, &EVENTS);
        let mut reader = reader(coding);
        assert!(!reader.answer().content_started);
        reader.feed(&Bytes::from(pieces[0].clone()));
        assert!(reader.answer().content_started, "{coding}");
        assert!(!reader.answer().has_usage, "{coding}");
        reader.feed(&Bytes::from(pieces[1..3].concat()));
        assert_eq!(reader.answer().usage.input.get(), Some(12), "{coding}");
    }
}

/// What must hold of every answer that could not be read to its end.
fn unknown(answer: &Answer) -> bool {
    !answer.readable && !answer.has_usage && answer.usage == Usage::default() && !answer.complete
}

// U17
#[test]
fn beyond_the_bound_an_answer_is_unknown() {
    for coding in CODINGS {
        // A bomb: a thousand times smaller than what it becomes.
        let long = format!("{}{}", EVENTS[2], ": \n".repeat(1 << 17));
        let bytes = coded(coding, &[&long, EVENTS[3]]).concat();
        let mut caps = Caps::default();
        caps.decoded = 1 << 18;
        let answer = read(reader(coding).with_caps(caps), &bytes, 1 << 20);
        assert!(unknown(&answer), "{coding}: {answer:?}");
        let answer = read(reader(coding), &bytes, 1 << 20);
        assert!(answer.complete && answer.has_usage, "{coding}: {answer:?}");
    }
}

// U17
#[test]
fn what_is_not_in_the_coding_that_it_names_is_unknown() {
    for coding in CODINGS {
        let answer = read(reader(coding), &[0xff; 64], 64);
        assert!(unknown(&answer), "{coding}: {answer:?}");
        // Damage after the usage: the last word may not have come.
        let mut bytes = coded(coding, &EVENTS[..3]);
        bytes.pop();
        bytes.push(vec![0xff; 64]);
        let answer = read(reader(coding), &bytes.concat(), 16);
        assert!(unknown(&answer), "{coding}: {answer:?}");
    }
    for coding in ["gzip, br", "aes128gcm"] {
        let answer = read(reader(coding), DOCUMENT.as_bytes(), 64);
        assert!(unknown(&answer), "{coding}: {answer:?}");
    }
}

// U17
#[test]
fn half_an_answer_is_not_a_whole_one() {
    for coding in CODINGS {
        let bytes = coded(coding, &[DOCUMENT]).concat();
        for cut in [0, 1, bytes.len() / 2] {
            let answer = read(reader(coding), &bytes[..cut], 16);
            assert!(
                !answer.complete && !answer.has_usage,
                "{coding} {cut}: {answer:?}"
            );
        }
    }
}
