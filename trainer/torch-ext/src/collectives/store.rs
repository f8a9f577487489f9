//! TCPStore: a key-value store that rank 0 serves.

use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::time::Duration;

use crate::error::{Error, Result, checked};

unsafe extern "C" {
    fn vlft_store_new(
        host: *const c_char,
        port: u16,
        serve: bool,
        timeout_ms: i64,
        out: *mut *mut c_void,
        message: *mut *mut c_char,
    ) -> c_int;
    fn vlft_store_port(store: *const c_void) -> u16;
    fn vlft_store_free(store: *mut c_void);
    fn vlft_store_set(
        store: *mut c_void,
        key: *const c_char,
        value: *const u8,
        length: usize,
        message: *mut *mut c_char,
    ) -> c_int;
    fn vlft_store_get(
        store: *mut c_void,
        key: *const c_char,
        value: *mut u8,
        capacity: usize,
        length: *mut usize,
        message: *mut *mut c_char,
    ) -> c_int;
    fn vlft_store_has(
        store: *mut c_void,
        key: *const c_char,
        has: *mut bool,
        message: *mut *mut c_char,
    ) -> c_int;
}

/// Longest value that [`Store::get`] returns whole, in bytes.
const MAX_VALUE: usize = 16 * 1024;

/// A connection to the store that rank 0 serves.
#[derive(Debug)]
pub struct Store(*mut c_void);

// SAFETY: c10d's stores lock around each request.
unsafe impl Send for Store {}
unsafe impl Sync for Store {}

impl Store {
    /// Serves a store on all interfaces and connects to it. Port 0 takes a free one.
    pub fn serve(port: u16, timeout: Duration) -> Result<Self> {
        Self::new("127.0.0.1", port, true, timeout)
    }

    /// Connects to a store, trying until the time-out; requests wait as long.
    pub fn connect(host: &str, port: u16, timeout: Duration) -> Result<Self> {
        Self::new(host, port, false, timeout)
    }

    fn new(host: &str, port: u16, serve: bool, timeout: Duration) -> Result<Self> {
        let name = c_string(host)?;
        let mut store = null_mut();
        // SAFETY: the name lives for the call, `store` is written on success.
        checked(|m| unsafe {
            vlft_store_new(
                name.as_ptr(),
                port,
                serve,
                millis(timeout),
                &raw mut store,
                m,
            )
        })
        .map_err(|error| error.within(&format!("the rendezvous at {host}:{port}")))?;
        Ok(Self(store))
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        // SAFETY: a live store.
        unsafe { vlft_store_port(self.0) }
    }

    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let key = c_string(key)?;
        // SAFETY: a live store; key and value live for the call.
        checked(|m| unsafe { vlft_store_set(self.0, key.as_ptr(), value.as_ptr(), value.len(), m) })
    }

    /// Waits for a key; a value longer than 16 KiB is cut.
    pub fn get(&self, key: &str) -> Result<Vec<u8>> {
        let key = c_string(key)?;
        let mut value = vec![0; MAX_VALUE];
        let mut length = 0;
        // SAFETY: a live store; `value` has MAX_VALUE bytes.
        checked(|m| unsafe {
            let into = value.as_mut_ptr();
            vlft_store_get(self.0, key.as_ptr(), into, MAX_VALUE, &raw mut length, m)
        })?;
        value.truncate(length);
        Ok(value)
    }

    /// Whether a key is there, without waiting.
    pub fn has(&self, key: &str) -> Result<bool> {
        let key = c_string(key)?;
        let mut has = false;
        // SAFETY: a live store.
        checked(|m| unsafe { vlft_store_has(self.0, key.as_ptr(), &raw mut has, m) })?;
        Ok(has)
    }

    pub(super) fn handle(&self) -> *const c_void {
        self.0
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: made by vlft_store_new, freed once.
        unsafe { vlft_store_free(self.0) }
    }
}

pub(super) fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::Torch(format!("{text:?} holds a NUL byte")))
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
