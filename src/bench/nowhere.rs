//! Rooms for a tree that has none: 1:1 calls need no more.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use recorder_actors::ports::{Relation, RoomMemory, RoomPowers, RoomRecord, Rooms, SignallingError};
use recorder_core::call::Announcement;
use serde_json::Value;

/// Takes nothing and keeps nothing.
pub struct Nowhere;

fn refused<T: Send + 'static>() -> BoxFuture<'static, Result<T, SignallingError>> {
    async { Err(SignallingError::Refused("there are no rooms here".to_owned())) }.boxed()
}

impl Rooms for Nowhere {
    fn send_state(
        &self,
        _: String,
        _: String,
        _: String,
        _: Value,
        _: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>> {
        refused()
    }

    fn send_state_later(
        &self,
        _: String,
        _: String,
        _: String,
        _: Value,
        _: Duration,
    ) -> BoxFuture<'static, Option<String>> {
        async { None }.boxed()
    }

    fn restart_delay(&self, _: String) -> BoxFuture<'static, bool> {
        async { false }.boxed()
    }

    fn cancel_delay(&self, _: String) -> BoxFuture<'static, ()> {
        async {}.boxed()
    }

    fn send_to_device(
        &self,
        _: String,
        _: String,
        _: String,
        _: Value,
        _: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>> {
        refused()
    }

    fn say(
        &self,
        _: String,
        _: Announcement,
        _: Relation,
        _: Duration,
    ) -> BoxFuture<'static, Result<String, SignallingError>> {
        refused()
    }

    fn react(
        &self,
        _: String,
        _: String,
        _: String,
        _: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>> {
        refused()
    }

    fn set_room_name(
        &self,
        _: String,
        _: Option<String>,
        _: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>> {
        refused()
    }

    fn powers(&self, _: String) -> BoxFuture<'static, Option<RoomPowers>> {
        async { None }.boxed()
    }
}

impl RoomMemory for Nowhere {
    fn keep(&self, _: String, _: RoomRecord) -> BoxFuture<'static, std::io::Result<()>> {
        async { Ok(()) }.boxed()
    }
}
