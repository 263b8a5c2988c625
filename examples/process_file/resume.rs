//! Finds out what an earlier run has finished, and clears away what it has not.
use std::{
    collections::HashMap,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use crate::{
    json,
    rows::{Row, RowDigest},
};

/// The rows that have their answer, each as often as it has one.
///
/// The one thing in this program that grows with the file: some 40 bytes a row.
#[derive(Default)]
pub struct Done {
    rows: HashMap<[u8; 16], u32>,
    /// Lines with an answer.
    pub answered: u64,
    /// Error lines that were taken out, so that their rows run again.
    pub errors: u64,
    /// Whether the last line was torn, and was cut.
    pub torn: bool,
}

impl Done {
    /// Whether this row has an answer that no earlier row of the same content has used up.
    pub fn take(&mut self, row: &Row) -> bool {
        if self.rows.is_empty() {
            return false;
        }
        let digest = row.digest().0;
        let Some(left) = self.rows.get_mut(&digest) else {
            return false;
        };
        *left -= 1;
        if *left == 0 {
            self.rows.remove(&digest);
        }
        true
    }

    /// Answers whose rows have not come up in the input.
    pub fn left(&self) -> u64 {
        self.rows.values().map(|&n| u64::from(n)).sum()
    }

    fn add(&mut self, RowDigest(digest): RowDigest) {
        *self.rows.entry(digest).or_default() += 1;
        self.answered += 1;
    }
}

impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Done")
            .field("answered", &self.answered)
            .field("errors", &self.errors)
            .field("torn", &self.torn)
            .finish_non_exhaustive()
    }
}

/// Reads the output of an earlier run; afterwards the file holds its answers and nothing else.
///
/// If there is something to clear away, the answers are copied to a file beside it, which then takes
/// its name: at every moment one of the two is whole. A file without errors is not rewritten.
///
/// # Errors
///
/// If the file cannot be read or rewritten, or holds lines that no run has written: then it is
/// probably not the file that was meant, and it stays as it is.
pub fn tidy(path: &Path) -> io::Result<Done> {
    // The name may be a link; the file that it leads to is the one to replace.
    let path = &fs::canonicalize(path)?;
    let mut input = BufReader::with_capacity(64 << 10, File::open(path)?);
    let mut done = Done::default();
    let mut copy: Option<Copy> = None;
    let (mut line, mut number, mut kept) = (Vec::new(), 0_u64, 0_u64);
    let outcome = loop {
        line.clear();
        line.shrink_to(1 << 20);
        number += 1;
        match input.read_until(b'\n', &mut line) {
            Ok(0) => break Ok(()),
            Ok(_) => {}
            Err(error) => break Err(error),
        }
        let whole = line.ends_with(b"\n");
        let keep = match read_line(&line) {
            Found::Answer(digest) => {
                done.add(digest);
                true
            }
            Found::Error => {
                done.errors += 1;
                false
            }
            Found::Blank => false,
            // What a kill has left of the last line is no answer.
            Found::Unreadable if !whole && begins_like_ours(&line) => {
                done.torn = true;
                false
            }
            Found::Unreadable | Found::Foreign => {
                break Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("line {number} is not one that this program has written"),
                ));
            }
        };
        if keep && whole {
            match &mut copy {
                Some(copy) => {
                    if let Err(error) = copy.file.write_all(&line) {
                        break Err(error);
                    }
                }
                None => kept += line.len() as u64,
            }
            continue;
        }
        if copy.is_none() {
            match Copy::begin(path, kept) {
                Ok(begun) => copy = Some(begun),
                Err(error) => break Err(error),
            }
        }
        if let (true, Some(copy)) = (keep, &mut copy) {
            // An answer whose line break alone is missing.
            line.push(b'\n');
            if let Err(error) = copy.file.write_all(&line) {
                break Err(error);
            }
        }
    };
    match (outcome, copy) {
        (Ok(()), Some(copy)) => copy.finish(path)?,
        (Ok(()), None) => {}
        (Err(error), copy) => {
            if let Some(copy) = copy {
                let _ = fs::remove_file(copy.name);
            }
            return Err(error);
        }
    }
    Ok(done)
}

/// The new file, while it is being written.
struct Copy {
    file: BufWriter<File>,
    name: PathBuf,
}

impl Copy {
    /// Begins with the first `kept` bytes of the old file.
    fn begin(path: &Path, kept: u64) -> io::Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".resuming");
        let name = PathBuf::from(name);
        let new = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&name)?;
        new.set_permissions(fs::metadata(path)?.permissions())?;
        let mut file = BufWriter::with_capacity(64 << 10, new);
        let mut old = File::open(path)?;
        old.seek(SeekFrom::Start(0))?;
        io::copy(&mut io::Read::take(old, kept), &mut file)?;
        Ok(Self { file, name })
    }

    fn finish(self, path: &Path) -> io::Result<()> {
        let file = self.file.into_inner().map_err(|error| error.into_error())?;
        file.sync_all()?;
        fs::rename(&self.name, path)
    }
}

