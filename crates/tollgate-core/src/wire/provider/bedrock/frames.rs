//! The binary frames of `application/vnd.amazon.eventstream`.
//!
//! A frame is a prelude (two lengths and their checksum), headers, a payload and a checksum. Only the prelude's
//! checksum is looked at: it tells a frame from anything else.
use crate::wire::json::Cursor;

/// Bytes of the prelude.
pub(crate) const PRELUDE: usize = 12;

/// Lengths of a frame: the whole, and its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lengths {
    pub(crate) total: usize,
    headers: usize,
}

/// Reads a prelude; `None` if it is none.
pub(crate) fn prelude(bytes: &[u8]) -> Option<Lengths> {
    let word = |at: usize| {
        let four = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_be_bytes(four))
    };
    let (total, headers, sum) = (word(0)?, word(4)?, word(8)?);
    let lengths = Lengths {
        total: total as usize,
        headers: headers as usize,
    };
    let fits = lengths.total >= PRELUDE + 4 && lengths.headers <= lengths.total - PRELUDE - 4;
    (fits && crc32(&bytes[..8]) == sum).then_some(lengths)
}

/// A whole frame, taken apart.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    /// `:event-type` or, of an exception, `:exception-type`.
    pub(crate) kind: &'a str,
    pub(crate) exception: bool,
    pub(crate) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    pub(crate) fn read(bytes: &'a [u8], lengths: Lengths) -> Option<Self> {
        let mut headers = bytes.get(PRELUDE..PRELUDE + lengths.headers)?;
        let payload = bytes.get(PRELUDE + lengths.headers..lengths.total.checked_sub(4)?)?;
        let mut frame = Self {
            kind: "",
            exception: false,
            payload,
        };
        while let Some((&len, rest)) = headers.split_first() {
            let (name, rest) = split(rest, usize::from(len))?;
            let (&kind, rest) = rest.split_first()?;
            let size = match kind {
                0 | 1 => 0,
                2 => 1,
                3 => 2,
                4 => 4,
                5 | 8 => 8,
                9 => 16,
                6 | 7 => {
                    let (size, _) = split(rest, 2)?;
                    2 + usize::from(u16::from_be_bytes([size[0], size[1]]))
                }
                _ => return None,
            };
            let (value, rest) = split(rest, size)?;
            if kind == 7 {
                let text = std::str::from_utf8(&value[2..]).unwrap_or_default();
                match name {
                    b":event-type" => frame.kind = text,
                    b":exception-type" | b":error-code" => {
                        frame.kind = text;
                        frame.exception = true;
                    }
                    b":message-type" => frame.exception |= matches!(text, "exception" | "error"),
                    _ => {}
                }
            }
            headers = rest;
        }
        Some(frame)
    }

    /// The document that a frame of `invoke-with-response-stream` wraps: `{"bytes":"BASE64"}`.
    pub(crate) fn wrapped(&self) -> Option<Vec<u8>> {
        if self.kind != "chunk" {
            return None;
        }
        let mut found = None;
        Cursor::new(self.payload)
            .object(|c, key| {
                if key == b"bytes" {
                    found = c.text()?.and_then(|text| base64(text.raw()));
                    Ok(())
                } else {
                    c.skip().map(drop)
                }
            })
            .ok()?;
        found
    }
}

fn split(bytes: &[u8], at: usize) -> Option<(&[u8], &[u8])> {
    (at <= bytes.len()).then(|| bytes.split_at(at))
}

fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut buffer, mut bits) = (0u32, 0);
    for byte in text {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            b'=' => break,
            // A slash may be escaped in JSON.
            b'\\' => continue,
            _ => return None,
        };
        buffer = buffer << 6 | u32::from(six);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((buffer >> bits) as u8);
        }
    }
    Some(out)
}

/// The checksum of Ethernet and gzip, bit by bit: it is taken of eight bytes only.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            if sum & 1 == 1 {
                sum >> 1 ^ 0xedb8_8320
            } else {
                sum >> 1
            }
        })
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Makes a frame with these string headers.
    pub(crate) fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
        let mut head = Vec::new();
        for (name, value) in headers {
            head.push(u8::try_from(name.len()).unwrap());
            head.extend_from_slice(name.as_bytes());
            head.push(7);
            head.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
            head.extend_from_slice(value.as_bytes());
        }
        let total = u32::try_from(PRELUDE + head.len() + payload.len() + 4).unwrap();
        let mut out = total.to_be_bytes().to_vec();
        out.extend_from_slice(&u32::try_from(head.len()).unwrap().to_be_bytes());
        out.extend_from_slice(&crc32(&out).to_be_bytes());
        out.extend_from_slice(&head);
        out.extend_from_slice(payload);
        out.extend_from_slice(&crc32(&out).to_be_bytes());
        out
    }

    #[test]
    fn checksum_of_the_standard_text() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_wrapped_document_is_decoded() {
        let bytes = frame(&[(":event-type", "chunk")], br#"{"bytes":"eyJhIjoxfQ=="}"#);
        let frame = Frame::read(&bytes, prelude(&bytes).unwrap()).unwrap();
        assert_eq!(frame.wrapped().unwrap(), br#"{"a":1}"#);
        assert!(!frame.exception);
    }

    proptest! {
        #[test]
        fn hostile_frames_never_panic(headers: Vec<u8>, payload: Vec<u8>, noise: Vec<u8>) {
            let _ = prelude(&noise);
            let mut bytes = frame(&[], &payload);
            // Headers of arbitrary bytes under lengths that are right.
            bytes.splice(PRELUDE..PRELUDE, headers.iter().copied());
            let lengths = Lengths { total: bytes.len(), headers: headers.len() };
            if let Some(frame) = Frame::read(&bytes, lengths) {
                let _ = frame.wrapped();
            }
            let _ = base64(&payload);
        }
    }
}
