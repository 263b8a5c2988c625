//! A caller's body, read whole before it is sent on, so that it can be sent again.
use std::{sync::Arc, time::Duration};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use crate::config::Config;

/// A permit stands for so many bytes.
const UNIT: usize = 1_024;

/// How much may be held: of one body, and of all.
#[derive(Clone, Debug)]
pub struct Room {
    most: u64,
    all: Arc<Semaphore>,
    /// The part of it that answers may take, so that callers who do not read theirs leave some to the requests.
    answers: Arc<Semaphore>,
    patience: Duration,
    whole: Duration,
}

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRead {
    /// It is larger than one may be.
    TooLarge,
    /// All together would be.
    Full,
    /// Nothing came for too long, or it took too long in all.
    Stalled,
    /// The caller's connection broke.
    Broken,
}

impl Room {
    /// As the configuration says: `max_body` for one body and `max_buffered` for all; `request_body` between two parts of
    /// one, and `request_total` for all of it.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let units =
            usize::try_from(config.max_buffered.div_ceil(UNIT as u64)).unwrap_or(usize::MAX);
        let units = units.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            most: config.max_body,
            all: Arc::new(Semaphore::new(units)),
            answers: Arc::new(Semaphore::new(units / 2)),
            patience: config.request_body,
            whole: config.request_total,
        }
    }

    /// The largest body.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.most
    }

    /// Reads a body. What it takes is free again when the second value is dropped.
    ///
    /// # Errors
    ///
    /// Why it was not read.
    pub async fn read(
        &self,
        mut body: Body,
    ) -> Result<(Bytes, Option<OwnedSemaphorePermit>), NotRead> {
        let hint = body.size_hint();
        if hint.lower() > self.most {
            return Err(NotRead::TooLarge);
        }
        let mut held: Option<OwnedSemaphorePermit> = None;
        let mut first = Bytes::new();
        let mut more = BytesMut::new();
        let mut length = 0;
        // A byte a minute would keep a place for weeks.
        let end = Instant::now() + self.whole;
        loop {
            let until = end.min(Instant::now() + self.patience);
            let frame = timeout_at(until, body.frame()).await;
            let frame = match frame.map_err(|_| NotRead::Stalled)? {
                Some(frame) => frame.map_err(|_| NotRead::Broken)?,
                None => break,
            };
            let Ok(data) = frame.into_data() else {
                continue;
            };
            length += data.len();
            if length as u64 > self.most {
                return Err(NotRead::TooLarge);
            }
            if !take(&self.all, &mut held, length) {
                return Err(NotRead::Full);
            }
            // Most bodies come in one piece, which need not be copied.
            if first.is_empty() {
                first = data;
            } else {
                if more.is_empty() {
                    // As much as was said, but not for the saying alone.
                    let said = usize::try_from(hint.lower()).unwrap_or(0);
                    more.reserve(said.min(1 << 20).max(length));
                    more.extend_from_slice(&first);
                }
                more.extend_from_slice(&data);
            }
        }
        let whole = if more.is_empty() {
            first
        } else {
            more.freeze()
        };
        Ok((whole, held))
    }

    /// Makes room for so much of an answer in all; false, if there is none.
    pub(crate) fn hold(&self, held: &mut Held, length: usize) -> bool {
        take(&self.answers, &mut held.of_answers, length)
            && take(&self.all, &mut held.of_all, length)
    }
}

/// The room that an answer takes, until this is dropped.
#[derive(Debug, Default)]
pub struct Held {
    of_answers: Option<OwnedSemaphorePermit>,
    of_all: Option<OwnedSemaphorePermit>,
}

/// Takes permits until they stand for so many bytes.
fn take(from: &Arc<Semaphore>, held: &mut Option<OwnedSemaphorePermit>, length: usize) -> bool {
    let have = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
    let need = length.div_ceil(UNIT).saturating_sub(have);
    let Ok(need) = u32::try_from(need) else {
        return false;
    };
    if need == 0 {
        return true;
    }
    let Ok(more) = Arc::clone(from).try_acquire_many_owned(need) else {
        return false;
    };
    match held {
        Some(held) => held.merge(more),
        None => *held = Some(more),
    }
    true
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use http_body_util::{Full, StreamBody, channel::Channel};
    use hyper::body::Frame;

    use super::*;

    fn room(most: u64, all: u64) -> Room {
        let text = "[[target]]\nname = \"t\"\norigin = \"http://127.0.0.1:1\"";
        let mut config = Config::parse(text, &|_| None).unwrap();
        (config.max_body, config.max_buffered) = (most, all);
        Room::new(&config)
    }

    /// Without a length that is known beforehand.
    fn pieces(all: &[&'static str]) -> Body {
        let frames = all.iter().map(|piece| {
            Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(piece.as_bytes())))
        });
        let frames: Vec<_> = frames.collect();
        Body::new(StreamBody::new(futures_util::stream::iter(frames)))
    }

    #[tokio::test]
    async fn pieces_become_one_body_and_one_that_is_too_large_does_not() {
        let (body, _held) = room(6, 1 << 20)
            .read(pieces(&["one", "two"]))
            .await
            .unwrap();
        assert_eq!(body, "onetwo");
        assert_eq!(
            room(5, 1 << 20)
                .read(pieces(&["one", "two"]))
                .await
                .unwrap_err(),
            NotRead::TooLarge
        );
        let told = Body::new(Full::from("onetwo"));
        assert_eq!(
            room(5, 1 << 20).read(told).await.unwrap_err(),
            NotRead::TooLarge
        );
    }

    #[tokio::test]
    async fn all_bodies_together_are_bounded_and_give_their_room_back() {
        let room = room(4_096, 2_048);
        let two = || Body::from(vec![b'x'; 1_500]);
        let (_, held) = room.read(two()).await.unwrap();
        assert_eq!(room.read(two()).await.unwrap_err(), NotRead::Full);
        drop(held);
        assert!(room.read(two()).await.is_ok());
    }

    #[tokio::test]
    async fn one_body_of_all_that_may_be_held_is_read() {
        let body = Body::from(vec![b'x'; 1_500]);
        assert!(room(1_500, 1_500).read(body).await.is_ok());
    }

    #[tokio::test]
    async fn a_caller_who_stalls_is_not_waited_for_for_ever() {
        // It never says anything, so the test does not depend on how fast anybody is.
        let (_sender, body) = Channel::<Bytes, std::io::Error>::new(1);
        let mut room = room(10, 1 << 20);
        room.patience = Duration::from_millis(20);
        let read = room.read(Body::new(body)).await;
        assert_eq!(read.unwrap_err(), NotRead::Stalled);
    }

    #[tokio::test]
    async fn a_caller_who_dribbles_is_not_waited_for_for_ever_either() {
        // Always one more byte at once.
        let frames = std::iter::repeat_with(|| {
            Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"x")))
        });
        let dribble = futures_util::stream::iter(frames).then(|frame| async {
            tokio::task::yield_now().await;
            frame
        });
        let mut room = room(u64::MAX, u64::MAX);
        room.whole = Duration::from_millis(20);
        let read = room.read(Body::new(StreamBody::new(dribble))).await;
        assert_eq!(read.unwrap_err(), NotRead::Stalled);
    }
}
