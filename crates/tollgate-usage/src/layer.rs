//! The layer and its settings.
use std::{fmt, sync::Arc};

use tollgate_core::price::Prices;
use tower_layer::Layer;

use crate::{Recorder, UsageRecorder, inject::Targets, told::Told};

/// Largest request that is read, in bytes.
const READ_CAP: u64 = 32 << 20;

/// Wraps services in a [`UsageRecorder`]. See the [module docs](crate).
#[derive(Clone, Debug)]
pub struct UsageRecorderLayer {
    settings: Arc<Settings>,
}

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) recorders: Vec<Arc<dyn Recorder>>,
    pub(crate) prices: Prices,
    pub(crate) inject: bool,
    pub(crate) read_cap: u64,
    pub(crate) targets: Arc<Targets>,
    pub(crate) told: Arc<Told>,
}

impl UsageRecorderLayer {
    /// A layer that hands its records to `recorder`, without prices.
    pub fn new(recorder: impl Recorder + 'static) -> Self {
        let settings = Settings {
            recorders: vec![Arc::new(recorder)],
            prices: Prices::default(),
            inject: true,
            read_cap: READ_CAP,
            targets: Arc::default(),
            told: Arc::default(),
        };
        Self {
            settings: Arc::new(settings),
        }
    }

    /// Hands the records to one more recorder.
    #[must_use]
    pub fn and(mut self, recorder: impl Recorder + 'static) -> Self {
        self.edit().recorders.push(Arc::new(recorder));
        self
    }

    /// Prices to compute costs with: a [`PriceTable`](tollgate_core::price::PriceTable), or a
    /// [`Prices`] handle, through which the table can be replaced later; default none, so that
    /// every cost is unknown.
    #[must_use]
    pub fn prices(mut self, prices: impl Into<Prices>) -> Self {
        self.edit().prices = prices.into();
        self
    }

    /// Whether to ask for usage where a stream has none unless asked for
    /// (`stream_options.include_usage`), and to take the extra chunk out of the answer again;
    /// default yes.
    ///
    /// Without it the usage of such streams is unknown. Where an error may blame the field, the target
    /// is asked again without it, at once; if that is answered, it is not asked for usage any more.
    /// That second request is no retry and is held back only by the caller's own
    /// [`max_attempts`](tollgate_core::call::CallOptions::max_attempts): with too few left, only a
    /// target that has taken the field before is asked for usage.
    #[must_use]
    pub fn inject_usage(mut self, inject: bool) -> Self {
        self.edit().inject = inject;
        self
    }

    /// Largest request body that is read, in bytes; default 32 MiB. A larger one passes unread, and
    /// of what it asks only the path is known.
    #[must_use]
    pub fn read_cap(mut self, bytes: u64) -> Self {
        self.edit().read_cap = bytes;
        self
    }

    fn edit(&mut self) -> &mut Settings {
        Arc::make_mut(&mut self.settings)
    }
}

impl<S> Layer<S> for UsageRecorderLayer {
    type Service = UsageRecorder<S>;

    fn layer(&self, inner: S) -> UsageRecorder<S> {
        UsageRecorder::with_settings(inner, Arc::clone(&self.settings))
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("recorders", &self.recorders.len())
            .field("inject", &self.inject)
            .field("read_cap", &self.read_cap)
            .field("targets", &self.targets)
            .finish_non_exhaustive()
    }
}
