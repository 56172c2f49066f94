//! Options of every command.

use std::{path::PathBuf, str::FromStr};

use clap::{ArgAction, Args};
use ftpq_client::limits;
use ftpq_transport::{
    Congestion, Paths, Traffic,
    tuning::{MTU_MAX, MTU_MIN},
};

/// The port of servers named without one.
pub(crate) const DEFAULT_PORT: u16 = 4433;

/// What may stand before or behind any command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Server to talk to: HOST or HOST:PORT; the last one connected to where absent
    #[arg(short, long, global = true, env = "FTPQ_SERVER", value_name = "HOST[:PORT]")]
    pub(crate) server: Option<String>,
    /// Port of servers named without one
    #[arg(short = 'P', long, global = true, env = "FTPQ_PORT", default_value_t = DEFAULT_PORT)]
    pub(crate) port: u16,
    /// Key and certificate to use (PEM), instead of the one in the home folder
    #[arg(short, long, global = true, env = "FTPQ_IDENTITY", value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    /// Trust a server that is not known yet without asking; a changed key is an error all the same
    #[arg(long, global = true)]
    pub(crate) accept_new: bool,
    /// Use IPv4 only
    #[arg(short = '4', long, global = true, conflicts_with = "ipv6")]
    pub(crate) ipv4: bool,
    /// Use IPv6 only
    #[arg(short = '6', long, global = true)]
    pub(crate) ipv6: bool,
    /// Seconds to wait for a server to answer when connecting
    #[arg(long, global = true, env = "FTPQ_TIMEOUT", default_value_t = 8, value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: u64,
    /// Seconds that a server may take for one answer, or one block of a file, once connected
    #[arg(long, global = true, env = "FTPQ_PATIENCE", default_value_t = limits::ANSWER.as_secs(), value_name = "SECONDS",
        hide_short_help = true, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) patience: u64,
    /// Names that a server may list in one folder or tree: one that goes on is not believed
    #[arg(long, global = true, env = "FTPQ_MAX_NAMES", default_value_t = limits::NAMES, value_name = "N",
        hide_short_help = true)]
    pub(crate) max_names: u64,
    /// What decides how much is in flight, of what this side sends: bulk (fills links that lose packets, keeps
    /// queues short), cubic or bbr
    #[arg(long, global = true, env = "FTPQ_CONGESTION", default_value_t, value_name = "NAME", hide_short_help = true,
        value_parser = Congestion::from_str)]
    pub(crate) congestion: Congestion,
    /// Bytes of each full packet's UDP payload, of what this side sends; found out where absent
    #[arg(long, global = true, env = "FTPQ_MTU", value_name = "BYTES", hide_short_help = true,
        value_parser = clap::value_parser!(u16).range(i64::from(MTU_MIN)..=i64::from(MTU_MAX)))]
    pub(crate) mtu: Option<u16>,
    /// No progress and no summary
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say more on standard error, after a transfer also what limited it; repeat for even more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

impl Global {
    /// What connections do that use `paths`.
    pub(crate) fn traffic(&self, paths: Paths) -> Traffic {
        Traffic { congestion: self.congestion, mtu: self.mtu, paths }
    }
}
