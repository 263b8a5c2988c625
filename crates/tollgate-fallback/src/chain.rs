//! The order in which models are tried.
use std::{borrow::Cow, cmp::Ordering, error::Error, fmt, sync::Arc};

use tollgate_core::wire::prompt::Dialect;

use crate::{Candidate, path};

/// The order in which models are tried.
///
/// A request begins with the first candidate whose model is the one that it asks for, and goes on
/// from there: those in front of it are not tried, for who asks for the small model does not want
/// the large one's bill. A request for a model that is not in the chain is tried as it came, and
/// then the whole chain in order.
///
/// ```
/// use tollgate_fallback::ModelChain;
///
/// let chain = ModelChain::new(["gpt-5", "gpt-5-mini"])?;
/// assert_eq!(chain.candidates().len(), 2);
/// assert_eq!(ModelChain::new(["a", "a"]).unwrap_err().to_string(), "`a` stands in the chain twice");
/// # Ok::<(), tollgate_fallback::InvalidChain>(())
/// ```
#[derive(Clone)]
pub struct ModelChain(
    /// The request as it came, and behind it the candidates.
    Arc<[Candidate]>,
);

impl ModelChain {
    /// A chain of model names, of [`Candidate`]s or of [`Target`](crate::Target)s.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong: no candidate, one twice, an empty name, a path that
    /// cannot be, targets that do not speak the same dialect (a request is renamed and moved, never
    /// translated).
    pub fn new<I>(candidates: I) -> Result<Self, InvalidChain>
    where
        I: IntoIterator<Item: Into<Candidate>>,
    {
        let mut all = vec![Candidate::own()];
        for (number, candidate) in candidates.into_iter().enumerate() {
            let candidate: Candidate = candidate.into();
            let begin = all.len();
            let pool = candidate.members.as_ref().map(|_| number);
            candidate.flat(&mut all);
            if all.len() == begin {
                return Err(InvalidChain::new("a pool needs at least one candidate"));
            }
            for member in &mut all[begin..] {
                member.speaks = path::dialect(member);
                member.pool = pool;
            }
        }
        let all: Arc<[Candidate]> = all.into();
        let candidates = &all[1..];
        if candidates.is_empty() {
            return Err(InvalidChain::new("a chain needs at least one candidate"));
        }
        let mut spoken: Option<(Dialect, &str)> = None;
        for (at, candidate) in candidates.iter().enumerate() {
            let label = candidate.label();
            if candidate.model.as_deref() == Some("") || candidate.name.as_deref() == Some("") {
                return Err(InvalidChain::new("a candidate's name must not be empty"));
            }
            if candidate.window == Some(0) {
                return Err(InvalidChain::new(format!(
                    "the context window of `{label}` must be above zero"
                )));
            }
            let same =
                |other: &Candidate| other.name == candidate.name && other.model == candidate.model;
            if candidates[..at].iter().any(same) {
                return Err(InvalidChain::new(format!(
                    "`{label}` stands in the chain twice"
                )));
            }
            path::check(candidate)?;
            if let Some(dialect) = candidate.speaks {
                match spoken {
                    Some((other, first)) if other != dialect => {
                        return Err(InvalidChain::new(format!(
                            "`{first}` speaks {other:?} and `{label}` speaks {dialect:?}; all \
                             candidates of a chain must understand the same request"
                        )));
                    }
                    _ => spoken = Some((dialect, label)),
                }
            }
        }
        Ok(Self(all))
    }

    /// The candidates in order; those of a pool stand beside one another.
    #[must_use]
    pub fn candidates(&self) -> &[Candidate] {
        &self.0[1..]
    }
}

impl fmt::Debug for ModelChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.candidates()).finish()
    }
}

/// Why a chain, or a part of one, cannot be: a sentence. It holds no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidChain(Cow<'static, str>);

impl InvalidChain {
    pub(crate) fn new(sentence: impl Into<Cow<'static, str>>) -> Self {
        Self(sentence.into())
    }
}

impl fmt::Display for InvalidChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for InvalidChain {}

/// The candidates for one request, in the order in which they are tried.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    chain: ModelChain,
    /// 0: the request as it came stands in front of the chain.
    start: usize,
    len: usize,
    /// Places in the chain, from `start` on, where pools have changed their order.
    order: Option<Box<[usize]>>,
}

impl Route {
    /// `alone`: only the first may serve.
    pub(crate) fn new(chain: &ModelChain, model: Option<&str>, alone: bool) -> Self {
        let found = chain.candidates().iter().position(|c| c.serves(model));
        let mut start = found.map_or(0, |at| at + 1);
        // Who asks for one of a pool may be given any of it.
        while chain.0[start].pool.is_some() && chain.0[start].pool == chain.0[start - 1].pool {
            start -= 1;
        }
        let len = if alone { 1 } else { chain.0.len() - start };
        Self {
            chain: chain.clone(),
            start,
            len,
            order: None,
        }
    }

    pub(crate) fn has_pools(&self) -> bool {
        let candidates = &self.chain.0[self.start..];
        candidates.iter().any(|candidate| candidate.pool.is_some())
    }

    /// Puts the members of each pool in the order of `rank`, the smallest first.
    pub(crate) fn rank<R: PartialOrd>(&mut self, rank: impl Fn(&Candidate) -> R) {
        let chain = &self.chain.0;
        let mut order: Vec<usize> = (self.start..chain.len()).collect();
        for pool in order.chunk_by_mut(|a, b| {
            let pool = chain[*a].pool;
            pool.is_some() && pool == chain[*b].pool
        }) {
            if pool.len() > 1 {
                let mut ranked: Vec<_> = pool.iter().map(|at| (rank(&chain[*at]), *at)).collect();
                ranked.sort_by(|a, b| a.0.partial_cmp(&b.0).unwrap_or(Ordering::Equal));
                for (place, (_, at)) in pool.iter_mut().zip(ranked) {
                    *place = at;
                }
            }
        }
        self.order = Some(order.into());
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, position: usize) -> &Candidate {
        let order = self.order.as_ref();
        &self.chain.0[order.map_or(self.start + position, |order| order[position])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(chain: &ModelChain, model: &str) -> Vec<String> {
        let route = Route::new(chain, Some(model), false);
        (0..route.len())
            .map(|n| route.get(n).model.as_deref().unwrap_or("own").to_owned())
            .collect()
    }

    #[test]
    fn who_asks_for_one_of_a_pool_may_be_given_any_of_it() {
        let pool = Candidate::pool(["b", "c"]);
        let chain = ModelChain::new([Candidate::model("a"), pool, Candidate::model("d")]).unwrap();
        assert_eq!(order(&chain, "c"), ["b", "c", "d"]);
        let mut route = Route::new(&chain, Some("a"), false);
        route.rank(|candidate| candidate.model.as_deref() == Some("b"));
        let ranked: Vec<_> = (0..route.len()).map(|n| route.get(n).label()).collect();
        assert_eq!(ranked, ["a", "c", "b", "d"]);
    }

    #[test]
    fn a_chain_is_entered_at_the_model_that_is_asked_for() {
        let chain = ModelChain::new(["a", "b", "c"]).unwrap();
        assert_eq!(order(&chain, "a"), ["a", "b", "c"]);
        assert_eq!(order(&chain, "b"), ["b", "c"]);
        assert_eq!(order(&chain, "x"), ["own", "a", "b", "c"]);
        assert_eq!(Route::new(&chain, Some("a"), true).len(), 1);
    }
}
