//! A bucket that leaks evenly.

#[derive(Clone, Debug)]
pub(super) struct Bucket {
    limit: u64,
    window: u64,
    pub(super) burst: u64,
    /// Units × window.
    level: u128,
    at: u64,
}

impl Bucket {
    pub(super) fn new(limit: u64, window: u64, burst: u64) -> Self {
        Self {
            limit,
            window,
            burst: burst.max(1),
            level: 0,
            at: 0,
        }
    }

    fn scaled(&self, units: u64) -> u128 {
        u128::from(units) * u128::from(self.window)
    }

    fn leak(&mut self, now: u64) {
        let time = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        let leaked = u128::from(time) * u128::from(self.limit);
        self.level = self.level.saturating_sub(leaked);
    }

    pub(super) fn used(&mut self, now: u64) -> u64 {
        self.leak(now);
        narrow(self.level.div_ceil(u128::from(self.window)))
    }

    pub(super) fn wait(&mut self, now: u64, cost: u64) -> u64 {
        self.leak(now);
        let excess = (self.level + self.scaled(cost)).saturating_sub(self.scaled(self.burst));
        narrow(excess.div_ceil(u128::from(self.limit)))
    }

    pub(super) fn charge(&mut self, now: u64, cost: u64) -> u64 {
        self.leak(now);
        self.level += self.scaled(cost);
        0
    }

    pub(super) fn settle(&mut self, now: u64, held: u64, cost: u64) {
        self.leak(now);
        self.level += self.scaled(cost);
        self.level = self.level.saturating_sub(self.scaled(held));
    }

    pub(super) fn reset(&mut self, now: u64) -> u64 {
        self.leak(now);
        narrow(self.level.div_ceil(u128::from(self.limit)))
    }
}

fn narrow(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