enum Found {
    Answer(RowDigest),
    Error,
    Blank,
    Unreadable,
    Foreign,
}

fn begins_like_ours(line: &[u8]) -> bool {
    ["{\"metadata\":", "{\"id\":\"batch_req_"]
        .iter()
        .any(|begin| {
            let length = line.len().min(begin.len());
            line[..length] == begin.as_bytes()[..length]
        })
}

fn read_line(line: &[u8]) -> Found {
    if line.trim_ascii().is_empty() {
        return Found::Blank;
    }
    const KEYS: [&str; 6] = [
        "metadata",
        "request",
        "response",
        "error",
        "id",
        "custom_id",
    ];
    let Ok([metadata, request, response, error, id, custom_id]) = json::object(line, KEYS) else {
        return Found::Unreadable;
    };
    if json::stated(error).is_some() {
        return Found::Error;
    }
    if response.is_none() {
        return Found::Foreign;
    }
    if custom_id.is_some() {
        let id = json::string(id).unwrap_or_default();
        return id
            .strip_prefix("batch_req_")
            .and_then(RowDigest::from_hex)
            .map_or(Found::Foreign, Found::Answer);
    }
    let Some(request) = request else {
        return Found::Foreign;
    };
    // Somebody's tool may have laid the line out anew.
    let (mut one, mut two) = (Vec::new(), Vec::new());
    json::compact(
        metadata.map_or("null", |value| value.get()).as_bytes(),
        &mut one,
    );
    json::compact(request.get().as_bytes(), &mut two);
    Found::Answer(RowDigest::plain(&one, &two))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::rows::{Line, Rows};

    const ONE: &str = "{\"metadata\":1,\"request\":{\"messages\":[1]},\"response\":{}}\n";
    const BAD: &str =
        "{\"metadata\":2,\"request\":{\"messages\":[2]},\"error\":{\"type\":\"x\"}}\n";

    fn tidied(before: &str) -> (io::Result<Done>, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        fs::write(&path, before).unwrap();
        let done = tidy(&path);
        let mut after = String::new();
        File::open(&path)
            .unwrap()
            .read_to_string(&mut after)
            .unwrap();
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
        (done, after)
    }

    fn row(text: &str) -> Row {
        match Rows::new(text.as_bytes(), None).next().unwrap() {
            Some(Line::Row(row)) => row,
            other => panic!("{text} is a row, not {other:?}"),
        }
    }

    #[test]
    fn answers_stay_errors_go_and_a_torn_end_is_cut() {
        let (done, after) = tidied(&format!("{ONE}{BAD}{ONE}{{\"metadata\":3,\"requ"));
        let mut done = done.unwrap();
        assert_eq!(after, format!("{ONE}{ONE}"));
        assert_eq!((done.answered, done.errors, done.torn), (2, 1, true));
        let asked = row(r#"{"metadata": 1, "messages": [1]}"#);
        assert!(
            done.take(&asked) && done.take(&asked),
            "the row was answered twice"
        );
        assert!(!done.take(&asked), "and not three times");
        assert!(!done.take(&row(r#"{"metadata":2,"messages":[2]}"#)));
    }

    #[test]
    fn an_answer_that_lacks_its_line_break_is_an_answer() {
        let (done, after) = tidied(ONE.trim_end());
        assert_eq!(after, ONE);
        assert_eq!(done.unwrap().answered, 1);
    }

    #[test]
    fn the_batch_form_carries_the_digest_in_its_id() {
        let text = r#"{"custom_id":"a","method":"POST","url":"/v1/responses","body":{"input": 1}}"#;
        let asked = row(text);
        let line = format!(
            "{{\"id\":\"batch_req_{}\",\"custom_id\":\"a\",\"response\":{{}},\"error\":null}}\n",
            asked.digest().hex()
        );
        let (done, after) = tidied(&line);
        assert_eq!(after, line);
        assert!(done.unwrap().take(&asked));
    }

    #[test]
    fn a_file_of_somebody_else_is_left_alone() {
        for line in [
            "{\"messages\":[]}\n",
            "Dear diary\n",
            "Dear diary",
            "{\"metadata\":1}",
        ] {
            let foreign = format!("{BAD}{line}");
            let (done, after) = tidied(&foreign);
            assert!(done.unwrap_err().to_string().contains("line 2"));
            assert_eq!(after, foreign);
        }
    }
}
