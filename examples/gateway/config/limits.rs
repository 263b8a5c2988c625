//! Limits as they are written down, on their way to a budget.
use tollgate::{
    budget::{Budget, Calendar, Enforcement, Limit, Scope, Spent, Unpriced},
    price::{Pico, PriceTable},
};
use toml::Spanned;

use super::{ConfigError, file, time};

/// One limit.
pub(super) fn limit(text: &str, told: &Spanned<file::Limit>) -> Result<Limit, ConfigError> {
    let here = |sentence: String| ConfigError::at(text, told.span(), sentence);
    let file = told.get_ref();
    let money = match &file.dollars {
        Some(dollars) => Some(
            money(dollars.get_ref()).map_err(|why| ConfigError::at(text, dollars.span(), why))?,
        ),
        None => None,
    };
    let amounts = [
        file.requests.map(Limit::requests),
        file.tokens.map(Limit::tokens),
        file.input_tokens.map(Limit::input_tokens),
        file.output_tokens.map(Limit::output_tokens),
        file.images.map(Limit::images),
        money.map(Limit::money),
    ];
    let mut amounts = amounts.into_iter().flatten();
    let (Some(amount), None) = (amounts.next(), amounts.next()) else {
        return Err(here(
            "a limit counts one of requests, tokens, input_tokens, output_tokens, images and dollars".into(),
        ));
    };
    let mut limit = match (&file.per, &file.calendar) {
        (Some(per), None) => {
            let period = time::period(per.get_ref())
                .map_err(|why| ConfigError::at(text, per.span(), why))?;
            if file.zone.is_some() || file.start_hour.is_some() || file.first_day.is_some() {
                return Err(here(
                    "only a limit with a calendar has a zone, a start_hour or a first_day".into(),
                ));
            }
            amount.per(period)
        }
        (None, Some(every)) => amount.per_calendar(calendar(text, every, file)?),
        _ => {
            return Err(here(
                "a limit needs either `per` (a rate) or `calendar` (a cap)".into(),
            ));
        }
    };
    if let Some(scope) = &file.scope {
        limit = limit.scope(match scope.get_ref().as_str() {
            "global" => Scope::Global,
            "model" => Scope::Model,
            "principal" => Scope::Principal,
            "tenant" => Scope::Tenant,
            "tag" => Scope::Tag,
            "credential" => Scope::ApiKey,
            other => {
                return Err(ConfigError::at(
                    text,
                    scope.span(),
                    format!(
                        "{other:?} is no scope: global, model, principal, tenant, tag or credential"
                    ),
                ));
            }
        });
    }
    if let Some(models) = &file.models {
        limit = limit.models(models.iter().map(String::as_str));
    }
    if let Some(name) = &file.name {
        limit = limit.named(name.as_str());
    }
    if let Some(told) = &file.enforcement {
        limit = limit.enforcement(match told.get_ref().as_str() {
            "auto" => Enforcement::Auto,
            "bucket" => Enforcement::Bucket { burst: None },
            "rolling" => Enforcement::Rolling,
            "fixed" => Enforcement::Fixed,
            other => {
                return Err(ConfigError::at(
                    text,
                    told.span(),
                    format!("{other:?} is no enforcement: auto, bucket, rolling or fixed"),
                ));
            }
        });
    }
    if file.refuse {
        limit = limit.refuse();
    }
    if file.unpriced_pass {
        limit = limit.unpriced(Unpriced::Pass);
    }
    // A limit that cannot be is told here, where its line is known, and not when all are put together.
    let mut alone = Budget::builder().limit(limit.clone());
    if file.dollars.is_some() {
        alone = alone.prices(PriceTable::new());
    }
    match alone.build() {
        Ok(_) => Ok(limit),
        Err(why) => Err(here(why.to_string())),
    }
}

/// The gateway's own limits must go together; and what a ledger is to remember, it must be able to tell apart.
pub(super) fn together(
    text: &str,
    file: &file::File,
    limits: &[Limit],
    prices: Option<&PriceTable>,
) -> Result<(), ConfigError> {
    if limits.is_empty() {
        return Ok(());
    }
    let mut all = Budget::builder();
    if let Some(prices) = prices {
        all = all.prices(prices.clone());
    }
    let mut built = None;
    for (limit, told) in limits.iter().zip(&file.limits) {
        // One after the other, so that the first that is too much is named.
        all = all.limit(limit.clone());
        let one = all.clone().build();
        built = Some(one.map_err(|why| ConfigError::at(text, told.span(), why.to_string()))?);
    }
    let (Some(all), Some(_), None) = (
        built,
        &file.sinks.ledger,
        file.redis.as_ref().or(file.redis_env.as_ref()),
    ) else {
        return Ok(());
    };
    for (limit, told) in limits.iter().zip(&file.limits) {
        let cap = told.get_ref();
        if cap.calendar.is_none() {
            continue;
        }
        if is_of_somebody(cap) && file.digest_key_env.is_none() {
            let why =
                "a cap of this scope outlasts a restart, by the ledger, only with `digest_key_env`";
            return Err(ConfigError::at(text, told.span(), why));
        }
        all.restore([Spent::new(limit.name(), 0)])
            .map_err(|why| ConfigError::at(text, told.span(), why.to_string()))?;
    }
    Ok(())
}

/// Whether it has an account for each caller, or each key of a provider, which are known by digests.
pub(super) fn is_of_somebody(limit: &file::Limit) -> bool {
    let scope = limit.scope.as_ref().map(|scope| scope.get_ref().as_str());
    matches!(scope, Some("principal" | "tenant" | "tag" | "credential"))
}

/// Whether a limit is there that is got round by whatever is not metered: one of ours, of tokens, images or money. A rate of
/// tokens at a target is the provider's, who counts such work elsewhere.
pub(super) fn any_meters(file: &file::File) -> bool {
    let tokens = |limit: &file::Limit| {
        let counts = [limit.tokens, limit.input_tokens, limit.output_tokens];
        counts.iter().chain([&limit.images]).any(Option::is_some)
    };
    let own = (file.limits.iter().map(Spanned::get_ref))
        .any(|limit| limit.dollars.is_some() || tokens(limit));
    let mut theirs = file
        .targets
        .iter()
        .flat_map(|target| &target.get_ref().limits)
        .map(Spanned::get_ref);
    own || theirs.any(|limit| limit.dollars.is_some() || limit.calendar.is_some() && tokens(limit))
}

fn calendar(
    text: &str,
    every: &Spanned<String>,
    file: &file::Limit,
) -> Result<Calendar, ConfigError> {
    let zone = file.zone.as_deref().unwrap_or("UTC");
    let mut calendar = match every.get_ref().as_str() {
        "day" => Calendar::day(zone),
        "week" => Calendar::week(zone),
        "month" => Calendar::month(zone),
        other => {
            return Err(ConfigError::at(
                text,
                every.span(),
                format!("{other:?} is no calendar: day, week or month"),
            ));
        }
    };
    if let Some(hour) = file.start_hour {
        calendar = calendar.start_hour(hour);
    }
    if let Some(day) = file.first_day {
        calendar = calendar.first_day(day);
    }
    Ok(calendar)
}

/// `"25"`, `"0.50"`: exact, as no binary fraction is.
fn money(text: &str) -> Result<Pico, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is no amount of dollars such as \"25\" or \"0.50\""))
}
