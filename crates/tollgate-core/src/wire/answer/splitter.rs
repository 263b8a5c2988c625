//! JSON documents one after the other: lines of NDJSON, items of an array.

/// Cuts a stream of documents into its documents, wherever its chunks are cut.
#[derive(Debug)]
pub(super) struct Splitter {
    /// Depth at which documents stand: 1 inside an array.
    base: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// The document under way, as far as it came in earlier chunks.
    pending: Vec<u8>,
    cap: usize,
    /// A document was over the cap and stepped over.
    pub(super) skipped: bool,
    over: bool,
}

impl Splitter {
    /// Documents with white space between them.
    pub(super) fn lines(cap: usize) -> Self {
        Self {
            base: 0,
            depth: 0,
            in_string: false,
            escaped: false,
            pending: Vec::new(),
            cap,
            skipped: false,
            over: false,
        }
    }

    /// The items of one array.
    pub(super) fn items(cap: usize) -> Self {
        Self {
            base: 1,
            ..Self::lines(cap)
        }
    }

    /// Whether no document is under way and, of an array, its end has come.
    pub(super) fn is_whole(&self) -> bool {
        self.depth == 0
    }

    /// Whether the documents are the items of an array.
    pub(super) fn is_array(&self) -> bool {
        self.base == 1
    }

    /// Calls `each` with every document that ends in these bytes. Documents are objects or arrays.
    pub(super) fn feed(&mut self, chunk: &[u8], mut each: impl FnMut(&[u8])) {
        // Where the document under way begins in this chunk.
        let mut start = (self.depth > self.base).then_some(0);
        let mut at = 0;
        while at < chunk.len() {
            if self.in_string {
                at += self.string(&chunk[at..]);
                continue;
            }
            match chunk[at] {
                b'"' => self.in_string = true,
                b'{' | b'[' => {
                    if self.depth == self.base {
                        start = Some(at);
                    }
                    self.depth += 1;
                }
                b'}' | b']' => {
                    let was_inside = self.depth > self.base;
                    self.depth = self.depth.saturating_sub(1);
                    if was_inside && self.depth == self.base {
                        let rest = &chunk[start.take().unwrap_or(0)..=at];
                        self.close(rest, &mut each);
                    }
                }
                _ => {}
            }
            at += 1;
        }
        if let Some(start) = start {
            self.keep(&chunk[start..]);
        }
    }

    /// Goes to the end of a string; returns how far.
    fn string(&mut self, rest: &[u8]) -> usize {
        if self.escaped {
            self.escaped = false;
            return 1;
        }
        match memchr::memchr2(b'"', b'\\', rest) {
            None => rest.len(),
            Some(found) => {
                if rest[found] == b'"' {
                    self.in_string = false;
                } else {
                    self.escaped = true;
                }
                found + 1
            }
        }
    }

    fn keep(&mut self, rest: &[u8]) {
        self.over |= self.pending.len() + rest.len() > self.cap;
        if self.over {
            self.pending = Vec::new();
        } else {
            self.pending.extend_from_slice(rest);
        }
    }

    fn close(&mut self, rest: &[u8], each: &mut impl FnMut(&[u8])) {
        if self.over || self.pending.len() + rest.len() > self.cap {
            self.skipped = true;
        } else if self.pending.is_empty() {
            each(rest);
        } else {
            self.pending.extend_from_slice(rest);
            each(&self.pending);
        }
        self.over = false;
        self.pending.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(mut splitter: Splitter, chunks: &[&str]) -> Vec<String> {
        let mut seen = Vec::new();
        for chunk in chunks {
            splitter.feed(chunk.as_bytes(), |doc| {
                seen.push(String::from_utf8(doc.to_vec()).unwrap());
            });
        }
        seen
    }

    #[test]
    fn documents_are_found_wherever_chunks_are_cut() {
        let text = "{\"a\":\"}\\\"{\"}\n\n {\"b\":[{}]}";
        let want = ["{\"a\":\"}\\\"{\"}", "{\"b\":[{}]}"];
        assert_eq!(split(Splitter::lines(99), &[text]), want);
        for cut in 0..text.len() {
            let (head, tail) = text.split_at(cut);
            assert_eq!(split(Splitter::lines(99), &[head, tail]), want, "{cut}");
        }
        assert_eq!(
            split(Splitter::items(99), &["[{\"a\":1}\n,", "{}", "]"]),
            ["{\"a\":1}", "{}"]
        );
    }

    #[test]
    fn one_over_the_cap_is_stepped_over() {
        let mut splitter = Splitter::lines(8);
        let mut seen = 0;
        splitter.feed(b"{\"a\":\"xxxxxxxx\"}{}", |_| seen += 1);
        assert_eq!((seen, splitter.skipped), (1, true));
    }
}
