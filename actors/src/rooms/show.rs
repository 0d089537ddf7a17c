//! What the page shows of a room: whether its next call is recorded, and who was told of the one that is.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use recorder_core::room::Waits;

use super::RoomPlace;
use crate::observe::RoomSnapshot;
use crate::supervise::lock;

/// Why the room waits for a call, as the board was last told, and who asked for it.
pub(super) type Shown = Arc<Mutex<Option<(Waits, Option<String>)>>>;

impl RoomPlace {
    /// Brings the board up to date.
    pub(crate) fn show(&self) {
        let waits = lock(&self.machine).waits().map(|(waits, by)| (waits, by.map(str::to_owned)));
        {
            let mut shown = lock(&self.shown);
            if *shown == waits {
                return;
            }
            shown.clone_from(&waits);
        }
        let Some((waiting, by)) = waits.clone() else { return self.world.board.remove_room(&self.id) };
        let mut room = RoomSnapshot { room_id: self.id.clone(), room_name: String::new(), waiting, by };
        if waiting == Waits::Configured {
            // There may be thousands of these, and they are shown as one.
            return self.world.board.put_room(room);
        }
        let (world, shown) = (Arc::clone(&self.world), Arc::clone(&self.shown));
        actix::spawn(async move {
            room.room_name = world.signalling.room(room.room_id.clone()).await.name;
            let shown = lock(&shown);
            if *shown == waits {
                world.board.put_room(room);
            }
        });
    }

    /// Shows the users who were told of the recording that runs.
    pub(crate) fn show_told(&self, told: &Mutex<Arc<BTreeSet<String>>>) {
        let machine = lock(&self.machine);
        let Some(running) = &machine.durable().running else { return };
        let mut shown = lock(told);
        if **shown != running.told {
            *shown = Arc::new(running.told.clone());
        }
    }
}
