//! Breaks a body where a fault says so.
use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::{
    SimError,
    body::{Step, Steps},
    fault::{Bends, End},
};

/// A document as steps: one event.
pub(crate) struct Whole(pub(crate) Option<Bytes>);

impl Steps for Whole {
    fn next(&mut self) -> Option<Step> {
        self.0.take().map(Step::Data)
    }
}

/// Steps with faults in them.
pub(crate) struct Bent {
    inner: Box<dyn Steps>,
    bends: Bends,
    error_event: String,
    events: usize,
    bytes: usize,
    queue: VecDeque<Step>,
    over: bool,
    /// The last byte of a document is never let through by a cut.
    whole: Option<usize>,
}

impl Bent {
    pub(crate) fn new(
        inner: Box<dyn Steps>,
        bends: Bends,
        error_event: String,
        whole: Option<usize>,
    ) -> Self {
        Self {
            inner,
            bends,
            error_event,
            events: 0,
            bytes: 0,
            queue: VecDeque::new(),
            over: false,
            whole,
        }
    }

    fn end(&mut self, end: End) {
        self.over = true;
        match end {
            End::Break => self.queue.push_back(Step::Break(SimError::Broken)),
            End::StallThenBreak(time) => {
                self.queue.push_back(Step::Wait(time));
                self.queue.push_back(Step::Break(SimError::Broken));
            }
            End::Stall => self.queue.push_back(Step::Stall),
        }
    }

    /// How many bytes get through, and how it ends then.
    fn byte_limit(&self) -> Option<(usize, Option<End>)> {
        let most = self.whole.map_or(usize::MAX, |len| len.saturating_sub(1));
        if self.bends.cut_json {
            return Some((self.whole.map_or(200, |len| len / 2), None));
        }
        if let (Some((_, end)), Some(len)) = (self.bends.at_events, self.whole) {
            // A document has no events: it breaks in its middle.
            return Some((len / 2, Some(end)));
        }
        self.bends
            .at_bytes
            .map(|(bytes, end)| (bytes.min(most), Some(end)))
    }

    fn refill(&mut self) {
        if self.whole.is_none() {
            if let Some((_, end)) = self
                .bends
                .at_events
                .filter(|(events, _)| *events == self.events)
            {
                return self.end(end);
            }
            if self.bends.error_event == Some(self.events) {
                self.over = true;
                let event = std::mem::take(&mut self.error_event);
                return self.queue.push_back(Step::Data(event.into()));
            }
            if self.bends.bad_event == Some(self.events) {
                self.bends.bad_event = None;
                let bad = Bytes::from_static(b"data: {\"id\":\"broken\",\"choices\":[{\"del\n\n");
                return self.queue.push_back(Step::Data(bad));
            }
        }
        let Some(mut step) = self.inner.next() else {
            self.over = true;
            return;
        };
        let Step::Data(bytes) = &mut step else {
            return self.queue.push_back(step);
        };
        self.events += 1;
        if let Some((most, end)) = self.byte_limit() {
            let left = most - self.bytes;
            if bytes.len() > left {
                bytes.truncate(left);
                if !bytes.is_empty() {
                    self.queue.push_back(step);
                }
                return match end {
                    Some(end) => self.end(end),
                    None => self.over = true,
                };
            }
            self.bytes += bytes.len();
        }
        self.queue.push_back(step);
    }
}

impl Steps for Bent {
    fn next(&mut self) -> Option<Step> {
        while self.queue.is_empty() && !self.over {
            self.refill();
        }
        self.queue.pop_front()
    }
}

/// Cuts data into frames of one size, across what were its frames.
pub(crate) struct Rechunk {
    inner: Box<dyn Steps>,
    size: usize,
    buffer: BytesMut,
    held: Option<Step>,
    over: bool,
}

impl Rechunk {
    pub(crate) fn new(inner: Box<dyn Steps>, size: usize) -> Self {
        Self {
            inner,
            size: size.max(1),
            buffer: BytesMut::new(),
            held: None,
            over: false,
        }
    }
}

impl Steps for Rechunk {
    fn next(&mut self) -> Option<Step> {
        loop {
            let flush = self.held.is_some() || self.over;
            if self.buffer.len() >= self.size || (flush && !self.buffer.is_empty()) {
                let frame = self.buffer.split_to(self.size.min(self.buffer.len()));
                return Some(Step::Data(frame.freeze()));
            }
            if let Some(step) = self.held.take() {
                return Some(step);
            }
            if self.over {
                return None;
            }
            match self.inner.next() {
                Some(Step::Data(bytes)) => self.buffer.extend_from_slice(&bytes),
                Some(other) => self.held = Some(other),
                None => self.over = true,
            }
        }
    }
}
