//! The response future: read the request, travel, arrive, wait, answer.
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, request};
use http_body::Body;
use pin_project::pin_project;
use tokio::time::Sleep;

use super::desk::{Desk, Plan};
use crate::{
    SimError,
    body::{BodyFate, SimBody},
    collect::Collect,
    fault::Fault,
};

/// The response future of [`SimProvider`](super::SimProvider).
///
/// # Cancel safety
///
/// Dropped before the request has arrived, it leaves no trace. Dropped later, the request was charged, and a
/// document is billed in full: the provider does the work that nobody waits for.
#[pin_project]
pub struct ResponseFuture<B> {
    #[pin]
    stage: Stage<B>,
    desk: Arc<Desk>,
    head: request::Parts,
    fault: Fault,
    skew: Duration,
}

#[pin_project(project = StageProj)]
enum Stage<B> {
    Reading(#[pin] Collect<B>),
    Travelling(Option<Pin<Box<Sleep>>>, Bytes),
    Answering(Option<Pin<Box<Sleep>>>, Option<Box<Plan>>),
}

impl<B> ResponseFuture<B> {
    pub(super) fn new(desk: Arc<Desk>, request: Request<B>) -> Self {
        let (head, body) = request.into_parts();
        let (fault, skew) = desk.called();
        let unread = match fault.replacement() {
            Some(Fault::Answer(reply)) => !reply.read_request,
            Some(Fault::Refused) => true,
            _ => false,
        };
        Self {
            stage: if unread {
                Stage::Travelling(None, Bytes::new())
            } else {
                Stage::Reading(Collect::new(body))
            },
            desk,
            head,
            fault,
            skew,
        }
    }
}

fn sleep(time: Duration) -> Option<Pin<Box<Sleep>>> {
    (!time.is_zero()).then(|| Box::pin(tokio::time::sleep(time)))
}

impl<B> Future for ResponseFuture<B>
where
    B: Body<Data = Bytes>,
{
    type Output = Result<Response<SimBody>, SimError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.stage.as_mut().project() {
                StageProj::Reading(body) => {
                    let bytes = ready!(body.poll(cx))?;
                    this.stage.set(Stage::Travelling(sleep(*this.skew), bytes));
                }
                StageProj::Travelling(travel, bytes) => {
                    if let Some(travel) = travel {
                        ready!(travel.as_mut().poll(cx));
                    }
                    let fault = std::mem::take(this.fault);
                    let plan = this.desk.arrive(this.head, bytes, fault);
                    let wait = sleep(plan.wait.unwrap_or_default());
                    this.stage.set(Stage::Answering(wait, Some(Box::new(plan))));
                }
                StageProj::Answering(wait, plan) => {
                    if let Some(wait) = wait {
                        ready!(wait.as_mut().poll(cx));
                    }
                    if plan.as_ref().is_some_and(|plan| plan.wait.is_none()) {
                        return Poll::Pending;
                    }
                    let plan = plan.take().expect("not polled after it was done");
                    return Poll::Ready(finish(*plan));
                }
            }
        }
    }
}

fn finish(plan: Plan) -> Result<Response<SimBody>, SimError> {
    let mut ticket = plan.ticket;
    assert!(!plan.panics, "the script says panic");
    match plan.answer {
        Ok(response) => Ok(match ticket.take() {
            Some(mut ticket) => {
                ticket.answered(response.status().as_u16());
                response.map(|body| body.watched(Box::new(ticket)))
            }
            None => response,
        }),
        Err(error) => {
            if let Some(ticket) = &mut ticket {
                ticket.answered(0);
                ticket.close(BodyFate::Broken);
            }
            Err(error)
        }
    }
}

impl<B> fmt::Debug for ResponseFuture<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
