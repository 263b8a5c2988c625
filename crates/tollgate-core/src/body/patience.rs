//! The one timer that holds an attempt to its timeouts.
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    call::Call,
    timeouts::{TimedOut, Timeouts},
    wire::outcome::TimeoutKind,
};

/// How long an attempt is still waited for: from sending it to the last byte of its answer.
///
/// Who waits asks it whenever what it waits for is pending, and tells it what has come. It keeps one
/// timer, made when there is something to wait for, whatever number of timeouts is set.
pub struct Patience {
    call: Call,
    timeouts: Timeouts,
    stream: bool,
    /// When the attempt began.
    began: Instant,
    /// Since when the next frame is waited for: what its reader leaves lying is not the sender's delay.
    last: Option<Instant>,
    /// Somebody further out wants to hear of frames that are held.
    watched: bool,
    stage: Stage,
    /// Content has come.
    content: bool,
    sleep: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No head yet.
    Head,
    /// Its body is looked into; nothing was handed on.
    Held,
    /// The body is the caller's.
    HandedOn,
}

impl Patience {
    /// For an attempt that begins now; `stream`: its request asks for one. `None` if there is nothing to be held to.
    ///
    /// A total timeout becomes the call's deadline.
    #[must_use]
    pub fn new(timeouts: &Timeouts, call: &Call, stream: bool) -> Option<Box<Self>> {
        if let Some(total) = timeouts.total {
            call.end_within(total);
        }
        let watched = call.is_watched();
        if *timeouts == Timeouts::default() && call.deadline().is_none() && !watched {
            return None;
        }
        if timeouts.idle.is_some() {
            call.watch();
        }
        let now = Instant::now();
        Some(Box::new(Self {
            call: call.clone(),
            timeouts: *timeouts,
            stream,
            began: now,
            last: None,
            watched,
            stage: Stage::Head,
            content: false,
            sleep: None,
        }))
    }

    /// The head of the answer has come.
    pub fn head(&mut self) {
        self.stage = Stage::Held;
        self.last = None;
    }

    /// A frame of the body has come.
    pub fn frame(&mut self) {
        self.last = None;
        if self.watched && self.stage == Stage::Held {
            self.call.heard();
        }
    }

    /// Content has come, though the body is held on to.
    pub fn content(&mut self) {
        self.content = true;
    }

    /// The body is the caller's: from here on nothing can be tried again.
    pub fn handed_on(&mut self) {
        self.stage = Stage::HandedOn;
    }

    /// How long a look into a body goes on at least, so that the timeouts can end it.
    pub(super) fn least_look(&self) -> Duration {
        let first_token = self.timeouts.first_token.filter(|_| self.stream);
        self.timeouts.idle.max(first_token).unwrap_or_default()
    }

    /// Ready when the time for what is waited for now is over.
    pub fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<TimedOut> {
        loop {
            let now = Instant::now();
            if self.stage != Stage::Head {
                self.last.get_or_insert(now);
            }
            let Some((due, what, since)) = self.due(now) else {
                return Poll::Pending;
            };
            if due <= now {
                let after = now.saturating_duration_since(since);
                return Poll::Ready(TimedOut::new(what, after));
            }
            // A timer that is too early is left alone, so that frames need not move it.
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
            if sleep.deadline() > due || sleep.is_elapsed() {
                sleep.as_mut().reset(due);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// What ends the wait first: when, what it is, and since when it is waited for.
    fn due(&self, now: Instant) -> Option<(Instant, TimeoutKind, Instant)> {
        let all = &self.timeouts;
        let (sent, last) = match self.stage {
            Stage::HandedOn => (self.began, self.last),
            // What queues in a budget further in was not sent: its time has not begun. What a layer further in
            // holds has come.
            stage => {
                let (sent, heard) = self.call.progress(now);
                let heard = heard.filter(|_| stage == Stage::Head);
                (sent.max(self.began), self.last.or(heard))
            }
        };
        let first_byte = all
            .first_byte
            .filter(|_| self.stage == Stage::Head && last.is_none());
        let first_token = all
            .first_token
            .filter(|_| self.stream && !self.content && self.stage != Stage::HandedOn);
        let total = self.call.deadline();
        [
            total.map(|due| (due, TimeoutKind::Total, self.call.started())),
            first_byte
                .and_then(|time| Some((sent.checked_add(time)?, TimeoutKind::FirstByte, sent))),
            first_token
                .and_then(|time| Some((sent.checked_add(time)?, TimeoutKind::FirstToken, sent))),
            all.idle
                .zip(last)
                .and_then(|(time, last)| Some((last.checked_add(time)?, TimeoutKind::Idle, last))),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(due, ..)| *due)
    }
}

impl fmt::Debug for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patience")
            .field("timeouts", &self.timeouts)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}
