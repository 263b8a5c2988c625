//! The count of a prompt's tokens, which may have to be waited for.
use std::task::{Context, Poll};

use tollgate_core::wire::prompt::Facts;

use crate::charging::Charging;

/// Tokens of a prompt's text, if they are counted at all and could be.
pub(crate) enum Count {
    Known(Option<u64>),
    #[cfg(feature = "bpe-openai")]
    Away(crate::exact::Away),
}

impl Count {
    /// Begins to count, where these rules ask for it.
    #[cfg_attr(not(feature = "bpe-openai"), allow(unused_variables))]
    pub(crate) fn of(charging: &Charging, facts: &Facts) -> Self {
        #[cfg(feature = "bpe-openai")]
        if let Some(tokenizer) = charging.exact {
            return tokenizer.begin(facts);
        }
        Self::Known(None)
    }

    #[cfg_attr(not(feature = "bpe-openai"), allow(unused_variables))]
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<u64>> {
        match self {
            Self::Known(tokens) => Poll::Ready(*tokens),
            #[cfg(feature = "bpe-openai")]
            Self::Away(away) => away.poll(cx),
        }
    }
}
