//! What the supervisor sees of the media plane.

use std::sync::atomic::Ordering;

use super::SupervisorActor;
use crate::drops::FOR_PEOPLE;
use crate::observe::Severity;
use crate::supervise::lock;

impl SupervisorActor {
    /// Says, now and then, that what came was dropped before it could be read.
    pub(super) fn watch_drops(&self) {
        let world = &self.shared.world;
        let (now, view) = (world.clock.now(), world.board.media.load());
        let counts = [&view.counts.kernel_drops, &view.counts.held_drops];
        let mut drops = lock(&self.shared.drops);
        for (index, (count, drops)) in counts.into_iter().zip(drops.iter_mut()).enumerate() {
            let Some(count) = drops.grown(count.load(Ordering::Relaxed), now, FOR_PEOPLE) else { continue };
            let what = if index == 0 {
                tracing::warn!(count, "the kernel dropped datagrams, net.core.rmem_max may be too small");
                format!(
                    "The kernel dropped {count} datagrams before they could be read: see net.core.rmem_max"
                )
            } else {
                tracing::warn!(count, "packets came before their keys and found no room to wait");
                format!("{count} packets came before their keys and were dropped")
            };
            world.board.happened(world.clock.utc_micros(), Severity::Warning, what);
        }
    }
}
