//! The run itself: as many rows under way as there may be, each written down as it finishes.
use std::{
    io::{self, BufRead},
    pin::pin,
};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::{HeaderMap, Method, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full, Limited};
use tollgate::{BoxError, call::CallOptions, extensions::ServedBy};
use tower::{Service, ServiceExt};

use crate::{
    answer::{self, Answer, Failure},
    output::Output,
    resume::Done,
    rows::{Line, Row, Rows},
    stop::Stop,
    tally::{Tally, Trip},
    target::Target,
};

/// Rows that are looked at before the ones under way get their turn: those that an earlier run has
/// answered cost no waiting, and there may be millions.
const ROWS_A_TURN: usize = 64;

/// The longest answer that is taken.
const ANSWER_MAX: usize = 64 << 20;

/// All that a run needs.
pub struct Run<R> {
    /// The rows.
    pub rows: Rows<R>,
    /// Those that are answered.
    pub done: Done,
    /// Its address.
    pub target: Target,
    /// Where lines go.
    pub output: Output,
    /// Rows under way.
    pub concurrency: usize,
    /// Requests for one row, over all layers.
    pub max_attempts: u32,
    /// Counts on the way.
    pub tally: Tally,
    /// Told by the signals.
    pub stop: Stop,
}

impl<R: BufRead> Run<R> {
    /// Runs to the end of the file, or until it is stopped and what is at the provider has come back.
    ///
    /// Gives the number of earlier answers for which the file had no row; 0 if it was not read to its end.
    ///
    /// # Errors
    ///
    /// If the input cannot be read on, or the output not written.
    pub async fn drive<S, B>(mut self, client: S) -> io::Result<u64>
    where
        S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let mut under_way = FuturesUnordered::new();
        let mut more = true;
        loop {
            let mut turn = ROWS_A_TURN;
            more &= !self.stop.stopped();
            while more && turn > 0 && under_way.len() < self.concurrency {
                turn -= 1;
                match self.next_row()? {
                    Next::Row(row) => under_way.push(self.serve(row, client.clone())),
                    Next::Nothing => {}
                    Next::End => more = false,
                }
            }
            let room = more && under_way.len() < self.concurrency;
            if !room && under_way.is_empty() {
                self.output.finish()?;
                return Ok(if self.stop.stopped() {
                    0
                } else {
                    self.done.left()
                });
            }
            tokio::select! {
                biased;
                Some((row, result)) = under_way.next() => self.write(&row, result)?,
                () = self.stop.told(), if more => more = false,
                () = tokio::task::yield_now(), if room => {}
            }
        }
    }

    fn next_row(&mut self) -> io::Result<Next> {
        let Some(line) = self.rows.next()? else {
            return Ok(Next::End);
        };
        self.tally.rows.add_one();
        match line {
            Line::Row(row) if self.done.take(&row) => {
                self.tally.skipped.add_one();
                Ok(Next::Nothing)
            }
            Line::Row(row) => Ok(Next::Row(row)),
            Line::Broken { line, why, form } => {
                self.tally.errors.add_one();
                self.output
                    .broken(line, &form, Failure::broken_line(line, why))?;
                Ok(Next::Nothing)
            }
        }
    }

    /// The row's way through the layers. Owns all that it needs.
    fn serve<S, B>(
        &self,
        row: Row,
        client: S,
    ) -> impl Future<Output = (Row, Option<Result<Answer, Failure>>)> + use<R, S, B>
    where
        S: Service<Request<Full<Bytes>>, Response = Response<B>>,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let trip = Trip::default();
        let options = CallOptions::new().max_attempts(self.max_attempts);
        let request = request(&self.target, &row, &trip, options);
        let (stop, tally) = (self.stop.clone(), self.tally.clone());
        async move {
            // Pinned where it is made: a future that is handed on by value is kept twice.
            let call = pin!(async {
                let mut result = match request {
                    Ok(request) => exchange(client, request, &tally).await,
                    Err(failure) => Err(failure),
                };
                if let Err(failure) = &mut result {
                    failure.attempts = trip.sent();
                }
                result
            });
            let result = stop.guard(&trip, call).await;
            (row, result)
        }
    }

    fn write(&mut self, row: &Row, result: Option<Result<Answer, Failure>>) -> io::Result<()> {
        let Some(result) = result else {
            self.tally.abandoned.add_one();
            return Ok(());
        };
        match &result {
            Ok(_) => self.tally.results.add_one(),
            Err(_) => self.tally.errors.add_one(),
        }
        self.output.row(row, &result)
    }
}

enum Next {
    Row(Row),
    Nothing,
    End,
}

fn request(
    target: &Target,
    row: &Row,
    trip: &Trip,
    options: CallOptions,
) -> Result<Request<Full<Bytes>>, Failure> {
    let uri = target.uri(&row.path).ok_or_else(|| {
        let why = format!("line {} names {}, which is no path", row.line, row.path);
        Failure::broken_line(row.line, why)
    })?;
    let mut request = Request::new(Full::new(row.body.clone()));
    *request.headers_mut() = target.headers(&uri);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    request.extensions_mut().insert(trip.clone());
    request.extensions_mut().insert(options);
    Ok(request)
}

async fn exchange<S, B>(
    client: S,
    request: Request<Full<Bytes>>,
    tally: &Tally,
) -> Result<Answer, Failure>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let response = client.oneshot(request).await.map_err(|error| {
        let error: BoxError = error.into();
        Failure::new("unreachable", sentence(&*error))
    })?;
    let (head, body) = response.into_parts();
    let status = head.status.as_u16();
    let fallback = head
        .extensions
        .get::<ServedBy>()
        .is_some_and(|by| by.position > 0);
    let body = pin!(Limited::new(body, ANSWER_MAX));
    let body = body.collect().await.map_err(|error| {
        let mut failure = Failure::new("broken_answer", sentence(&*error));
        failure.status = Some(status);
        failure
    })?;
    let result = answer::judge(status, request_id(&head.headers), body.to_bytes());
    if result.is_ok() && fallback {
        tally.fallbacks.add_one();
    }
    result
}

fn request_id(headers: &HeaderMap) -> Option<String> {
    ["x-request-id", "request-id"]
        .iter()
        .find_map(|name| headers.get(*name)?.to_str().ok())
        .map(str::to_owned)
}

/// An error with its causes, without saying anything twice.
fn sentence(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
