//! Batches, with decoding and tokenising done ahead of the training step on worker threads.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::collate::collate;
use super::encoder::{Encoded, Encoder, Sample};
use super::order::Order;
use super::source::Dataset;
use crate::batch::{Batch, Cursor};
use crate::error::{Error, Result};

/// Patches waiting for their batch may take this much memory, bytes; workers pause above it.
const READY_BYTES: usize = 512 << 20;

/// How a dataset becomes a stream of micro-batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderOptions {
    /// Samples of one micro-batch on one rank.
    pub micro_batch: usize,
    /// Decides the order; absent means the order of the files.
    pub shuffle_seed: Option<u64>,
    pub epoch_end: EpochEnd,
    /// Which share of the stream is this process's.
    pub rank: usize,
    pub ranks: usize,
    /// Threads that decode and tokenise.
    pub workers: usize,
    /// Micro-batches prepared ahead of the one in use.
    pub ahead: usize,
}

/// What happens after the last sample of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochEnd {
    /// The next epoch follows at once, within the same batch if need be: every batch is full and
    /// every epoch shows each sample once. The stream never ends.
    Continue,
    /// The stream ends; its last batch may be short.
    Stop,
}

impl LoaderOptions {
    /// Shuffled, endless, one process.
    pub fn training(micro_batch: usize, seed: u64) -> Self {
        Self {
            micro_batch,
            shuffle_seed: Some(seed),
            epoch_end: EpochEnd::Continue,
            rank: 0,
            ranks: 1,
            workers: 2,
            ahead: 2,
        }
    }

    /// The same stream, shared with other processes.
    pub fn shared(self, rank: usize, ranks: usize) -> Self {
        Self {
            rank,
            ranks,
            ..self
        }
    }

    /// Each record once, in file order, one process.
    pub fn evaluation(micro_batch: usize) -> Self {
        Self {
            shuffle_seed: None,
            epoch_end: EpochEnd::Stop,
            ..Self::training(micro_batch, 0)
        }
    }
}

/// An iterator over micro-batches. A sample that is longer than the limit leaves its place in the
/// micro-batch empty, so that what a position means never depends on the data before it.
pub struct DataLoader {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Tickets handed to the consumer so far.
    consumed: u64,
    dropped: u64,
    dropped_in_a_row: u64,
    failed: bool,
}

struct Shared {
    dataset: Arc<Dataset>,
    encoder: Arc<Encoder>,
    stream: Stream,
    window: u64,
    workers: u64,
    state: Mutex<State>,
    /// Signalled when a sample is ready, and when there is room for more.
    ready: Condvar,
    room: Condvar,
}

#[derive(Default)]
struct State {
    /// The next ticket a worker takes; tickets number this rank's samples from the start cursor.
    next: u64,
    consumed: u64,
    ready: BTreeMap<u64, Result<Encoded>>,
    ready_bytes: usize,
    stop: bool,
    /// Orders in use: at most the epochs that workers and consumer are in.
    orders: BTreeMap<u64, Arc<Order>>,
}

impl DataLoader {
    /// Starts the workers at `cursor`. A user error if the options make no sense.
    pub fn new(
        dataset: Arc<Dataset>,
        encoder: Arc<Encoder>,
        options: &LoaderOptions,
        cursor: Cursor,
    ) -> Result<Self> {
        let stream = Stream::new(dataset.len(), options, cursor)?;
        let workers = options.workers.max(1) as u64;
        let shared = Arc::new(Shared {
            dataset,
            encoder,
            stream,
            window: ((options.ahead.max(1) * options.micro_batch) as u64).max(workers),
            workers,
            state: Mutex::default(),
            ready: Condvar::new(),
            room: Condvar::new(),
        });
        let mut loader = Self {
            shared,
            workers: Vec::new(),
            consumed: 0,
            dropped: 0,
            dropped_in_a_row: 0,
            failed: false,
        };
        for number in 0..workers {
            let shared = Arc::clone(&loader.shared);
            let spawned = std::thread::Builder::new()
                .name(format!("data-{number}"))
                .spawn(move || shared.work());
            let worker = spawned.map_err(|error| Error::Bug(format!("no thread: {error}")))?;
            loader.workers.push(worker);
        }
        Ok(loader)
    }

