//! Who goes next: start-time fair queueing.
//!
//! Waiting requests form flows (one for each principal, priority and, by choice, size), and a flow has a line for each
//! lane: whoever names five models has five lines, and one share. Within a line it is first in, first out, and so it is
//! between the lines of a flow.
//!
//! Between flows the one goes first whose share is furthest behind: a flow's tag is that of its last request that was
//! *served* plus what that one cost, in the scarcest of the limits, divided by the flow's weight; a flow that comes new
//! starts at the tag that was served last, so nobody saves up while idle. Who leaves unserved has cost nothing. Weights
//! are shares: nobody starves.
//!
//! A line whose head waits for a limit of its own (a user's, a model's) is parked until that limit has room, and holds
//! up nobody else.
//!
//! Entries are removed from the middle by a mark; a line's deque is swept when most of it is marked.
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    hash::Hash,
};

use super::rate::Nanos;

/// Whose requests have one share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FlowKey {
    pub(crate) principal: Option<u64>,
    pub(crate) weight: u32,
    /// Where like is kept with like ([`size_classes`](crate::BudgetBuilder::size_classes)).
    pub(crate) size: u8,
}

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    line: u32,
    seq: u64,
}

#[derive(Debug)]
struct Entry {
    seq: u64,
    ticket: u64,
    share: u64,
    gone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spot {
    Empty,
    Ready(u64),
    Parked(Nanos),
}

#[derive(Debug)]
struct Line {
    flow: u32,
    lane: u32,
    entries: VecDeque<Entry>,
    alive: usize,
    spot: Spot,
}

#[derive(Debug)]
struct Flow {
    key: FlowKey,
    alive: usize,
    backlog: u128,
    /// Of the request of it that is served next.
    tag: u128,
    /// Its place in the order, while one of its lines is ready.
    seat: Option<(u128, u64)>,
}

/// The lines, and who is first.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    flows: Vec<Flow>,
    free: Vec<u32>,
    index: HashMap<FlowKey, u32>,
    lines: Vec<Line>,
    free_lines: Vec<u32>,
    line_of: HashMap<(u32, u32), u32>,
    /// Flows that have a line that is ready: tag, and when the first in it came.
    ready: BTreeSet<(u128, u64, u32)>,
    /// Lines that are ready: flow, when the first in it came, line.
    heads: BTreeSet<(u32, u64, u32)>,
    /// Lines.
    parked: BTreeSet<(Nanos, u32)>,
    virtual_time: u128,
    seq: u64,
    len: usize,
    backlog: u128,
    weights: u64,
    /// Flows that became idle since idle ones were last looked for.
    idled: usize,
}

