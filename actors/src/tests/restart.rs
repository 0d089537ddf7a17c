//! A process that ends in a group call, and the next one.

use serde_json::json;

use super::scene::*;
use super::support::*;

#[test]
fn the_next_process_gives_up_what_waits_to_take_its_membership() {
    on_paused_time(async {
        let scene = Scene::recorded().await;
        let remembered = || {
            let records = scene.tree.rooms.records.lock().unwrap();
            records.last().and_then(|(_, record)| record.delay.clone())
        };
        until("the delay to be kept", || remembered().is_some()).await;
        // This one is killed: the homeserver waits for a word of it that will not come.
        let next = scene.tree.next_process();
        next.event("m.room.message", ADA, json!({"msgtype": "m.text", "body": "hello"})).await;
        until("the end of the delay", || next.rooms.of("cancel") == [json!("delay-1")]).await;
    });
}
