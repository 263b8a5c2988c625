//! The one reader of the wall clock.
//!
//! Everything that waits uses [`tokio::time`]; everything that computes takes the time as an
//! argument. The calendar is needed only to read HTTP dates and to name days and months.
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// The date and time of day.
///
/// ```
/// assert!(tollgate_core::clock::wall() > std::time::UNIX_EPOCH);
/// ```
#[must_use]
#[allow(clippy::disallowed_methods)] // this is the file that may
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// A calendar that goes with tokio's clock, so that a test can let a month pass.
///
/// It begins with the system's time and goes on with [`tokio::time`]. What the system's clock does beside that is
/// followed: it is set, or goes on while the machine sleeps and tokio's clock stands still. So in production it is the
/// system's clock, and under a paused runtime it moves as the test moves time.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tollgate_core::clock::WallClock;
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
/// # runtime.block_on(async {
/// let christmas = SystemTime::UNIX_EPOCH + Duration::from_secs(1_798_156_800);
/// let clock = WallClock::beginning(christmas);
/// tokio::time::sleep(Duration::from_secs(86_400)).await;
/// assert_eq!(clock.now(), christmas + Duration::from_secs(86_400));
/// # });
/// ```
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    began: SystemTime,
    at: Instant,
    /// What both of the system's clocks said at that time; `None`: they are not looked at.
    system: Option<System>,
}

impl WallClock {
    /// The system's time.
    #[must_use]
    pub fn system() -> Self {
        let system = System::read();
        Self {
            began: system.wall,
            at: Instant::now(),
            system: Some(system),
        }
    }

    /// A calendar in which it is `began` now, and which follows tokio's clock alone.
    #[must_use]
    pub fn beginning(began: SystemTime) -> Self {
        Self {
            began,
            at: Instant::now(),
            system: None,
        }
    }

    /// The date and time of day.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        let tokio = self
            .began
            .checked_add(self.at.elapsed())
            .unwrap_or(self.began);
        match self.system {
            Some(then) => System::read().steps_since(&then).apply(tokio),
            None => tokio,
        }
    }
}

/// The system's wall clock and its steady one, read together.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::disallowed_types)] // compared with the wall clock and never waited by
struct System {
    wall: SystemTime,
    steady: std::time::Instant,
}

impl System {
    #[allow(clippy::disallowed_types)]
    fn read() -> Self {
        Self {
            wall: wall(),
            steady: std::time::Instant::now(),
        }
    }

    /// By how much the wall clock has moved more than the steady one.
    fn steps_since(&self, then: &Self) -> Step {
        let steady = self.steady.saturating_duration_since(then.steady);
        let expected = then.wall.checked_add(steady).unwrap_or(then.wall);
        match self.wall.duration_since(expected) {
            Ok(ahead) => Step::Ahead(ahead),
            Err(behind) => Step::Back(behind.duration()),
        }
    }
}

/// A step of the wall clock.
#[derive(Clone, Copy, Debug)]
enum Step {
    Ahead(Duration),
    Back(Duration),
}

impl Step {
    fn apply(self, time: SystemTime) -> SystemTime {
        match self {
            Self::Ahead(by) => time.checked_add(by),
            Self::Back(by) => time.checked_sub(by),
        }
        .unwrap_or(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn it_moves_as_the_test_moves_time() {
        let clock = WallClock::system();
        let begun = wall();
        tokio::time::sleep(1000 * HOUR).await;
        let passed = clock.now().duration_since(begun).unwrap();
        assert!(
            passed > 1000 * HOUR - HOUR / 60 && passed < 1000 * HOUR + HOUR / 60,
            "{passed:?}"
        );
    }

    // T31
    #[test]
    fn a_clock_that_is_set_or_a_machine_that_slept_is_followed() {
        let then = System::read();
        let steady = then.steady + HOUR;
        let slept = System {
            wall: then.wall + 3 * HOUR,
            steady,
        };
        let time = SystemTime::UNIX_EPOCH + 100 * HOUR;
        assert_eq!(slept.steps_since(&then).apply(time), time + 2 * HOUR);
        let set_back = System {
            wall: then.wall - HOUR,
            steady,
        };
        assert_eq!(set_back.steps_since(&then).apply(time), time - 2 * HOUR);
    }
}
