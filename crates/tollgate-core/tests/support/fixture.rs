//! Answers written down as text, one file for each shape of the wire.
//!
//! ```text
//! # What it shows.
//! # expect: what the reader makes of it
//! POST /v1/chat/completions
//! 200
//! content-type: text/event-stream
//!
//! body
//! ```
//!
//! Further comments change the body: `# crlf` (all line ends), `# no final newline`, `# frames` (each line is the type and the
//! payload of a binary frame; `!` before the type makes it an exception).
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)] // not every test file uses all of it
use std::{fs, path::Path, sync::LazyLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use tollgate_core::wire::prompt::{Endpoint, endpoint};

pub struct Fixture {
    pub name: String,
    pub expect: String,
    pub endpoint: Endpoint,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

pub fn all() -> &'static [Fixture] {
    static ALL: LazyLock<Vec<Fixture>> = LazyLock::new(load);
    &ALL
}

fn load() -> Vec<Fixture> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut paths: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "http"))
        .collect();
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Fixture {
    let text = fs::read_to_string(path).unwrap().replace("\r\n", "\n");
    let (head, body) = text.split_once("\n\n").unwrap();
    let (notes, head): (Vec<_>, Vec<_>) = head.lines().partition(|line| line.starts_with('#'));
    let mut head = head.into_iter();
    let uri: Uri = head
        .next()
        .unwrap()
        .strip_prefix("POST ")
        .unwrap()
        .parse()
        .unwrap();
    let status = head.next().unwrap().parse().unwrap();
    let headers = head
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            (name, HeaderValue::from_str(value).unwrap())
        })
        .collect();
    let mut body = body.to_owned();
    if notes.contains(&"# no final newline") {
        body.truncate(body.trim_end().len());
    }
    if notes.contains(&"# crlf") {
        body = body.replace('\n', "\r\n");
    }
    let expect = notes
        .iter()
        .find_map(|note| note.strip_prefix("# expect: "));
    Fixture {
        name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
        expect: expect.unwrap_or_default().to_owned(),
        endpoint: endpoint(&Method::POST, &uri),
        status,
        headers,
        body: if notes.contains(&"# frames") {
            body.lines().flat_map(frame).collect()
        } else {
            body.into()
        },
    }
}

fn frame(line: &str) -> Vec<u8> {
    let (kind, payload) = line.split_once(' ').unwrap();
    let (header, kind) = match kind.strip_prefix('!') {
        Some(kind) => (":exception-type", kind),
        None => (":event-type", kind),
    };
    let mut head = Vec::new();
    for (name, value) in [(header, kind), (":content-type", "application/json")] {
        head.push(name.len() as u8);
        head.extend_from_slice(name.as_bytes());
        head.push(7);
        head.extend_from_slice(&(value.len() as u16).to_be_bytes());
        head.extend_from_slice(value.as_bytes());
    }
    let total = 12 + head.len() + payload.len() + 4;
    let mut out = (total as u32).to_be_bytes().to_vec();
    out.extend_from_slice(&(head.len() as u32).to_be_bytes());
    out.extend_from_slice(&crc32(&out).to_be_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(payload.as_bytes());
    out.extend_from_slice(&crc32(&out).to_be_bytes());
    out
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 * (sum & 1))
        })
    })
}
