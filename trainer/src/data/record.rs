//! One conversation with its images, whatever format it was written in.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

/// One conversation with the images it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub messages: Vec<Message>,
    /// Image paths as written, in the order of the messages' [`Part::Image`]s.
    pub images: Vec<String>,
}

/// One turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub role: Role,
    pub parts: Vec<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    #[serde(alias = "developer")]
    System,
    #[serde(alias = "human")]
    User,
    #[serde(alias = "gpt")]
    Assistant,
}

/// A piece of a turn, in reading order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Text(String),
    Image,
}

/// File and line of a record, for messages; lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<Path>,
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

impl Role {
    /// Its name in chat templates.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

impl Message {
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self {
            role,
            parts: vec![Part::Text(text.into())],
        }
    }

    /// How many images it shows.
    pub fn images(&self) -> usize {
        self.parts
            .iter()
            .filter(|part| **part == Part::Image)
            .count()
    }

    /// All its text, images left out.
    pub fn words(&self) -> String {
        let texts = self.parts.iter().map(|part| match part {
            Part::Text(text) => text.as_str(),
            Part::Image => "",
        });
        texts.collect()
    }
}

impl Record {
    /// Refuses what cannot be trained on. The message says why and what to do.
    pub fn check(&self) -> Result<(), String> {
        let assistant = self
            .messages
            .iter()
            .filter(|message| message.role == Role::Assistant);
        let mut answers = 0;
        for message in assistant {
            answers += 1;
            if message.parts.contains(&Part::Image) {
                return Err("an assistant message shows an image; only users can".into());
            }
            if message.words().trim().is_empty() {
                return Err(
                    "the assistant's text is empty: there is nothing to learn from it; \
                            write it or remove the line"
                        .into(),
                );
            }
        }
        if answers == 0 {
            return Err(
                "no assistant message: there is nothing to learn from it; add one or \
                        remove the line"
                    .into(),
            );
        }
        Ok(())
    }
}
