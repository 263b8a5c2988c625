//! Finds the workspace's own programs for those who start them as processes of their own: the harness and the tests.
use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

/// A program of the workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The example `process_file`.
    ProcessFile,
    /// The simulated provider.
    Sim,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::ProcessFile => "process_file",
            Self::Sim => "tollgate-sim",
        }
    }
}

/// Has cargo build a program, if it is not there yet, in the profile of the caller.
///
/// # Errors
///
/// A sentence, with what cargo said.
pub fn build(program: Program) -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command.args([
        "build",
        "--quiet",
        "--message-format=json-render-diagnostics",
    ]);
    // Together, whichever is wanted: by itself, a package has other features of what both depend on, and all of
    // that would be built once more.
    command.args([
        "--package",
        "tollgate-examples",
        "--example",
        "process_file",
    ]);
    command.args(["--package", "tollgate-sim", "--bin", "tollgate-sim"]);
    command.args(["--features", "tollgate-sim/server"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cargo cannot build {}: {said}", program.name()));
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == program.name())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| format!("cargo has built no program {}", program.name()))
}
