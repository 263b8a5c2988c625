//! Targets and chains as they are written down.
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tollgate::{
    budget::Limit,
    fallback::{Candidate, Credential, ModelChain, Target},
    wire::prompt::{Capability, Dialect, endpoint},
};
use toml::Spanned;

use super::{ConfigError, file, limits};

/// A provider, or an account at one.
#[derive(Clone, Debug)]
pub struct TargetConfig {
    /// What it is called in chains, headers and on the status page.
    pub name: Arc<str>,
    /// Scheme, host and port.
    pub origin: String,
    /// What stands in place of `/v1` there.
    pub prefix: String,
    /// A layout of its own; such a target serves chains only.
    pub path: Option<String>,
    /// What it is shown instead of the caller's key.
    pub credential: Option<Credential>,
    /// The same as a header.
    pub(crate) shown: Option<(HeaderName, HeaderValue)>,
    /// Whose shapes it speaks.
    pub dialect: Dialect,
    /// Headers that it needs.
    pub headers: HeaderMap,
    /// HTTP/2 without TLS, known beforehand.
    pub http2: bool,
    /// Learn limits from its headers.
    pub learn: bool,
    /// Its limits.
    pub limits: Vec<Limit>,
}

/// Models in the order in which they are tried.
#[derive(Clone, Debug)]
pub struct ChainConfig {
    /// Where a request goes before the chain moves it.
    pub first: usize,
    /// The candidates.
    pub chain: ModelChain,
    /// Whose requests it understands.
    pub dialect: Dialect,
    /// The models that it serves; empty: all.
    pub models: Vec<Arc<str>>,
}

/// Reads one target; `env` reads the environment.
pub(super) fn target(
    text: &str,
    told: &Spanned<file::Target>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<TargetConfig, ConfigError> {
    let file = told.get_ref();
    let name = file.name.get_ref().as_str();
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ConfigError::at(
            text,
            file.name.span(),
            "a target's name must be of visible ASCII characters",
        ));
    }
    let at = |span: std::ops::Range<usize>| move |why: String| ConfigError::at(text, span, why);
    let origin = file.origin.get_ref().trim_end_matches('/').to_owned();
    let bare = origin
        .split_once("://")
        .is_some_and(|(_, rest)| !rest.contains('/'));
    Target::new(name, &origin).map_err(|why| at(file.origin.span())(why.to_string()))?;
    if !bare {
        return Err(at(file.origin.span())(format!(
            "the origin of `{name}` is scheme and host; put the path into `prefix`"
        )));
    }
    let prefix = match &file.prefix {
        Some(prefix) => {
            let path = prefix.get_ref().trim_end_matches('/');
            if !(path.is_empty() || path.starts_with('/')) || path.contains(['?', '#', '{']) {
                return Err(at(prefix.span())(format!(
                    "the prefix of `{name}` must be a path such as \"/v1\""
                )));
            }
            path.to_owned()
        }
        None => "/v1".to_owned(),
    };
    if let (Some(_), Some(told)) = (&file.path, &file.prefix) {
        return Err(at(told.span())(format!(
            "`{name}` has a `path`, which is all of the layout: a `prefix` beside it means nothing"
        )));
    }
    let mut headers = HeaderMap::new();
    for (key, value) in &file.headers {
        let wrong = |_| at(value.span())(format!("`{key}` of `{name}` is no header"));
        let key: HeaderName = key.parse().map_err(|_| wrong(()))?;
        let mut content = HeaderValue::from_str(value.get_ref()).map_err(|_| wrong(()))?;
        content.set_sensitive(true);
        headers.insert(key, content);
    }
    let header = file
        .credential_header
        .as_ref()
        .map(|header| header.get_ref().to_ascii_lowercase());
    let header = header.as_deref();
    let mut shown = None;
    let credential = match &file.credential_env {
        Some(variable) => {
            let key = env(variable.get_ref()).filter(|key| !key.trim().is_empty());
            let Some(key) = key else {
                return Err(at(variable.span())(format!(
                    "the environment variable {} is not set; it holds the key of `{name}`",
                    variable.get_ref()
                )));
            };
            let key = key.trim();
            let (made, value) = match header {
                None | Some("authorization") => (Credential::bearer(key), format!("Bearer {key}")),
                Some(other) => (Credential::header(other, key), key.to_owned()),
            };
            let made = made.map_err(|why| at(variable.span())(why.to_string()))?;
            shown = HeaderValue::from_str(&value).ok().map(|mut value| {
                value.set_sensitive(true);
                (made.header_name().clone(), value)
            });
            Some(made)
        }
        None if header.is_some() => {
            return Err(at(told.span())(format!(
                "`{name}` has a credential_header and no credential_env"
            )));
        }
        None => None,
    };
    let dialect = match &file.dialect {
        Some(dialect) => match dialect.get_ref().as_str() {
            "openai" => Dialect::OpenAi,
            "anthropic" => Dialect::Anthropic,
            "gemini" => Dialect::Gemini,
            "cohere" => Dialect::Cohere,
            other => {
                return Err(at(dialect.span())(format!(
                    "{other:?} is no dialect: openai, anthropic, gemini or cohere"
                )));
            }
        },
        None if header == Some("x-api-key") => Dialect::Anthropic,
        None if header == Some("x-goog-api-key") => Dialect::Gemini,
        None => Dialect::OpenAi,
    };
    let limits = file.limits.iter().map(|told| limits::limit(text, told));
    let limits = limits.collect::<Result<Vec<_>, _>>()?;
    let made = TargetConfig {
        name: name.into(),
        origin,
        prefix,
        path: file.path.as_ref().map(|path| path.get_ref().clone()),
        credential,
        shown,
        dialect,
        headers,
        http2: file.http2,
        learn: file.learn.unwrap_or(limits.is_empty()),
        limits,
    };
    if !made.learn && made.limits.is_empty() {
        return Err(at(told.span())(format!(
            "`{name}` has no limits and must not learn them; give it one, or let it learn"
        )));
    }
    Ok(made)
}

