//! Reads recorded exchanges with LLM providers and prints what the wire language makes of them.
//!
//! ```text
//! cargo run --release --example read_recorded -- DIR
//! ```
//!
//! Every `*.json` file of DIR is one exchange: an object with `id`, `request` (`method`, `url`, `headers`, `body`) and
//! `response` (`status`, `headers` as pairs, `body` or `body_base64`). For each, in the order of their names, one line of
//! JSON is printed: the model that served, token usage, why generation ended, the error and its class, the wait that
//! the server states and its rate limits. What an exchange does not state is null, also when the file is no
//! exchange at all.
use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

mod reading;

fn main() -> ExitCode {
    let Some(dir) = env::args_os().nth(1) else {
        eprintln!("usage: read_recorded DIR");
        return ExitCode::from(2);
    };
    match print(Path::new(&dir)) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads our lines has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("read_recorded: {}: {error}", Path::new(&dir).display());
            ExitCode::from(2)
        }
    }
}

fn print(dir: &Path) -> io::Result<()> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ext| ext == "json"))
        .collect();
    files.sort();
    let mut out = io::BufWriter::new(io::stdout().lock());
    for path in files {
        let file = fs::read(&path).unwrap_or_default();
        let mut line = reading::of_file(&file);
        if line["id"].is_null() {
            line["id"] = path.file_stem().map(|name| name.to_string_lossy()).into();
        }
        writeln!(out, "{line}")?;
    }
    out.flush()
}
