//! The order in which those who wait are served.
use proptest::prelude::*;

use super::*;

fn key(principal: u64, weight: u32) -> FlowKey {
    FlowKey {
        principal: Some(principal),
        weight,
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
        queue.push(key(1, 1), 0, n, 1000);
    }
    for n in 10..14 {
        queue.push(key(2, 1), 0, n, 2000);
    }
    let order: Vec<_> = std::iter::from_fn(|| serve(&mut queue)).collect();
    assert_eq!(order, [0, 10, 1, 2, 11, 3, 12, 13]);
}

// T24
#[test]
fn a_weight_is_a_share_and_nobody_starves() {
    let mut queue = Queue::default();
    for n in 0..100 {
        queue.push(key(1, 16), 0, n, 1000);
        queue.push(key(2, 1), 0, 1000 + n, 1000);
    }
    let low = (0..85).filter(|_| serve(&mut queue) >= Some(1000)).count();
    assert!((4..=6).contains(&low), "{low} of 85");
}

#[test]
fn a_parked_flow_holds_up_nobody_and_keeps_its_place() {
    let mut queue = Queue::default();
    queue.push(key(1, 1), 0, 1, 1000);
    queue.push(key(2, 1), 0, 2, 1000);
    let (flow, _) = queue.first().unwrap();
    queue.park(flow, 50);
    assert_eq!(queue.first().unwrap().1, 2);
    queue.unpark_due(49);
    assert_eq!(queue.first().unwrap().1, 2);
    queue.unpark_due(50);
    assert_eq!(queue.first().unwrap().1, 1);
}

#[test]
fn who_leaves_unserved_has_cost_its_flow_nothing() {
    let mut queue = Queue::default();
    queue.push(key(2, 1), 0, 0, 1000);
    let places: Vec<_> = (1..=1000)
        .map(|n| queue.push(key(1, 1), 0, n, 1000))
        .collect();
    for place in places {
        queue.remove(place);
    }
    for n in 0..4 {
        queue.push(key(2, 1), 0, 2000 + n, 1000);
        queue.push(key(1, 1), 0, 1000 + n, 1000);
    }
    let order: Vec<_> = std::iter::from_fn(|| serve(&mut queue)).collect();
    assert_eq!(order, [0, 1000, 2000, 1001, 2001, 1002, 2002, 1003, 2003]);
}

#[test]
fn whoever_names_five_models_has_one_share() {
    let mut queue = Queue::default();
    for n in 0..100 {
        queue.push(key(1, 1), (n % 5) as u32, n, 1000);
        queue.push(key(2, 1), 0, 1000 + n, 1000);
    }
    let order: Vec<_> = std::iter::from_fn(|| serve(&mut queue)).collect();
    let (one, two): (Vec<u64>, Vec<u64>) = order.iter().partition(|&&n| n < 1000);
    assert!(one.is_sorted() && two.is_sorted(), "first in, first out");
    for (n, pair) in order.chunks(2).enumerate() {
        assert!(pair[0].abs_diff(pair[1]) == 1000, "{n}: {pair:?}");
    }
}

#[test]
fn a_line_that_is_parked_holds_up_no_other_line_of_its_flow() {
    let mut queue = Queue::default();
    queue.push(key(1, 1), 0, 1, 1000);
    queue.push(key(1, 1), 1, 2, 1000);
    let (line, _) = queue.first().unwrap();
    queue.park(line, 50);
    assert_eq!(serve(&mut queue), Some(2));
    assert_eq!(queue.first(), None);
    queue.unpark_due(50);
    assert_eq!(serve(&mut queue), Some(1));
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
                queue.push(key(flow, weight), 0, 2 * n + flow, cost);
            }
        }
        // A third that comes and goes changes nothing between the two.
        for (n, &cost) in third.iter().enumerate() {
            queue.push(key(3, 2), 0, 1_000_000 + n as u64, cost);
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
                    let place = queue.push(key(flow, 4), (share % 3) as u32, n, share);
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
        prop_assert!(queue.ready.is_empty() && queue.heads.is_empty() && queue.line_of.is_empty());
        prop_assert_eq!(queue.free_lines.len(), queue.lines.len());
    }
}
