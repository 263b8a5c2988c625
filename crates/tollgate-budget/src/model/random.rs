//! Random interleavings of more tasks than can be tried in all of them.
use shuttle::rand::{Rng, thread_rng};

use super::{
    admitted, budget, clean, come_and_go,
    platform::{let_time_run, thread},
};
use crate::{Budget, Cost};

/// Schedules tried; more by `TOLLGATE_SCHEDULES`.
fn schedules() -> usize {
    std::env::var("TOLLGATE_SCHEDULES").map_or(10_000, |n| n.parse().expect("a number"))
}

/// One life of a request, of any kind.
fn one(budget: &Budget) {
    match thread_rng().gen_range(0..6) {
        0 | 1 => come_and_go(budget),
        2 => drop(admitted(budget)),
        3 => drop(admitted(budget).send()),
        4 => admitted(budget).send().cancel(),
        _ => admitted(budget).send().settle(Cost::request()),
    }
}

// X07
#[test]
fn five_tasks_that_come_and_go_lose_nobody_and_leave_nothing() {
    // A failure prints its schedule; `shuttle::replay` runs it again.
    shuttle::check_random(
        || {
            let budget = budget(2);
            let tasks: Vec<_> = (0..5)
                .map(|_| {
                    let budget = budget.clone();
                    thread::spawn(move || (0..3).for_each(|_| one(&budget)))
                })
                .collect();
            let_time_run();
            for task in tasks {
                task.join().unwrap();
            }
            clean(&budget);
        },
        schedules(),
    );
}
