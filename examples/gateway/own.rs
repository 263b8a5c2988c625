//! Answers that the gateway gives instead of a provider.
use std::time::Duration;

use http::StatusCode;

use crate::gather::NotRead;

/// One of them.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// The same request may do better then.
    pub(crate) again: Option<Duration>,
}

impl Own {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            status,
            code,
            message,
            again: None,
        }
    }

    pub(crate) fn busy(message: &str) -> Self {
        let again = Some(Duration::from_secs(1));
        Self {
            again,
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "gateway_busy", message)
        }
    }

    /// A body that was not read, where `most` bytes are.
    pub(crate) fn not_read(why: NotRead, most: u64) -> Self {
        match why {
            NotRead::TooLarge => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "request_too_large",
                format!("The request is larger than the {most} bytes that this gateway takes"),
            ),
            NotRead::Full => Self::busy("The gateway holds as much of requests as it may"),
            NotRead::Stalled => Self::new(
                StatusCode::REQUEST_TIMEOUT,
                "request_stalled",
                "The rest of the request did not come",
            ),
            NotRead::Broken => Self::new(
                StatusCode::BAD_REQUEST,
                "request_body_failed",
                "The request's body failed while it was read",
            ),
        }
    }

    /// A word for the status page; `None`: the fault is in the request.
    pub(crate) fn why(&self) -> Option<&'static str> {
        match self.code {
            "invalid_api_key" | "not_local" => Some("stranger"),
            "request_too_large" => Some("too large"),
            "unmetered_path" => Some("unmetered"),
            "gateway_busy" => Some("gateway"),
            _ => None,
        }
    }
}
