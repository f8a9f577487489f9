//! A running trainer, and how it ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use vlft_crds::contract::TerminationReport;
use vlft_crds::status::FailureClass;

const LONG: Duration = Duration::from_secs(120);
/// Address space of a trainer, KiB: an absurd allocation fails in it instead of taking the machine.
const ADDRESS_SPACE: u64 = 8 << 20;

/// A trainer that writes its log and its termination report into a folder.
pub struct Run {
    child: Child,
    log: PathBuf,
    report: PathBuf,
}

/// What is left of a [`Run`].
#[derive(Debug)]
pub struct Ended {
    /// `None`: by a signal.
    pub code: Option<i32>,
    pub report: Option<TerminationReport>,
    pub log: String,
}

impl Run {
    pub fn of(command: Command, folder: &Path) -> Self {
        let (log, report) = (folder.join("log"), folder.join("report.json"));
        let _ = fs::remove_file(&report);
        let limit = format!("ulimit -v {ADDRESS_SPACE}; exec \"$@\"");
        let mut limited = Command::new("sh");
        limited
            .args(["-c", &limit, "sh"])
            .arg(command.get_program());
        limited.args(command.get_args());
        for (name, value) in command.get_envs() {
            limited.env(name, value.unwrap_or_default());
        }
        if command
            .get_envs()
            .all(|(name, _)| name != "OMP_NUM_THREADS")
        {
            limited.env("OMP_NUM_THREADS", "1");
        }
        let child = limited
            .current_dir(folder)
            .env("VLFT_TERMINATION_LOG", &report)
            .stdin(Stdio::null())
            .stdout(fs::File::create(folder.join("stdout")).unwrap())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, log, report }
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// Waits until the log holds a text.
    pub fn wait_for(&mut self, text: &str) {
        let begin = Instant::now();
        while !self.log().contains(text) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "ended with {ended:?}\n{}", self.log());
            assert!(begin.elapsed() < LONG, "no `{text}`\n{}", self.log());
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// `-TERM`, `-KILL`.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let done = Command::new("kill").args([signal, &pid]).status();
        assert!(done.unwrap().success());
    }

    pub fn end(mut self) -> Ended {
        let begin = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            if begin.elapsed() > LONG {
                let _ = self.child.kill();
                panic!("it does not end\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(5));
        }
        let report = fs::read(&self.report).ok();
        Ended {
            code: self.child.wait().unwrap().code(),
            report: report.map(|json| serde_json::from_slice(&json).unwrap()),
            log: self.log(),
        }
    }
}

impl Ended {
    /// The report of a run that trained to its end.
    pub fn completed(self) -> TerminationReport {
        self.ended_as(FailureClass::Completed, 0)
    }

    /// The report, once exit code and class are as the contract pairs them.
    pub fn ended_as(self, class: FailureClass, code: i32) -> TerminationReport {
        let Self {
            code: found,
            report,
            log,
        } = self;
        assert_eq!(found, Some(code), "{report:?}\n{log}");
        let report = report.unwrap_or_else(|| panic!("no report\n{log}"));
        assert_eq!((report.class, report.exit_code), (class, code), "{log}");
        report
    }

    /// Asserts how it failed, and that the message holds all of `parts`.
    pub fn failed(self, class: FailureClass, parts: &[&str]) -> TerminationReport {
        use vlft_crds::contract::exit_code::{DATA_ERROR, STORAGE, USER_ERROR};
        let code = match class {
            FailureClass::UserError => USER_ERROR,
            FailureClass::DataError => DATA_ERROR,
            FailureClass::Storage => STORAGE,
            other => panic!("{other:?} is not asked for here"),
        };
        let report = self.ended_as(class, code);
        for part in parts {
            let message = &report.message;
            assert!(message.contains(part), "`{part}` is missing in: {message}");
        }
        report
    }
}
