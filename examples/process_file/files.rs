//! Opens the input and the output, and refuses what would end in tears.
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use crate::{
    args::{Existing, Job},
    output::Output,
    resume::{self, Done},
};

/// The rows that come with the program: invented texts, for the simulated provider.
const SAMPLE: &[u8] = include_bytes!("sample.jsonl");

/// The input, and how many lines it has.
pub struct Input {
    /// From the first row on.
    pub rows: Box<dyn BufRead + Send>,
    /// Lines that are not blank.
    pub lines: u64,
}

/// Opens the input.
///
/// # Errors
///
/// A sentence.
pub fn input(path: Option<&Path>) -> Result<Input, String> {
    let Some(path) = path else {
        return Ok(Input {
            rows: Box::new(SAMPLE),
            lines: count_lines(SAMPLE).unwrap_or(0),
        });
    };
    let trouble = |error: io::Error| format!("cannot read {}: {error}", path.display());
    let file = File::open(path).map_err(trouble)?;
    let kind = file.metadata().map_err(trouble)?.file_type();
    if kind.is_dir() {
        return Err(format!("cannot read {}: it is a directory", path.display()));
    }
    // A pipe can be read only once, so its lines are not known beforehand.
    let lines = if kind.is_file() {
        count_lines(File::open(path).map_err(trouble)?).map_err(trouble)?
    } else {
        0
    };
    let rows = Box::new(BufReader::with_capacity(64 << 10, file));
    Ok(Input { rows, lines })
}

fn count_lines(file: impl Read) -> io::Result<u64> {
    let mut file = BufReader::with_capacity(64 << 10, file);
    let (mut lines, mut blank) = (0, true);
    loop {
        let chunk = file.fill_buf()?;
        if chunk.is_empty() {
            return Ok(lines + u64::from(!blank));
        }
        for &byte in chunk {
            if byte == b'\n' {
                lines += u64::from(!blank);
                blank = true;
            } else {
                blank &= byte.is_ascii_whitespace();
            }
        }
        let length = chunk.len();
        file.consume(length);
    }
}

/// Opens the output, and finds out which rows it answers already.
///
/// # Errors
///
/// A sentence.
pub fn output(job: &Job) -> Result<(Output, Done), String> {
    let path = &job.output;
    let name = path.display();
    if let Some(input) = &job.input {
        if same_file(input, path) {
            return Err(format!(
                "{name} is both input and output; nothing would be left of it"
            ));
        }
    }
    let old = fs::metadata(path).ok().filter(fs::Metadata::is_file);
    let mut done = Done::default();
    if old.is_some_and(|old| old.len() > 0) {
        match job.existing {
            Existing::Refuse => {
                return Err(format!(
                    "{name} is there already; give --resume to go on with it or --overwrite to begin anew"
                ));
            }
            Existing::Resume => {
                done = resume::tidy(path)
                    .map_err(|error| format!("cannot go on with {name}: {error}"))?;
            }
            Existing::Overwrite => {}
        }
    }
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|error| format!("cannot write {name}: {error}"))?;
    if job.existing == Existing::Overwrite {
        // Fails for what is no file on a disk, and need not succeed there.
        let _ = file.set_len(0);
    }
    Ok((Output::new(file), done))
}

fn same_file(one: &Path, other: &Path) -> bool {
    match (fs::canonicalize(one), fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other && one.is_file(),
        _ => false,
    }
}
