//! The file: how it is opened, what is in it, and how an older one becomes a newer one.
use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::error::{LedgerError, LedgerErrorKind};

/// "toll": says that a database is one of ours.
const APPLICATION: i32 = 0x746f_6c6c;
/// Another process that writes holds the lock for a few milliseconds.
const BUSY: Duration = Duration::from_millis(250);

/// Each step makes a ledger of the version before it one of its own; none is ever changed once it was released.
const STEPS: [&str; 1] = [include_str!("schema/1.sql")];

/// The version that this crate writes.
const VERSION: i32 = STEPS.len() as i32;

/// Opens a ledger for writing; makes it if there is none.
pub(crate) fn open(path: &Path) -> Result<Connection, LedgerError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY)?;
    // What is none of ours is left as it is.
    check(&db)?;
    // Only a file without tables takes this one: deleted rows then give their room back when asked.
    db.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
    let mode: String = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        let detail =
            format!("it must be on a file system that can do write-ahead logs, not {mode:?}");
        return Err(LedgerError::new(LedgerErrorKind::CannotOpen, detail));
    }
    // FULL: a commit is on the disk when it returns, so that what is acknowledged outlives a power cut as well.
    db.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON")?;
    migrate(&mut db, &STEPS)?;
    Ok(db)
}

/// Opens a ledger for reading. It must be there.
pub(crate) fn open_read_only(path: &Path) -> Result<Connection, LedgerError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY)?;
    let version = check(&db)?;
    if version < VERSION {
        let detail = format!(
            "it is of version {version}; open it once for writing to bring it to {VERSION}"
        );
        return Err(LedgerError::new(LedgerErrorKind::NotALedger, detail));
    }
    Ok(db)
}

/// The version of a ledger; 0 is an empty file.
fn check(db: &Connection) -> Result<i32, LedgerError> {
    let number = |pragma| db.query_row(pragma, [], |row| row.get::<_, i32>(0));
    let application = number("PRAGMA application_id")?;
    let version = number("PRAGMA user_version")?;
    let empty = number("SELECT count(*) FROM sqlite_schema")? == 0;
    if application != APPLICATION && !(application == 0 && version == 0 && empty) {
        let detail = "another application has made it";
        return Err(LedgerError::new(LedgerErrorKind::NotALedger, detail));
    }
    if version > VERSION {
        let detail = format!("its version is {version}, and this one knows {VERSION}");
        return Err(LedgerError::new(LedgerErrorKind::Newer, detail));
    }
    Ok(version)
}

/// Takes the steps that a ledger has not taken, all or none.
fn migrate(db: &mut Connection, steps: &[&str]) -> Result<(), LedgerError> {
    // Under the lock, for another process may be at it too.
    let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i32 = change.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let done = usize::try_from(version).unwrap_or(0).min(steps.len());
    for step in &steps[done..] {
        change.execute_batch(step)?;
    }
    if done < steps.len() {
        change.pragma_update(None, "application_id", APPLICATION)?;
        change.pragma_update(None, "user_version", steps.len() as i32)?;
    }
    change.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_taken_once_and_keeps_what_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.sqlite");
        let mut db = open(&path).unwrap();
        db.execute(
            "INSERT INTO rate_limit VALUES (1, 'm', 'tokens', '', 2.0, 1.0, NULL, 1)",
            [],
        )
        .unwrap();
        let next = [STEPS[0], "ALTER TABLE record ADD COLUMN more INTEGER"];
        migrate(&mut db, &next).unwrap();
        migrate(&mut db, &next).unwrap();
        let (version, rows): (i32, i32) = db
            .query_row(
                "SELECT user_version, (SELECT count(*) FROM rate_limit) FROM pragma_user_version",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .unwrap();
        assert_eq!((version, rows), (2, 1));
        drop(db);
        let error = open(&path).unwrap_err();
        assert_eq!(error.kind(), LedgerErrorKind::Newer);
        assert_eq!(
            error.to_string(),
            "the ledger was written by a later version of tollgate-ledger: its version is 2, and this one knows 1"
        );
    }

    #[test]
    fn a_step_that_fails_leaves_no_half() {
        let directory = tempfile::tempdir().unwrap();
        let mut db = open(&directory.path().join("ledger.sqlite")).unwrap();
        let next = [STEPS[0], "CREATE TABLE half (x); SELECT nonsense"];
        migrate(&mut db, &next).unwrap_err();
        let found = db.query_row(
            "SELECT count(*) FROM sqlite_schema WHERE name = 'half'",
            [],
            |row| row.get::<_, i32>(0),
        );
        assert_eq!(found.unwrap(), 0);
        assert_eq!(check(&db).unwrap(), 1);
    }
}
