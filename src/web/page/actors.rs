//! The actor tree as nested lists.

use std::sync::Arc;

use maud::{Markup, html};
use recorder_actors::observe::{ActorSnapshot, ActorState};

use super::dot;
use crate::web::tree::{self, Node};
use crate::web::words;

/// Actors drawn; the API has all.
const ACTORS: usize = 600;
/// The tree has four levels; deeper paths are drawn flat.
const DEPTH: usize = 8;
/// A restart this recent is worth a look, seconds.
const RECENT: f64 = 600.0;

pub(super) fn draw(actors: Vec<Arc<ActorSnapshot>>, utc: i64) -> Markup {
    let all = actors.len();
    let nodes = tree::grow(actors);
    let mut left = ACTORS;
    html! {
        div.card {
            @if nodes.is_empty() { p.more { "The tree has not started." } }
            @else { (list(&nodes, utc, DEPTH, &mut left, "tree")) }
            @if all > ACTORS {
                p.more { "and " (all - ACTORS) " more; all of them are in " a href="/api/v1/actors" { "the API" } }
            }
        }
    }
}

fn list(nodes: &[Node], utc: i64, depth: usize, left: &mut usize, class: &str) -> Markup {
    html! {
        ul class=(class) {
            @for node in nodes {
                @if take(left) {
                    li {
                        (line(&node.actor, utc))
                        @if !node.children.is_empty() && depth > 0 {
                            (list(&node.children, utc, depth - 1, left, ""))
                        }
                    }
                }
            }
        }
    }
}

/// One of the lines that are left, if any is.
fn take(left: &mut usize) -> bool {
    let taken = *left > 0;
    *left = left.saturating_sub(1);
    taken
}

fn line(actor: &ActorSnapshot, utc: i64) -> Markup {
    let age = (utc - actor.since_utc_micros) as f64 / 1e6;
    let lately = actor.restarts > 0 && age < RECENT;
    let colour = match actor.state {
        ActorState::Failed => "bad",
        ActorState::Restarting => "warn",
        ActorState::Running if lately => "warn",
        ActorState::Running => "good",
        ActorState::Starting | ActorState::Stopping | ActorState::Stopped => "idle",
    };
    let name = words::tame(&actor.name, words::NAME);
    html! {
        div.actor {
            (dot(colour, words::actor_state(actor.state)))
            code { (words::actor_kind(actor.kind)) }
            bdi.name title=(name) { (name) }
            span.age {
                @if actor.state != ActorState::Running { (words::actor_state(actor.state)) " · " }
                (words::age(age))
            }
        }
        @if actor.generation.0 > 1 || actor.last_error.is_some() {
            div class={ "why " (colour) } {
                "generation " (actor.generation.0)
                @if actor.restarts > 0 { ", restarted " (actor.restarts) "×" }
                @if let Some(error) = &actor.last_error { ": " bdi { (words::tame(error, words::SENTENCE)) } }
            }
        }
    }
}
