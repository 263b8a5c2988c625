//! What the ledger's thread does: a batch, a commit, and patience when the disk has none.
use std::{
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, SystemTime},
};

use rusqlite::{Connection, TransactionBehavior};
use tollgate_usage::{Sink, SinkError, UsageRecord};

use crate::{
    error::LedgerError,
    row::{self, Insert},
    schema,
};

/// A batch of this size had no reason to wait for more.
const LARGE: usize = 500;
/// After a small one, records may gather so long, for every commit costs a write to the disk.
const GATHER: Duration = Duration::from_millis(10);
/// Pauses after a failure, doubling.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Rows that are removed in one transaction, so that records get their turn.
const REMOVED: usize = 5_000;

/// What the handle and the thread share.
#[derive(Debug, Default)]
pub(crate) struct State {
    failures: AtomicU64,
    error: Mutex<Option<LedgerError>>,
}

impl State {
    /// How often writing has failed.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Why it fails at present.
    pub(crate) fn error(&self) -> Option<LedgerError> {
        lock(&self.error).clone()
    }

    fn failed(&self, error: LedgerError) {
        self.failures.fetch_add(1, Relaxed);
        // Once for a row of failures: a full disk would fill the log as well.
        if lock(&self.error).replace(error.clone()).is_none() {
            tracing::error!(target: "tollgate::ledger", %error, "the ledger cannot be written; trying again");
        }
    }

    fn works(&self) {
        if lock(&self.error).take().is_some() {
            tracing::info!(target: "tollgate::ledger", failures = self.failures(), "the ledger works again");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The one writer of a ledger.
pub(crate) struct Writer {
    path: PathBuf,
    db: Option<Connection>,
    /// Gone when all handles are.
    state: Weak<State>,
}

impl Writer {
    pub(crate) fn new(path: PathBuf, db: Connection, state: Weak<State>) -> Self {
        let db = Some(db);
        Self { path, db, state }
    }

    fn commit(&mut self, records: &[UsageRecord]) -> Result<(), LedgerError> {
        let db = match &mut self.db {
            Some(db) => db,
            // After a failure all is done anew: the file may have been mended, or replaced.
            none => none.insert(schema::open(&self.path)?),
        };
        let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut insert = Insert::prepare(&change)?;
        for record in records {
            insert.write(record)?;
        }
        drop(insert);
        change.commit()?;
        Ok(())
    }
}

impl Sink for Writer {
    fn write(&mut self, records: &[UsageRecord]) -> Result<(), SinkError> {
        let mut pause = PAUSE;
        while let Err(error) = self.commit(records) {
            self.db = None;
            // The records are kept, and the queue behind them fills; what no longer fits is dropped and counted there.
            let Some(state) = self.state.upgrade() else {
                // Nobody is left who could mend it or look.
                return Err(error.into());
            };
            state.failed(error);
            drop(state);
            thread::park_timeout(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        if let Some(state) = self.state.upgrade() {
            state.works();
        }
        if records.len() < LARGE {
            thread::park_timeout(GATHER);
        }
        Ok(())
    }
}

/// Removes what began before `from`, some at a time, and gives the room back. Returns how many records went.
pub(crate) fn prune(db: &mut Connection, from: SystemTime) -> Result<u64, LedgerError> {
    let from = row::date(from);
    let mut removed = 0;
    loop {
        let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let some = change.execute(
            "DELETE FROM record WHERE id IN (SELECT id FROM record WHERE started_us < ?1 LIMIT ?2)",
            rusqlite::params![from, REMOVED as i64],
        )?;
        change.commit()?;
        removed += some as u64;
        if some < REMOVED {
            break;
        }
    }
    db.execute(
        "DELETE FROM rate_limit WHERE minute < ?1",
        [from.div_euclid(60_000_000)],
    )?;
    // It frees a page for each row that is asked of it.
    let mut vacuum = db.prepare("PRAGMA incremental_vacuum")?;
    let mut pages = vacuum.query([])?;
    while pages.next()?.is_some() {}
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::LedgerErrorKind;

    #[test]
    fn what_a_full_disk_refused_is_written_when_there_is_room() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.sqlite");
        let db = schema::open(&path).unwrap();
        // Stands for the end of the disk. It holds for this connection, and after the failure there is another.
        let pages: i64 = db
            .query_row("PRAGMA page_count", [], |row| row.get(0))
            .unwrap();
        let most = format!("PRAGMA max_page_count = {pages}");
        db.query_row(&most, [], |_| Ok(())).unwrap();
        let state = Arc::new(State::default());
        let mut writer = Writer::new(path, db, Arc::downgrade(&state));

        let records = vec![UsageRecord::default(); 200];
        assert_eq!(
            writer.commit(&records).unwrap_err().kind(),
            LedgerErrorKind::Full
        );
        writer.write(&records).unwrap();
        assert_eq!(state.failures(), 1);
        assert_eq!(state.error(), None, "it works again");
        let rows: i64 = writer
            .db
            .unwrap()
            .query_row("SELECT count(*) FROM record", [], |row| row.get(0))
            .unwrap();
        assert_eq!(rows, 200, "each once, though it was tried three times");
    }

    #[test]
    fn a_damaged_file_is_reported_and_when_it_is_gone_nothing_is_lost() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.sqlite");
        let state = Arc::new(State::default());
        let mut writer = Writer::new(
            path.clone(),
            schema::open(&path).unwrap(),
            Arc::downgrade(&state),
        );
        writer.db = None;
        std::fs::write(&path, "no ledger any more").unwrap();
        let records = vec![UsageRecord::default(); 3];
        let thread = thread::spawn(move || {
            writer.write(&records).unwrap();
            writer
        });
        while state.failures() < 2 {
            thread::yield_now();
        }
        assert_eq!(state.error().unwrap().kind(), LedgerErrorKind::NotALedger);
        std::fs::remove_file(&path).unwrap();
        let writer = thread.join().unwrap();
        assert_eq!(state.error(), None);
        let rows: i64 = writer
            .db
            .unwrap()
            .query_row("SELECT count(*) FROM record", [], |row| row.get(0))
            .unwrap();
        assert_eq!(rows, 3);
    }

    #[test]
    fn it_gives_up_when_all_handles_are_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.sqlite");
        let mut writer = Writer::new(path.clone(), schema::open(&path).unwrap(), Weak::new());
        writer.db = None;
        std::fs::write(&path, "no ledger any more").unwrap();
        writer.write(&[UsageRecord::default()]).unwrap_err();
    }
}
