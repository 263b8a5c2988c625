//! Ollama's native fields.
use super::Said;
use crate::wire::{
    json::{Cursor, Result},
    usage::tally::{Tally, set},
};

pub(super) fn member(
    said: &mut Said<'_>,
    c: &mut Cursor<'_>,
    key: &[u8],
    tally: &mut Tally,
) -> Result {
    match key {
        b"done" => {
            said.last |= c.boolean()? == Some(true);
            Ok(())
        }
        // Missing when the prompt was cached whole: unknown, not zero.
        b"prompt_eval_count" => set(&mut tally.input, c),
        _ => set(&mut tally.output, c),
    }
}
