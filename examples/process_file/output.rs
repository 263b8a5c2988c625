//! Writes one line for each row, whole and at once.
use std::{
    fs::File,
    io::{self, Write},
};

use serde_json::json;

use crate::{
    answer::{Answer, Failure},
    json::one_line,
    rows::{Form, Row},
};

/// The output file, open for appending.
///
/// A line is written by one call and not kept in any buffer of ours, so a process that is killed
/// loses no line that was finished; at most its last line is torn.
pub struct Output {
    file: File,
    line: Vec<u8>,
}

impl Output {
    /// Writes to the end of this file.
    pub fn new(file: File) -> Self {
        Self {
            file,
            line: Vec::new(),
        }
    }

    /// Writes a row's line.
    pub fn row(&mut self, row: &Row, result: &Result<Answer, Failure>) -> io::Result<()> {
        self.line.clear();
        match &row.form {
            form @ Form::Plain { .. } => plain(&mut self.line, form, result),
            Form::Batch { custom_id } => {
                let id = format!("batch_req_{}", row.digest().hex());
                batch(&mut self.line, &id, custom_id, result);
            }
        }
        self.write()
    }

    /// Writes the line of a row that could not be read.
    pub fn broken(&mut self, line: u64, form: &Form, failure: Failure) -> io::Result<()> {
        self.line.clear();
        let result = Err(failure);
        match form {
            Form::Plain { .. } => plain(&mut self.line, form, &result),
            Form::Batch { custom_id } => {
                let id = format!("batch_req_line_{line}");
                batch(&mut self.line, &id, custom_id, &result);
            }
        }
        self.write()
    }

    /// Waits until the lines are on the disk.
    pub fn finish(&mut self) -> io::Result<()> {
        match self.file.sync_all() {
            // Pipes and terminals have no disk.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            other => other,
        }
    }

    fn write(&mut self) -> io::Result<()> {
        self.line.push(b'\n');
        self.file.write_all(&self.line)
    }
}

fn plain(out: &mut Vec<u8>, form: &Form, result: &Result<Answer, Failure>) {
    let Form::Plain { metadata, request } = form else {
        return;
    };
    out.extend_from_slice(b"{\"metadata\":");
    one_line(metadata, out);
    out.extend_from_slice(b",\"request\":");
    one_line(request, out);
    match result {
        Ok(answer) => {
            out.extend_from_slice(b",\"response\":");
            one_line(&answer.body, out);
        }
        Err(failure) => {
            out.extend_from_slice(b",\"error\":");
            error(out, failure, false);
        }
    }
    out.push(b'}');
}

fn batch(out: &mut Vec<u8>, id: &str, custom_id: &[u8], result: &Result<Answer, Failure>) {
    out.extend_from_slice(format!("{{\"id\":\"{id}\",\"custom_id\":").as_bytes());
    one_line(custom_id, out);
    out.extend_from_slice(b",\"response\":");
    let answer = match result {
        Ok(answer) => Some(answer),
        Err(failure) => failure.answer.as_deref(),
    };
    match answer {
        Some(answer) => {
            let head = json!({ "status_code": answer.status, "request_id": answer.request_id });
            let head = head.to_string();
            out.extend_from_slice(head.trim_end_matches('}').as_bytes());
            out.extend_from_slice(b",\"body\":");
            one_line(&answer.body, out);
            out.push(b'}');
        }
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"error\":");
    match result {
        Ok(_) => out.extend_from_slice(b"null"),
        Err(failure) => error(out, failure, true),
    }
    out.push(b'}');
}

fn error(out: &mut Vec<u8>, failure: &Failure, batch: bool) {
    let mut document = json!({
        "type": failure.kind,
        "message": failure.message,
        "status": failure.status,
        "attempts": failure.attempts,
    });
    if let Some(code) = &failure.code {
        document["code"] = code.as_str().into();
    } else if batch {
        // The Batch format promises a code.
        document["code"] = (*failure.kind).into();
    }
    if let Some(line) = failure.line {
        document["line"] = line.into();
    }
    out.extend_from_slice(document.to_string().as_bytes());
}
