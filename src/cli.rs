//! The command line: words into a [`Command`], nothing else.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Exit codes of sysexits(3), as far as a service manager is to tell them apart.
pub mod exit {
    /// Everything ended as it should.
    pub const OK: u8 = 0;
    /// The command line was wrong (clap's code).
    pub const EX_USAGE: u8 = 2;
    /// A fault of this program or of something it could not go on without.
    pub const EX_SOFTWARE: u8 = 70;
    /// Transient: the homeserver is away, the port is taken, the store is locked. Starting again may help.
    pub const EX_TEMPFAIL: u8 = 75;
    /// The homeserver refused the account. Starting again does not help.
    pub const EX_NOPERM: u8 = 77;
    /// The configuration is wrong. Starting again does not help.
    pub const EX_CONFIG: u8 = 78;
}

/// Where the source of the running version is (AGPL-3.0 §13).
pub const SOURCE: &str = env!("CARGO_PKG_REPOSITORY");
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
pub const LICENCE: &str = env!("CARGO_PKG_LICENSE");

const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\nlicence ",
    env!("CARGO_PKG_LICENSE"),
    ", source ",
    env!("CARGO_PKG_REPOSITORY")
);

/// What the program is asked to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Log in, answer calls, record them.
    Run { config: Option<PathBuf> },
    /// Check the configuration and end: 0, or 78 with all faults.
    CheckConfig { config: Option<PathBuf> },
    /// Repair the unfinished sessions below a folder of recordings.
    Repair { directory: PathBuf },
    /// Synthetic calls through the whole recording path on loopback.
    Bench(Bench),
}

/// How much `bench` does.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Bench {
    /// Calls at once; several numbers are run one after the other
    #[arg(long, value_delimiter = ',', default_values_t = [1, 20, 100, 300], value_name = "N")]
    pub calls: Vec<usize>,
    /// Seconds of media in each run
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// Packets that each call sends in a second, audio and video together; without it what two cores can send:
    /// 350 in 1 and in 20 calls, 100 in 100 calls, 50 in all others
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000), value_name = "N")]
    pub packets_per_second: Option<u32>,
    /// Audio only
    #[arg(long)]
    pub audio_only: bool,
    /// Folder for the files; a temporary one that is removed again without it
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// Take turns with the webrtc crate's wrapper, which receives the same and writes nothing, and print the ratio
    #[arg(long)]
    pub compare: bool,
    /// Take turns with `tests/compare/aiortc_recorder.py` under this Python and print the ratio
    #[arg(long, value_name = "PYTHON", conflicts_with = "compare")]
    pub against: Option<PathBuf>,
    /// One full-mesh call of N participants, each shown our picture, in turns with N 1:1 calls; prints the ratio
    #[arg(long, conflicts_with_all = ["compare", "against"])]
    pub mesh: bool,
    /// Compare depacketising and writing a packet with decrypting it, and nothing else
    #[arg(long)]
    pub micro: bool,
    /// Print the figures as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Parser)]
#[command(
    name = "matrix-call-recorder",
    about = "Records every stream of every participant of a Matrix call to a file of its own.",
    version = VERSION,
    long_version = LONG_VERSION,
    args_conflicts_with_subcommands = true,
    after_help = "Without a command it runs. Settings: config/recorder.toml, or the environment \
                  (RECORDER__MATRIX__HOMESERVER). Exit codes: 78 configuration, 77 account refused, 75 try again later."
)]
struct Arguments {
    /// Configuration file; without it only the environment counts
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Log in, answer calls and record them (also without a command)
    Run {
        /// Configuration file; without it only the environment counts
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Check the configuration and tell all its faults
    CheckConfig {
        /// Configuration file; without it only the environment counts
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Repair unfinished sessions in a folder of recordings, or one session
    Repair {
        /// The folder
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Record synthetic calls on loopback and print what they cost
    Bench(Bench),
}

/// Reads a command line, the program's name first.
///
/// # Errors
/// Help, version and wrong arguments: print it with [`clap::Error::print`] and end with its
/// [`clap::Error::exit_code`].
pub fn parse<I, T>(arguments: I) -> Result<Command, clap::Error>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let arguments = Arguments::try_parse_from(arguments)?;
    Ok(match arguments.verb {
        None => Command::Run { config: arguments.config },
        Some(Verb::Run { config }) => Command::Run { config },
        Some(Verb::CheckConfig { config }) => Command::CheckConfig { config },
        Some(Verb::Repair { directory }) => Command::Repair { directory },
        Some(Verb::Bench(bench)) => Command::Bench(bench),
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn words(line: &str) -> Result<Command, clap::Error> {
        parse(std::iter::once("matrix-call-recorder").chain(line.split_whitespace()))
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn run_is_what_it_does_without_a_command() {
        let config = Some(PathBuf::from("a.toml"));
        assert_eq!(words("--config a.toml").unwrap(), Command::Run { config: config.clone() });
        assert_eq!(words("run --config a.toml").unwrap(), Command::Run { config: config.clone() });
        assert_eq!(words("").unwrap(), Command::Run { config: None });
        assert_eq!(words("check-config -c a.toml").unwrap(), Command::CheckConfig { config });
    }

    #[test]
    fn repair_needs_its_folder() {
        assert_eq!(words("repair /srv/rec").unwrap(), Command::Repair { directory: "/srv/rec".into() });
        assert_eq!(words("repair").unwrap_err().kind(), ErrorKind::MissingRequiredArgument);
    }

    #[test]
    fn bench_takes_several_counts_of_calls() {
        let Command::Bench(bench) = words("bench --calls 1,20 --seconds 5 --json").unwrap() else {
            panic!("bench is not bench")
        };
        assert_eq!((bench.calls, bench.seconds, bench.json), (vec![1, 20], 5, true));
        let Command::Bench(bench) = words("bench").unwrap() else { panic!("bench is not bench") };
        assert_eq!(bench.calls, [1, 20, 100, 300]);
    }

    #[test]
    fn the_version_names_licence_and_source() {
        let error = words("--version").unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (ErrorKind::DisplayVersion, 0));
        let text = error.to_string();
        assert!(text.contains("AGPL-3.0-or-later") && text.contains("https://"), "{text}");
    }

    #[test]
    fn a_misspelt_command_is_met_with_the_right_one() {
        let error = words("repiar x").unwrap_err();
        assert_eq!(error.exit_code(), i32::from(exit::EX_USAGE));
        assert!(error.to_string().contains("repair"), "{error}");
    }
}
