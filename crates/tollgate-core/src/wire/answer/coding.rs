//! Content codings: a decoded copy of an answer, made piece by piece while it goes by.
use std::io::Write;

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use zstd::stream::raw::{DParameter, Decoder as Zstd, InBuffer, Operation, OutBuffer};

/// Bytes that are decoded before they are read.
const PIECE: usize = 16 << 10;
/// Largest window that a zstd answer may ask for, as its power of two: 8 MiB (RFC 9659).
const WINDOW_LOG: u32 = 23;

/// Decodes one body. What it holds is bounded by the window of its coding.
pub(super) struct Decoder {
    coding: Coding,
    out: Vec<u8>,
}

enum Coding {
    Gzip(MultiGzDecoder<Vec<u8>>),
    /// Called `deflate`; which of the two it is its first byte tells.
    Deflate(Option<Deflate>),
    Brotli(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>),
    Zstd(Zstd<'static>),
}

enum Deflate {
    Zlib(ZlibDecoder<Vec<u8>>),
    Raw(DeflateDecoder<Vec<u8>>),
}

/// The body is not what its coding promises.
#[derive(Debug)]
pub(super) struct Broken;

impl Decoder {
    /// A decoder for a `content-encoding`; `None` for an unknown one, or several.
    pub(super) fn new(coding: &[u8]) -> Option<Self> {
        let named = |name: &str| coding.eq_ignore_ascii_case(name.as_bytes());
        let coding = if named("gzip") || named("x-gzip") {
            Coding::Gzip(MultiGzDecoder::new(Vec::new()))
        } else if named("deflate") {
            Coding::Deflate(None)
        } else if named("br") {
            let alloc = StandardAlloc::default;
            let state = BrotliState::new_strict(alloc(), alloc(), alloc());
            Coding::Brotli(Box::new(state))
        } else if named("zstd") {
            let mut zstd = Zstd::new().ok()?;
            zstd.set_parameter(DParameter::WindowLogMax(WINDOW_LOG))
                .ok()?;
            Coding::Zstd(zstd)
        } else {
            return None;
        };
        let out = Vec::new();
        Some(Self { coding, out })
    }

    /// Decodes the next bytes and hands them on in small pieces, until `read` has had enough and
    /// returns false.
    pub(super) fn feed(
        &mut self,
        input: &[u8],
        mut read: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), Broken> {
        match &mut self.coding {
            Coding::Gzip(gzip) => write(gzip, MultiGzDecoder::get_mut, input, read),
            Coding::Deflate(deflate) => {
                let deflate = deflate.get_or_insert_with(|| match input.first() {
                    // The method of a zlib header; a raw stream of blocks hardly begins so.
                    Some(first) if first & 0x0f == 8 => Deflate::Zlib(ZlibDecoder::new(Vec::new())),
                    _ => Deflate::Raw(DeflateDecoder::new(Vec::new())),
                });
                match deflate {
                    Deflate::Zlib(zlib) => write(zlib, ZlibDecoder::get_mut, input, read),
                    Deflate::Raw(raw) => write(raw, DeflateDecoder::get_mut, input, read),
                }
            }
            Coding::Brotli(state) => {
                self.out.resize(PIECE, 0);
                let (mut left, mut at) = (input.len(), 0);
                loop {
                    let (mut room, mut len, mut total) = (PIECE, 0, 0);
                    let result = BrotliDecompressStream(
                        &mut left,
                        &mut at,
                        input,
                        &mut room,
                        &mut len,
                        &mut self.out,
                        &mut total,
                        state,
                    );
                    if len > 0 && !read(&self.out[..len]) {
                        return Ok(());
                    }
                    match result {
                        BrotliResult::NeedsMoreOutput => {}
                        BrotliResult::NeedsMoreInput => return Ok(()),
                        // What follows the end is nobody's.
                        BrotliResult::ResultSuccess => return Ok(()),
                        BrotliResult::ResultFailure => return Err(Broken),
                    }
                }
            }
            Coding::Zstd(zstd) => {
                self.out.resize(PIECE, 0);
                let mut input = InBuffer::around(input);
                loop {
                    let mut output = OutBuffer::around(&mut self.out[..]);
                    let before = input.pos();
                    zstd.run(&mut input, &mut output).map_err(|_| Broken)?;
                    let len = output.pos();
                    if len > 0 && !read(&self.out[..len]) {
                        return Ok(());
                    }
                    if len < PIECE && (input.pos() == before || input.pos() == input.src.len()) {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// Pushes bytes through a decoder that writes into a vector, at most 32 KiB of it at a time.
fn write<D: Write>(
    decoder: &mut D,
    out: impl Fn(&mut D) -> &mut Vec<u8>,
    mut input: &[u8],
    mut read: impl FnMut(&[u8]) -> bool,
) -> Result<(), Broken> {
    let mut drain = |decoder: &mut D| {
        let out = out(decoder);
        let more = out.is_empty() || read(out);
        out.clear();
        more
    };
    while !input.is_empty() {
        let taken = decoder.write(input).map_err(|_| Broken)?;
        if !drain(decoder) {
            return Ok(());
        }
        if taken == 0 {
            return Err(Broken);
        }
        input = &input[taken..];
    }
    // The last bytes stand in the decoder until it is asked for them.
    decoder.flush().map_err(|_| Broken)?;
    drain(decoder);
    Ok(())
}
