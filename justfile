# Commands of this project; `just` lists them.
# https://just.systems, also as `pip install rust-just`.

default:
    @just --list

# two people call the recorder, two meet in a group call; the page stays open
demo *options:
    ./demo {{ options }}

# all tests
test:
    ./test

# formatting, lints, licences
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --features fault-injection -- -D warnings
    cargo deny check bans licenses sources

# cost of the recording path at 1, 20, 100 and 300 calls
bench *options:
    cargo run --release -- bench {{ options }}

# the recording path and the webrtc crate's wrapper in turns
bench-compare:
    cargo run --release -- bench --calls 20 --packets-per-second 300 --seconds 20 --compare

# a mesh call of 20 participants, our tile in it, and 20 1:1 calls at the same load in turns
bench-mesh:
    cargo run --release -- bench --mesh --calls 20 --packets-per-second 110 --seconds 20
    cargo run --release -- bench --mesh --calls 20 --packets-per-second 300 --seconds 20

# depacketising and writing a packet against decrypting it
bench-micro:
    cargo run --release -- bench --micro

# aiortc's MediaRecorder on the same stream
bench-aiortc seconds="20":
    python3 -m venv .cache/aiortc-venv
    .cache/aiortc-venv/bin/pip install --quiet -r tests/compare/requirements.txt
    cargo build --release
    target/release/matrix-call-recorder bench --calls 1 --packets-per-second 110 --seconds {{ seconds }} --against .cache/aiortc-venv/bin/python

# how long it takes to be connected: 20 calls, beside two browsers that call each other
measure:
    tests/e2e/setup.sh
    RECORDER_PROFILE=release node tests/e2e/measure.mjs

# how much memory it holds: idle after its login, and for each stream
memory:
    tests/e2e/setup.sh
    RECORDER_PROFILE=release node tests/e2e/memory.mjs

# changes in calls of real clients, as many of each as a long meeting has, and a chaos call (CHAOS_SEED=n repeats one)
changes:
    tests/e2e/setup.sh
    cargo build --features fault-injection
    CHANGES=long RECORDER_BIN="${CARGO_TARGET_DIR:-target}/debug/matrix-call-recorder" node --test --test-concurrency=1 tests/e2e/changes.test.mjs tests/e2e/chaos.test.mjs

# Targets: vp8, vp9, av1, h264, h265, opus, receiver, mux_repair, call_signal, mesh_signal, mesh_state, room_event; and of the
# daemon itself, which takes longer to build: sdp, candidate, datagram, matrix_event, turn_uri.
# fuzz one target
fuzz target seconds="60":
    cd tests/fuzz && cargo +nightly fuzz run --fuzz-dir . {{ if target =~ "^(sdp|candidate|datagram|matrix_event|turn_uri)$" { "--features daemon" } else { "" } }} {{ target }} -- -max_total_time={{ seconds }}
