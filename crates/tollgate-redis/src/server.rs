//! The connection, and the script on it.
use redis::{
    ErrorKind, RedisError, RedisResult, Script,
    aio::{ConnectionLike, MultiplexedConnection},
};

use crate::{
    keys::Keys,
    trip::{Answer, Trip},
};

/// A connection to the server.
pub(crate) enum Link {
    One(MultiplexedConnection),
    #[cfg(feature = "cluster")]
    Cluster(redis::cluster_async::ClusterConnection),
}

impl Link {
    /// Runs the script: by its digest, and with its text where the server does not know it.
    pub(crate) async fn visit(
        &mut self,
        script: &Script,
        keys: &[String],
        trip: &Trip<'_>,
    ) -> RedisResult<Answer> {
        match self {
            Self::One(link) => visit(link, script, keys, trip).await,
            #[cfg(feature = "cluster")]
            Self::Cluster(link) => visit(link, script, keys, trip).await,
        }
    }

    /// The server's policy for a full memory, if it tells.
    pub(crate) async fn maxmemory_policy(&mut self) -> Option<String> {
        let mut ask = redis::cmd("CONFIG");
        ask.arg("GET").arg("maxmemory-policy");
        let told: RedisResult<Vec<String>> = match self {
            Self::One(link) => ask.query_async(link).await,
            #[cfg(feature = "cluster")]
            Self::Cluster(_) => return None,
        };
        told.ok()?.into_iter().nth(1)
    }
}

async fn visit(
    link: &mut impl ConnectionLike,
    script: &Script,
    keys: &[String],
    trip: &Trip<'_>,
) -> RedisResult<Answer> {
    let document = serde_json::to_string(trip)
        .map_err(|_| RedisError::from((ErrorKind::Client, "a trip that cannot be written")))?;
    let mut call = script.prepare_invoke();
    for key in keys {
        call.key(key);
    }
    call.arg(document);
    call.invoke_async(link).await
}

/// What is wrong, in a word for logs; no text of the server's, which may quote what was sent.
pub(crate) fn trouble(error: &RedisError) -> &'static str {
    if error.is_timeout() {
        return "it does not answer in time";
    }
    match error.code() {
        Some("READONLY") => return "it is a replica, and takes no writes",
        Some("LOADING") => return "it is loading its data",
        Some("WRONGTYPE") => return "something else is stored at a key of ours",
        Some("TOLLGATEVERSION") => return "another version keeps the state at our keys",
        Some("NOAUTH" | "WRONGPASS" | "NOPERM") => return "it does not let us in",
        Some("OOM") => return "its memory is full",
        Some("MASTERDOWN" | "CLUSTERDOWN") => return "it has lost its master",
        Some("NOSCRIPT") => return "it does not keep scripts",
        Some("BUSY") => return "it is busy with somebody's script",
        _ => {}
    }
    if error.is_connection_refusal() {
        "it refuses connections"
    } else if error.is_connection_dropped() || error.is_io_error() {
        "the connection broke"
    } else {
        "it answers with an error"
    }
}

impl Keys {
    /// The keys of a trip for these limits.
    pub(crate) fn of<'a>(&self, limits: impl Iterator<Item = &'a str>) -> Vec<String> {
        let mut keys = vec![self.name("m"), self.name("g"), self.name("p")];
        for limit in limits {
            keys.push(self.name(&format!("a:{limit}")));
            keys.push(self.name(&format!("h:{limit}")));
        }
        keys
    }
}
