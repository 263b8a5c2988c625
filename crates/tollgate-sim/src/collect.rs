//! Reads a request body to its end, without a copy where one frame holds it all.
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::Body;
use pin_project::pin_project;

use crate::SimError;

/// Resolves with all bytes of a body.
#[pin_project]
#[derive(Debug)]
pub(crate) struct Collect<B> {
    #[pin]
    body: B,
    first: Bytes,
    rest: BytesMut,
}

impl<B> Collect<B> {
    pub(crate) fn new(body: B) -> Self {
        Self {
            body,
            first: Bytes::new(),
            rest: BytesMut::new(),
        }
    }
}

impl<B: Body<Data = Bytes>> Collect<B> {
    pub(crate) fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Bytes, SimError>> {
        let mut this = self.project();
        loop {
            let frame = match ready!(this.body.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(_)) => return Poll::Ready(Err(SimError::RequestBody)),
                None => break,
            };
            if let Ok(data) = frame.into_data() {
                if !this.rest.is_empty() {
                    this.rest.extend_from_slice(&data);
                } else if this.first.is_empty() {
                    *this.first = data;
                } else {
                    this.rest.extend_from_slice(this.first);
                    this.rest.extend_from_slice(&data);
                }
            }
        }
        Poll::Ready(Ok(if this.rest.is_empty() {
            std::mem::take(this.first)
        } else {
            std::mem::take(this.rest).freeze()
        }))
    }
}
