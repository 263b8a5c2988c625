//! The layers understand the simulator's transport errors.
use tollgate_core::classify::{Classify, Fault};
use tollgate_sim::{SimClassify, SimError};

#[test]
fn an_error_says_whether_the_request_was_sent() {
    for (error, fault) in [
        (SimError::Refused, Fault::NotSent),
        (SimError::ConnectTimeout, Fault::ConnectTimeout),
        (SimError::Timeout, Fault::Timeout),
        (SimError::Reset, Fault::MaybeSent),
        (SimError::Broken, Fault::MaybeSent),
    ] {
        assert_eq!(SimClassify.classify(&error), fault);
        assert_eq!(error.sent(), fault.maybe_sent());
    }
}
