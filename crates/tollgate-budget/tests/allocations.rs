//! What a request costs that no limit binds.
#![allow(clippy::unwrap_used)]
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use tollgate_budget::{Ask, Budget, BudgetBuilder, BudgetStore, Cost, Limit, Scope};
use tollgate_core::principal::Principal;

/// Allocations of one admission and its end, once the books are warm.
fn allocations(budget: BudgetBuilder, ask: &Ask) -> u64 {
    let budget = budget
        .wall_clock(SystemTime::UNIX_EPOCH + Duration::from_secs(1_774_699_200))
        .build()
        .unwrap();
    let once = || {
        let held = budget.acquire(ask.clone()).now_or_never();
        let charge = held.expect("nothing binds").unwrap().send();
        charge.settle(Cost::request().tokens(5, 5));
    };
    for _ in 0..100 {
        once();
    }
    let mut least = u64::MAX;
    for _ in 0..20 {
        least = least.min(allocation_counter::measure(once).count_total);
    }
    least
}

#[test]
fn admission_allocates_nothing_whatever_the_limits_are_scoped_by() {
    let budget = || {
        Budget::builder()
            .limit(Limit::requests(1_000_000).per_minute())
            .limit(Limit::tokens(1_000_000_000).per_minute())
    };
    let ask = Ask::new(Cost::request().tokens(10, 10));
    assert_eq!(allocations(budget(), &ask), 0, "global");
    let caps = budget()
        .limit(Limit::requests(1_000_000).per_calendar_day("Europe/Berlin"))
        .limit(Limit::requests(1_000_000).per_hour().models(["a*"]));
    assert_eq!(allocations(caps, &ask), 0, "caps and families");
    let users = budget().limit(
        Limit::requests(1_000_000)
            .per_minute()
            .scope(Scope::Principal),
    );
    let of_ann = ask.principal(Principal::of("ann"));
    assert_eq!(allocations(users, &of_ann), 0, "users");
}
