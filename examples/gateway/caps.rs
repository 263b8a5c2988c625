//! What caps have spent in their running period before this process began, as the ledger tells it.
use std::collections::BTreeMap;

use tollgate::{
    Budget, Limit,
    budget::{Scope, Spent, Unit},
    clock,
    ledger::{By, LedgerError, Reader, Select, Sums},
    principal::Principal,
};

use crate::config::{Config, ConfigError};

/// Fills the books of the gateway's own caps, where there is a ledger.
pub(crate) fn restore(config: &Config, budget: &Budget) -> Result<(), ConfigError> {
    let Some(path) = &config.ledger else {
        return Ok(());
    };
    let caps: Vec<_> = config.limits.iter().filter_map(Cap::running).collect();
    if caps.is_empty() {
        return Ok(());
    }
    let wrong = |why: &dyn std::fmt::Display| {
        ConfigError::new(format!("{}: what caps have spent: {why}", path.display()))
    };
    let reader = Reader::open(path).map_err(|why| wrong(&why))?;
    let mut all = Vec::new();
    for cap in caps {
        let spent = cap.spent(&reader, &Whose::new(config));
        all.extend(spent.map_err(|why| wrong(&why))?);
    }
    let caps = all.len();
    budget.restore(all).map_err(|why| wrong(&why))?;
    tracing::info!(caps, "what caps have spent is known again");
    Ok(())
}

/// Whom a principal of the ledger stands for, for limits of a tenant or a tag. Digests of keys that the configuration no
/// longer has stand for nobody.
struct Whose(Vec<(Principal, Option<Principal>, Option<Principal>)>);

impl Whose {
    fn new(config: &Config) -> Self {
        Self(config.keys.accounts().collect())
    }

    /// The key of its account; the inner `None`: of all those that have no tenant or tag.
    fn key(&self, scope: Scope, principal: Principal) -> Option<Option<String>> {
        let known = || self.0.iter().find(|(who, ..)| *who == principal);
        let account = match scope {
            Scope::Tenant => known()?.1,
            Scope::Tag => known()?.2,
            _ => Some(principal),
        };
        Some(account.map(|account| account.to_string()))
    }
}

/// A cap, and its calls since its period began.
struct Cap<'a> {
    limit: &'a Limit,
    calls: Select,
}

impl<'a> Cap<'a> {
    fn running(limit: &'a Limit) -> Option<Self> {
        // What was not sent was given back.
        let calls = Select::calls()
            .answered()
            .since(limit.began(clock::wall())?);
        if limit.counts() == Unit::Images {
            tracing::warn!(
                limit = limit.name(),
                "a ledger knows of no images: this cap begins anew"
            );
            return None;
        }
        Some(Self { limit, calls })
    }

    /// The sums of a selection, of the models that it concerns.
    fn sums(&self, reader: &Reader, calls: &Select) -> Result<u64, LedgerError> {
        let by_model = reader.sums_by(By::Asked, calls)?;
        let concerned = by_model
            .iter()
            .filter(|(model, _)| self.limit.concerns(model.as_deref()));
        let units = concerned.map(|(_, sums)| units(self.limit.counts(), sums));
        Ok(units.fold(0, u64::saturating_add))
    }

    fn spent(&self, reader: &Reader, whose: &Whose) -> Result<Vec<Spent>, LedgerError> {
        let mut keys: BTreeMap<Option<String>, u64> = BTreeMap::new();
        let mut add = |key, more: u64| {
            let units = keys.entry(key).or_default();
            *units = units.saturating_add(more);
        };
        match self.limit.whose() {
            Scope::Global => add(None, self.sums(reader, &self.calls)?),
            Scope::Model => {
                for (model, sums) in reader.sums_by(By::Asked, &self.calls)? {
                    if self.limit.concerns(model.as_deref()) {
                        add(model, units(self.limit.counts(), &sums));
                    }
                }
            }
            scope => {
                let by = if scope == Scope::ApiKey {
                    By::Key
                } else {
                    By::Principal
                };
                for (who, _) in reader.sums_by(by, &self.calls)? {
                    let Some(who) = who.as_deref().and_then(digest) else {
                        continue;
                    };
                    let Some(key) = whose.key(scope, who) else {
                        continue;
                    };
                    let calls = match by {
                        By::Key => self.calls.clone().key(who),
                        _ => self.calls.clone().principal(who),
                    };
                    add(key, self.sums(reader, &calls)?);
                }
            }
        }
        let spent = keys.into_iter().filter(|(_, units)| *units > 0);
        let spent = spent.map(|(key, units)| {
            let spent = Spent::new(self.limit.name(), units);
            match key {
                Some(key) => spent.key(key),
                None => spent,
            }
        });
        Ok(spent.collect())
    }
}

fn digest(text: &str) -> Option<Principal> {
    let digest = u64::from_str_radix(text, 16).ok()?;
    Some(Principal::from_digest(digest))
}

fn units(unit: Unit, sums: &Sums) -> u64 {
    let units = match unit {
        Unit::Requests => sums.requests.into(),
        Unit::Tokens => sums.tokens(),
        Unit::InputTokens => sums.input,
        Unit::OutputTokens => sums.output,
        Unit::Money => sums.cost.get(),
        _ => 0,
    };
    u64::try_from(units).unwrap_or(u64::MAX)
}
