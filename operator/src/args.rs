//! Command line and environment.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Reconciles VLFineTune resources into pod groups that run the trainer.
#[derive(Debug, Clone, Parser)]
#[command(name = "operator", version)]
pub struct Args {
    /// Trainer image where a spec names none.
    #[arg(long, env = "VLFT_TRAINER_IMAGE")]
    pub trainer_image: Option<String>,
    /// Namespace to watch; absent means all.
    #[arg(long, env = "VLFT_WATCH_NAMESPACE")]
    pub namespace: Option<String>,
    /// Address of /metrics, /healthz and /readyz.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// VLFineTunes reconciled at the same time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: u16,
    /// Pause between two questions for progress, for example `10s`; status shows progress at
    /// most every one and a half times this.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub progress_interval: Duration,
    /// Pause before the second restart that made no step; doubled from then on.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub restart_backoff: Duration,
    /// How long images and volumes may fail before the attempt has failed.
    #[arg(long, default_value = "10m", value_parser = duration)]
    pub startup_timeout: Duration,
    /// Whether replicas elect one that leads.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub leader_elect: bool,
    /// Name of the Lease.
    #[arg(long, default_value = "vlfinetune-operator")]
    pub lease_name: String,
    /// Namespace of the Lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub lease_namespace: String,
    /// Name of this replica; absent means the host name and a number.
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,
    /// How log lines are written.
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
    /// Least severe level, or a filter such as `info,kube=debug`.
    #[arg(long, env = "VLFT_LOG", default_value = "info")]
    pub log_level: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Json,
    Text,
}

impl Args {
    /// Name of this replica, unique among all that ever ran.
    pub fn identity(&self) -> String {
        let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "operator".to_owned());
        self.identity
            .clone()
            .unwrap_or_else(|| format!("{host}-{}", std::process::id()))
    }
}

/// `500ms`, `10s`, `5m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => {
            return Err(format!(
                "`{text}`: write a number with ms, s, m or h, for example 10s"
            ));
        }
    };
    let number: f64 = number
        .parse()
        .map_err(|_| format!("`{text}`: `{number}` is no number"))?;
    Duration::try_from_secs_f64(number * seconds).map_err(|error| format!("`{text}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        for text in ["10", "s", "1d", "1.2.3s", "-1s", ""] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_defaults_parse() {
        let args = Args::try_parse_from(["operator"]).unwrap();
        assert!(args.leader_elect);
        assert_eq!(args.progress_interval, Duration::from_secs(10));
        assert_eq!(args.startup_timeout, Duration::from_secs(600));
    }
}
