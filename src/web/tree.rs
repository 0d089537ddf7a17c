//! The board's flat list of actors as the tree it is.

use std::cmp::Ordering;
use std::sync::Arc;

use recorder_actors::observe::ActorSnapshot;
use serde::Serialize;

/// An actor and those below it.
#[derive(Serialize)]
pub(super) struct Node {
    #[serde(flatten)]
    pub(super) actor: Arc<ActorSnapshot>,
    pub(super) children: Vec<Node>,
}

/// Builds the forest; an actor whose parent is not on the board stands below its nearest ancestor that is.
/// The order of siblings is that of their numbers: `call-2` before `call-10`.
pub(super) fn grow(mut actors: Vec<Arc<ActorSnapshot>>) -> Vec<Node> {
    actors.sort_by(|a, b| by_path(&a.path, &b.path));
    let mut roots = Vec::new();
    let mut open: Vec<Node> = Vec::new();
    for actor in actors {
        while open.last().is_some_and(|parent| !is_below(&actor.path, &parent.actor.path)) {
            close(&mut open, &mut roots);
        }
        open.push(Node { actor, children: Vec::new() });
    }
    while !open.is_empty() {
        close(&mut open, &mut roots);
    }
    roots
}

fn close(open: &mut Vec<Node>, roots: &mut Vec<Node>) {
    if let Some(done) = open.pop() {
        match open.last_mut() {
            Some(parent) => parent.children.push(done),
            None => roots.push(done),
        }
    }
}

fn is_below(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.starts_with('/'))
}

fn by_path(a: &str, b: &str) -> Ordering {
    a.split('/').map(number_aware).cmp(b.split('/').map(number_aware)).then_with(|| a.cmp(b))
}

/// `p12-camera-1` as (`p`, 12), (`-camera-`, 1): runs of digits count as numbers, by length first.
fn number_aware(part: &str) -> Vec<(&str, usize, &str)> {
    let mut pieces = Vec::new();
    let mut rest = part;
    while !rest.is_empty() {
        let text_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, after) = rest.split_at(text_end);
        let digits_end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let (digits, after) = after.split_at(digits_end);
        let digits = digits.trim_start_matches('0');
        pieces.push((text, digits.len(), digits));
        rest = after;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use recorder_actors::observe::{ActorKind, ActorState};
    use recorder_core::ids::Generation;

    use super::*;

    fn outline(paths: &[&str]) -> String {
        fn write(nodes: &[Node], out: &mut String) {
            for node in nodes {
                out.push_str(node.actor.path.rsplit('/').next().unwrap_or_default());
                if !node.children.is_empty() {
                    out.push('(');
                    write(&node.children, out);
                    out.push(')');
                }
                out.push(' ');
            }
        }
        let actors = paths
            .iter()
            .map(|path| {
                Arc::new(ActorSnapshot {
                    path: (*path).into(),
                    kind: ActorKind::Peer,
                    name: String::new(),
                    state: ActorState::Running,
                    generation: Generation::FIRST,
                    address: 0,
                    restarts: 0,
                    last_error: None,
                    since_utc_micros: 0,
                })
            })
            .collect();
        let mut out = String::new();
        write(&grow(actors), &mut out);
        out
    }

    #[test]
    fn siblings_are_in_the_order_of_their_numbers() {
        assert_eq!(outline(&["s/call-10", "s/call-2/p1", "s", "s/call-2"]), "s(call-2(p1 ) call-10 ) ");
    }

    #[test]
    fn a_dash_in_a_name_does_not_tear_a_family_apart() {
        assert_eq!(outline(&["s", "s/p1", "s/p1-x", "s/p1/a"]), "s(p1(a ) p1-x ) ");
    }

    #[test]
    fn an_orphan_stands_below_its_nearest_ancestor() {
        assert_eq!(outline(&["s", "s/call-1/p1/t", "lost/x"]), "x s(t ) ");
    }

    #[test]
    fn nothing_grows_nothing() {
        assert_eq!(outline(&[]), "");
    }
}
