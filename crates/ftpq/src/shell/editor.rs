//! The line editor, on a thread of its own: it waits for keys, and the connections must go on.

use std::{path::PathBuf, sync::mpsc as blocking, thread, time::Duration};

use ftpq_storage::own_file::make_private;
use ftpq_transport::Ticket;
use rustyline::{CompletionType, Config, error::ReadlineError, history::DefaultHistory};
use tokio::sync::mpsc;

use super::complete::Words;

/// The line editor.
pub(super) struct Editor {
    prompts: blocking::Sender<String>,
    events: mpsc::UnboundedReceiver<Event>,
}

/// What comes from the keyboard.
pub(super) enum Event {
    /// A line.
    Line(String),
    /// Ctrl-C on an unfinished line.
    Interrupted,
    /// Tab on a remote path: which names are there?
    Complete(CompletionRequest),
}

/// A question that the editor waits for the answer to.
pub(super) struct CompletionRequest {
    /// The folder as typed.
    pub(super) folder: String,
    names: blocking::Sender<Vec<String>>,
}

impl CompletionRequest {
    pub(super) fn answer(self, names: Vec<String>) {
        // The editor may have stopped waiting.
        let _ = self.names.send(names);
    }
}

impl Editor {
    /// Starts the thread. What is typed is kept in `history`.
    pub(super) fn start(history: PathBuf) -> anyhow::Result<Self> {
        let (prompts, to_ask) = blocking::channel::<String>();
        let (events, received) = mpsc::unbounded_channel();
        let config = Config::builder().completion_type(CompletionType::List).max_history_size(1000)?.build();
        let mut editor = rustyline::Editor::<Words, DefaultHistory>::with_config(config)?;
        editor.set_helper(Some(Words::new(Questions(events.clone()))));
        // The first start has none.
        let _ = editor.load_history(&history);
        thread::spawn(move || {
            for prompt in to_ask {
                let event = match editor.readline(&prompt) {
                    Ok(line) => {
                        // A ticket lets whoever reads it in.
                        if !Ticket::resembles(&line) {
                            let _ = editor.add_history_entry(&line);
                        }
                        Event::Line(line)
                    }
                    Err(ReadlineError::Interrupted) => Event::Interrupted,
                    // Ctrl-D, or a terminal that is gone.
                    Err(_) => break,
                };
                let _ = history.parent().map(make_private);
                let _ = editor.save_history(&history);
                if events.send(event).is_err() {
                    break;
                }
            }
            // Its helper holds a sender too: without both the receiver sees the end.
            editor.set_helper(None);
        });
        Ok(Self { prompts, events: received })
    }

    /// Shows the prompt and lets a line be typed.
    pub(super) fn ask(&self, prompt: String) {
        // A thread that is gone shows in `next`.
        let _ = self.prompts.send(prompt);
    }

    /// What comes next; `None` at the end of input.
    pub(super) async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

/// The editor's way of asking for remote names.
pub(super) struct Questions(mpsc::UnboundedSender<Event>);

impl Questions {
    /// The names in the remote folder, as typed; none where the server does not answer soon.
    pub(super) fn names_in(&self, folder: &str) -> Vec<String> {
        let (names, answer) = blocking::channel();
        let request = CompletionRequest { folder: folder.into(), names };
        if self.0.send(Event::Complete(request)).is_err() {
            return Vec::new();
        }
        answer.recv_timeout(PATIENCE).unwrap_or_default()
    }
}

/// Nobody holds a key for longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
