//! Whole rounds within this process: callers and receiver at the other ends of pipes in memory.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use recorder_actors::ports::RemoteCandidate;

use super::child::{serve_callers, serve_receiver};
use super::mesh_target::{Meeting, MeetingRooms, MeshTarget};
use super::process::Helper;
use super::recording_target::RecordingTarget;
use super::round::run_with;
use super::{BenchError, BenchOptions, BenchTarget, HelperTarget, Sample, TargetSummary};
use crate::calling::VideoLoad;

fn callers() -> Helper {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let (output, input) = tokio::io::split(ours);
    let (orders, facts) = tokio::io::split(theirs);
    tokio::spawn(serve_callers(orders, facts));
    Helper::over(input, output)
}

fn receiver() -> Helper {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let (output, input) = tokio::io::split(ours);
    let (orders, facts) = tokio::io::split(theirs);
    tokio::spawn(serve_receiver(orders, facts));
    Helper::over(input, output)
}

fn options(calls: usize) -> (BenchOptions, Arc<Mutex<Vec<String>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let lines = told.clone();
    let options = BenchOptions {
        calls,
        measure: Duration::from_millis(600),
        audio: true,
        video: Some(VideoLoad::packets_per_second(60)),
        program: PathBuf::new(),
        progress: Arc::new(move |line| lines.lock().unwrap().push(line.to_owned())),
    };
    (options, told)
}

#[tokio::test]
async fn a_round_receives_what_was_sent_and_says_what_it_cost() {
    let (options, told) = options(3);
    let target = Arc::new(HelperTarget::over(receiver(), "the wrapper".to_owned()));
    let report = run_with(&options, callers(), target, 0).await.unwrap();
    assert_eq!((report.calls, report.streams), (3, 6));
    assert_eq!(report.problems, Vec::<String>::new());
    assert!(report.is_clean());
    assert!(report.packets_sent > 3 * 110 * 2, "{report}");
    assert!(report.packets_received >= report.packets_sent);
    assert!(report.cpu_us_per_packet > 0.0 && report.resident.peak > 0);
    assert!(report.to_string().contains("3 calls, 6 streams"));
    assert!(told.lock().unwrap().iter().any(|line| line.contains("connecting 3 calls")));
}

/// Answers nothing.
struct Refusing;

impl BenchTarget for Refusing {
    fn name(&self) -> String {
        "one that refuses".to_owned()
    }

    fn answer(&self, call: usize, _offer: String) -> BoxFuture<'static, Result<String, BenchError>> {
        async move { Err(BenchError::CallFailed { call, reason: "full".to_owned() }) }.boxed()
    }

    fn add_candidate(&self, _call: usize, _candidate: RemoteCandidate) {}

    fn sample(&self) -> BoxFuture<'static, Result<Sample, BenchError>> {
        async { Ok(Sample::default()) }.boxed()
    }

    fn finish(&self) -> BoxFuture<'static, Result<TargetSummary, BenchError>> {
        async { Ok(TargetSummary::default()) }.boxed()
    }
}

#[tokio::test]
async fn a_refused_call_ends_the_round_with_its_reason() {
    let (options, _) = options(2);
    let error = run_with(&options, callers(), Arc::new(Refusing), 5).await.unwrap_err();
    assert!(matches!(error, BenchError::CallFailed { call: 5 | 6, .. }), "{error}");
}

#[test]
fn a_mesh_call_is_recorded_beside_1_1_calls_and_shows_everybody_its_tile() {
    let system = actix::System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    });
    system.block_on(async {
        let (mut options, _) = options(3);
        // The tile moves once a second.
        options.measure = Duration::from_secs(1);
        let folder = tempfile::tempdir().unwrap();
        let meeting = Arc::<Meeting>::default();
        let rooms = Arc::new(MeetingRooms(Arc::clone(&meeting)));
        let recorder = RecordingTarget::start(folder.path(), rooms).unwrap();
        let mesh: Arc<dyn BenchTarget> = Arc::new(MeshTarget::new(Arc::clone(&recorder), meeting));
        let one_to_one: Arc<dyn BenchTarget> = Arc::new(Arc::clone(&recorder));
        for (turn, (target, sessions)) in [(&mesh, 1), (&one_to_one, 3), (&mesh, 1)].into_iter().enumerate() {
            let report = run_with(&options, callers(), Arc::clone(target), 3 * turn).await.unwrap();
            assert_eq!(report.problems, Vec::<String>::new(), "turn {turn}");
            assert!(report.is_clean(), "{report}");
            assert_eq!((report.sessions.len(), report.streams), (sessions, 6));
        }
        tokio::task::spawn_blocking(move || recorder.shut_down()).await.unwrap();
    });
}
