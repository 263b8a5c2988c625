//! One reading of a response body, shared by all layers that want it.
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use tokio::time::Instant;

use super::{End, Observer};
use crate::wire::{
    answer::{Answer, AnswerReader},
    prompt::Endpoint,
};

/// A handle to what is read of a response body while it goes by.
///
/// The innermost layer that watches the body makes it and leaves it in the response's extensions;
/// a layer further out takes that one and parses nothing. It is pulled, not subscribed to: the
/// outer layer has its own end detector and asks when that fires. See
/// [`ObservedBody`](super::ObservedBody) for why the inner one has reported by then.
///
/// ```
/// use bytes::Bytes;
/// use http::{HeaderMap, StatusCode};
/// use tollgate_core::{body::{End, Observer, Tap}, wire::prompt::Endpoint};
///
/// let tap = Tap::new(Endpoint::ChatCompletions, StatusCode::OK, &HeaderMap::new());
/// let mut tapping = tap.tapping();
/// tapping.data(&Bytes::from(r#"{"model":"m-1","choices":[],"usage":{"prompt_tokens":3}}"#));
/// tapping.end(End::Complete);
/// assert_eq!(tap.read(|seen| seen.answer().usage.input.get()), Some(3));
/// ```
#[derive(Clone)]
pub struct Tap(Arc<Mutex<TapState>>);

/// What a [`Tap`] has seen so far.
#[derive(Debug)]
pub struct TapState {
    reader: AnswerReader,
    first_byte: Option<Instant>,
    first_content: Option<Instant>,
    last_byte: Option<Instant>,
    end: Option<End>,
}

impl TapState {
    /// The reading.
    #[must_use]
    pub fn answer(&self) -> &Answer {
        self.reader.answer()
    }

    /// The reader itself, for event boundaries.
    #[must_use]
    pub fn reader(&self) -> &AnswerReader {
        &self.reader
    }

    /// When the first byte came.
    #[must_use]
    pub fn first_byte(&self) -> Option<Instant> {
        self.first_byte
    }

    /// When the first generated content came.
    #[must_use]
    pub fn first_content(&self) -> Option<Instant> {
        self.first_content
    }

    /// How the body ended; `None` while it is under way.
    ///
    /// One that was dropped after its terminal event (`[DONE]`, `message_stop`, …) is complete:
    /// clients stop reading there.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        match self.end {
            Some(End::Dropped) if self.answer().complete => Some(End::Complete),
            end => end,
        }
    }
}

impl Tap {
    /// A tap for the body of an answer with this head.
    #[must_use]
    pub fn new(endpoint: Endpoint, status: StatusCode, headers: &HeaderMap) -> Self {
        let reader = AnswerReader::new(endpoint, status, headers);
        let state = TapState {
            reader,
            first_byte: None,
            first_content: None,
            last_byte: None,
            end: None,
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// The tap that a layer further in has left.
    #[must_use]
    pub fn of<B>(response: &Response<B>) -> Option<Self> {
        response.extensions().get().cloned()
    }

    /// The observer that feeds it; to be given to one body.
    #[must_use]
    pub fn tapping(&self) -> Tapping {
        Tapping(self.clone())
    }

    /// Looks at what was seen so far. Takes a lock that each data frame takes too: be brief.
    pub fn read<R>(&self, look: impl FnOnce(&TapState) -> R) -> R {
        look(&self.state())
    }

    fn state(&self) -> MutexGuard<'_, TapState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap").finish_non_exhaustive()
    }
}

/// Feeds a [`Tap`] from an observed body.
#[derive(Debug)]
pub struct Tapping(Tap);

impl Observer for Tapping {
    fn data(&mut self, data: &Bytes) {
        let mut state = self.0.state();
        if state.first_content.is_some() {
            // The clock costs as much as the reading of a short event, and nobody asks any more.
            return state.reader.feed(data);
        }
        let now = Instant::now();
        state.first_byte.get_or_insert(now);
        state.last_byte = Some(now);
        state.reader.feed(data);
        if state.first_content.is_none() && state.reader.answer().content_started {
            state.first_content = Some(now);
        }
    }

    fn end(&mut self, end: End) {
        let mut state = self.0.state();
        if end == End::Complete {
            state.reader.end();
            // A document is read at its end: its content is there when its last byte is.
            if state.first_content.is_none() && state.reader.answer().content_started {
                state.first_content = state.last_byte;
            }
        }
        state.end = Some(end);
    }
}
