//! ftpq under a real pseudo-terminal, driven as a person does: look, type, look.

use std::{
    env,
    ffi::OsStr,
    io::{Read, Write},
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

use super::{PATIENCE, Program, World, until};

/// Keys that are no letters.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Key {
    Enter,
    Tab,
    Up,
    CtrlC,
    CtrlD,
}

/// ftpq in a terminal. Dropped, it is killed.
pub(crate) struct Terminal {
    child: Box<dyn Child + Send + Sync>,
    keyboard: Box<dyn Write + Send>,
    screen: Arc<(Mutex<Screen>, Condvar)>,
    /// Up to here everything was looked at.
    seen: usize,
    _terminal: Box<dyn MasterPty + Send>,
}

#[derive(Default)]
struct Screen {
    /// What was printed, without what only a terminal understands.
    text: String,
    /// Everything as it came.
    raw: Vec<u8>,
    ended: bool,
}

impl Terminal {
    /// `ftpq ARGS` in `world`, with `home`.
    pub(crate) fn start<A: AsRef<OsStr>>(world: &World, home: &Path, args: impl IntoIterator<Item = A>) -> Self {
        let pair = native_pty_system()
            .openpty(PtySize { rows: 50, cols: 160, pixel_width: 0, pixel_height: 0 })
            .expect("a pseudo-terminal");
        let mut command = CommandBuilder::new(Program::path());
        command.args(args);
        command.env_clear();
        command.cwd(world.work());
        for (name, value) in [("TERM", "xterm-256color"), ("SHELL", "/bin/sh"), ("TZ", "UTC")] {
            command.env(name, value);
        }
        command.env("PATH", env::var_os("PATH").unwrap_or_default());
        command.env("FTPQ_HOME", home);
        let child = pair.slave.spawn_command(command).expect("ftpq can be started");
        drop(pair.slave);
        let reader = pair.master.try_clone_reader().expect("a terminal can be read");
        let screen = Arc::default();
        thread::spawn({
            let screen = Arc::clone(&screen);
            move || watch(reader, &screen)
        });
        let keyboard = pair.master.take_writer().expect("a terminal can be written to");
        Self { child, keyboard, screen, seen: 0, _terminal: pair.master }
    }

    /// Types.
    pub(crate) fn keys(&mut self, text: &str) -> &mut Self {
        self.keyboard.write_all(text.as_bytes()).unwrap();
        self.keyboard.flush().unwrap();
        self
    }

    /// Presses one key.
    pub(crate) fn press(&mut self, key: Key) -> &mut Self {
        self.keys(match key {
            Key::Enter => "\r",
            Key::Tab => "\t",
            Key::Up => "\u{1b}[A",
            Key::CtrlC => "\u{3}",
            Key::CtrlD => "\u{4}",
        })
    }

    /// Types a line.
    pub(crate) fn line(&mut self, text: &str) -> &mut Self {
        self.keys(text).press(Key::Enter)
    }

    /// Waits for `text` behind all that was waited for before. Returns what stands before it.
    #[track_caller]
    pub(crate) fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let (screen, changed) = &*self.screen;
        let mut screen = lock(screen);
        loop {
            let unseen = &screen.text[self.seen..];
            if let Some(at) = unseen.find(text) {
                let before = unseen[..at].to_owned();
                self.seen += at + text.len();
                return before;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!screen.ended && !left.is_zero(), "waited in vain for {text:?}; since then: {unseen:?}");
            screen = changed.wait_timeout(screen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Everything as it came so far.
    pub(crate) fn raw(&self) -> Vec<u8> {
        lock(&self.screen.0).raw.clone()
    }

    /// Everything that was printed so far, readably.
    pub(crate) fn text(&self) -> String {
        lock(&self.screen.0).text.clone()
    }

    /// Waits for the end and returns the exit code.
    pub(crate) fn exit_code(&mut self) -> u32 {
        let mut status = None;
        until("the program in the terminal ends", || {
            status = self.child.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        status.expect("it has ended").exit_code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A test that failed while it looked must not take the watcher down as well.
fn lock(screen: &Mutex<Screen>) -> MutexGuard<'_, Screen> {
    screen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch(mut reader: Box<dyn Read + Send>, screen: &(Mutex<Screen>, Condvar)) {
    let (screen, changed) = screen;
    let mut plain = Vec::new();
    let mut state = Strip::Text;
    let mut buffer = [0; 4096];
    // The end of a terminal reads as an error.
    while let Ok(len @ 1..) = reader.read(&mut buffer) {
        let mut screen = lock(screen);
        screen.raw.extend(&buffer[..len]);
        plain.extend(buffer[..len].iter().filter(|&&byte| state.keeps(byte)));
        // A letter may come in two parts.
        let whole = match std::str::from_utf8(&plain) {
            Ok(_) => plain.len(),
            Err(error) => error.valid_up_to(),
        };
        let text: Vec<u8> = plain.drain(..whole).collect();
        screen.text += &String::from_utf8_lossy(&text);
        changed.notify_all();
    }
    lock(screen).ended = true;
    changed.notify_all();
}

/// Takes out what only a terminal understands (ECMA-48: control sequences, OSC strings).
enum Strip {
    Text,
    Escape,
    Control,
    Title,
}

impl Strip {
    fn keeps(&mut self, byte: u8) -> bool {
        let (next, keep) = match (&*self, byte) {
            (Strip::Text, 0x1b) => (Strip::Escape, false),
            (Strip::Text, b'\r' | 7) => (Strip::Text, false),
            (Strip::Text, _) => (Strip::Text, true),
            (Strip::Escape, b'[') => (Strip::Control, false),
            (Strip::Escape, b']') => (Strip::Title, false),
            (Strip::Escape, _) => (Strip::Text, false),
            (Strip::Control, 0x40..=0x7e) => (Strip::Text, false),
            (Strip::Control, _) => (Strip::Control, false),
            (Strip::Title, 7 | 0x1b) => (Strip::Text, false),
            (Strip::Title, _) => (Strip::Title, false),
        };
        *self = next;
        keep
    }
}
