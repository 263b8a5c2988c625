//! Answers that were earned: documents and streams, of deterministic filler text.
mod chat;
mod embeddings;
mod messages;
mod responses;

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

use crate::{
    body::{Step, Steps},
    charge::Billed,
    provider::ask::Endpoint,
};

/// What an answer is made of.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) endpoint: Endpoint,
    /// Unique hexadecimal digits.
    pub(crate) id: String,
    /// Seconds since 1970.
    pub(crate) created: u64,
    /// The served model, as a JSON string.
    pub(crate) model: String,
    pub(crate) billed: Billed,
    /// Output tokens of each answer.
    pub(crate) outputs: Vec<u64>,
    pub(crate) cap: Option<u64>,
    pub(crate) include_usage: bool,
    pub(crate) usage_on_choice: bool,
    pub(crate) usage_on_every: bool,
    pub(crate) no_done: bool,
    /// Inputs of an embedding.
    pub(crate) inputs: u64,
    pub(crate) base64: bool,
    pub(crate) digest: u64,
}

impl Made {
    pub(crate) fn document(&self) -> Bytes {
        match self.endpoint {
            Endpoint::Embeddings => embeddings::document(self),
            Endpoint::Messages => messages::document(self),
            Endpoint::Responses => responses::document(self, "completed"),
            Endpoint::Chat | Endpoint::Unknown => chat::document(self),
        }
        .into()
    }

    /// Whether an answer of so many tokens was cut by its cap.
    fn cut(&self, tokens: u64) -> bool {
        self.cap == Some(tokens)
    }
}

/// Four characters for each token.
fn filler(tokens: u64) -> String {
    let mut text = String::new();
    push_filler(&mut text, 0, tokens);
    text
}

fn push_filler(text: &mut String, from: u64, tokens: u64) {
    const WORDS: &str = "the fox ran far and saw one old oak sun low red sky day end now ";
    const COUNT: u64 = 16;
    let mut at = from % COUNT;
    let mut left = tokens;
    while left > 0 {
        let run = left.min(COUNT - at);
        text.push_str(&WORDS[(at * 4) as usize..((at + run) * 4) as usize]);
        left -= run;
        at = 0;
    }
}

/// One step of a stream's script.
enum Act {
    /// An event that is no token.
    Event(String),
    /// A pause.
    Wait(Duration),
    /// So many tokens of one answer.
    Tokens {
        answer: usize,
        from: u64,
        tokens: u64,
    },
}

/// How a dialect writes its stream.
trait Dialect: Send + Sync {
    fn open(&self, made: &Made) -> Vec<String>;
    fn delta(&self, made: &Made, answer: usize, text: &str, out: u64, seq: u64) -> String;
    fn close(&self, made: &Made) -> Vec<String>;
}

/// A stream that is written as it is read.
pub(crate) struct Stream {
    made: Made,
    dialect: &'static dyn Dialect,
    queue: VecDeque<Act>,
    /// Tokens sent, of each answer.
    sent: Vec<u64>,
    per_event: u64,
    pace: Duration,
    due: Option<Act>,
    closed: bool,
    events: u64,
    total: Arc<AtomicU64>,
}

impl Stream {
    pub(crate) fn new(made: Made, per_event: u64, pace: Duration, total: Arc<AtomicU64>) -> Self {
        let dialect: &'static dyn Dialect = match made.endpoint {
            Endpoint::Messages => &messages::Messages,
            Endpoint::Responses => &responses::Responses,
            _ => &chat::Chat,
        };
        let queue = dialect.open(&made).into_iter().map(Act::Event).collect();
        Self {
            sent: vec![0; made.outputs.len()],
            made,
            dialect,
            queue,
            per_event,
            pace,
            due: None,
            closed: false,
            events: 0,
            total,
        }
    }

    /// Waits this long before the first event.
    pub(crate) fn delay(&mut self, time: Duration) {
        if !time.is_zero() {
            self.queue.push_front(Act::Wait(time));
        }
    }

    /// The next act: what is queued, then tokens of the answers in turn, then the end.
    fn act(&mut self) -> Option<Act> {
        if let Some(act) = self.queue.pop_front() {
            return Some(act);
        }
        let behind = (0..self.sent.len())
            .filter(|&answer| self.sent[answer] < self.made.outputs[answer])
            .min_by_key(|&answer| self.sent[answer]);
        if let Some(answer) = behind {
            let from = self.sent[answer];
            let tokens = self.per_event.min(self.made.outputs[answer] - from);
            self.sent[answer] += tokens;
            return Some(Act::Tokens {
                answer,
                from,
                tokens,
            });
        }
        if self.closed {
            return None;
        }
        self.closed = true;
        self.queue
            .extend(self.dialect.close(&self.made).into_iter().map(Act::Event));
        self.queue.pop_front()
    }
}

impl Steps for Stream {
    fn next(&mut self) -> Option<Step> {
        let act = match self.due.take() {
            Some(act) => act,
            None => {
                let act = self.act()?;
                if let Act::Tokens { tokens, .. } = act {
                    // The first token is what the latency before the headers was for.
                    let first = self.total.load(Ordering::Relaxed) == 0;
                    if !first && !self.pace.is_zero() {
                        self.due = Some(act);
                        let times = u32::try_from(tokens).unwrap_or(u32::MAX);
                        return Some(Step::Wait(self.pace.saturating_mul(times)));
                    }
                }
                act
            }
        };
        let event = match act {
            Act::Event(event) => event,
            Act::Wait(time) => return Some(Step::Wait(time)),
            Act::Tokens {
                answer,
                from,
                tokens,
            } => {
                let mut text = String::new();
                push_filler(&mut text, from, tokens);
                let total = self.total.fetch_add(tokens, Ordering::Relaxed) + tokens;
                self.events += 1;
                self.dialect
                    .delta(&self.made, answer, &text, total, self.events)
            }
        };
        Some(Step::Data(event.into()))
    }
}

fn named(name: &str, data: &str) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}