/// Each target must be one that requests can reach, under paths that still tell what they ask for.
pub(super) fn placed(
    text: &str,
    file: &file::File,
    targets: &[TargetConfig],
) -> Result<(), ConfigError> {
    let mut named = Vec::new();
    for chain in &file.chains {
        for candidate in &chain.get_ref().candidates {
            let candidate = candidate.get_ref();
            let all = std::iter::once(candidate).chain(candidate.pool.iter().map(Spanned::get_ref));
            named.extend(all.filter_map(|one| Some(&**one.target.as_ref()?.get_ref())));
        }
    }
    for (target, told) in targets.iter().zip(&file.targets) {
        let name = &*target.name;
        let alone = targets.len() == 1 && !file.chains.is_empty();
        if let Some(path) = &told.get_ref().path
            && !alone
            && !named.contains(&name)
        {
            let why =
                format!("`{name}` has a `path`, which only chains use, and no chain names it");
            return Err(ConfigError::at(text, path.span(), why));
        }
        if let Some(prefix) = &told.get_ref().prefix
            && let Some(lost) = lost(target)
        {
            let why = format!(
                "behind the prefix of `{name}` nobody could tell what /v1{lost} asks for: no limit, retry or record would see it; let it end in /v1"
            );
            return Err(ConfigError::at(text, prefix.span(), why));
        }
    }
    Ok(())
}

/// A path of the target's dialect that is another one, or none, behind its prefix.
fn lost(target: &TargetConfig) -> Option<&'static str> {
    let paths: &[&str] = match target.dialect {
        Dialect::Anthropic => &["/messages", "/complete", "/messages/count_tokens"],
        Dialect::Cohere => &["/chat", "/embed", "/rerank"],
        Dialect::Gemini => &[],
        _ => &[
            "/chat/completions",
            "/responses",
            "/completions",
            "/embeddings",
        ],
    };
    let read = |prefix: &str, path: &str| {
        let uri = format!("{prefix}{path}").parse().ok()?;
        Some(endpoint(&Method::POST, &uri))
    };
    let differs = |path: &&&str| read(&target.prefix, path) != read("/v1", path);
    paths.iter().find(differs).copied()
}

