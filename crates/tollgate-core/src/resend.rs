//! Whether a request may be sent twice that the provider may have served already.
use crate::wire::{
    outcome::{Advice, NextModel, SameModel},
    prompt::RequestFacts,
};

/// When a request may be sent again although the provider may have received it.
///
/// It decides only on timeouts, on connections that broke after sending and on answers that broke
/// before anything was delivered. Work that is accepted now and done later (background responses,
/// batches, files, fine-tuning) is never sent twice, whatever stands here.
///
/// ```
/// use tollgate_core::resend::Resend;
/// use tollgate_core::wire::prompt::{Endpoint, RequestFacts};
///
/// let chat = RequestFacts::unread(Endpoint::ChatCompletions);
/// let batch = RequestFacts::unread(Endpoint::Deferred);
/// assert!(Resend::default().allows(&chat));
/// assert!(!Resend::default().allows(&batch));
/// assert!(!Resend::OnlyUnsent.allows(&chat));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resend {
    /// As long as nothing was delivered to the caller. The provider may charge both.
    #[default]
    NothingDelivered,
    /// Only what was surely not sent.
    OnlyUnsent,
}

impl Resend {
    /// Whether a request with these facts may be sent a second time.
    #[must_use]
    pub fn allows(self, facts: &RequestFacts) -> bool {
        self == Self::NothingDelivered && !facts.background && !facts.endpoint.deferred()
    }

    /// The advice with every "if resend" decided: a back-off and "when retries are used up" where
    /// it is allowed, never where it is not.
    #[must_use]
    pub fn settle(self, mut advice: Advice, facts: &RequestFacts) -> Advice {
        let allowed = self.allows(facts);
        if advice.same_model == SameModel::IfResend {
            advice.same_model = if allowed {
                SameModel::Backoff
            } else {
                SameModel::Never
            };
        }
        if advice.next_model == NextModel::IfResend {
            advice.next_model = if allowed {
                NextModel::WhenRetriesUsedUp
            } else {
                NextModel::Never
            };
        }
        advice
    }
}
