//! A counter that starts anew each window.

#[derive(Clone, Debug)]
pub(super) struct Fixed {
    pub(super) limit: u64,
    window: u64,
    index: u64,
    used: u64,
}

impl Fixed {
    pub(super) fn new(limit: u64, window: u64) -> Self {
        Self {
            limit,
            window,
            index: 0,
            used: 0,
        }
    }

    fn roll(&mut self, now: u64) {
        let index = now / self.window;
        if index > self.index {
            self.index = index;
            self.used = 0;
        }
    }

    pub(super) fn used(&mut self, now: u64) -> u64 {
        self.roll(now);
        self.used
    }

    pub(super) fn wait(&mut self, now: u64, cost: u64) -> u64 {
        self.roll(now);
        if self.used.saturating_add(cost) <= self.limit {
            0
        } else {
            self.window - now % self.window
        }
    }

    pub(super) fn charge(&mut self, now: u64, cost: u64) -> u64 {
        self.roll(now);
        self.used += cost;
        self.index
    }

    /// A window that has ended is not credited.
    pub(super) fn settle(&mut self, now: u64, index: u64, held: u64, cost: u64) {
        self.roll(now);
        if index == self.index {
            self.used = (self.used + cost).saturating_sub(held);
        }
    }

    pub(super) fn reset(&mut self, now: u64) -> u64 {
        self.roll(now);
        if self.used == 0 {
            0
        } else {
            self.window - now % self.window
        }
    }
}
