//! Shows the status page with a made-up board, for looking at it: `cargo run --example status_page [ADDRESS]`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a show, not the daemon")]

#[path = "../tests/web_support/mod.rs"]
mod web_support;

use std::time::Duration;

use recorder_actors::observe::Board;
use web_support::{HandClock, fill, open_settings, serve};

fn main() {
    let up = Duration::from_hours(9 * 24 + 4);
    let clock = HandClock::before(up);
    let board = Board::new();
    let mut settings = open_settings();
    if let Some(address) = std::env::args().nth(1) {
        settings.listen = address.parse().unwrap();
    }
    let handle = serve(settings, &board, &clock);
    clock.advance(up);
    fill(&board, &clock);
    println!("http://{}/ (a line on standard input ends it)", handle.address);
    std::io::stdin().read_line(&mut String::new()).unwrap();
}
