//! Progress on a terminal: one bar for each running file of some size, and a total.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ftpq_client::{
    FileId, Progress,
    copy::{CopyError, LeftOut, Side, Summary},
};
use ftpq_proto::RemotePath;
use indicatif::{
    HumanBytes, HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
    style::ProgressTracker,
};

use crate::output;

/// Draws bars on standard error where that is a terminal; elsewhere it only reports what failed.
pub(crate) struct Bars {
    multi: MultiProgress,
    total: ProgressBar,
    state: Mutex<State>,
    began: Instant,
    /// When bytes last moved.
    moved: Arc<Mutex<Instant>>,
    quiet: bool,
}

/// What stands before the paths of each side, so that they read as they were typed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Prefix {
    pub(crate) source: String,
    pub(crate) target: String,
}

#[derive(Default)]
struct State {
    files: HashMap<FileId, ProgressBar>,
    /// When an interruption was last spoken of.
    interrupted: Option<Instant>,
    prefix: Prefix,
}

impl Bars {
    pub(crate) fn new(quiet: bool) -> Self {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let multi = MultiProgress::with_draw_target(target);
        let moved = Arc::new(Mutex::new(Instant::now()));
        let total = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        total.set_style(style().with_key("eta", time_left(moved.clone())));
        total.set_prefix("total");
        let total = multi.add(total);
        total.enable_steady_tick(Duration::from_millis(200));
        Self { multi, total, state: Mutex::default(), began: Instant::now(), moved, quiet }
    }

    /// From now on paths stand behind these.
    pub(crate) fn set_prefix(&self, prefix: Prefix) {
        self.lock().prefix = prefix;
    }

    /// The line after the bars.
    pub(crate) fn finish(&self, done: &str, summary: &Summary) {
        self.total.finish_and_clear();
        if self.quiet {
            return;
        }
        let elapsed = self.began.elapsed();
        let speed = HumanBytes(((summary.bytes - summary.resumed) as f64 / elapsed.as_secs_f64().max(1e-6)) as u64);
        let mut line = format!(
            "{done} {}, {} in {} ({speed}/s), verified",
            counted(summary.files, "file"),
            HumanBytes(summary.bytes),
            seconds(elapsed),
        );
        if summary.resumed > 0 {
            line += &format!(", {} of it kept from before", HumanBytes(summary.resumed));
        }
        if summary.links > 0 {
            line += &format!(", {}", counted(summary.links, "link"));
        }
        for (count, what) in [(summary.kept, "left alone"), (summary.skipped, "skipped"), (summary.failed, "failed")] {
            if count > 0 {
                line += &format!(", {count} {what}");
            }
        }
        output::say(&line);
    }

    /// Takes the bars away, before an error is shown.
    pub(crate) fn abandon(&self) {
        self.total.finish_and_clear();
        self.lock().files.drain().for_each(|(_, bar)| bar.finish_and_clear());
    }

    /// An error with its path as it was typed.
    pub(crate) fn describe(&self, error: &CopyError) -> String {
        match &error.error.problem {
            ftpq_storage::Problem::Remote { names_path: true, error, .. } => error.to_string(),
            problem => format!("{}: {problem}", self.shown(error.side, &error.error.path)),
        }
    }

    /// Says what failed, above the bars.
    pub(crate) fn report(&self, error: &CopyError) {
        let line = self.describe(error);
        self.say(&format!("ftpq: {line}"));
    }

    fn shown(&self, side: Side, path: &RemotePath) -> String {
        let state = self.lock();
        let prefix = match side {
            Side::Source => &state.prefix.source,
            Side::Target => &state.prefix.target,
        };
        format!("{prefix}{path}")
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Above the bars, or plainly where there are none.
    fn say(&self, line: &str) {
        self.multi.suspend(|| output::say(line));
    }
}

impl Progress for Bars {
    fn planned(&self, _: u64, bytes: u64) {
        self.total.inc_length(bytes);
    }

    fn started(&self, file: FileId, path: &RemotePath, size: u64) {
        // Thousands of small files would only flicker.
        if size < WORTH_A_BAR || self.multi.is_hidden() {
            return;
        }
        // Hidden until it has its place: it would draw over the others.
        let bar = ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::hidden()).with_style(style());
        bar.set_prefix(shortened(&path.name().map(|name| name.to_string()).unwrap_or_default()));
        let bar = self.multi.insert_before(&self.total, bar);
        self.lock().files.insert(file, bar);
    }

    fn advanced(&self, file: FileId, bytes: u64) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.total.inc(bytes);
        if let Some(bar) = self.lock().files.get(&file) {
            bar.inc(bytes);
        }
    }

    fn resumed(&self, file: FileId, bytes: u64) {
        self.advanced(file, bytes);
    }

    fn lost(&self, file: FileId, bytes: u64) {
        self.total.dec(bytes);
        if let Some(bar) = self.lock().files.get(&file) {
            bar.dec(bytes);
        }
    }

    fn interrupted(&self, _: FileId, error: &CopyError) {
        let mut state = self.lock();
        // All files of a connection are interrupted at once: that is one line.
        let now = Instant::now();
        let said = state.interrupted.replace(now).is_some_and(|before| now - before < Duration::from_secs(5));
        drop(state);
        if !said {
            self.say(&format!("ftpq: {}: connecting again", self.describe(error)));
        }
    }

    fn finished(&self, file: FileId) {
        if let Some(bar) = self.lock().files.remove(&file) {
            bar.finish_and_clear();
            self.multi.remove(&bar);
        }
    }

    fn failed(&self, file: Option<FileId>, error: &CopyError) {
        file.into_iter().for_each(|file| self.finished(file));
        self.report(error);
    }

    fn skipped(&self, path: &RemotePath, why: LeftOut) {
        self.say(&format!("ftpq: {}: {why}, left out", self.shown(Side::Source, path)));
    }
}

/// Bytes from which a file gets a bar of its own.
const WORTH_A_BAR: u64 = 1024 * 1024;

fn style() -> ProgressStyle {
    ProgressStyle::with_template(LINE).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸ ")
}

/// How long it will take, or for how long nothing has moved.
fn time_left(moved: Arc<Mutex<Instant>>) -> impl ProgressTracker + 'static {
    move |state: &ProgressState, line: &mut dyn fmt::Write| {
        let silence = moved.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        let _ = match silence > WORTH_A_WORD {
            true => write!(line, "nothing moved for {} s", silence.as_secs()),
            false => write!(line, "{:#}", HumanDuration(state.eta())),
        };
    }
}

/// Silence that is more than a slow disk's or a lost packet's.
const WORTH_A_WORD: Duration = Duration::from_secs(4);

/// Name, bar, bytes, speed, time left.
const LINE: &str = "{prefix:<24} {wide_bar} {bytes:>11}/{total_bytes:<11} {binary_bytes_per_sec:>13} {eta:>4}";

fn shortened(name: &str) -> String {
    const WIDTH: usize = 24;
    match name.chars().count() {
        len if len <= WIDTH => name.into(),
        len => std::iter::once('…').chain(name.chars().skip(len + 1 - WIDTH)).collect(),
    }
}

fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn seconds(elapsed: Duration) -> String {
    if elapsed < Duration::from_secs(100) {
        format!("{:.2} s", elapsed.as_secs_f64())
    } else {
        HumanDuration(elapsed).to_string()
    }
}
