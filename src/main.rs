//! The program: a command line, and what it starts.

#![recursion_limit = "512"]

use std::io::Write as _;
use std::process::ExitCode;

use matrix_call_recorder::adapters::clock::SystemClock;
use matrix_call_recorder::adapters::disk::{self, DiskError};
use matrix_call_recorder::adapters::{recovery, sessions};
use matrix_call_recorder::bench::{self, child::Role};
use matrix_call_recorder::cli::{self, Command, exit};
use matrix_call_recorder::settings::{Settings, environment};
use matrix_call_recorder::{daemon, shutdown, telemetry};
use recorder_actors::ports::Clock as _;
use recorder_core::manifest::Utc;

/// Threads beside the tree's: Matrix, HTTP, journals.
const WORKERS: usize = 2;

fn main() -> ExitCode {
    // `bench` starts this program again for its other side.
    let helper = match std::env::args().nth(1).as_deref() {
        Some(bench::CALLERS_COMMAND) => Some(Role::Callers),
        Some(bench::RECEIVER_COMMAND) => Some(Role::Receiver),
        _ => None,
    };
    if let Some(role) = helper {
        return match bench::child::serve(role) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                complain(&error);
                ExitCode::from(exit::EX_SOFTWARE)
            }
        };
    }
    let command = match cli::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::EX_USAGE));
        }
    };
    ExitCode::from(match command {
        Command::Run { config } => run(config.as_deref()),
        Command::CheckConfig { config } => check(config.as_deref()),
        Command::Repair { directory } => repair(&directory),
        Command::Bench(options) => system().block_on(bench::command::command(&options)),
    })
}

/// To standard error, where a log is not set up yet.
fn complain(what: &dyn std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

fn load(config: Option<&std::path::Path>) -> Result<Settings, u8> {
    let settings = Settings::load(config, environment()).map_err(|faults| {
        complain(&faults);
        exit::EX_CONFIG
    })?;
    for warning in settings.warnings() {
        complain(&warning);
    }
    Ok(settings)
}

fn check(config: Option<&std::path::Path>) -> u8 {
    match load(config) {
        Ok(_) => {
            complain(&"the configuration is good");
            exit::OK
        }
        Err(code) => code,
    }
}

fn run(config: Option<&std::path::Path>) -> u8 {
    let settings = match load(config) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let redactor = match telemetry::init(&settings.log) {
        Ok(redactor) => redactor,
        Err(error) => {
            complain(&error);
            return exit::EX_CONFIG;
        }
    };
    let secrets = [
        &settings.matrix.password_file,
        &settings.matrix.access_token_file,
        &settings.matrix.store_passphrase_file,
        &settings.matrix.recovery_key_file,
        &settings.web.token_file,
    ];
    for file in secrets.into_iter().flatten() {
        if let Ok(secret) = std::fs::read_to_string(file) {
            redactor.keep_out(&secret);
        }
    }
    let system = system();
    let ended = system.block_on(async {
        match shutdown::Signals::hear() {
            Ok(signals) => daemon::run(settings, redactor, signals.asked_to_stop(), &environment_all()).await,
            Err(error) => Err(daemon::DaemonError::Fault(format!("signals cannot be heard: {error}"))),
        }
    });
    let code = match ended {
        Ok(()) => exit::OK,
        Err(error) => {
            tracing::error!(%error, "the recorder ends");
            // The log's filter may be anything; whoever started us is to see why.
            complain(&format_args!("matrix-call-recorder: {error}"));
            error.exit_code()
        }
    };
    // Not by returning: a thread that hangs in the disk would be waited for, and the store's connections are to be
    // dropped by nobody after their runtime.
    std::process::exit(code.into())
}

/// The tree's thread is this one; tasks of the shared runtime go to threads of their own.
fn system() -> actix::SystemRunner {
    actix::System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .enable_all()
            .build()
            .expect("a runtime can be built, or nothing can be done at all")
    })
}

/// The service manager's variables, which are not settings.
fn environment_all() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn repair(directory: &std::path::Path) -> u8 {
    // Held until the repair is done.
    let _alone = match disk::keep_recorders_out(directory) {
        Ok(locks) => locks,
        Err(DiskError::Locked { path }) => {
            complain(&format_args!(
                "{} is being recorded into by a running recorder, which repairs by itself when it starts; stop it first",
                path.display()
            ));
            return exit::EX_TEMPFAIL;
        }
        Err(error) => {
            complain(&error);
            return exit::EX_TEMPFAIL;
        }
    };
    let clock = SystemClock;
    let now = recovery::Now {
        boot_id: sessions::boot_id(),
        boot_time: clock.now(),
        utc: Utc::from_micros(clock.utc_micros()),
    };
    match recovery::repair_directory(directory, &now) {
        Ok(report) => {
            let _ = writeln!(std::io::stdout(), "{report}");
            if report.is_faulty() { exit::EX_SOFTWARE } else { exit::OK }
        }
        Err(error) => {
            complain(&format_args!("{}: {error}", directory.display()));
            exit::EX_CONFIG
        }
    }
}
