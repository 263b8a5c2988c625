//! Who goes next: start-time fair queueing.
//!
//! Waiting requests form flows (one for each principal, priority, lane and, by choice, size). Within a flow it is first in, first out.
//! Between flows the one goes first whose share is furthest behind: a request's tag is its flow's last tag plus what the
//! one before it cost, in the scarcest of the limits, divided by the flow's weight; a flow that comes new starts at the
//! tag that was served last, so nobody saves up while idle. Weights are shares: nobody starves.
//!
//! A flow whose head waits for a limit of its own (a user's, a model's) is parked until that limit has room, and holds
//! up nobody else.
//!
//! Entries are removed from the middle by a mark; a flow's deque is swept when most of it is marked.
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    hash::Hash,
};

use super::rate::Nanos;

/// Whose requests wait in one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FlowKey {
    pub(crate) principal: Option<u64>,
    pub(crate) weight: u32,
    pub(crate) lane: u32,
    /// Where like is kept with like ([`size_classes`](crate::BudgetBuilder::size_classes)).
    pub(crate) size: u8,
}

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) flow: u32,
    seq: u64,
}

#[derive(Debug)]
struct Entry {
    seq: u64,
    tag: u128,
    ticket: u64,
    share: u64,
    gone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spot {
    Idle,
    Ready(u128, u64),
    Parked(Nanos),
}

#[derive(Debug)]
struct Flow {
    key: FlowKey,
    line: VecDeque<Entry>,
    alive: usize,
    backlog: u128,
    finish: u128,
    spot: Spot,
}

/// The lines, and who is first.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    flows: Vec<Flow>,
    free: Vec<u32>,
    index: HashMap<FlowKey, u32>,
    ready: BTreeSet<(u128, u64, u32)>,
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
    pub(crate) fn push(&mut self, key: FlowKey, ticket: u64, share: u64) -> Place {
        let id = self.flow(key);
        let seq = self.seq;
        self.seq += 1;
        let virtual_time = self.virtual_time;
        let flow = &mut self.flows[id as usize];
        let tag = virtual_time.max(flow.finish);
        flow.finish = tag + (u128::from(share) << 8) / u128::from(key.weight.max(1));
        flow.line.push_back(Entry {
            seq,
            tag,
            ticket,
            share,
            gone: false,
        });
        flow.alive += 1;
        flow.backlog += u128::from(share);
        if flow.alive == 1 {
            self.weights += u64::from(key.weight);
            flow.spot = Spot::Ready(tag, seq);
            self.ready.insert((tag, seq, id));
        }
        self.len += 1;
        self.backlog += u128::from(share);
        Place { flow: id, seq }
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

    /// The flow that is first, and the request that is first in it.
    pub(crate) fn first(&self) -> Option<(u32, u64)> {
        let &(_, _, id) = self.ready.first()?;
        let head = self.flows[id as usize].line.front()?;
        Some((id, head.ticket))
    }

    /// Any request that waits.
    pub(crate) fn any(&self) -> Option<u64> {
        let id = match self.ready.first() {
            Some(&(_, _, id)) => id,
            None => self.parked.first()?.1,
        };
        Some(self.flows[id as usize].line.front()?.ticket)
    }

    /// The head of this flow has been served.
    pub(crate) fn pop(&mut self, id: u32) {
        let flow = &mut self.flows[id as usize];
        let Some(head) = flow.line.front() else {
            return;
        };
        self.virtual_time = self.virtual_time.max(head.tag);
        let place = Place {
            flow: id,
            seq: head.seq,
        };
        self.remove(place);
    }

    /// Takes a request out, wherever it stands.
    pub(crate) fn remove(&mut self, place: Place) {
        let Some(flow) = self.flows.get_mut(place.flow as usize) else {
            return;
        };
        let Ok(at) = flow.line.binary_search_by_key(&place.seq, |e| e.seq) else {
            return;
        };
        let entry = &mut flow.line[at];
        if entry.gone {
            return;
        }
        entry.gone = true;
        let share = u128::from(entry.share);
        flow.backlog -= share;
        flow.alive -= 1;
        self.backlog -= share;
        self.len -= 1;
        while flow.line.front().is_some_and(|entry| entry.gone) {
            flow.line.pop_front();
        }
        if flow.line.len() > 2 * flow.alive + 32 {
            flow.line.retain(|entry| !entry.gone);
        }
        if at == 0 || flow.alive == 0 {
            self.seat(place.flow);
        }
    }

    /// Puts a flow where its head belongs.
    fn seat(&mut self, id: u32) {
        let flow = &mut self.flows[id as usize];
        match flow.spot {
            Spot::Idle => {}
            Spot::Ready(tag, seq) => {
                self.ready.remove(&(tag, seq, id));
            }
            Spot::Parked(at) => {
                self.parked.remove(&(at, id));
            }
        }
        match flow.line.front() {
            Some(head) => {
                flow.spot = Spot::Ready(head.tag, head.seq);
                self.ready.insert((head.tag, head.seq, id));
            }
            None => {
                flow.spot = Spot::Idle;
                self.weights -= u64::from(flow.key.weight);
                self.forget_idle();
            }
        }
    }

    /// The head of this flow waits for something of its own until `at`; others may pass.
    pub(crate) fn park(&mut self, id: u32, at: Nanos) {
        let flow = &mut self.flows[id as usize];
        if let Spot::Ready(tag, seq) = flow.spot {
            self.ready.remove(&(tag, seq, id));
            flow.spot = Spot::Parked(at);
            self.parked.insert((at, id));
        }
    }

    /// What this flow waited for may have come.
    pub(crate) fn unpark(&mut self, id: u32) {
        let parked = |flow: &Flow| matches!(flow.spot, Spot::Parked(_));
        if self.flows.get(id as usize).is_some_and(parked) {
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

    /// When the first of the parked flows may go on.
    pub(crate) fn next_due(&self) -> Option<Nanos> {
        self.parked.first().map(|&(at, _)| at)
    }

    fn flow(&mut self, key: FlowKey) -> u32 {
        if let Some(&id) = self.index.get(&key) {
            return id;
        }
        let flow = Flow {
            key,
            // Most lines are short where there are many.
            line: VecDeque::with_capacity(1),
            alive: 0,
            backlog: 0,
            finish: 0,
            spot: Spot::Idle,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.flows[id as usize] = flow;
                id
            }
            None => {
                self.flows.push(flow);
                u32::try_from(self.flows.len() - 1).expect("fewer flows than the queue is long")
            }
        };
        self.index.insert(key, id);
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
        let busy = self.ready.len() + self.parked.len();
        let all = self.index.len() - busy > MOST_IDLE;
        let (flows, free, now) = (&mut self.flows, &mut self.free, self.virtual_time);
        self.index.retain(|_, &mut id| {
            let flow = &mut flows[id as usize];
            // A flow that has had more than its share is remembered, or it would come back with a clean sheet.
            let keep = flow.spot != Spot::Idle || (flow.finish > now && !all);
            if !keep {
                flow.line = VecDeque::new();
                free.push(id);
            }
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(principal: u64, weight: u32) -> FlowKey {
        FlowKey {
            principal: Some(principal),
            weight,
            lane: 0,
            size: 0,
        }
    }

    fn serve(queue: &mut Queue) -> Option<u64> {
        let (flow, ticket) = queue.first()?;
        queue.pop(flow);
        Some(ticket)
    }

    #[test]
    fn two_flows_take_turns_by_what_they_cost() {
        let mut queue = Queue::default();
        for n in 0..4 {
            queue.push(key(1, 1), n, 1000);
        }
        for n in 10..14 {
            queue.push(key(2, 1), n, 2000);
        }
        let order: Vec<_> = std::iter::from_fn(|| serve(&mut queue)).collect();
        assert_eq!(order, [0, 10, 1, 2, 11, 3, 12, 13]);
    }

    // T24
    #[test]
    fn a_weight_is_a_share_and_nobody_starves() {
        let mut queue = Queue::default();
        for n in 0..100 {
            queue.push(key(1, 16), n, 1000);
            queue.push(key(2, 1), 1000 + n, 1000);
        }
        let low = (0..85).filter(|_| serve(&mut queue) >= Some(1000)).count();
        assert!((4..=6).contains(&low), "{low} of 85");
    }

    #[test]
    fn a_parked_flow_holds_up_nobody_and_keeps_its_place() {
        let mut queue = Queue::default();
        queue.push(key(1, 1), 1, 1000);
        queue.push(key(2, 1), 2, 1000);
        let (flow, _) = queue.first().unwrap();
        queue.park(flow, 50);
        assert_eq!(queue.first().unwrap().1, 2);
        queue.unpark_due(49);
        assert_eq!(queue.first().unwrap().1, 2);
        queue.unpark_due(50);
        assert_eq!(queue.first().unwrap().1, 1);
    }

    proptest! {
        #[test]
        fn two_that_always_wait_are_served_alike_to_within_two_of_the_dearest(
            costs in prop::collection::vec((1u64..1 << 20, 1u64..1 << 20), 20..120),
            weights in (1u32..5, 1u32..5),
            third in prop::collection::vec(1u64..1 << 20, 0..40),
        ) {
            let mut queue = Queue::default();
            let mut share = HashMap::new();
            for (n, &(one, two)) in costs.iter().enumerate() {
                let n = n as u64;
                for (flow, weight, cost) in [(1, weights.0, one), (2, weights.1, two)] {
                    share.insert(2 * n + flow, (flow, cost));
                    queue.push(key(flow, weight), 2 * n + flow, cost);
                }
            }
            // A third that comes and goes changes nothing between the two.
            for (n, &cost) in third.iter().enumerate() {
                queue.push(key(3, 2), 1_000_000 + n as u64, cost);
            }
            let most = costs.iter().flat_map(|&(one, two)| [one, two]).max().unwrap() as f64;
            let mut served = [0.0, 0.0];
            let mut left = [costs.len(); 2];
            while left.iter().all(|&left| left > 0) {
                let ticket = serve(&mut queue).unwrap();
                if let Some(&(flow, cost)) = share.get(&ticket) {
                    let flow = flow as usize - 1;
                    let weight = [weights.0, weights.1][flow];
                    served[flow] += cost as f64 / f64::from(weight);
                    left[flow] -= 1;
                }
                let apart: f64 = served[0] - served[1];
                // The law of start-time fair queueing (Goyal, Vin and Cheng, 1996): a dearest one of each.
                let bound = most / f64::from(weights.0) + most / f64::from(weights.1) + 1.0;
                prop_assert!(apart.abs() <= bound, "{apart} and {bound}");
            }
        }
    }

    proptest! {
        #[test]
        fn each_flow_is_first_in_first_out_whoever_leaves(
            steps in prop::collection::vec((0u8..4, 0u64..5, 1u64..1 << 34), 1..300),
        ) {
            let mut queue = Queue::default();
            let mut waiting: Vec<(u64, u64, Place)> = Vec::new();
            for (n, (what, flow, share)) in steps.into_iter().enumerate() {
                let n = n as u64;
                match what {
                    0 | 1 => {
                        let place = queue.push(key(flow, 4), n, share);
                        waiting.push((flow, n, place));
                    }
                    2 => if let Some(ticket) = serve(&mut queue) {
                        let at = waiting.iter().position(|w| w.1 == ticket).unwrap();
                        let (flow, ..) = waiting.remove(at);
                        prop_assert!(waiting.iter().all(|w| w.0 != flow || w.1 > ticket));
                    },
                    _ => if !waiting.is_empty() {
                        let at = share as usize % waiting.len();
                        let (_, _, place) = waiting.remove(at);
                        queue.remove(place);
                        queue.remove(place);
                    },
                }
                prop_assert_eq!(queue.len(), waiting.len());
                prop_assert_eq!(queue.first().is_some(), !waiting.is_empty());
            }
            while serve(&mut queue).is_some() {}
            prop_assert_eq!((queue.len(), queue.backlog, queue.weights), (0, 0, 0));
        }
    }
}
