//! The account against a real homeserver: logins, restarts, invites, order, late keys, gaps, outages.

#![recursion_limit = "512"]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

#[path = "../support/account.rs"]
#[expect(dead_code, reason = "these tests use a part of it")]
mod account;
#[path = "../support/holding_proxy.rs"]
mod holding_proxy;
#[path = "../support/synapse.rs"]
mod synapse;

mod deliveries;
mod farewells;
mod invites;
mod limits;
mod logins;
