//! The books of each scope: of all requests, of each model, of each key.
use std::{cmp::Reverse, collections::HashMap, time::Duration};

use super::config::Config;
use crate::{
    books::{Book, Held, nanos},
    charge::Cost,
    limit::{SimLimit, Unit},
};

/// At most this many scopes have books of their own; idle ones make room.
const MAX_SCOPES: usize = 10_000;

/// All books.
#[derive(Default)]
pub(super) struct Scopes(HashMap<u64, Vec<Book>>);

/// The books that one request is entered in.
pub(super) struct Books<'a> {
    limits: &'a [SimLimit],
    books: &'a mut [Book],
    model: &'a str,
}

/// Which limit refused, and how things stand there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Full {
    pub(super) index: usize,
    pub(super) used: u64,
    pub(super) requested: u64,
    /// `None`: it can never fit.
    pub(super) wait: Option<Duration>,
}

impl Scopes {
    pub(super) fn open<'a>(
        &'a mut self,
        config: &'a Config,
        scope: u64,
        model: &'a str,
        now: u64,
    ) -> Books<'a> {
        if self.0.len() >= MAX_SCOPES && !self.0.contains_key(&scope) {
            self.0
                .retain(|_, books| books.iter_mut().any(|book| book.used(now) > 0));
        }
        let open = |limit: &SimLimit| {
            let window = nanos(limit.window.unwrap_or(config.window)).max(1);
            let enforcement = limit.enforcement.unwrap_or(config.enforcement);
            Book::new(limit.amount, window, enforcement)
        };
        let books = self.0.entry(scope);
        Books {
            limits: &config.limits,
            books: books.or_insert_with(|| config.limits.iter().map(open).collect()),
            model,
        }
    }

    /// The book of one limit, if its scope is open.
    pub(super) fn book(&mut self, scope: u64, limit: usize) -> Option<&mut Book> {
        self.0.get_mut(&scope)?.get_mut(limit)
    }
}

impl Books<'_> {
    /// The limits that hold for this request, with their books.
    pub(super) fn each(&mut self) -> impl Iterator<Item = (usize, &SimLimit, &mut Book)> {
        let model = self.model;
        self.limits
            .iter()
            .zip(self.books.iter_mut())
            .enumerate()
            .filter(move |(_, (limit, _))| limit.model.as_ref().is_none_or(|only| **only == *model))
            .map(|(index, (limit, book))| (index, limit, book))
    }

    /// Takes the cost from all limits, or from none. A refusal counts as a request if `count` says so.
    pub(super) fn admit(
        &mut self,
        now: u64,
        cost: &Cost,
        count: bool,
    ) -> Result<Vec<(usize, Held)>, Full> {
        let fits = self
            .each()
            .all(|(_, limit, book)| book.wait(now, limit.unit.of(cost)) == Some(0));
        if fits {
            let charge = |(index, limit, book): (usize, &SimLimit, &mut Book)| {
                (index, book.charge(now, limit.unit.of(cost)))
            };
            return Ok(self.each().map(charge).collect());
        }
        if count {
            self.count_request(now);
        }
        // The wait is stated after the refusal was counted, or it would be too short. Never is the longest.
        let (wait, index) = self
            .each()
            .map(|(index, limit, book)| (book.wait(now, limit.unit.of(cost)), index))
            .max_by_key(|&(wait, index)| (wait.is_none(), wait, Reverse(index)))
            .expect("some limit refused");
        Err(Full {
            index,
            used: self.books[index].used(now),
            requested: self.limits[index].unit.of(cost),
            wait: wait.map(Duration::from_nanos),
        })
    }

    /// Enters one request and no tokens.
    pub(super) fn count_request(&mut self, now: u64) {
        for (_, limit, book) in self.each() {
            if limit.unit == Unit::Requests {
                book.charge(now, 1);
            }
        }
    }
}
