//! What a process has said so far, and waiting for what it says next.

use std::io::{ErrorKind, Read};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The bytes of one stream, filled by a thread of its own while the process runs.
#[derive(Clone)]
pub struct Capture {
    inner: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    /// How much a caller has waited past with [`Capture::expect`].
    seen: usize,
    closed: bool,
}

impl Capture {
    /// Reads `stream` to its end in the background.
    pub fn of(mut stream: impl Read + Send + 'static) -> Self {
        let capture = Self {
            inner: Arc::default(),
        };
        let inner = Arc::clone(&capture.inner);
        thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            loop {
                // A terminal's master answers EIO once the last program has left it.
                let read = match stream.read(&mut buffer) {
                    Ok(read) => read,
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(_) => 0,
                };
                let (state, changed) = &*inner;
                let mut state = state.lock().unwrap();
                state.bytes.extend_from_slice(&buffer[..read]);
                state.closed = read == 0;
                changed.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        capture
    }

    /// Everything so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.inner.0.lock().unwrap().bytes.clone()
    }

    /// Everything so far, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// Waits until `needle` appears after everything an earlier `expect` returned, and
    /// returns what came up to its end. `Err` holds all text if it didn't within `patience`,
    /// or if the stream ended before.
    pub fn expect(&self, needle: &str, patience: Duration) -> Result<String, String> {
        let until = Instant::now() + patience;
        let (state, changed) = &*self.inner;
        let mut state = state.lock().unwrap();
        loop {
            let fresh = &state.bytes[state.seen..];
            if let Some(at) = find(fresh, needle.as_bytes()) {
                let end = at + needle.len();
                let text = String::from_utf8_lossy(&fresh[..end]).into_owned();
                state.seen += end;
                return Ok(text);
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.closed || left.is_zero() {
                return Err(String::from_utf8_lossy(&state.bytes).into_owned());
            }
            state = changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Waits until at least `count` bytes have come; false if they didn't.
    pub fn wait_for_bytes(&self, count: usize, patience: Duration) -> bool {
        self.wait(patience, |state| state.bytes.len() >= count)
    }

    /// Waits for the end of the stream; false if it is still open after `patience`.
    pub fn wait_for_end(&self, patience: Duration) -> bool {
        self.wait(patience, |state| state.closed)
    }

    fn wait(&self, patience: Duration, done: impl Fn(&State) -> bool) -> bool {
        let (state, changed) = &*self.inner;
        let (state, _) = changed
            .wait_timeout_while(state.lock().unwrap(), patience, |state| {
                !done(state) && !state.closed
            })
            .unwrap();
        done(&state)
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
