//! How fast a stream passes the recorder, what it holds meanwhile, and how soon the first byte comes.
//!
//! ```console
//! $ taskset -c 0 cargo bench -p tollgate-usage --bench stream
//! ```
//!
//! One thread; the upstream hands out frames that are there already. Throughput is the median of five rounds, by the CPU time
//! of the thread (`CLOCK_THREAD_CPUTIME_ID`). What is held is the most that was allocated and not freed at any moment.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

use std::{convert::Infallible, hint::black_box, time::Duration};

use bytes::Bytes;
use cpu_time::ThreadTime;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use tollgate_usage::{UsageRecorder, UsageTotals};
use tower::{Service, ServiceExt, service_fn};

/// One event of generated text, in the shape of a provider.
type Event = fn(&str) -> String;

fn openai(text: &str) -> String {
    format!(
        "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-5\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}],\"usage\":null}}\n\n"
    )
}

fn anthropic(text: &str) -> String {
    format!(
        "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}\n\n"
    )
}

/// So many bytes of events, in frames of about `frame` bytes that do not care where events end.
fn frames(event: Event, letters: usize, frame: usize) -> Vec<Bytes> {
    let mut text = String::new();
    // Texts differ, as they do in life.
    for number in 0.. {
        if text.len() > 1 << 20 {
            break;
        }
        let word = format!("{number:05} ").repeat(letters.div_ceil(6));
        text.push_str(&event(&word[..letters]));
    }
    let bytes = Bytes::from(text);
    if frame == 0 {
        let events = bytes
            .windows(2)
            .enumerate()
            .filter(|(_, two)| two == b"\n\n");
        let mut from = 0;
        return events
            .map(|(at, _)| bytes.slice(std::mem::replace(&mut from, at + 2)..at + 2))
            .collect();
    }
    let whole = bytes.len() - bytes.len() % frame;
    (0..whole)
        .step_by(frame)
        .map(|at| bytes.slice(at..at + frame))
        .collect()
}

fn request(path: &str, more: &str) -> Request<Full<Bytes>> {
    let document = format!("{{\"model\":\"gpt-5\",\"stream\":true{more},\"messages\":[]}}");
    Request::post(format!("https://api.example{path}"))
        .body(Full::from(document))
        .unwrap()
}

/// An upstream that hands these frames out again and again, up to so many megabytes.
fn upstream(
    frames: Vec<Bytes>,
    megabytes: usize,
) -> impl Service<
    Request<Full<Bytes>>,
    Response = Response<impl Body<Data = Bytes, Error = Infallible>>,
    Error = Infallible,
> + Clone {
    let length: usize = frames.iter().map(Bytes::len).sum();
    let rounds = (megabytes << 20).div_ceil(length);
    let frames: std::sync::Arc<[Bytes]> = frames.into();
    service_fn(move |_| {
        let frames = std::sync::Arc::clone(&frames);
        async move {
            let all = (0..rounds * frames.len()).map(move |at| frames[at % frames.len()].clone());
            let all = all.map(|frame| Ok::<_, Infallible>(Frame::data(frame)));
            let body = StreamBody::new(futures_util::stream::iter(all));
            Ok(Response::builder()
                .header("content-type", "text/event-stream")
                .body(body)
                .unwrap())
        }
    })
}

async fn read<S, RB>(service: S, request: Request<Full<Bytes>>) -> usize
where
    S: Service<Request<Full<Bytes>>, Response = Response<RB>, Error = Infallible>,
    RB: Body<Data = Bytes, Error = Infallible>,
{
    let body = service.oneshot(request).await.unwrap().into_body();
    let mut body = std::pin::pin!(body);
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += black_box(frame.unwrap()).data_ref().map_or(0, Bytes::len);
    }
    bytes
}

fn main() {
    let once = std::env::args().any(|argument| argument == "--test");
    let (rounds, megabytes, calls) = if once { (1, 2, 20) } else { (5, 100, 4_000) };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let asked = ",\"stream_options\":{\"include_usage\":true}";
    let chat = "/v1/chat/completions";
    let messages = "/v1/messages";

    println!("A stream of {megabytes} MB through the recorder");
    println!("{:<56} {:>10} {:>14}", "", "GB/s", "held, KiB");
    let rows: [(&str, Event, &str, &str, usize, usize); 7] = [
        (
            "OpenAI, 20 characters an event, frames of 16 KiB",
            openai,
            chat,
            asked,
            20,
            16 << 10,
        ),
        (
            "OpenAI, 20 characters, a frame an event",
            openai,
            chat,
            asked,
            20,
            0,
        ),
        (
            "OpenAI, 400 characters, frames of 16 KiB",
            openai,
            chat,
            asked,
            400,
            16 << 10,
        ),
        (
            "OpenAI, 20 characters, 16 KiB, usage chunk cut out",
            openai,
            chat,
            "",
            20,
            16 << 10,
        ),
        (
            "Anthropic, 20 characters, frames of 16 KiB",
            anthropic,
            messages,
            "",
            20,
            16 << 10,
        ),
        (
            "Anthropic, 20 characters, a frame an event",
            anthropic,
            messages,
            "",
            20,
            0,
        ),
        (
            "Anthropic, 400 characters, frames of 16 KiB",
            anthropic,
            messages,
            "",
            400,
            16 << 10,
        ),
    ];
    for (name, event, path, more, letters, frame) in rows {
        let frames = frames(event, letters, frame);
        let service = UsageRecorder::new(upstream(frames, megabytes), UsageTotals::new());
        let mut speeds = Vec::new();
        let mut held = 0;
        for _ in 0..rounds {
            let info = allocation_counter::measure(|| {
                let start = ThreadTime::now();
                let bytes = runtime.block_on(read(service.clone(), request(path, more)));
                speeds.push(bytes as f64 / start.elapsed().as_nanos() as f64);
            });
            held = held.max(info.bytes_max);
        }
        speeds.sort_by(f64::total_cmp);
        println!(
            "{name:<56} {:>10.2} {:>14.1}",
            speeds[rounds / 2],
            held as f64 / 1024.0
        );
    }

    println!("\nFrom the call to the first byte of a stream, µs of CPU, median of {calls}");
    let bare = upstream(frames(openai, 20, 0), 1);
    let recorded = UsageRecorder::new(bare.clone(), UsageTotals::new());
    let first = async |count: usize, more: &str, recorded: Option<&UsageRecorder<_>>| {
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let request = request(chat, more);
            let start = ThreadTime::now();
            match recorded {
                None => {
                    let body = bare.clone().oneshot(request).await.unwrap().into_body();
                    let mut body = std::pin::pin!(body);
                    black_box(body.frame().await);
                }
                Some(recorded) => {
                    let body = recorded.clone().oneshot(request).await.unwrap().into_body();
                    let mut body = std::pin::pin!(body);
                    black_box(body.frame().await);
                }
            }
            times.push(start.elapsed());
        }
        times.sort_unstable();
        times[count / 2]
    };
    let micros = |time: Duration| time.as_nanos() as f64 / 1_000.0;
    runtime.block_on(async {
        for (name, more, recorder) in [
            ("bare", asked, None),
            ("recorded", asked, Some(&recorded)),
            ("recorded, usage chunk to be cut out", "", Some(&recorded)),
        ] {
            first(calls / 4, more, recorder).await;
            println!(
                "{name:<56} {:>10.2}",
                micros(first(calls, more, recorder).await)
            );
        }
    });
}
