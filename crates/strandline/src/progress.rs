//! A line on the terminal while something takes its time.

use std::io::{IsTerminal, Write};
use std::sync::mpsc::{channel, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Nothing is said of what takes less.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is said how long it has taken.
const STEP: Duration = Duration::from_millis(500);

/// Says what is done, on stderr if that is a terminal, until it is dropped; then takes it away.
pub struct Progress {
    told: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// Begins: `what` is "reading process 4711" or the like.
    pub fn start(what: String) -> Self {
        if !std::io::stderr().is_terminal() {
            return Progress { told: None };
        }
        let (end, ended) = channel();
        let since = Instant::now();
        let tell = move || {
            let mut wait = PATIENCE;
            let mut said = false;
            while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                wait = STEP;
                said = true;
                let seconds = since.elapsed().as_secs_f32();
                let _ = write!(std::io::stderr(), "\r{what}: {seconds:.1} s\x1b[K");
            }
            if said {
                let _ = write!(std::io::stderr(), "\r\x1b[K");
            }
        };
        let thread = std::thread::Builder::new().spawn(tell).ok();
        Progress { told: thread.map(|thread| (end, thread)) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.told.take() {
            drop(end);
            let _ = thread.join();
        }
    }
}