/// Reads one chain.
pub(super) fn chain(
    text: &str,
    told: &Spanned<file::Chain>,
    targets: &[TargetConfig],
) -> Result<ChainConfig, ConfigError> {
    let at = |why: String| ConfigError::at(text, told.span(), why);
    let candidates = &told.get_ref().candidates;
    let Some(head) = candidates.first() else {
        return Err(at("a chain needs at least one candidate".into()));
    };
    let head = head.get_ref().pool.first().unwrap_or(head);
    let first = find(text, head, targets)?;
    let mut models = Vec::new();
    let made = candidates
        .iter()
        .map(|one| candidate(text, one, targets, first, &mut models));
    let chain = ModelChain::new(made.collect::<Result<Vec<_>, _>>()?);
    let chain = chain.map_err(|why| at(why.to_string()))?;
    let all = models.iter().any(Option::is_none);
    let models = if all {
        Vec::new()
    } else {
        models.into_iter().flatten().collect()
    };
    let dialect = targets[first].dialect;
    Ok(ChainConfig {
        first,
        chain,
        dialect,
        models,
    })
}

fn find(
    text: &str,
    told: &Spanned<file::Candidate>,
    targets: &[TargetConfig],
) -> Result<usize, ConfigError> {
    let Some(name) = &told.get_ref().target else {
        return match targets {
            [_] => Ok(0),
            _ => Err(ConfigError::at(
                text,
                told.span(),
                "a candidate names its target where there are several",
            )),
        };
    };
    let place = targets
        .iter()
        .position(|target| *target.name == **name.get_ref());
    place.ok_or_else(|| {
        ConfigError::at(
            text,
            name.span(),
            format!("there is no target `{}`", name.get_ref()),
        )
    })
}

fn candidate(
    text: &str,
    told: &Spanned<file::Candidate>,
    targets: &[TargetConfig],
    first: usize,
    models: &mut Vec<Option<Arc<str>>>,
) -> Result<Candidate, ConfigError> {
    let file = told.get_ref();
    if !file.pool.is_empty() {
        if file.target.is_some() || file.model.is_some() {
            return Err(ConfigError::at(
                text,
                told.span(),
                "a candidate is a pool or a target, and not both",
            ));
        }
        let members = file
            .pool
            .iter()
            .map(|member| candidate(text, member, targets, usize::MAX, models));
        return Ok(Candidate::pool(members.collect::<Result<Vec<_>, _>>()?));
    }
    let place = find(text, told, targets)?;
    let target = &targets[place];
    let model: Option<Arc<str>> = file.model.as_deref().map(Into::into);
    models.push(model.clone());
    let mut made = match &model {
        // It goes there anyway, with every header that it has.
        Some(model) if place == first && target.path.is_none() => {
            Candidate::model(Arc::clone(model))
        }
        _ => elsewhere(target, model.clone())
            .map_err(|why| ConfigError::at(text, told.span(), why.to_string()))?,
    };
    if let Some(tokens) = file.context_window {
        made = made.context_window(tokens);
    }
    for (from, to) in &file.rename {
        made = made.rename(from, to);
    }
    for parameter in &file.without {
        made = made.without(parameter);
    }
    for lack in &file.cannot {
        made = made.cannot([match lack.get_ref().as_str() {
            "streaming" => Capability::Streaming,
            "tools" => Capability::Tools,
            "json_schema" => Capability::JsonSchema,
            "vision" => Capability::Vision,
            "prefill" => Capability::Prefill,
            other => {
                return Err(ConfigError::at(text, lack.span(), format!(
                    "{other:?} is no capability: streaming, tools, json_schema, vision or prefill"
                )));
            }
        }]);
    }
    Ok(made)
}

/// The target as a chain sees it.
fn elsewhere(
    target: &TargetConfig,
    model: Option<Arc<str>>,
) -> Result<Candidate, tollgate::fallback::InvalidChain> {
    let base = match target.path {
        Some(_) => target.origin.clone(),
        None => format!("{}{}", target.origin, target.prefix),
    };
    let mut made = Target::new(Arc::clone(&target.name), &base)?.dialect(target.dialect);
    if let Some(path) = &target.path {
        made = made.path(path);
    }
    if let Some(credential) = &target.credential {
        made = made.credential(credential.clone());
    }
    for (name, value) in &target.headers {
        made = made.header(name.clone(), value.clone());
    }
    if let Some(model) = model {
        made = made.model(model);
    }
    Ok(made.into())
}
