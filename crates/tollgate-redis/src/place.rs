//! Where the server is: at an address, where sentinels say, or a cluster.
#[cfg(feature = "sentinel")]
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::{fmt, time::Duration};

use redis::{AsyncConnectionConfig, Client, RedisResult};

use crate::{builder::InvalidStore, server::Link};

/// As it was told.
pub(crate) enum Address {
    Url(String),
    /// Their addresses, and the master's name or address with its name as the host.
    #[cfg(feature = "sentinel")]
    Sentinels(Vec<String>, String),
    #[cfg(feature = "cluster")]
    Cluster(Vec<String>),
}

/// An address may hold a password.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Url(_) => "Url",
            #[cfg(feature = "sentinel")]
            Self::Sentinels(..) => "Sentinels",
            #[cfg(feature = "cluster")]
            Self::Cluster(_) => "Cluster",
        })
    }
}

impl Address {
    /// Connects to nothing yet.
    pub(crate) fn open(self) -> Result<Place, InvalidStore> {
        Ok(match self {
            Self::Url(url) => {
                can_be_sealed([&*url])?;
                Place::One(Client::open(url).map_err(InvalidStore::address)?)
            }
            #[cfg(feature = "sentinel")]
            Self::Sentinels(urls, master) => {
                can_be_sealed(urls.iter().map(|url| &**url).chain([&*master]))?;
                sentinels(urls.clone(), &master).map_err(InvalidStore::address)?;
                Place::Sentinels(urls, master, AtomicUsize::new(0))
            }
            #[cfg(feature = "cluster")]
            Self::Cluster(urls) => {
                can_be_sealed(urls.iter().map(|url| &**url))?;
                // What is asked twice may be told twice: who asks again is the driver.
                let client = redis::cluster::ClusterClient::builder(urls)
                    .retries(0)
                    .build();
                Place::Cluster(client.map_err(InvalidStore::address)?)
            }
        })
    }
}

/// Without a provider of cryptography rustls panics at the first connection.
fn can_be_sealed<'a>(urls: impl IntoIterator<Item = &'a str>) -> Result<(), InvalidStore> {
    let sealed = |url: &str| {
        let scheme = url.split_once("://").unwrap_or_default().0;
        ["rediss", "valkeys"]
            .iter()
            .any(|tls| scheme.eq_ignore_ascii_case(tls))
    };
    if !urls.into_iter().any(sealed) {
        return Ok(());
    }
    #[cfg(feature = "rustls")]
    if rustls::crypto::CryptoProvider::get_default().is_some() {
        return Ok(());
    }
    Err(InvalidStore::from(if cfg!(feature = "rustls") {
        "rediss:// needs a provider of cryptography: call rustls::crypto::ring::default_provider().install_default() first"
    } else {
        "rediss:// needs the feature `rustls`"
    }))
}

#[cfg(feature = "sentinel")]
fn sentinels(urls: Vec<String>, master: &str) -> RedisResult<redis::sentinel::SentinelClient> {
    use redis::{
        ConnectionAddr, IntoConnectionInfo, TlsMode,
        sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType},
    };
    if !master.contains("://") {
        return SentinelClient::build(urls, String::from(master), None, SentinelServerType::Master);
    }
    let told = master.into_connection_info()?;
    let mut node = SentinelNodeConnectionInfo::default()
        .set_redis_connection_info(told.redis_settings().clone());
    let name = match told.addr() {
        ConnectionAddr::TcpTls { host, insecure, .. } => {
            node = node.set_tls_mode(match insecure {
                true => TlsMode::Insecure,
                false => TlsMode::Secure,
            });
            host
        }
        ConnectionAddr::Tcp(host, _) => host,
        _ => {
            let why = "a socket's path names no master";
            return Err((redis::ErrorKind::InvalidClientConfig, why).into());
        }
    };
    SentinelClient::build(urls, name.clone(), Some(node), SentinelServerType::Master)
}

/// Where the server is.
pub(crate) enum Place {
    One(Client),
    #[cfg(feature = "sentinel")]
    Sentinels(Vec<String>, String, AtomicUsize),
    #[cfg(feature = "cluster")]
    Cluster(redis::cluster::ClusterClient),
}

impl Place {
    /// A new connection: nothing is kept of one that has failed, so that a new master is found.
    pub(crate) async fn link(&self, timeout: Duration) -> RedisResult<Link> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout));
        match self {
            Self::One(client) => {
                let link = client
                    .get_multiplexed_async_connection_with_config(&config)
                    .await?;
                Ok(Link::One(link))
            }
            #[cfg(feature = "sentinel")]
            Self::Sentinels(urls, master, first) => {
                // They are asked in turn, and one that is dead takes all the time: each time another is the first.
                let mut urls = urls.clone();
                let first = first.fetch_add(1, Relaxed) % urls.len().max(1);
                urls.rotate_left(first);
                let mut client = sentinels(urls, master)?;
                let link = client.get_async_connection_with_config(&config).await?;
                Ok(Link::One(link))
            }
            #[cfg(feature = "cluster")]
            Self::Cluster(client) => {
                let config = redis::cluster::ClusterConfig::new()
                    .set_connection_timeout(timeout)
                    .set_response_timeout(timeout);
                let link = client.get_async_connection_with_config(config).await?;
                Ok(Link::Cluster(link))
            }
        }
    }
}
