//! What things are called on the server.
//!
//! All keys of a budget carry its name as the hash tag, so a cluster keeps them in one place. A limit is named by a
//! digest of what it is, and of the model, user or whatever it is kept for; of users and API keys that is a digest
//! already, keyed with the secret that the processes share ([`Principal::set_key`]).
//!
//! [`Principal::set_key`]: tollgate_core::principal::Principal::set_key
use sha2::{Digest, Sha256};
use tollgate_budget::leases::{Kept, Order};

/// The names of one budget.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    tag: String,
}

fn digest<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.finalize()[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A model, for the gates.
pub(crate) fn model(name: &str) -> String {
    digest(["model", name])
}

impl Keys {
    pub(crate) fn new(prefix: &str, budget: &str) -> Self {
        let tag = digest(["tollgate budget", budget]);
        Self {
            tag: format!("{prefix}:2:{{{}}}", &tag[..24]),
        }
    }

    pub(crate) fn name(&self, of: &str) -> String {
        format!("{}:{of}", self.tag)
    }

    /// A limit, and of a cap its period. Of two limits that differ in more than their amounts each has a key of its own.
    pub(crate) fn limit(order: &Order) -> String {
        let unit = format!("{:?}", order.unit);
        let key = order.key.as_deref();
        // A bucket and a window are kept in forms of their own: under one name each would wipe out the other's state.
        let period = match order.kept {
            Kept::Cap { ends } => {
                let ends = ends.duration_since(std::time::SystemTime::UNIX_EPOCH);
                format!("until {}", ends.map_or(0, |ends| ends.as_secs()))
            }
            Kept::Bucket { .. } => format!("bucket of {} us", order.period.as_micros()),
            _ => format!("{} us", order.period.as_micros()),
        };
        digest([
            &*order.limit,
            &order.whose,
            &unit,
            &period,
            if key.is_some() { "of" } else { "of all" },
            key.unwrap_or(""),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_told_and_none_is_taken_for_another() {
        let keys = Keys::new("tg", "acme");
        assert!(!keys.name("m").contains("acme"));
        assert_ne!(keys.name("m"), Keys::new("tg", "acm").name("m"));
        assert_ne!(digest(["a", "bc"]), digest(["ab", "c"]));
        assert!(keys.name("m").starts_with("tg:2:{"));
    }
}
