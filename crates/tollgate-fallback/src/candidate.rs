//! One place that may serve a request.
use std::sync::Arc;

use tollgate_core::wire::prompt::{Capability, Dialect};

use crate::target::{Place, Target};

/// One place that may serve a request: another model where the request goes anyway, a whole
/// [`Target`], or a [`pool`](Self::pool) of those.
///
/// ```
/// use tollgate_fallback::{Candidate, ModelChain};
///
/// let chain = ModelChain::new([
///     Candidate::model("gpt-5").context_window(400_000),
///     Candidate::model("gpt-4.1").context_window(1_000_000).without("reasoning_effort"),
/// ])?;
/// assert_eq!(chain.candidates().len(), 2);
/// # Ok::<(), tollgate_fallback::InvalidChain>(())
/// ```
#[derive(Clone, Debug)]
pub struct Candidate {
    pub(crate) name: Option<Arc<str>>,
    pub(crate) model: Option<Arc<str>>,
    pub(crate) place: Option<Arc<Place>>,
    /// Told by the user.
    pub(crate) dialect: Option<Dialect>,
    /// Told, or surely known; filled in when the chain is made.
    pub(crate) speaks: Option<Dialect>,
    pub(crate) window: Option<u64>,
    pub(crate) edits: Vec<Edit>,
    pub(crate) lacks: Vec<Capability>,
    /// Those that it stands for; a chain takes them apart.
    pub(crate) members: Option<Vec<Candidate>>,
    /// Which of a chain's pools it belongs to.
    pub(crate) pool: Option<usize>,
}

/// A change of one parameter's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    Rename(Box<str>, Box<str>),
    Drop(Box<str>),
}

impl Candidate {
    /// Another model of the same provider: the same origin, path and key.
    pub fn model(name: impl Into<Arc<str>>) -> Self {
        Self {
            model: Some(name.into()),
            ..Self::own()
        }
    }

    /// A whole target.
    #[must_use]
    pub fn target(target: Target) -> Self {
        target.into()
    }

    /// Several that are as good as one another, such as a model in several regions or an account
    /// with several keys.
    ///
    /// Each request begins with the one that has the largest share of its limits left, by what its
    /// latest answer stated and what is under way, and goes on to the others when that fails. One
    /// that is left alone comes last.
    ///
    /// ```
    /// use tollgate_fallback::{Candidate, Credential, ModelChain, Target};
    ///
    /// let region = |name: &str, url: &str, key: &str| {
    ///     Ok(Target::new(name, url)?.credential(Credential::bearer(key)?).model("gpt-5"))
    /// };
    /// let chain = ModelChain::new([
    ///     Candidate::pool([
    ///         region("eu", "https://eu.example.com/v1", "key-1")?,
    ///         region("us", "https://us.example.com/v1", "key-2")?,
    ///     ]),
    ///     Candidate::model("gpt-5-mini"),
    /// ])?;
    /// assert_eq!(chain.candidates().len(), 3);
    /// # Ok::<(), tollgate_fallback::InvalidChain>(())
    /// ```
    #[must_use]
    pub fn pool<I>(members: I) -> Self
    where
        I: IntoIterator<Item: Into<Self>>,
    {
        Self {
            members: Some(members.into_iter().map(Into::into).collect()),
            ..Self::own()
        }
    }

    /// The most tokens, prompt and answer together, that the model takes. Default: unknown.
    ///
    /// A request that is estimated to be larger is not sent there, and one that was too long for
    /// another candidate only if this one is larger.
    #[must_use]
    pub fn context_window(self, tokens: u64) -> Self {
        self.each(&|candidate| candidate.window = Some(tokens))
    }

    /// What the model or its provider cannot do. Default: nothing is known to be missing.
    ///
    /// A request that needs it is not sent there. It is told from the request as it came, before
    /// [`without`](Self::without) takes anything out.
    #[must_use]
    pub fn cannot(self, capabilities: impl IntoIterator<Item = Capability>) -> Self {
        let capabilities: Vec<_> = capabilities.into_iter().collect();
        self.each(&|candidate| candidate.lacks.extend(&capabilities))
    }

    /// Gives a top-level parameter another name, such as `max_tokens` that of
    /// `max_completion_tokens`. Nothing happens to a request that has the new name already.
    #[must_use]
    pub fn rename(self, from: &str, to: &str) -> Self {
        let edit = Edit::Rename(from.into(), to.into());
        self.each(&|candidate| candidate.edits.push(edit.clone()))
    }

    /// Takes a top-level parameter out that the model does not know.
    #[must_use]
    pub fn without(self, parameter: &str) -> Self {
        let edit = Edit::Drop(parameter.into());
        self.each(&|candidate| candidate.edits.push(edit.clone()))
    }

    /// Changes it, or all that it stands for.
    fn each(mut self, change: &dyn Fn(&mut Self)) -> Self {
        match self.members.take() {
            Some(members) => {
                let changed = members.into_iter().map(|member| member.each(change));
                self.members = Some(changed.collect());
            }
            None => change(&mut self),
        }
        self
    }

    /// All that it stands for.
    pub(crate) fn flat(self, into: &mut Vec<Self>) {
        match self.members {
            Some(members) => members.into_iter().for_each(|member| member.flat(into)),
            None => into.push(self),
        }
    }

    /// The request as it came.
    pub(crate) const fn own() -> Self {
        Self {
            name: None,
            model: None,
            place: None,
            dialect: None,
            speaks: None,
            window: None,
            edits: Vec::new(),
            lacks: Vec::new(),
            members: None,
            pool: None,
        }
    }

    /// What it is called in messages: the target's name, or the model's.
    pub(crate) fn label(&self) -> &str {
        self.name
            .as_deref()
            .or(self.model.as_deref())
            .unwrap_or("the request's own model")
    }

    /// Whether a request for this model is already what this candidate would be sent.
    pub(crate) fn is_as_it_came(&self, model: Option<&str>) -> bool {
        self.place.is_none()
            && self.edits.is_empty()
            && (self.model.is_none() || self.model.as_deref() == model)
    }

    /// Whether it serves a request for this model as a chain's first.
    pub(crate) fn serves(&self, model: Option<&str>) -> bool {
        match &self.model {
            Some(mine) => model == Some(mine),
            // A target that keeps the request's model.
            None => true,
        }
    }
}

impl From<&str> for Candidate {
    fn from(model: &str) -> Self {
        Self::model(model)
    }
}

impl From<String> for Candidate {
    fn from(model: String) -> Self {
        Self::model(model)
    }
}

impl From<Target> for Candidate {
    fn from(target: Target) -> Self {
        target.candidate
    }
}
