//! Gates hold an answer back until its reader has confirmed what came before.
//!
//! A gate exists from the request that names it until that request's answer is over, so there are never more of them
//! than open answers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

/// The gates of the answers that are open now, by the id that the request chose.
#[derive(Debug, Default, Clone)]
pub struct Gates(Arc<Mutex<HashMap<String, Arc<Semaphore>>>>);

/// An answer's way through its gate; the gate goes when this is dropped.
#[derive(Debug)]
pub struct Passage {
    id: String,
    gates: Gates,
    confirmed: Arc<Semaphore>,
}

impl Gates {
    /// Lets one more piece of the answer at this gate pass.
    ///
    /// # Errors
    /// When no open answer waits at such a gate.
    pub fn confirm(&self, id: &str) -> Result<(), String> {
        match self.open().get(id) {
            Some(confirmed) => {
                confirmed.add_permits(1);
                Ok(())
            }
            None => Err(format!("no open answer has the gate {id:?}")),
        }
    }

    /// Sets up the gate `id` for one answer.
    pub(super) fn enter(&self, id: &str) -> Result<Passage, String> {
        let confirmed = Arc::new(Semaphore::new(0));
        let mut open = self.open();
        if open.contains_key(id) {
            return Err(format!("x-standin-gate: another open answer has the gate {id:?}"));
        }
        open.insert(id.to_owned(), confirmed.clone());
        Ok(Passage { id: id.to_owned(), gates: self.clone(), confirmed })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<String, Arc<Semaphore>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Passage {
    /// Waits until one more piece is confirmed. The future may outlive the passage.
    pub(super) fn next(&self) -> impl Future<Output = ()> + Send + use<> {
        let confirmed = self.confirmed.clone();
        async move {
            if let Ok(permit) = confirmed.acquire().await {
                permit.forget();
            }
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.gates.open().remove(&self.id);
    }
}
