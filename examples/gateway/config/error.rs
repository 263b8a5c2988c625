//! What is wrong with a configuration: one sentence, with the line.
use std::{error::Error, fmt, ops::Range};

/// One sentence, and the line that it is about. It holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    line: Option<usize>,
    sentence: Box<str>,
}

impl ConfigError {
    /// About no line in particular: what is not there stands nowhere.
    pub fn new(sentence: impl Into<Box<str>>) -> Self {
        Self {
            line: None,
            sentence: sentence.into(),
        }
    }

    /// What is wrong, without the line.
    #[must_use]
    pub fn sentence(&self) -> &str {
        &self.sentence
    }

    /// About the line in which a span begins.
    pub(super) fn at(text: &str, span: Range<usize>, sentence: impl Into<Box<str>>) -> Self {
        let before = text.as_bytes().get(..span.start).unwrap_or_default();
        Self {
            line: Some(before.iter().filter(|byte| **byte == b'\n').count() + 1),
            sentence: sentence.into(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.sentence),
            None => f.write_str(&self.sentence),
        }
    }
}

impl Error for ConfigError {}
