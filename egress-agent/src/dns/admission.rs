//! Bounds on what runs at once, so that no sandbox can take it all.

use egress_common::SandboxId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts what each sandbox and all together have under way.
#[derive(Debug)]
pub(super) struct Admission {
    per_sandbox: usize,
    total: usize,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    total: usize,
    by_sandbox: HashMap<SandboxId, usize>,
}

/// Leave to go on; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Pass {
    admission: Arc<Admission>,
    sandbox: SandboxId,
}

impl Admission {
    pub(super) fn new(per_sandbox: usize, total: usize) -> Arc<Self> {
        Arc::new(Self {
            per_sandbox,
            total,
            inside: Mutex::new(Inside::default()),
        })
    }

    /// Lets one more in, or not.
    pub(super) fn enter(self: &Arc<Self>, sandbox: SandboxId) -> Option<Pass> {
        let mut inside = self.lock();
        let own = inside.by_sandbox.get(&sandbox).copied().unwrap_or(0);
        if inside.total >= self.total || own >= self.per_sandbox {
            return None;
        }
        inside.total += 1;
        inside.by_sandbox.insert(sandbox, own + 1);
        Some(Pass {
            admission: self.clone(),
            sandbox,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut inside = self.admission.lock();
        inside.total = inside.total.saturating_sub(1);
        if let Some(own) = inside.by_sandbox.get_mut(&self.sandbox) {
            *own = own.saturating_sub(1);
            // Sandboxes come and go; an entry per sandbox that ever was would leak.
            if *own == 0 {
                inside.by_sandbox.remove(&self.sandbox);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sandbox_at_its_bound_does_not_stop_another() {
        let admission = Admission::new(2, 3);
        let (a, b) = (SandboxId(1), SandboxId(2));
        let held: Vec<_> = (0..2).map(|_| admission.enter(a).expect("room")).collect();
        assert!(admission.enter(a).is_none());
        let other = admission.enter(b).expect("room for another");
        assert!(admission.enter(b).is_none(), "the total");
        drop(held);
        drop(other);
        assert!(admission.enter(a).is_some());
        assert!(admission.lock().by_sandbox.is_empty());
    }
}
