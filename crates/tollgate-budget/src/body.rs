//! The response body: passes what comes and settles the charge when it ends.
use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;
use tollgate_core::{
    body::{End, ObservedBody, Observer, Tap, Tapping},
    wire::{
        outcome::{Outcome, Units},
        prompt::Facts,
    },
};

use crate::{
    charging::{ChargeProfile, Cost, DropPolicy},
    learned::Learned,
    store::{Charge, Observation, Refusal, Settlement},
    used::Bill,
};

/// The body of an answer that passed a budget, or of our own refusal.
///
/// Bytes pass as they come; nothing is held back.
#[pin_project]
pub struct ResponseBody<B> {
    #[pin]
    kind: Kind<B>,
}

// The large one is the ordinary one.
#[allow(clippy::large_enum_variant)]
#[pin_project(project = KindProj)]
enum Kind<B> {
    Refused(Option<Bytes>),
    Passing(#[pin] ObservedBody<B, Settling>),
}

impl<B> ResponseBody<B> {
    pub(crate) fn refused(document: Bytes) -> Self {
        Self {
            kind: Kind::Refused(Some(document).filter(|d| !d.is_empty())),
        }
    }

    pub(crate) fn passing(body: B) -> Self {
        Self {
            kind: Kind::Passing(ObservedBody::unobserved(body)),
        }
    }
}

impl<B: Body<Data = Bytes>> ResponseBody<B> {
    pub(crate) fn settling(body: B, settling: Settling) -> Self {
        Self {
            kind: Kind::Passing(ObservedBody::new(body, settling)),
        }
    }
}

impl<B: Body<Data = Bytes>> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            KindProj::Refused(document) => Poll::Ready(document.take().map(Frame::data).map(Ok)),
            KindProj::Passing(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Refused(document) => document.is_none(),
            Kind::Passing(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Refused(document) => {
                SizeHint::with_exact(document.as_ref().map_or(0, |d| d.len() as u64))
            }
            Kind::Passing(body) => body.size_hint(),
        }
    }
}

impl<B: Default> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::passing(B::default())
    }
}

impl<B> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            Kind::Refused(_) => "ResponseBody::Refused",
            Kind::Passing(_) => "ResponseBody::Passing",
        })
    }
}

/// Holds the charge while the body passes, and settles it at the one end.
///
/// Dropped without an end (it cannot be: the observed body reports one) the charge would keep the estimate.
pub(crate) struct Settling {
    pub(crate) charge: Option<Charge>,
    pub(crate) tap: Tap,
    /// Feeds the tap, unless a layer further in does.
    pub(crate) tapping: Option<Tapping>,
    pub(crate) profile: ChargeProfile,
    pub(crate) on_drop: DropPolicy,
    pub(crate) estimate: Cost,
    pub(crate) bill: Bill,
    /// Where the answer's usage is noted, if anything is learned from it.
    pub(crate) learned: Option<(Arc<Learned>, Facts)>,
    /// The head's `retry-after`: on a 200 it is the wait for an error inside.
    pub(crate) head_wait: Option<Duration>,
}

impl Observer for Settling {
    fn data(&mut self, data: &Bytes) {
        if let Some(tapping) = &mut self.tapping {
            tapping.data(data);
        }
    }

    fn end(&mut self, end: End) {
        if let Some(tapping) = &mut self.tapping {
            tapping.end(end);
        }
        let Some(charge) = self.charge.take() else {
            return;
        };
        // Decided under the tap's lock, acted upon without it: settling wakes whoever waits for the units.
        let (refusal, how) = self.tap.read(|seen| {
            let answer = seen.answer();
            // The provider can refuse after a 200: nothing was generated, and it charges as for a refusal.
            if let Some(error) = answer.error.as_ref().filter(|_| !answer.content_started) {
                let outcome = Outcome::from(error.class);
                let wait = error.retry_after.map(|r| r.wait).or(self.head_wait);
                let limited = matches!(outcome, Outcome::RateLimited { .. });
                let refusal = limited.then(|| (error.what.clone(), wait));
                match outcome.advice().units {
                    Units::TokensBack => return (refusal, Settlement::TokensBack),
                    Units::AllBack => return (refusal, Settlement::AllBack),
                    _ => return (refusal, Settlement::Keep),
                }
            }
            let whole = end == End::Complete || answer.complete;
            if let (Some((learned, facts)), true) = (&self.learned, whole) {
                learned.hear(facts, &answer.billed_usage());
            }
            let (charged, used) = if whole {
                let charged = self.profile.actual(&answer.billed_usage());
                (
                    charged,
                    self.bill
                        .actual(&self.estimate.used, &answer.billed_usage()),
                )
            } else if self.on_drop == DropPolicy::Received {
                let chars = answer.output_chars;
                let charged = self.profile.received(self.estimate, chars);
                (
                    charged,
                    Some(self.bill.received(&self.estimate.used, chars)),
                )
            } else {
                (None, None)
            };
            let how = match (charged, used) {
                (Some(charged), used) => {
                    Settlement::Actual(charged.using(used.unwrap_or(self.estimate.used)))
                }
                (None, Some(used)) => Settlement::Used(used),
                (None, None) => Settlement::Keep,
            };
            (None, how)
        });
        if let Some((what, wait)) = &refusal {
            let what = what.as_ref();
            let wait = *wait;
            charge.observe(&Observation::default().refusal(Some(Refusal { what, wait })));
        }
        charge.end(how);
    }
}
