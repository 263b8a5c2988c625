//! What the stack tests share.
