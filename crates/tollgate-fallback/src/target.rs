//! Another origin, with everything that a request needs to be understood there.
use std::{fmt, sync::Arc};

use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    uri::{Authority, Scheme},
};
use tollgate_core::wire::prompt::{Capability, Dialect};

use crate::{Candidate, CredentialProvider, InvalidChain, credential::digest};

/// Another origin: where it is, what it is paid with, what its models are called.
///
/// The request's path is not taken over, for it may hold a secret of the first origin: the
/// operation alone (`chat/completions`, `messages`, `models/{model}:generateContent`) is put behind
/// the base URL, with the provider's usual `/v1` in front where the base URL has no path. Another
/// layout is said with [`path`](Self::path).
///
/// Of the request's headers only those on a short list of harmless ones are kept, and of its query
/// only `alt=sse`: see the [crate docs](crate#what-another-origin-gets-to-see).
///
/// ```
/// use tollgate_fallback::{Credential, Target};
///
/// let azure = Target::new("azure-eu", "https://eu.example.com")?
///     .path("/openai/deployments/{model}/{operation}?api-version=2024-10-21")
///     .credential(Credential::header("api-key", "secret")?)
///     .model("gpt-5-eu");
/// assert!(!format!("{azure:?}").contains("secret"));
/// # Ok::<(), tollgate_fallback::InvalidChain>(())
/// ```
#[derive(Clone, Debug)]
pub struct Target {
    pub(crate) candidate: Candidate,
}

/// Where a target is and how it is spoken to.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) scheme: Scheme,
    pub(crate) authority: Authority,
    /// Path of the base URL, without a slash at its end.
    pub(crate) base: Box<str>,
    pub(crate) template: Option<Box<str>>,
    pub(crate) credential: Option<Arc<dyn CredentialProvider>>,
    pub(crate) headers: HeaderMap,
}

impl Target {
    /// A target with a name (for attempt lists, snapshots and logs) and a base URL such as
    /// `https://api.example.com/v1`.
    ///
    /// # Errors
    ///
    /// If the URL is not one of `http` or `https` with a host, or has a user, a query or a fragment.
    pub fn new(name: impl Into<Arc<str>>, base_url: &str) -> Result<Self, InvalidChain> {
        let name = name.into();
        // The URL itself is not repeated: it may hold a secret.
        let wrong = |what: &str| {
            Err(InvalidChain::new(format!(
                "the base URL of `{name}` {what}"
            )))
        };
        let Ok(uri) = base_url.parse::<Uri>() else {
            return wrong("is no URL");
        };
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return wrong("needs a scheme and a host, such as https://api.example.com/v1");
        };
        if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
            return wrong("must begin with http:// or https://");
        }
        if authority.as_str().contains('@') {
            return wrong("must not hold a user; use Target::credential");
        }
        let base = parts.path_and_query;
        if base.as_ref().is_some_and(|base| base.query().is_some()) || base_url.contains('#') {
            return wrong("must not have a query or a fragment; use Target::path");
        }
        let base = base.as_ref().map_or("", |base| base.path());
        let place = Place {
            scheme,
            authority,
            base: base.trim_end_matches('/').into(),
            template: None,
            credential: None,
            headers: HeaderMap::new(),
        };
        Ok(Self {
            candidate: Candidate {
                name: Some(name),
                place: Some(Arc::new(place)),
                ..Candidate::own()
            },
        })
    }

    /// What the model is called there. Default: as in the request.
    #[must_use]
    pub fn model(mut self, name: impl Into<Arc<str>>) -> Self {
        self.candidate.model = Some(name.into());
        self
    }

    /// Path and query behind the base URL.
    ///
    /// `{model}` stands for the model's name and `{operation}` for what is asked for
    /// (`chat/completions`, `embeddings`, `generateContent`, `converse`, …). Where `{model}` stands
    /// in the path, the document is left alone. A path without `{operation}` serves requests to that
    /// one endpoint; others pass this candidate over.
    #[must_use]
    pub fn path(self, template: &str) -> Self {
        self.place(|place| place.template = Some(template.into()))
    }

    /// The key, or several, or a closure that is asked for every request: see
    /// [`CredentialProvider`]. Default: none is sent to another origin, and the request's own to the
    /// same one.
    ///
    /// One that is refused, or has no money left, is not used again in the same call, nor by others
    /// for [`FallbackHealth::dead_for`](crate::FallbackHealth::dead_for); of several the next is
    /// tried.
    #[must_use]
    pub fn credential(self, credential: impl CredentialProvider + 'static) -> Self {
        self.place(|place| place.credential = Some(Arc::new(credential)))
    }

    /// A header that this target needs, such as `anthropic-version`; replaces the request's.
    #[must_use]
    pub fn header(self, name: HeaderName, mut value: HeaderValue) -> Self {
        value.set_sensitive(true);
        self.place(|place| {
            place.headers.insert(name, value);
        })
    }

    /// Whose shapes it speaks, where key and path do not tell. Default: told from them, else taken
    /// to be the request's.
    #[must_use]
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.candidate.dialect = Some(dialect);
        self
    }

    /// See [`Candidate::context_window`].
    #[must_use]
    pub fn context_window(mut self, tokens: u64) -> Self {
        self.candidate = self.candidate.context_window(tokens);
        self
    }

    /// See [`Candidate::cannot`].
    #[must_use]
    pub fn cannot(mut self, capabilities: impl IntoIterator<Item = Capability>) -> Self {
        self.candidate = self.candidate.cannot(capabilities);
        self
    }

    /// See [`Candidate::rename`].
    #[must_use]
    pub fn rename(mut self, from: &str, to: &str) -> Self {
        self.candidate = self.candidate.rename(from, to);
        self
    }

    /// See [`Candidate::without`].
    #[must_use]
    pub fn without(mut self, parameter: &str) -> Self {
        self.candidate = self.candidate.without(parameter);
        self
    }

    fn place(mut self, change: impl FnOnce(&mut Place)) -> Self {
        if let Some(place) = &mut self.candidate.place {
            change(Arc::make_mut(place));
        }
        self
    }
}

impl Place {
    /// Tells origins apart.
    pub(crate) fn origin(&self) -> u64 {
        origin(Some(&self.scheme), self.authority.as_str())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("scheme", &self.scheme.as_str())
            .field("authority", &self.authority.as_str())
            .field(
                "credential",
                &self.credential.as_ref().map(|keys| keys.header_name()),
            )
            .field("headers", &self.headers.keys())
            .finish_non_exhaustive()
    }
}

/// Tells origins apart: scheme, host and port. A request without a scheme is taken for https.
pub(crate) fn origin(scheme: Option<&Scheme>, authority: &str) -> u64 {
    let http = scheme.is_some_and(|scheme| *scheme == Scheme::HTTP);
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let port = if http { ":80" } else { ":443" };
    let host = host.strip_suffix(port).unwrap_or(host);
    digest(http, host.bytes().map(|byte| byte.to_ascii_lowercase()))
}
