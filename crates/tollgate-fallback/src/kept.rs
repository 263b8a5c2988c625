//! The first candidate's answer, kept as data while others are tried.
use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode, Version};
use http_body::Body;
use tollgate_core::{
    body::Replay,
    extensions::{GaveUp, Refused, ServedBy, TimedOut},
    wire::outcome::Verdict,
};

/// A copy of an answer, or the error in place of one.
///
/// The response itself must not outlive its attempt: it may hold a connection, and what was
/// reserved for the attempt.
#[derive(Debug)]
pub(crate) enum Kept<E> {
    Answer(Box<Copied>),
    Error(E),
}

#[derive(Debug)]
pub(crate) struct Copied {
    status: StatusCode,
    version: Version,
    headers: HeaderMap,
    verdict: Option<Verdict>,
    refused: Option<Refused>,
    timed_out: Option<TimedOut>,
    gave_up: Option<GaveUp>,
    served_by: ServedBy,
    document: Bytes,
}

impl<E> Kept<E> {
    /// Copies an answer whose whole body is at hand and within `cap` bytes; `None` if it is not.
    pub(crate) fn copy<RB>(
        response: Response<Replay<RB>>,
        served_by: ServedBy,
        cap: usize,
        cx: &mut Context<'_>,
    ) -> Option<Self>
    where
        RB: Body<Data = Bytes> + Unpin,
    {
        let (parts, body) = response.into_parts();
        let document = whole(body, cap, cx)?;
        Some(Self::Answer(Box::new(Copied {
            status: parts.status,
            version: parts.version,
            headers: parts.headers,
            verdict: parts.extensions.get().cloned(),
            refused: parts.extensions.get().cloned(),
            timed_out: parts.extensions.get().copied(),
            gave_up: parts.extensions.get().copied(),
            served_by: parts.extensions.get().cloned().unwrap_or(served_by),
            document,
        })))
    }
}

impl Copied {
    /// The answer again.
    pub(crate) fn into_response<RB: Body>(self) -> (Response<Replay<RB>>, ServedBy) {
        let mut response = Response::new(Replay::document(self.document));
        *response.status_mut() = self.status;
        *response.version_mut() = self.version;
        *response.headers_mut() = self.headers;
        if let Some(verdict) = self.verdict {
            response.extensions_mut().insert(verdict);
        }
        let extensions = response.extensions_mut();
        if let Some(refused) = self.refused {
            extensions.insert(refused);
        }
        if let Some(timed_out) = self.timed_out {
            extensions.insert(timed_out);
        }
        if let Some(gave_up) = self.gave_up {
            extensions.insert(gave_up);
        }
        (response, self.served_by)
    }
}

/// The body, if nothing has to be waited for: an error's document was read when it was judged.
fn whole<RB>(mut body: Replay<RB>, cap: usize, cx: &mut Context<'_>) -> Option<Bytes>
where
    RB: Body<Data = Bytes> + Unpin,
{
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    loop {
        if body.is_end_stream() {
            break;
        }
        match Pin::new(&mut body).poll_frame(cx) {
            Poll::Ready(None) => break,
            Poll::Pending | Poll::Ready(Some(Err(_))) => return None,
            Poll::Ready(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else {
                    continue;
                };
                if first.is_empty() {
                    first = data;
                } else {
                    more.extend_from_slice(&data);
                }
                if first.len() + more.len() > cap {
                    return None;
                }
            }
        }
    }
    if more.is_empty() {
        return Some(first);
    }
    let mut all = BytesMut::with_capacity(first.len() + more.len());
    all.extend_from_slice(&first);
    all.extend_from_slice(&more);
    Some(all.freeze())
}
