//! How a body ends, and who is told.
use bytes::Bytes;
use http::HeaderMap;

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Whole: the end of the stream, trailers, or `is_end_stream` after a frame.
    Complete,
    /// With an error.
    Failed,
    /// Dropped before its end.
    Dropped,
}

/// Watches a body go by.
///
/// `end` is called exactly once. Calls come from inside `poll_frame` and from `Drop`, so they must
/// not block and must not panic.
pub trait Observer {
    /// A data frame, before it is handed on.
    fn data(&mut self, data: &Bytes);

    /// The trailers, before they are handed on; [`end`](Self::end) follows.
    fn trailers(&mut self, trailers: &HeaderMap) {
        let _ = trailers;
    }

    /// The body has ended.
    fn end(&mut self, end: End);
}
