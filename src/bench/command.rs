//! The command `bench`.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::compare::TIMES;
use super::mesh_target::{Meeting, MeetingRooms};
use super::recording_target::RecordingTarget;
use super::{BenchError, BenchOptions, BenchTarget, HelperTarget, MeshTarget, compare, micro, run};
use crate::calling::VideoLoad;
use crate::cli::{self, exit};

/// Opus packets in a second.
const AUDIO_PACKETS: u32 = 50;

/// The comparison's other side, from the root of the repository.
const AIORTC: &str = "tests/compare/aiortc_recorder.py";

/// Our cost, the disk included, beside the webrtc crate's wrapper, which writes nothing.
const WRAPPER_LIMIT: f64 = 1.0;
/// Our cost beside aiortc's MediaRecorder.
const AIORTC_LIMIT: f64 = 0.1;
/// A participant of a mesh call beside the caller of a 1:1 call.
const MESH_LIMIT: f64 = 1.2;

/// Runs what the command line asks for; [`exit::EX_SOFTWARE`] if something went wrong or costs more than it may. Call it on an
/// actix system.
pub async fn command(options: &cli::Bench) -> u8 {
    match perform(options).await {
        Ok(good) => {
            if good {
                exit::OK
            } else {
                exit::EX_SOFTWARE
            }
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "bench: {error}");
            exit::EX_SOFTWARE
        }
    }
}

async fn perform(options: &cli::Bench) -> Result<bool, BenchError> {
    if options.micro {
        let report = tokio::task::spawn_blocking(micro::run)
            .await
            .map_err(|error| BenchError::Target(error.to_string()))?
            .map_err(|error| BenchError::Target(error.to_string()))?;
        say(&report);
        return Ok(report.is_good());
    }
    let folder = Folder::new(options.directory.as_deref())?;
    let meeting = Arc::<Meeting>::default();
    let target = RecordingTarget::start(folder.path(), Arc::new(MeetingRooms(Arc::clone(&meeting))))?;
    let ours: Arc<dyn BenchTarget> = Arc::new(Arc::clone(&target));
    let mesh: Arc<dyn BenchTarget> = Arc::new(MeshTarget::new(Arc::clone(&target), meeting));
    let mut good = true;
    let mut first_call = 0;
    for calls in &options.calls {
        let round = round_options(options, *calls)?;
        if options.mesh {
            let one_to_one = || Ok(Arc::clone(&ours));
            let comparison =
                compare(&round, Arc::clone(&mesh), first_call, TIMES, MESH_LIMIT, one_to_one).await?;
            good &= comparison.is_good();
            say(&comparison);
            first_call += calls * TIMES;
        } else if options.compare || options.against.is_some() {
            let program = round.program.clone();
            let other_files = folder.beside().display().to_string();
            let other = || {
                let target = match &options.against {
                    Some(python) => HelperTarget::program(python, &[AIORTC, &other_files])?,
                    None => HelperTarget::wrapper(&program)?,
                };
                Ok(Arc::new(target) as Arc<dyn BenchTarget>)
            };
            let limit = if options.against.is_some() { AIORTC_LIMIT } else { WRAPPER_LIMIT };
            let comparison = compare(&round, Arc::clone(&ours), first_call, TIMES, limit, other).await?;
            good &= comparison.is_good();
            say(&comparison);
            first_call += calls * TIMES;
        } else {
            let report = run(&round, Arc::clone(&ours), first_call).await?;
            good &= report.problems.is_empty() && report.dropped_by_us == 0;
            if options.json {
                say(&serde_json::to_string(&report)?);
            } else {
                say(&report);
            }
            first_call += calls;
        }
    }
    let ending = Arc::clone(&target);
    let _ = tokio::task::spawn_blocking(move || ending.shut_down()).await;
    Ok(good)
}

fn round_options(options: &cli::Bench, calls: usize) -> Result<BenchOptions, BenchError> {
    // What two cores can send beside receiving; see the standard loads.
    let standard =
        BenchOptions::standard_loads().into_iter().find(|(of, _)| *of == calls).and_then(|(_, load)| load);
    let video = match (options.audio_only, options.packets_per_second) {
        (true, _) => None,
        (false, Some(packets)) => {
            packets.checked_sub(AUDIO_PACKETS).filter(|rest| *rest > 0).map(VideoLoad::packets_per_second)
        }
        (false, None) => standard,
    };
    Ok(BenchOptions {
        calls,
        measure: Duration::from_secs(options.seconds),
        audio: true,
        video,
        program: std::env::current_exe().map_err(|error| BenchError::Target(error.to_string()))?,
        progress: Arc::new(|line| {
            let _ = writeln!(std::io::stderr(), "{line}");
        }),
    })
}

fn say(what: &dyn std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{what}");
}

/// Where the files go; a folder of our own is removed again.
struct Folder {
    path: std::path::PathBuf,
    ours: bool,
}

impl Folder {
    fn new(given: Option<&Path>) -> Result<Self, BenchError> {
        let (path, ours) = match given {
            Some(path) => (path.to_path_buf(), false),
            None => {
                let name = format!("matrix-call-recorder-bench-{}", std::process::id());
                (std::env::temp_dir().join(name), true)
            }
        };
        std::fs::create_dir_all(&path)
            .map_err(|error| BenchError::Target(format!("{}: {error}", path.display())))?;
        Ok(Self { path, ours })
    }

    fn path(&self) -> &Path {
        &self.path
    }

    /// For the comparison's other side, which is no session of ours.
    fn beside(&self) -> std::path::PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push("-other");
        name.into()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.ours {
            let _ = std::fs::remove_dir_all(&self.path);
            let _ = std::fs::remove_dir_all(self.beside());
        }
    }
}
