//! No layer mints a service error: what goes in is what comes out, in every order.
use std::{convert::Infallible, rc::Rc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tollgate::BoxError;
use tollgate_tests::{Layers, chat, every_order, layer};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

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

/// No error by any trait, and bound to its thread.
struct Strange(#[allow(dead_code)] Rc<()>);

async fn strange(_: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Strange> {
    Err(Strange(Rc::new(())))
}

#[tokio::test(start_paused = true)]
async fn each_layer_alone_hands_on_an_error_of_any_type() {
    let layers = Layers::new();
    macro_rules! alone {
        ($($each:ident)*) => {$(
            let builder = || ServiceBuilder::new().layer(layer!($each, layers));
            fails_with::<Infallible, _>(&builder().service(service_fn(never)));
            fails_with::<BoxError, _>(&builder().service(service_fn(boxed)));
            let stack = builder().service(service_fn(strange));
            let failed = ServiceExt::<Request<Full<Bytes>>>::oneshot(stack, chat("model-a")).await;
            let error: Strange = failed.map(drop).expect_err("it fails");
            drop(error);
        )*};
    }
    alone!(u f r b);
}