/// Idle flows are remembered for their tags, up to so many.
const MOST_IDLE: usize = 10_000;

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a request at the end of its line. `share`: what it costs of the scarcest limit, in 2^-32.
    pub(crate) fn push(&mut self, key: FlowKey, lane: u32, ticket: u64, share: u64) -> Place {
        let id = self.line(key, lane);
        let seq = self.seq;
        self.seq += 1;
        let line = &mut self.lines[id as usize];
        line.entries.push_back(Entry {
            seq,
            ticket,
            share,
            gone: false,
        });
        line.alive += 1;
        let first = line.alive == 1;
        let flow = &mut self.flows[line.flow as usize];
        flow.alive += 1;
        flow.backlog += u128::from(share);
        if flow.alive == 1 {
            flow.tag = flow.tag.max(self.virtual_time);
            self.weights += u64::from(key.weight);
        }
        if first {
            self.seat(id);
        }
        self.len += 1;
        self.backlog += u128::from(share);
        Place { line: id, seq }
    }

    /// The part of all that waits which goes before a new request of this flow, as a fraction.
    pub(crate) fn ahead(&self, key: FlowKey) -> (u128, u128) {
        let Some(&id) = self.index.get(&key) else {
            // A new flow starts level with the one that is served now.
            return (0, self.backlog);
        };
        let backlog = self.flows[id as usize].backlog;
        let part = backlog * u128::from(self.weights) / u128::from(key.weight.max(1));
        (part.min(self.backlog), self.backlog)
    }

    /// The line that is first, and the request that is first in it.
    pub(crate) fn first(&self) -> Option<(u32, u64)> {
        let &(_, seq, flow) = self.ready.first()?;
        let &(_, _, line) = self.heads.range((flow, seq, 0)..).next()?;
        let head = self.lines[line as usize].entries.front()?;
        Some((line, head.ticket))
    }

    /// Any request that waits.
    pub(crate) fn any(&self) -> Option<u64> {
        let parked = || self.parked.first().map(|&(_, line)| line);
        let line = self.first().map(|(line, _)| line).or_else(parked)?;
        Some(self.lines[line as usize].entries.front()?.ticket)
    }

    /// The head of this line has been served.
    pub(crate) fn pop(&mut self, id: u32) {
        let line = &self.lines[id as usize];
        let Some(head) = line.entries.front() else {
            return;
        };
        let flow = &mut self.flows[line.flow as usize];
        self.virtual_time = self.virtual_time.max(flow.tag);
        flow.tag += (u128::from(head.share) << 8) / u128::from(flow.key.weight.max(1));
        let place = Place {
            line: id,
            seq: head.seq,
        };
        self.remove(place);
    }

    /// Takes a request out, wherever it stands.
    pub(crate) fn remove(&mut self, place: Place) {
        let Some(line) = self.lines.get_mut(place.line as usize) else {
            return;
        };
        let Ok(at) = line.entries.binary_search_by_key(&place.seq, |e| e.seq) else {
            return;
        };
        let entry = &mut line.entries[at];
        if entry.gone {
            return;
        }
        entry.gone = true;
        let share = u128::from(entry.share);
        line.alive -= 1;
        while line.entries.front().is_some_and(|entry| entry.gone) {
            line.entries.pop_front();
        }
        if line.entries.len() > 2 * line.alive + 32 {
            line.entries.retain(|entry| !entry.gone);
        }
        let flow = &mut self.flows[line.flow as usize];
        flow.backlog -= share;
        flow.alive -= 1;
        self.backlog -= share;
        self.len -= 1;
        let (idle, weight) = (flow.alive == 0, flow.key.weight);
        if at == 0 {
            self.seat(place.line);
        }
        if idle {
            self.weights -= u64::from(weight);
            self.forget_idle();
        }
    }

    /// Takes a line out of the order.
    fn unseat(&mut self, id: u32) {
        let line = &mut self.lines[id as usize];
        match std::mem::replace(&mut line.spot, Spot::Empty) {
            Spot::Empty => {}
            Spot::Ready(seq) => {
                self.heads.remove(&(line.flow, seq, id));
            }
            Spot::Parked(at) => {
                self.parked.remove(&(at, id));
            }
        }
    }

    /// Puts a line where its head belongs, or away if there is none.
    fn seat(&mut self, id: u32) {
        self.unseat(id);
        let line = &mut self.lines[id as usize];
        let flow = line.flow;
        match line.entries.front() {
            Some(head) => {
                line.spot = Spot::Ready(head.seq);
                self.heads.insert((flow, head.seq, id));
            }
            None => {
                line.entries = VecDeque::new();
                self.line_of.remove(&(flow, line.lane));
                self.free_lines.push(id);
            }
        }
        self.rank(flow);
    }

    /// Puts a flow where the first of its lines that are ready belongs.
    fn rank(&mut self, id: u32) {
        let first = self.heads.range((id, 0, 0)..).next();
        let first = first.filter(|&&(flow, ..)| flow == id);
        let flow = &mut self.flows[id as usize];
        let seat = first.map(|&(_, seq, _)| (flow.tag, seq));
        if seat == flow.seat {
            return;
        }
        if let Some((tag, seq)) = std::mem::replace(&mut flow.seat, seat) {
            self.ready.remove(&(tag, seq, id));
        }
        if let Some((tag, seq)) = seat {
            self.ready.insert((tag, seq, id));
        }
    }

    /// The head of this line waits for something of its own until `at`; others may pass.
    pub(crate) fn park(&mut self, id: u32, at: Nanos) {
        if matches!(self.lines[id as usize].spot, Spot::Ready(_)) {
            self.unseat(id);
            let line = &mut self.lines[id as usize];
            line.spot = Spot::Parked(at);
            self.parked.insert((at, id));
            let flow = line.flow;
            self.rank(flow);
        }
    }

    /// What this line waited for may have come.
    pub(crate) fn unpark(&mut self, id: u32) {
        let parked = |line: &Line| matches!(line.spot, Spot::Parked(_));
        if self.lines.get(id as usize).is_some_and(parked) {
            self.seat(id);
        }
    }

    pub(crate) fn unpark_due(&mut self, now: Nanos) {
        while let Some(&(at, id)) = self.parked.first() {
            if at > now {
                break;
            }
            self.unpark(id);
        }
    }

    /// When the first of the parked lines may go on.
    pub(crate) fn next_due(&self) -> Option<Nanos> {
        self.parked.first().map(|&(at, _)| at)
    }

    fn flow(&mut self, key: FlowKey) -> u32 {
        if let Some(&id) = self.index.get(&key) {
            return id;
        }
        let flow = Flow {
            key,
            alive: 0,
            backlog: 0,
            tag: 0,
            seat: None,
        };
        let id = place(&mut self.flows, &mut self.free, flow);
        self.index.insert(key, id);
        id
    }

    fn line(&mut self, key: FlowKey, lane: u32) -> u32 {
        let flow = self.flow(key);
        if let Some(&id) = self.line_of.get(&(flow, lane)) {
            return id;
        }
        let line = Line {
            flow,
            lane,
            // Most lines are short where there are many.
            entries: VecDeque::with_capacity(1),
            alive: 0,
            spot: Spot::Empty,
        };
        let id = place(&mut self.lines, &mut self.free_lines, line);
        self.line_of.insert((flow, lane), id);
        id
    }

    fn forget_idle(&mut self) {
        // Looking at all of them is paid for by those that went idle meanwhile, or it would be done again and again for
        // those that are to be kept.
        self.idled += 1;
        if self.idled < self.index.len() / 2 + 64 {
            return;
        }
        self.idled = 0;
        let flows = &self.flows;
        let idle = |&&id: &&u32| flows[id as usize].alive == 0;
        let all = self.index.values().filter(idle).count() > MOST_IDLE;
        let (free, now) = (&mut self.free, self.virtual_time);
        self.index.retain(|_, &mut id| {
            let flow = &flows[id as usize];
            // A flow that has had more than its share is remembered, or it would come back with a clean sheet.
            let keep = flow.alive > 0 || (flow.tag > now && !all);
            if !keep {
                free.push(id);
            }
            keep
        });
    }
}

/// Puts one where there is room.
fn place<T>(all: &mut Vec<T>, free: &mut Vec<u32>, one: T) -> u32 {
    match free.pop() {
        Some(id) => {
            all[id as usize] = one;
            id
        }
        None => {
            all.push(one);
            u32::try_from(all.len() - 1).expect("fewer than the queue is long")
        }
    }
}

#[cfg(test)]
mod tests;
