//! Server-sent events: an incremental scanner with constant state.
