//! `trainer launch`: processes that begin, fail and leave together.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use vlft_crds::contract::{TerminationReport, exit_code};
use vlft_crds::status::FailureClass;

use crate::fixture::Fixture;

const LONG: Duration = Duration::from_secs(120);
const SPEC: &str = "  workers: { device: CPU }\n  method: { full: {} }\n  training: { maxSteps: \
                    STEPS, globalBatchSize: 8, logEverySteps: 1 }\n  checkpoint: { everySteps: 5 \
                    }\n";

/// A launch of two processes.
struct Launch {
    child: Child,
    fixture: Fixture,
}

impl Launch {
    fn of(steps: &str, change: impl FnOnce(&Fixture)) -> Self {
        let fixture = Fixture::new(&SPEC.replace("STEPS", steps));
        change(&fixture);
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
        command
            .args(["launch", "--nproc", "2"])
            .arg(fixture.document())
            .arg("--output_dir")
            .arg(fixture.path("out"))
            .env("VLFT_TERMINATION_LOG", fixture.path("report.json"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(fixture.path("log")).unwrap());
        let child = command.spawn().unwrap();
        Self { child, fixture }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.fixture.path("log")).unwrap()
    }

    /// Waits until the log holds a text.
    fn wait_for(&mut self, text: &str) {
        let begin = Instant::now();
        while !self.log().contains(text) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "ended with {ended:?}\n{}", self.log());
            assert!(begin.elapsed() < LONG, "no `{text}`\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Process ids of the children by rank.
    fn pids(&self) -> [i32; 2] {
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        let text = fs::read_to_string(children).unwrap();
        let mut pids = text.split_whitespace().map(|pid| pid.parse().unwrap());
        [pids.next().unwrap(), pids.next().unwrap()]
    }

    fn end(mut self) -> (Output, TerminationReport, String, Fixture) {
        let begin = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            if begin.elapsed() > LONG {
                let _ = self.child.kill();
                panic!("it does not end\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(20));
        }
        let log = self.log();
        let output = self.child.wait_with_output().unwrap();
        let report = fs::read(self.fixture.path("report.json")).unwrap();
        (
            output,
            serde_json::from_slice(&report).unwrap(),
            log,
            self.fixture,
        )
    }
}

fn kill(pid: i32, signal: &str) {
    let done = Command::new("kill")
        .args([signal, &pid.to_string()])
        .status();
    assert!(done.unwrap().success());
}

fn is_alive(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn two_processes_train_export_and_report_as_one() {
    let (output, report, log, fixture) = Launch::of("6", |_| {}).end();
    assert!(output.status.success(), "{log}");
    assert_eq!(
        (report.class, report.exit_code),
        (FailureClass::Completed, 0)
    );
    assert_eq!((report.progress.step, report.rank), (6, 0));
    assert!(fixture.path("out/model/config.json").is_file());
    assert!(
        fixture
            .path("out/checkpoints/step-00000006/manifest.json")
            .is_file()
    );
    let steps = log
        .lines()
        .filter(|line| line.contains("\"message\":\"step\""));
    assert_eq!(steps.count(), 6, "one process speaks for both\n{log}");
    assert!(log.contains("{\"rank\":0,"), "{log}");
}

#[test]
fn a_killed_rank_ends_all_within_seconds_and_is_named() {
    let mut launch = Launch::of("100000", |_| {});
    launch.wait_for("\"step\":3,");
    let pids = launch.pids();
    let begin = Instant::now();
    kill(pids[1], "-KILL");
    let (output, report, log, _) = launch.end();
    assert!(
        begin.elapsed() < Duration::from_secs(30),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(output.status.code(), Some(101), "{log}");
    assert_eq!((report.rank, report.exit_code), (1, 137));
    assert_eq!(report.message, "rank 1 was killed by signal 9");
    assert!(report.progress.step >= 3, "{report:?}");
    assert!(!pids.into_iter().any(is_alive), "a process is left");
    assert!(
        log.contains("rank 0: "),
        "rank 0 does not name its collective\n{log}"
    );
}

#[test]
fn a_rank_that_hangs_is_waited_for_no_longer_than_asked() {
    let impatient = |fixture: &Fixture| {
        let spec = SPEC.replace("STEPS", "100000");
        fixture.write(&format!(
            "{spec}  runPolicy: {{ hangTimeoutSeconds: 10 }}\n"
        ));
    };
    let mut launch = Launch::of("1", impatient);
    launch.wait_for("\"step\":2,");
    let pids = launch.pids();
    let begin = Instant::now();
    kill(pids[1], "-STOP");
    let (output, report, log, _) = launch.end();
    assert_eq!(output.status.code(), Some(exit_code::HANG), "{log}");
    assert_eq!((report.class, report.rank), (FailureClass::Hang, 0));
    assert!(report.message.contains("rank 0: all-reduce"), "{report:?}");
    assert!(report.message.contains("hangTimeoutSeconds"), "{report:?}");
    let stuck = "rank 1 is stuck at step ";
    assert!(report.message.starts_with(stuck), "{report:?}");
    assert!(
        begin.elapsed() < Duration::from_secs(60),
        "{:?}",
        begin.elapsed()
    );
    assert!(!pids.into_iter().any(is_alive), "a process is left");
}

#[test]
fn sigterm_makes_one_checkpoint_that_both_agreed_on() {
    let mut launch = Launch::of("100000", |_| {});
    launch.wait_for("\"step\":3,");
    kill(launch.child.id() as i32, "-TERM");
    let (output, report, log, fixture) = launch.end();
    assert_eq!(output.status.code(), Some(exit_code::DRAINED), "{log}");
    assert_eq!(report.class, FailureClass::Drained);
    let checkpoint = report.progress.last_checkpoint.expect("no checkpoint");
    assert_eq!(checkpoint.step, report.progress.step);
    assert!(fixture.path("out").join(checkpoint.path).is_dir());
}

#[test]
fn a_data_error_of_any_rank_is_the_cause() {
    let break_one = |fixture: &Fixture| {
        let file = fixture.path("data/images-0003.png");
        fs::write(file, b"no picture").unwrap();
    };
    let (output, report, log, _) = Launch::of("20", break_one).end();
    assert_eq!(output.status.code(), Some(exit_code::DATA_ERROR), "{log}");
    assert_eq!(report.class, FailureClass::DataError);
    assert!(report.message.contains("images-0003.png"), "{report:?}");
}

#[test]
fn processes_do_not_outlive_their_parent() {
    let mut launch = Launch::of("100000", |_| {});
    launch.wait_for("\"step\":2,");
    let pids = launch.pids();
    launch.child.kill().unwrap();
    launch.child.wait().unwrap();
    let begin = Instant::now();
    while pids.into_iter().any(is_alive) {
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "a process is left"
        );
        thread::sleep(Duration::from_millis(50));
    }
}
