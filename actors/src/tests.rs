//! The tree on a paused clock, with fakes for its ports and faults on cue.

mod any_message;
mod attendance;
mod bad_input;
mod bench;
mod change_table;
mod consent;
mod faults;
mod flow;
mod group;
mod leave;
mod life_of_a_call;
mod objections;
mod plans;
mod points;
mod rejoin;
mod restart;
mod room_faults;
mod rooms;
mod scene;
mod sessions;
mod space;
mod support;
mod tree;
mod warnings;
