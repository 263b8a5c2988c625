//! Records as lines of JSON.
use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use crate::{Sink, SinkError, UsageRecord};

/// A [`Sink`] that writes each record as one line of JSON.
///
/// The names are those of OpenTelemetry's conventions where they have one
/// (`gen_ai.usage.input_tokens`), and `tollgate.…` elsewhere; what is not known is left out. Names
/// are only added within a major version. Durations are in seconds, a cost is a decimal string of
/// dollars, digests are sixteen hexadecimal digits.
///
/// Records that were acknowledged are in the hands of the operating system: they survive the
/// process, but not the machine's power. For more there is a database.
///
/// ```
/// use std::time::Duration;
/// use tollgate_usage::{JsonLines, SinkQueue, UsageRecorderLayer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let path = std::env::temp_dir().join(format!("tollgate-doc-{}.jsonl", std::process::id()));
/// let queue = SinkQueue::new(JsonLines::append(&path)?)?;
/// let layer = UsageRecorderLayer::new(queue.clone());
/// // … serve …
/// queue.flush(Duration::from_secs(30)).await?;
/// # drop(layer);
/// # std::fs::remove_file(path)?;
/// # Ok(())
/// # }
/// ```
pub struct JsonLines<W> {
    writer: W,
    lines: Vec<u8>,
}

impl JsonLines<File> {
    /// Appends to a file, which is made if it is not there. If it ends in half a line, as after a
    /// crash, that line is ended first.
    ///
    /// # Errors
    ///
    /// If it cannot be opened.
    pub fn append(path: impl AsRef<Path>) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).open(path)?;
        let mut last = [b'\n'];
        if file.seek(SeekFrom::End(0))? > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        if last != [b'\n'] {
            file.write_all(b"\n")?;
        }
        Ok(Self::new(file))
    }
}

impl<W: Write + Send> JsonLines<W> {
    /// Writes to any writer, a batch in one call.
    pub fn new(writer: W) -> Self {
        let lines = Vec::new();
        Self { writer, lines }
    }
}

impl<W: Write + Send> Sink for JsonLines<W> {
    fn write(&mut self, records: &[UsageRecord]) -> Result<(), SinkError> {
        self.lines.clear();
        for record in records {
            serde_json::to_writer(&mut self.lines, record)?;
            self.lines.push(b'\n');
        }
        self.writer.write_all(&self.lines)?;
        self.writer.flush()?;
        Ok(())
    }
}

impl<W> fmt::Debug for JsonLines<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonLines").finish_non_exhaustive()
    }
}
