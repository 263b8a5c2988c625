//! No layer mints a service error: what goes in is what comes out, in every order.
use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tollgate::BoxError;
use tollgate_tests::{Layers, every_order, layer};
use tower::{Service, ServiceBuilder, service_fn};

fn fails_with<E, S: Service<Request<Full<Bytes>>, Error = E>>(_: &S) {}

async fn never(_: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::default())
}

async fn boxed(_: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, BoxError> {
    Ok(Response::default())
}

macro_rules! kept {
    ($name:ident: $a:ident $b:ident $c:ident $d:ident) => {{
        let layers = Layers::new();
        let builder = || {
            ServiceBuilder::new()
                .layer(layer!($a, layers))
                .layer(layer!($b, layers))
                .layer(layer!($c, layers))
                .layer(layer!($d, layers))
        };
        fails_with::<Infallible, _>(&builder().service(service_fn(never)));
        fails_with::<BoxError, _>(&builder().service(service_fn(boxed)));
    }};
}

#[tokio::test]
async fn infallible_stays_infallible_and_boxed_stays_boxed_in_every_order() {
    every_order!(kept);
}
