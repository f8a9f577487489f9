use std::thread;
use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor};

use super::*;
use crate::Result;

const TIMEOUT: Duration = Duration::from_secs(20);

/// Runs `body` as every rank of a group, each on a thread of its own.
fn ranks<T: Send>(
    size: i64,
    timeout: Duration,
    body: impl Fn(ProcessGroup) -> Result<T> + Sync,
) -> Result<Vec<Result<T>>> {
    let server = Store::serve(0, TIMEOUT)?;
    let (body, port) = (&body, server.port());
    let results = thread::scope(|scope| {
        let spawn = |rank| {
            scope.spawn(move || {
                let store = Store::connect("127.0.0.1", port, TIMEOUT)?;
                let who = (rank, size);
                body(ProcessGroup::gloo(
                    &store,
                    "test",
                    "127.0.0.1",
                    who,
                    timeout,
                )?)
            })
        };
        let threads: Vec<_> = (0..size).map(spawn).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().unwrap();
        threads.into_iter().map(join).collect()
    });
    Ok(results)
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double)).unwrap()
}

#[test]
fn collectives_do_what_their_names_say() -> Result<()> {
    for kind in [Kind::Double, Kind::Float, Kind::BFloat16] {
        let results = ranks(3, TIMEOUT, |group| {
            let rank = group.rank();
            let own = Tensor::arange(6, (kind, Device::Cpu)) + rank;
            let sum = own.copy();
            group.all_reduce(&sum, Reduction::Sum)?.wait()?;
            let max = own.copy();
            group.all_reduce(&max, Reduction::Max)?.wait()?;
            let slice = Tensor::zeros([2], (kind, Device::Cpu));
            group.reduce_scatter(&slice, &own)?.wait()?;
            let whole = Tensor::zeros([6], (kind, Device::Cpu));
            group.all_gather(&whole, &slice)?.wait()?;
            group.broadcast(&own, 2)?.wait()?;
            group.barrier()?;
            Ok([sum, max, slice, whole, own].map(|tensor| values(&tensor)))
        })?;
        let sum: Vec<f64> = (0..6).map(|i| f64::from(3 * i + 3)).collect();
        let last: Vec<f64> = (0..6).map(|i| f64::from(i + 2)).collect();
        for (rank, result) in results.into_iter().enumerate() {
            let [total, max, slice, whole, root] = result?;
            assert_eq!((&total, &whole), (&sum, &sum), "{kind:?}");
            assert_eq!((&max, &root), (&last, &last), "{kind:?}");
            assert_eq!(slice, &sum[2 * rank..2 * rank + 2], "{kind:?}");
        }
    }
    Ok(())
}

#[test]
fn work_is_asynchronous_and_says_when_it_is_done() -> Result<()> {
    let results = ranks(2, TIMEOUT, |group| {
        let tensor = Tensor::ones([4], (Kind::Float, Device::Cpu));
        if group.rank() == 1 {
            thread::sleep(Duration::from_millis(300));
        }
        let work = group.all_reduce(&tensor, Reduction::Sum)?;
        let early = work.is_completed();
        work.wait()?;
        Ok((early, values(&tensor)))
    })?;
    let mut results = results.into_iter();
    let (early, sum) = results.next().unwrap()?;
    assert!(!early, "rank 0 did not wait for rank 1");
    assert_eq!(sum, [2.0; 4]);
    Ok(())
}

#[test]
fn a_rank_that_stays_away_is_an_error_in_time_that_names_rank_and_collective() -> Result<()> {
    let began = Instant::now();
    let results = ranks(2, Duration::from_secs(2), |group| {
        if group.rank() == 1 {
            thread::sleep(Duration::from_secs(4));
            return Ok(());
        }
        let tensor = Tensor::ones([4], (Kind::Float, Device::Cpu));
        group.all_reduce(&tensor, Reduction::Sum)?.wait()
    })?;
    let error = results[0].as_ref().unwrap_err().to_string();
    assert!(error.starts_with("rank 0: all-reduce: "), "{error}");
    assert!(began.elapsed() < Duration::from_secs(15), "no time-out");
    Ok(())
}

#[test]
fn a_peer_that_leaves_ends_the_wait_long_before_the_time_out() -> Result<()> {
    let began = Instant::now();
    let results = ranks(2, Duration::from_secs(60), |group| {
        if group.rank() == 1 {
            return Ok(());
        }
        let tensor = Tensor::ones([4], (Kind::Float, Device::Cpu));
        group.all_reduce(&tensor, Reduction::Sum)?.wait()
    })?;
    assert!(results[0].is_err());
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "it was waited for"
    );
    Ok(())
}

#[test]
fn sizes_that_do_not_fit_are_errors() -> Result<()> {
    let store = Store::serve(0, TIMEOUT)?;
    let group = ProcessGroup::gloo(&store, "one", "127.0.0.1", (0, 1), TIMEOUT)?;
    let [two, five] = [2, 5].map(|length| Tensor::ones([length], (Kind::Float, Device::Cpu)));
    let scatter = group.reduce_scatter(&two, &five).unwrap_err().to_string();
    assert_eq!(scatter, "rank 0: reduce-scatter: 5 elements are not 1 x 2");
    let gather = group.all_gather(&five, &two).unwrap_err().to_string();
    assert_eq!(gather, "rank 0: all-gather: 5 elements are not 1 x 2");
    Ok(())
}

#[test]
fn a_rendezvous_that_nobody_serves_names_its_address() {
    let error = Store::connect("127.0.0.1", 1, Duration::from_millis(300)).unwrap_err();
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    let store = Store::serve(0, TIMEOUT).unwrap();
    let error = ProcessGroup::gloo(&store, "a", "127.0.0.1", (2, 2), TIMEOUT).unwrap_err();
    assert!(error.to_string().contains("rank 2 of 2"), "{error}");
}

#[test]
fn the_store_keeps_and_hands_out_bytes() -> Result<()> {
    let server = Store::serve(0, TIMEOUT)?;
    // A client that gave up waiting may yet be sent the answer: it is of no further use.
    let hasty = Store::connect("127.0.0.1", server.port(), Duration::from_millis(300))?;
    let waited = hasty.get("key");
    assert!(waited.is_err(), "a missing key is waited for, not invented");
    let client = Store::connect("127.0.0.1", server.port(), TIMEOUT)?;
    assert!(!client.has("key")?);
    server.set("key", b"value")?;
    assert!(client.has("key")?);
    assert_eq!(client.get("key")?, b"value");
    Ok(())
}
