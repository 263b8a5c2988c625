//! Cohere's `meta`; the rest of its shapes is like others'.
use crate::wire::{
    json::{Cursor, Result},
    usage::tally::{Tally, set},
};

/// Tokens, cached tokens, and billed units where there are no tokens.
pub(super) fn meta(c: &mut Cursor<'_>, tally: &mut Tally) -> Result {
    c.object(|c, key| match key {
        b"tokens" => tally.read(c).map(drop),
        b"billed_units" => tally.spare(c),
        b"cached_tokens" => set(&mut tally.cached, c),
        _ => c.skip().map(drop),
    })
    .map(drop)
}
