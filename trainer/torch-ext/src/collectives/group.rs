//! Process groups: Gloo between CPUs, NCCL between GPUs.

use std::ffi::{c_char, c_int, c_void};
use std::fmt;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use tch::Tensor;

use super::store::{Store, c_string, millis};
use crate::error::{Error, Result, checked, handle};

type Message = *mut *mut c_char;
type Out = *mut *mut c_void;

unsafe extern "C" {
    fn vlft_group_gloo(
        store: *const c_void,
        prefix: *const c_char,
        address: *const c_char,
        rank: c_int,
        size: c_int,
        timeout_ms: i64,
        out: Out,
        message: Message,
    ) -> c_int;
    #[cfg(feature = "cuda")]
    fn vlft_group_nccl(
        store: *const c_void,
        prefix: *const c_char,
        rank: c_int,
        size: c_int,
        device: c_int,
        timeout_ms: i64,
        out: Out,
        message: Message,
    ) -> c_int;
    fn vlft_group_free(group: *mut c_void);
    fn vlft_group_abort(group: *mut c_void, message: Message) -> c_int;
    fn vlft_all_reduce(
        group: *mut c_void,
        tensor: *mut c_void,
        max: bool,
        out: Out,
        message: Message,
    ) -> c_int;
    fn vlft_reduce_scatter(
        group: *mut c_void,
        output: *mut c_void,
        input: *mut c_void,
        out: Out,
        message: Message,
    ) -> c_int;
    fn vlft_all_gather(
        group: *mut c_void,
        output: *mut c_void,
        input: *mut c_void,
        out: Out,
        message: Message,
    ) -> c_int;
    fn vlft_broadcast(
        group: *mut c_void,
        tensor: *mut c_void,
        root: c_int,
        out: Out,
        message: Message,
    ) -> c_int;
    fn vlft_barrier(group: *mut c_void, out: Out, message: Message) -> c_int;
    fn vlft_work_wait(work: *mut c_void, timeout_ms: i64, message: Message) -> c_int;
    fn vlft_work_is_completed(work: *mut c_void) -> bool;
    fn vlft_work_free(work: *mut c_void);
}

/// What ranks do together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collective {
    Rendezvous,
    AllReduce,
    ReduceScatter,
    AllGather,
    Broadcast,
    Barrier,
}

impl fmt::Display for Collective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rendezvous => "rendezvous",
            Self::AllReduce => "all-reduce",
            Self::ReduceScatter => "reduce-scatter",
            Self::AllGather => "all-gather",
            Self::Broadcast => "broadcast",
            Self::Barrier => "barrier",
        })
    }
}

/// How values of the ranks become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    Sum,
    Max,
}

/// The ranks of a run, connected with each other.
#[derive(Debug)]
pub struct ProcessGroup {
    group: *mut c_void,
    rank: i64,
    world_size: i64,
    timeout: Duration,
}

// SAFETY: c10d's groups queue work under a lock.
unsafe impl Send for ProcessGroup {}
unsafe impl Sync for ProcessGroup {}

impl ProcessGroup {
    /// Connects with all ranks over Gloo. `address` is where the others reach this process;
    /// `prefix` tells groups apart that share a store. The time-out holds for every collective.
    pub fn gloo(
        store: &Store,
        prefix: &str,
        address: &str,
        (rank, world_size): (i64, i64),
        timeout: Duration,
    ) -> Result<Self> {
        let (prefix, address) = (c_string(prefix)?, c_string(address)?);
        Self::connected((rank, world_size), timeout, |rank, size, out, m| {
            // SAFETY: a live store; the strings live for the call.
            unsafe {
                let (prefix, address) = (prefix.as_ptr(), address.as_ptr());
                let timeout = millis(timeout);
                vlft_group_gloo(store.handle(), prefix, address, rank, size, timeout, out, m)
            }
        })
    }

    /// Connects with all ranks over NCCL; `device` is this process's GPU.
    #[cfg(feature = "cuda")]
    pub fn nccl(
        store: &Store,
        prefix: &str,
        device: usize,
        (rank, world_size): (i64, i64),
        timeout: Duration,
    ) -> Result<Self> {
        let prefix = c_string(prefix)?;
        let device = c_int::try_from(device).unwrap_or(c_int::MAX);
        Self::connected((rank, world_size), timeout, |rank, size, out, m| {
            // SAFETY: a live store; the string lives for the call.
            unsafe {
                let timeout = millis(timeout);
                vlft_group_nccl(
                    store.handle(),
                    prefix.as_ptr(),
                    rank,
                    size,
                    device,
                    timeout,
                    out,
                    m,
                )
            }
        })
    }

    fn connected(
        (rank, world_size): (i64, i64),
        timeout: Duration,
        connect: impl FnOnce(c_int, c_int, Out, Message) -> c_int,
    ) -> Result<Self> {
        let of_rank = |error: Error| error.within(&words(rank, Collective::Rendezvous));
        let size = c_int::try_from(world_size).unwrap_or(0);
        let number = c_int::try_from(rank).unwrap_or(-1);
        if number < 0 || number >= size {
            let message = format!("rank {rank} of {world_size} does not exist");
            return Err(Error::Torch(message));
        }
        let mut group = null_mut();
        checked(|m| connect(number, size, &raw mut group, m)).map_err(of_rank)?;
        Ok(Self {
            group,
            rank,
            world_size,
            timeout,
        })
    }

