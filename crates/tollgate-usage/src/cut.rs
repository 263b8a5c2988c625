//! Takes out of a stream the usage chunk that we asked for in the caller's place.
use std::{collections::VecDeque, ops::Range};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tollgate_core::body::Tap;

/// Most bytes of an event that are held before it is whole. A usage chunk is far smaller.
const HELD: u64 = 64 << 10;

/// Holds back what may become the usage chunk, and lets everything else go unchanged.
///
/// Where events end and which of them hold only usage is known from the tap, which has seen at
/// least the bytes that were pushed.
pub(crate) struct Cut<E> {
    tap: Tap,
    /// Offset in the stream of the first held byte.
    from: u64,
    held: VecDeque<Bytes>,
    held_len: u64,
    released: VecDeque<Bytes>,
    released_len: u64,
    last: Option<Result<Frame<Bytes>, E>>,
}

impl<E> Cut<E> {
    pub(crate) fn new(tap: Tap) -> Self {
        Self {
            tap,
            from: 0,
            held: VecDeque::new(),
            held_len: 0,
            released: VecDeque::new(),
            released_len: 0,
            last: None,
        }
    }

    /// Takes a data frame.
    pub(crate) fn push(&mut self, data: Bytes) {
        // HTTP/2 servers end streams with an empty frame; there is nothing in it to hand on.
        if data.is_empty() {
            return;
        }
        self.held_len += data.len() as u64;
        self.held.push_back(data);
        self.release(false);
    }

    /// The body has ended, with this frame or error if any.
    pub(crate) fn end(&mut self, last: Option<Result<Frame<Bytes>, E>>) {
        self.release(true);
        self.last = last;
    }

    /// What may be handed on.
    pub(crate) fn pop(&mut self) -> Option<Result<Frame<Bytes>, E>> {
        match self.released.pop_front() {
            Some(data) => {
                self.released_len -= data.len() as u64;
                Some(Ok(Frame::data(data)))
            }
            None => self.last.take(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.released.is_empty() && self.last.is_none()
    }

    /// What is still to come, where `rest` comes from the body.
    pub(crate) fn size_hint(&self, rest: &SizeHint) -> SizeHint {
        let mut hint = SizeHint::new();
        // Everything that is not released may yet be cut.
        hint.set_lower(self.released_len);
        let kept = self.released_len + self.held_len;
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(kept)) {
            hint.set_upper(upper);
        }
        hint
    }

    fn release(&mut self, end: bool) {
        let tap = self.tap.clone();
        tap.read(|seen| {
            let here = self.from + self.held_len;
            let mut until = seen.reader().boundary().min(here);
            if end || here - until > HELD {
                until = here;
            }
            for event in seen.reader().usage_only_events() {
                if event.start < self.from || event.start >= until {
                    continue;
                }
                if event.end > until {
                    // A tap may be ahead of us: this one is known and not here yet.
                    until = if end { until } else { event.start };
                    break;
                }
                self.let_go(event.start);
                self.drop_usage(event.clone());
            }
            self.let_go(until);
        });
    }

    /// Releases the bytes before an offset.
    fn let_go(&mut self, until: u64) {
        while let Some(data) = self.take(until) {
            self.released_len += data.len() as u64;
            self.released.push_back(data);
        }
    }

    /// Takes out an event. Never without a look at it: a layer in between may have changed the
    /// stream, and then the offsets are not ours.
    fn drop_usage(&mut self, event: Range<u64>) {
        let mut pieces = Vec::new();
        while let Some(data) = self.take(event.end) {
            pieces.push(data);
        }
        let text = pieces.concat();
        if !text.windows(7).any(|word| word == b"\"usage\"") {
            for data in pieces {
                self.released_len += data.len() as u64;
                self.released.push_back(data);
            }
        }
    }

    /// The next held bytes, none of them at or beyond `until`.
    fn take(&mut self, until: u64) -> Option<Bytes> {
        let room = usize::try_from(until.checked_sub(self.from)?).unwrap_or(usize::MAX);
        let front = self.held.front_mut().filter(|_| room > 0)?;
        let data = if front.len() > room {
            front.split_to(room)
        } else {
            self.held.pop_front()?
        };
        self.from += data.len() as u64;
        self.held_len -= data.len() as u64;
        Some(data)
    }
}
