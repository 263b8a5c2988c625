//! Towards the provider: HTTP/2, and proxies of the environment.
use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tollgate_gateway::{Config, Gateway, client::Proxies};
use tollgate_sim::server::Server;

use crate::common::{Pair, WIDE, pair, pair_with, sim};

#[tokio::test]
async fn a_provider_that_speaks_http_2_only_by_prior_knowledge_is_spoken_to() {
    let pair = pair(sim(), &format!("{WIDE}\nhttp2 = true")).await;
    let answer = pair.chat().await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_is_named_and_counted_as_the_fault() {
    // A port that nobody listens on.
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = free.local_addr().expect("an address");
    drop(free);
    let pair = pair_with(sim(), |_| {
        format!(
            "listen = \"127.0.0.1:0\"\n[retry]\nattempts = 1\n[[target]]\nname = \"gone\"\norigin = \"http://{addr}\"\n{WIDE}"
        )
    })
    .await;
    let answer = pair.chat().await;
    assert_eq!(answer.status, 502, "{answer:?}");
    assert_eq!(answer.json()["error"]["code"], "provider_unreachable");
    assert_eq!(answer.said("x-tollgate-attempts"), "1");
    assert_eq!(answer.said("x-tollgate-target"), "gone");
    assert_eq!(answer.said("x-tollgate-model"), "gpt-5-mini");
    let page = pair.get("/").await;
    let page = String::from_utf8_lossy(&page.body).into_owned();
    assert!(page.contains("502</td><td>provider</td>"), "{page}");
}

/// A proxy that notes what it is asked and passes it on to one place.
async fn proxy(to: std::net::SocketAddr) -> (std::net::SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let kept = Arc::clone(&kept);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    let mut part = [0; 4_096];
                    let read = client.read(&mut part).await.expect("a request");
                    head.extend_from_slice(&part[..read]);
                }
                kept.lock()
                    .expect("a lock")
                    .push(String::from_utf8_lossy(&head).into_owned());
                let mut server = TcpStream::connect(to).await.expect("the provider");
                server.write_all(&head).await.expect("passed on");
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (addr, heard)
}

#[tokio::test]
async fn a_proxy_of_the_environment_stands_in_between_unless_it_must_not() {
    let provider = Server::bind("127.0.0.1:0", sim().build())
        .await
        .expect("a provider");
    let (addr, heard) = proxy(provider.addr()).await;
    // A name that only the proxy can know.
    let text = format!(
        "listen = \"127.0.0.1:0\"\n[[target]]\nname = \"far\"\norigin = \"http://far.example\"\n{WIDE}\n[retry]\nattempts = 1"
    );
    let start = async |except: &str| {
        let config = Config::parse(&text, &|_| None).expect("a configuration");
        let proxies = Proxies::all(&format!("http://user:word@{addr}"), except);
        let gateway = Gateway::start_behind(config, proxies)
            .await
            .expect("a gateway");
        let provider = Server::bind("127.0.0.1:0", sim().build())
            .await
            .expect("unused");
        Pair { gateway, provider }
    };
    let pair = start("").await;
    let answer = pair.chat().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let said = heard.lock().expect("a lock").join("\n");
    assert!(
        said.starts_with("POST http://far.example/v1/chat/completions HTTP/1.1"),
        "{said}"
    );
    assert!(
        said.contains("proxy-authorization: Basic dXNlcjp3b3Jk"),
        "{said}"
    );

    let pair = start("far.example").await;
    let answer = pair.chat().await;
    assert_eq!(
        answer.status, 502,
        "without the proxy nobody knows the name: {answer:?}"
    );
    assert_eq!(heard.lock().expect("a lock").len(), 1);
}

#[tokio::test]
async fn tls_goes_through_a_tunnel() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (addr, heard) = proxy(listener.local_addr().expect("an address")).await;
    let text = format!(
        "listen = \"127.0.0.1:0\"\n[[target]]\nname = \"far\"\norigin = \"https://far.example\"\n{WIDE}\n[retry]\nattempts = 1"
    );
    let config = Config::parse(&text, &|_| None).expect("a configuration");
    let gateway = Gateway::start_behind(
        config,
        Proxies::all(&format!("http://user:word@{addr}"), ""),
    )
    .await
    .expect("a gateway");
    let provider = Server::bind("127.0.0.1:0", sim().build())
        .await
        .expect("unused");
    let pair = Pair { gateway, provider };
    // What lies behind refuses the tunnel.
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await;
        }
    });
    let answer = pair.chat().await;
    assert_eq!(answer.status, 502, "{answer:?}");
    let said = heard
        .lock()
        .expect("a lock")
        .join("\n")
        .to_ascii_lowercase();
    assert!(said.starts_with("connect far.example:443"), "{said}");
    assert!(
        said.contains("proxy-authorization: basic dxnlcjp3b3jk") && !said.contains("chat"),
        "{said}"
    );
}

#[tokio::test]
async fn a_proxy_of_another_kind_is_refused_with_a_sentence() {
    let text = "[[target]]\nname = \"far\"\norigin = \"http://far.example\"";
    let config = Config::parse(text, &|_| None).expect("a configuration");
    let error = Gateway::start_behind(config, Proxies::all("socks5://127.0.0.1:1", ""))
        .await
        .expect_err("no such proxy");
    assert!(
        error.to_string().contains("must be an http:// one"),
        "{error}"
    );
}
