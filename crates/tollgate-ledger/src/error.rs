//! What can go wrong with a ledger.
use std::fmt;

use rusqlite::{Error as Sqlite, ErrorCode};

/// Why a ledger could not be opened, written or read.
///
/// It holds the words of SQLite and perhaps the file's path, and nothing of any record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerError {
    kind: LedgerErrorKind,
    detail: Box<str>,
}

/// The kinds of a [`LedgerError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LedgerErrorKind {
    /// The file is none of ours: another application's database, or no database.
    NotALedger,
    /// A later version of this crate has written it.
    Newer,
    /// Another process holds the file's lock.
    Locked,
    /// No room on the disk.
    Full,
    /// The file is damaged.
    Corrupt,
    /// It may not be written.
    ReadOnly,
    /// It cannot be opened: no such directory, no permission, no file to read.
    CannotOpen,
    /// A flush ran out of time.
    Unflushed,
    /// Anything else that the disk or SQLite says.
    Other,
}

impl LedgerErrorKind {
    fn sentence(self) -> &'static str {
        match self {
            Self::NotALedger => "the file is not a ledger of tollgate",
            Self::Newer => "the ledger was written by a later version of tollgate-ledger",
            Self::Locked => "another process holds the ledger's lock",
            Self::Full => "there is no room on the ledger's disk",
            Self::Corrupt => "the ledger is damaged",
            Self::ReadOnly => "the ledger may not be written",
            Self::CannotOpen => "the ledger cannot be opened",
            Self::Unflushed => "the ledger has not been flushed",
            Self::Other => "the ledger failed",
        }
    }
}

impl LedgerError {
    pub(crate) fn new(kind: LedgerErrorKind, detail: impl Into<Box<str>>) -> Self {
        let detail = detail.into();
        Self { kind, detail }
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> LedgerErrorKind {
        self.kind
    }
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.sentence(), self.detail)
    }
}

impl std::error::Error for LedgerError {}

impl From<Sqlite> for LedgerError {
    fn from(error: Sqlite) -> Self {
        let kind = match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => LedgerErrorKind::NotALedger,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => LedgerErrorKind::Locked,
            Some(ErrorCode::DiskFull) => LedgerErrorKind::Full,
            Some(ErrorCode::DatabaseCorrupt) => LedgerErrorKind::Corrupt,
            Some(ErrorCode::ReadOnly) => LedgerErrorKind::ReadOnly,
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                LedgerErrorKind::CannotOpen
            }
            _ => LedgerErrorKind::Other,
        };
        Self::new(kind, error.to_string())
    }
}
