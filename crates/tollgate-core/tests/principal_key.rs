//! A process that sets the key of its digests has the same ones as the next that does.
use tollgate_core::principal::{KeyInUse, Principal};

#[test]
fn digests_under_a_set_key_are_the_same_in_every_process() {
    assert_eq!(Principal::set_key(*b"0123456789abcdef"), Ok(()));
    // Computed once, elsewhere: it must never change, or a ledger would know no one any more.
    assert_eq!(Principal::of("alice").to_string(), "5efec219cf504d66");
    assert_eq!(Principal::set_key([0; 16]), Err(KeyInUse));
}