    /// Samples left out so far because they are longer than the limit.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn next_batch(&mut self) -> Result<Option<Batch>> {
        let stream = self.shared.stream.clone();
        while let Some(tickets) = stream.batch_tickets(self.consumed) {
            let mut samples = Vec::with_capacity(stream.micro_batch as usize);
            for ticket in tickets {
                samples.extend(self.take(ticket)?);
            }
            if !samples.is_empty() {
                return collate(&samples, stream.cursor_after(self.consumed)).map(Some);
            }
            self.check_progress(&stream)?;
        }
        Ok(None)
    }

    /// Waits for one sample; `None` if it was left out.
    fn take(&mut self, ticket: u64) -> Result<Option<Sample>> {
        let encoded = self.shared.wait_for(ticket)?;
        self.consumed = ticket + 1;
        match encoded {
            Encoded::Sample(sample) => {
                self.dropped_in_a_row = 0;
                Ok(Some(sample))
            }
            Encoded::TooLong { .. } => {
                self.dropped += 1;
                self.dropped_in_a_row += 1;
                Ok(None)
            }
        }
    }

    /// An empty micro-batch is passed over, unless other ranks count on it or there is no end.
    fn check_progress(&self, stream: &Stream) -> Result<()> {
        if stream.ranks > 1 {
            return Err(Error::Data(format!(
                "all {} samples of a micro-batch are longer than maxLength; raise it, or lower \
                 maxPixels",
                stream.micro_batch
            )));
        }
        if self.dropped_in_a_row >= stream.len {
            return Err(Error::Data(format!(
                "all {} records are longer than maxLength; raise it, or lower maxPixels",
                stream.len
            )));
        }
        Ok(())
    }
}

impl Iterator for DataLoader {
    type Item = Result<Batch>;

    /// The next micro-batch. The stream ends after an error.
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.next_batch().transpose();
        self.failed = matches!(next, Some(Err(_)));
        next
    }
}

impl Drop for DataLoader {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.room.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches panics itself; there is nothing to learn from joining.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker's life: take a ticket when there is room, make its sample, leave it.
    fn work(&self) {
        while let Some((ticket, epoch, order)) = self.take_ticket() {
            let made = catch_unwind(AssertUnwindSafe(|| self.make(ticket, epoch, &order)));
            let made = made.unwrap_or_else(|_| {
                Err(Error::Bug(
                    "a data worker panicked; its message is above".into(),
                ))
            });
            let mut state = self.lock();
            state.ready_bytes += made.as_ref().map_or(0, Encoded::bytes);
            state.ready.insert(ticket, made);
            drop(state);
            self.ready.notify_all();
        }
    }

    fn take_ticket(&self) -> Option<(u64, u64, Arc<Order>)> {
        let mut state = self.lock();
        loop {
            if state.stop || self.stream.place(state.next).is_none() {
                return None;
            }
            if self.has_room(&state) {
                break;
            }
            state = self
                .room
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let ticket = state.next;
        state.next += 1;
        let (epoch, _) = self.stream.place(ticket)?;
        let order = state.order(epoch, &self.stream);
        Some((ticket, epoch, order))
    }

    /// The samples that the consumer needs first are always made, further ones as memory allows.
    fn has_room(&self, state: &State) -> bool {
        let ahead = state.next - state.consumed;
        ahead < self.workers || (ahead < self.window && state.ready_bytes < READY_BYTES)
    }

    fn make(&self, ticket: u64, epoch: u64, order: &Order) -> Result<Encoded> {
        let place = self.stream.place(ticket).filter(|(of, _)| *of == epoch);
        let index = place.and_then(|(_, position)| order.get(position));
        let index = index.ok_or_else(|| Error::Bug(format!("no sample for ticket {ticket}")))?;
        self.encoder.sample(&self.dataset.record(index as usize)?)
    }

    fn wait_for(&self, ticket: u64) -> Result<Encoded> {
        let mut state = self.lock();
        let encoded = loop {
            match state.ready.remove(&ticket) {
                Some(encoded) => break encoded,
                None => {
                    state = self
                        .ready
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner)
                }
            }
        };
        state.ready_bytes -= encoded.as_ref().map_or(0, Encoded::bytes);
        state.consumed = ticket + 1;
        drop(state);
        self.room.notify_all();
        encoded
    }
}

