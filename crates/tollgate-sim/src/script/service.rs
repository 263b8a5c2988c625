//! The scripted upstream as a tower service.
use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project::pin_project;
use tokio::time::{Instant, Sleep};
use tower_service::Service;

use super::{
    attempt::Attempt,
    reply::{Kind, Reply},
};
use crate::{
    SimError,
    body::{BodyFate, SimBody, Watch},
    collect::Collect,
};

type Answer = dyn Fn(&Attempt) -> Reply + Send + Sync;

enum Script {
    List(VecDeque<Reply>),
    Function(Arc<Answer>),
}

struct State {
    script: Script,
    log: Vec<Attempt>,
}

/// An upstream that answers with the scripted replies in order; the last one repeats.
///
/// Clones share script and log. It is always ready; wrap it in a
/// [`ReadyProbe`](crate::probe::ReadyProbe) to watch readiness.
#[derive(Clone)]
pub struct Scripted {
    state: Arc<Mutex<State>>,
    start: Instant,
}

impl Scripted {
    /// Answers with these replies in order; the last repeats. Without any, answers 200 with an empty body.
    pub fn new(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self::of(Script::List(replies.into_iter().collect()))
    }

    /// Answers with what the function says of each attempt, when its body has been read.
    pub fn by(answer: impl Fn(&Attempt) -> Reply + Send + Sync + 'static) -> Self {
        Self::of(Script::Function(Arc::new(answer)))
    }

    fn of(script: Script) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                script,
                log: Vec::new(),
            })),
            start: Instant::now(),
        }
    }

    /// Every attempt so far, in the order in which they came.
    #[must_use]
    pub fn attempts(&self) -> Vec<Attempt> {
        self.lock().log.clone()
    }

    /// How many attempts came so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().log.len()
    }

    /// When each attempt came.
    #[must_use]
    pub fn times(&self) -> Vec<Duration> {
        self.lock().log.iter().map(|attempt| attempt.at).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> Service<Request<B>> for Scripted
where
    B: Body<Data = Bytes>,
{
    type Response = Response<SimBody>;
    type Error = SimError;
    type Future = ResponseFuture<B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SimError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (head, body) = request.into_parts();
        let mut state = self.lock();
        let index = state.log.len();
        let attempt = Attempt::new(index, self.start.elapsed(), head);
        state.log.push(attempt);
        // A list hands out its replies in the order of the calls, not of the bodies' ends.
        let reply = match &mut state.script {
            Script::List(list) if list.len() > 1 => list.pop_front(),
            Script::List(list) => Some(list.front().cloned().unwrap_or_else(|| Reply::status(200))),
            Script::Function(_) => None,
        };
        drop(state);
        let entry = Entry {
            upstream: self.clone(),
            index,
            done: false,
        };
        ResponseFuture {
            stage: match reply {
                Some(reply) if !reply.read_request => Stage::waiting(reply),
                reply => Stage::Reading {
                    body: Collect::new(body),
                    reply,
                },
            },
            entry,
        }
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scripted")
            .field("attempts", &self.count())
            .finish_non_exhaustive()
    }
}

/// The response future of [`Scripted`].
///
/// # Cancel safety
///
/// Dropping it marks the attempt as cancelled in the log.
#[pin_project]
pub struct ResponseFuture<B> {
    #[pin]
    stage: Stage<B>,
    entry: Entry,
}

#[pin_project(project = StageProj)]
enum Stage<B> {
    Reading {
        #[pin]
        body: Collect<B>,
        reply: Option<Reply>,
    },
    Waiting {
        sleep: Option<Pin<Box<Sleep>>>,
        reply: Option<Reply>,
    },
}

impl<B> Stage<B> {
    fn waiting(reply: Reply) -> Self {
        let sleep = (!reply.after.is_zero()).then(|| Box::pin(tokio::time::sleep(reply.after)));
        Self::Waiting {
            sleep,
            reply: Some(reply),
        }
    }
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
                StageProj::Reading { body, reply } => {
                    let bytes = match ready!(body.poll(cx)) {
                        Ok(bytes) => bytes,
                        Err(error) => {
                            this.entry.answered();
                            return Poll::Ready(Err(error));
                        }
                    };
                    let scripted = reply.take();
                    let reply = this.entry.read(bytes, scripted);
                    this.stage.set(Stage::waiting(reply));
                }
                StageProj::Waiting { sleep, reply } => {
                    if let Some(sleep) = sleep {
                        ready!(sleep.as_mut().poll(cx));
                    }
                    let reply = match reply.as_ref().map(|reply| reply.kind) {
                        Some(Kind::Pending) => return Poll::Pending,
                        _ => reply.take().expect("not polled after it was done"),
                    };
                    this.entry.answered();
                    return Poll::Ready(match reply.kind {
                        Kind::Error(error) => Err(error),
                        Kind::Panic => panic!("the script says panic"),
                        Kind::Answer | Kind::Pending => {
                            Ok(reply.into_response().map(|body| this.entry.watch(body)))
                        }
                    });
                }
            }
        }
    }
}

impl<B> fmt::Debug for ResponseFuture<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("attempt", &self.entry.index)
            .finish_non_exhaustive()
    }
}

/// The attempt's place in the log; marks it as cancelled when dropped too early.
struct Entry {
    upstream: Scripted,
    index: usize,
    done: bool,
}

impl Entry {
    fn read(&self, body: Bytes, scripted: Option<Reply>) -> Reply {
        let mut state = self.upstream.lock();
        state.log[self.index].body = body;
        if let Some(reply) = scripted {
            return reply;
        }
        let attempt = state.log[self.index].clone();
        let answer = match &state.script {
            Script::Function(answer) => Arc::clone(answer),
            Script::List(_) => return Reply::status(200),
        };
        // Foreign code runs without the lock; it may look at the log.
        drop(state);
        answer(&attempt)
    }

    fn answered(&mut self) {
        self.done = true;
        let now = self.upstream.start.elapsed();
        self.upstream.lock().log[self.index].answered_at = Some(now);
    }

    fn watch(&self, body: SimBody) -> SimBody {
        body.watched(Box::new(Fate {
            upstream: self.upstream.clone(),
            index: self.index,
        }))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.done {
            self.upstream.lock().log[self.index].cancelled = true;
        }
    }
}

struct Fate {
    upstream: Scripted,
    index: usize,
}

impl Watch for Fate {
    fn ended(self: Box<Self>, fate: BodyFate) {
        self.upstream.lock().log[self.index].body_fate = fate;
    }
}
