//! What goes wrong on purpose.
use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Uri};

use crate::{limit::Unit, provider::ask::Endpoint, script::Reply};

/// One scripted misfortune of one request.
///
/// Those of the first group replace the answer: a request is counted against the request limits and
/// no tokens are charged. Those of the second let the request through the limits as ever, bill it, and
/// then break or bend its answer; when the limits refuse the request, it is refused.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing goes wrong.
    #[default]
    None,

    /// This very answer.
    Answer(Box<Reply>),
    /// An error with this status, in the provider's shape.
    Status(u16),
    /// A 429 although the limits would allow it.
    RateLimited {
        /// Which limit it names.
        unit: Unit,
        /// The wait that it states, if any.
        retry_after: Option<Duration>,
    },
    /// A 429 that says that the request is larger than the limit.
    TooLarge(Unit),
    /// A 429 that says that there is no money left.
    Quota,
    /// 503 `server_is_overloaded`, or 529 `overloaded_error` in Anthropic's dialect.
    Overloaded,
    /// Connection refused: nothing arrives, and the account knows nothing of it but a number.
    Refused,

    /// The connection is reset when the answer would come.
    Reset,
    /// No answer, for ever.
    Hang,
    /// The answer comes this much later.
    SlowHeaders(Duration),
    /// The stream's first event comes this much later than the headers.
    SlowFirstToken(Duration),
    /// Every rate-limit header and `retry-after` is nonsense.
    GarbageHeaders,
    /// Says `content-encoding: gzip` and sends no gzip.
    FalseGzip,
    /// The JSON document ends in its middle, as if that were all. A stream ends early likewise.
    CutJson,
    /// The connection breaks after so many bytes of the body, at the latest before its last byte.
    CutBody {
        /// Bytes that get through.
        bytes: usize,
    },
    /// Nothing more comes after so many bytes of the body.
    StallBody {
        /// Bytes that get through.
        bytes: usize,
        /// The connection breaks after this time; `None`: it never does.
        cut_after: Option<Duration>,
    },
    /// The connection breaks after so many events.
    CutStream {
        /// Events that get through.
        events: usize,
    },
    /// Nothing more comes after so many events.
    StallStream {
        /// Events that get through.
        events: usize,
        /// The connection breaks after this time; `None`: it never does.
        cut_after: Option<Duration>,
    },
    /// A malformed event stands after so many good ones; the rest is well.
    BadEvent {
        /// Events before it.
        events: usize,
    },
    /// The stream, of status 200, ends in an error event after so many good ones; 0: it is the first.
    ErrorEvent {
        /// Events before it.
        events: usize,
    },
    /// The stream ends without `[DONE]` or `message_stop`.
    NoDone,
    /// Usage stands on the last chunk with a choice, asked for or not (chat).
    UsageOnChoice,
    /// Usage stands on every chunk, cumulative (chat).
    UsageOnEvery,
    /// The body comes in frames of so many bytes, whatever its events.
    Rechunk(usize),

    /// All of these at once.
    Several(Vec<Fault>),
}

impl From<Reply> for Fault {
    fn from(reply: Reply) -> Self {
        Self::Answer(Box::new(reply))
    }
}

/// What a predicate sees of a request.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Incoming<'a> {
    /// How many requests arrived before it.
    pub index: u64,
    /// When it arrived, from the start of the account.
    pub at: Duration,
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The model asked for; empty if it could not be read.
    pub model: &'a str,
    /// Whether a stream is asked for.
    pub stream: bool,
    /// The target.
    pub uri: &'a Uri,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The body.
    pub body: &'a Bytes,
}

impl fmt::Debug for Incoming<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("index", &self.index)
            .field("at", &self.at)
            .field("endpoint", &self.endpoint)
            .field("model", &self.model)
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

/// How an answer that was earned is bent, from any number of faults.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bends {
    pub(crate) any: bool,
    pub(crate) reset: bool,
    pub(crate) hang: bool,
    pub(crate) slow_headers: Duration,
    pub(crate) slow_first: Duration,
    pub(crate) garbage: bool,
    pub(crate) gzip: bool,
    pub(crate) cut_json: bool,
    pub(crate) at_bytes: Option<(usize, End)>,
    pub(crate) at_events: Option<(usize, End)>,
    pub(crate) bad_event: Option<usize>,
    pub(crate) error_event: Option<usize>,
    pub(crate) no_done: bool,
    pub(crate) usage_on_choice: bool,
    pub(crate) usage_on_every: bool,
    pub(crate) rechunk: Option<usize>,
}

/// How a body stops too early.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Break,
    StallThenBreak(Duration),
    Stall,
}

impl End {
    fn stall(cut_after: Option<Duration>) -> Self {
        cut_after.map_or(Self::Stall, Self::StallThenBreak)
    }
}

impl Fault {
    /// The fault that replaces the whole answer, if there is one among these.
    pub(crate) fn replacement(&self) -> Option<&Self> {
        match self {
            Self::Answer(_)
            | Self::Status(_)
            | Self::RateLimited { .. }
            | Self::TooLarge(_)
            | Self::Quota
            | Self::Overloaded
            | Self::Refused => Some(self),
            Self::Several(faults) => faults.iter().find_map(Self::replacement),
            _ => None,
        }
    }

    pub(crate) fn is_none(&self) -> bool {
        match self {
            Self::None => true,
            Self::Several(faults) => faults.iter().all(Self::is_none),
            _ => false,
        }
    }

    pub(crate) fn bends(&self) -> Bends {
        let mut bends = Bends::default();
        self.bend(&mut bends);
        bends.any = !self.is_none();
        bends
    }

    fn bend(&self, to: &mut Bends) {
        match self {
            Self::Reset => to.reset = true,
            Self::Hang => to.hang = true,
            Self::SlowHeaders(time) => to.slow_headers += *time,
            Self::SlowFirstToken(time) => to.slow_first += *time,
            Self::GarbageHeaders => to.garbage = true,
            Self::FalseGzip => to.gzip = true,
            Self::CutJson => to.cut_json = true,
            Self::CutBody { bytes } => to.at_bytes = Some((*bytes, End::Break)),
            Self::StallBody { bytes, cut_after } => {
                to.at_bytes = Some((*bytes, End::stall(*cut_after)));
            }
            Self::CutStream { events } => to.at_events = Some((*events, End::Break)),
            Self::StallStream { events, cut_after } => {
                to.at_events = Some((*events, End::stall(*cut_after)));
            }
            Self::BadEvent { events } => to.bad_event = Some(*events),
            Self::ErrorEvent { events } => to.error_event = Some(*events),
            Self::NoDone => to.no_done = true,
            Self::UsageOnChoice => to.usage_on_choice = true,
            Self::UsageOnEvery => to.usage_on_every = true,
            Self::Rechunk(size) => to.rechunk = Some((*size).max(1)),
            Self::Several(faults) => faults.iter().for_each(|fault| fault.bend(to)),
            _ => {}
        }
    }
}