    /// This process's number, from 0.
    pub fn rank(&self) -> i64 {
        self.rank
    }

    /// Number of processes.
    pub fn world_size(&self) -> i64 {
        self.world_size
    }

    /// Reduces a tensor of the same shape on all ranks, in place.
    pub fn all_reduce(&self, tensor: &Tensor, reduction: Reduction) -> Result<Work> {
        let max = reduction == Reduction::Max;
        // SAFETY: a live group and tensor; the group keeps a reference to the tensor.
        self.issue(Collective::AllReduce, |out, m| unsafe {
            vlft_all_reduce(self.group, handle(tensor), max, out, m)
        })
    }

    /// Sums `input` (length = world size x length of `output`) over all ranks and leaves this
    /// rank's slice of the sum in `output`.
    pub fn reduce_scatter(&self, output: &Tensor, input: &Tensor) -> Result<Work> {
        self.check(Collective::ReduceScatter, input, output)?;
        // SAFETY: as above.
        self.issue(Collective::ReduceScatter, |out, m| unsafe {
            vlft_reduce_scatter(self.group, handle(output), handle(input), out, m)
        })
    }

    /// Concatenates the `input` of all ranks in `output` (length = world size x `input`'s).
    pub fn all_gather(&self, output: &Tensor, input: &Tensor) -> Result<Work> {
        self.check(Collective::AllGather, output, input)?;
        // SAFETY: as above.
        self.issue(Collective::AllGather, |out, m| unsafe {
            vlft_all_gather(self.group, handle(output), handle(input), out, m)
        })
    }

    /// Overwrites the tensor with that of rank `root`.
    pub fn broadcast(&self, tensor: &Tensor, root: i64) -> Result<Work> {
        let root = c_int::try_from(root).unwrap_or(-1);
        // SAFETY: as above.
        self.issue(Collective::Broadcast, |out, m| unsafe {
            vlft_broadcast(self.group, handle(tensor), root, out, m)
        })
    }

    /// Returns once all ranks are here.
    pub fn barrier(&self) -> Result<()> {
        // SAFETY: a live group.
        let work = self.issue(Collective::Barrier, |out, m| unsafe {
            vlft_barrier(self.group, out, m)
        })?;
        work.wait()
    }

    /// Ends collectives under way with an error, where the backend can (NCCL).
    pub fn abort(&self) -> Result<()> {
        // SAFETY: a live group.
        checked(|m| unsafe { vlft_group_abort(self.group, m) })
    }

    /// Gloo would only log a wrong size, and the other ranks wait.
    fn check(&self, collective: Collective, whole: &Tensor, slice: &Tensor) -> Result<()> {
        let (elements, part) = (whole.numel(), slice.numel());
        if usize::try_from(self.world_size).is_ok_and(|size| elements == size * part) {
            return Ok(());
        }
        let size = self.world_size;
        let message = format!("{elements} elements are not {size} x {part}");
        Err(Error::Torch(message).within(&words(self.rank, collective)))
    }

    fn issue(
        &self,
        collective: Collective,
        call: impl FnOnce(Out, Message) -> c_int,
    ) -> Result<Work> {
        let mut work = null_mut();
        checked(|m| call(&raw mut work, m))
            .map_err(|error| error.within(&words(self.rank, collective)))?;
        Ok(Work {
            work,
            collective,
            rank: self.rank,
            timeout: self.timeout,
            issued: Instant::now(),
        })
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // SAFETY: made by vlft_group_*, freed once.
        unsafe { vlft_group_free(self.group) }
    }
}

/// A collective under way.
#[derive(Debug)]
pub struct Work {
    work: *mut c_void,
    collective: Collective,
    rank: i64,
    timeout: Duration,
    issued: Instant,
}

// SAFETY: c10d's work objects lock around their state.
unsafe impl Send for Work {}

impl Work {
    /// Returns when the result is there (on a GPU: ordered before what follows on the stream).
    pub fn wait(self) -> Result<()> {
        let left = self.timeout.saturating_sub(self.issued.elapsed());
        let left = left.max(Duration::from_millis(1));
        // SAFETY: a live work object.
        checked(|m| unsafe { vlft_work_wait(self.work, millis(left), m) })
            .map_err(|error| error.within(&words(self.rank, self.collective)))
    }

    /// Whether it has ended, well or not.
    pub fn is_completed(&self) -> bool {
        // SAFETY: a live work object.
        unsafe { vlft_work_is_completed(self.work) }
    }

    pub fn collective(&self) -> Collective {
        self.collective
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // SAFETY: made by a collective, freed once.
        unsafe { vlft_work_free(self.work) }
    }
}

fn words(rank: i64, collective: Collective) -> String {
    format!("rank {rank}: {collective}")
}