impl State {
    fn order(&mut self, epoch: u64, stream: &Stream) -> Arc<Order> {
        // Tickets ascend, so epochs before this one are only in hands that hold their own copy.
        self.orders.retain(|known, _| *known >= epoch);
        let make = || Arc::new(stream.order(epoch));
        Arc::clone(self.orders.entry(epoch).or_insert_with(make))
    }
}

/// The arithmetic of a stream: which sample a ticket means, and where batches begin and end.
#[derive(Debug, Clone)]
struct Stream {
    len: u64,
    micro_batch: u64,
    rank: u64,
    ranks: u64,
    shuffle_seed: Option<u64>,
    /// Samples since the start of epoch 0, at the cursor this stream starts from.
    start: u64,
    /// Where the stream ends, in the same count.
    end: Option<u64>,
}

impl Stream {
    fn new(len: usize, options: &LoaderOptions, cursor: Cursor) -> Result<Self> {
        let length = u32::try_from(len)
            .map_err(|_| Error::Data(format!("{len} records are too many; split the dataset")))?;
        if length == 0 || options.micro_batch == 0 || options.rank >= options.ranks {
            return Err(Error::Bug(format!(
                "a loader of {length} records with {options:?}"
            )));
        }
        let len = u64::from(length);
        if cursor.sample > len {
            return Err(Error::Data(format!(
                "the checkpoint stands at sample {} of its epoch, but the dataset has {len} \
                 records; resume with the dataset it was made with",
                cursor.sample
            )));
        }
        Ok(Self {
            len,
            micro_batch: options.micro_batch as u64,
            rank: options.rank as u64,
            ranks: options.ranks as u64,
            shuffle_seed: options.shuffle_seed,
            start: cursor.epoch * len + cursor.sample,
            end: (options.epoch_end == EpochEnd::Stop).then_some((cursor.epoch + 1) * len),
        })
    }

    fn order(&self, epoch: u64) -> Order {
        // `new` checked that the length fits.
        let len = self.len as u32;
        match self.shuffle_seed {
            Some(seed) => Order::shuffled(len, seed, epoch),
            None => Order::sequential(len),
        }
    }

    /// Samples that all ranks together consume in one micro-batch.
    fn stride(&self) -> u64 {
        self.micro_batch * self.ranks
    }

    /// `(epoch, position)` of a ticket, or `None` past the end.
    fn place(&self, ticket: u64) -> Option<(u64, u64)> {
        let (batch, within) = (ticket / self.micro_batch, ticket % self.micro_batch);
        let sample = self.start + batch * self.stride() + self.rank * self.micro_batch + within;
        let inside = self.end.is_none_or(|end| sample < end);
        inside.then_some((sample / self.len, sample % self.len))
    }

    /// The tickets of the micro-batch that begins at `first`, or `None` if there is none.
    fn batch_tickets(&self, first: u64) -> Option<std::ops::Range<u64>> {
        self.place(first)?;
        let whole = first..first + self.micro_batch;
        let end = whole.clone().find(|ticket| self.place(*ticket).is_none());
        Some(first..end.unwrap_or(whole.end))
    }

    /// Where the stream continues after the micro-batch that ends before ticket `consumed`.
    fn cursor_after(&self, consumed: u64) -> Cursor {
        let batches = consumed.div_ceil(self.micro_batch);
        let reached = self.start + batches * self.stride();
        let sample = self.end.map_or(reached, |end| reached.min(end));
        Cursor {
            epoch: sample / self.len,
            sample: sample % self.len,
        }
    }
}
