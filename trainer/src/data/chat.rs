//! Conversations to token ids, with the supervised ones marked.

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;

use serde_json::Value;
use tokenizers::{Encoding, Tokenizer};

use super::record::{Message, Part, Role};
use super::template::{self, ChatTemplate, SpecialTokens};
use crate::error::{Error, Result};
use crate::processor::{Expansion, Placeholder, Processor};

/// A checkpoint's tokenizer and chat template.
#[derive(Debug)]
pub struct Chat {
    tokenizer: Tokenizer,
    template: ChatTemplate,
    special: HashSet<u32>,
    bos: Option<String>,
    eos: Option<u32>,
    /// What the template writes for an image, and the token that features replace.
    placeholder: Placeholder,
    image_token: Placeholder,
}

/// A tokenised conversation; both vectors have the same length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChatTokens {
    pub ids: Vec<u32>,
    /// Whether each token is the assistant's: its words and the token that ends its turn.
    pub supervised: Vec<bool>,
}

impl Chat {
    /// Reads tokenizer.json, tokenizer_config.json and the chat template of a checkpoint folder,
    /// or the family's where it brings none.
    pub fn open(folder: &Path, processor: &dyn Processor) -> Result<Self> {
        let placeholder = processor.placeholder();
        let tokenizer = open_tokenizer(folder)?;
        let config_file = folder.join("tokenizer_config.json");
        let config = match config_file.is_file() {
            true => read_json(&config_file)?,
            false => Value::Null,
        };
        let source = template::find_source(folder, &config)?;
        let tokens = special_tokens(&config);
        let chat = Self {
            special: special_ids(&tokenizer),
            bos: tokens.bos.clone(),
            eos: tokens
                .eos
                .as_deref()
                .and_then(|eos| tokenizer.token_to_id(eos)),
            template: ChatTemplate::new(
                source
                    .as_deref()
                    .unwrap_or_else(|| processor.chat_template()),
                tokens,
                &placeholder.text,
            )?,
            tokenizer,
            placeholder: placeholder.clone(),
            image_token: processor.image_token().clone(),
        };
        chat.check_placeholder(folder)?;
        Ok(chat)
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The text of ids, special tokens left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let decoded = self.tokenizer.decode(ids, true);
        decoded.map_err(|error| Error::User(format!("tokenizer.json: cannot decode: {error}")))
    }

    /// Ids of a conversation up to where the assistant answers next; `images` take the places of
    /// its placeholders, in order.
    pub fn prompt_ids(&self, messages: &[Message], images: &[Expansion]) -> Result<Vec<u32>> {
        let text = self.template.render(messages, true)?;
        let text = self.with_markers(&text, &mut [], images)?;
        let ids = self.encode(&text)?.get_ids().to_vec();
        let supervised = vec![false; ids.len()];
        Ok(self.with_runs(ChatTokens { ids, supervised }, images)?.ids)
    }

    /// Ids of a whole conversation; `images` as in [`Self::prompt_ids`].
    pub fn tokens(&self, messages: &[Message], images: &[Expansion]) -> Result<ChatTokens> {
        let text = self.template.render(messages, false)?;
        let mut answers = self.answers(messages, &text)?;
        let text = self.with_markers(&text, &mut answers, images)?;
        let encoding = self.encode(&text)?;
        let mut tokens = ChatTokens {
            ids: encoding.get_ids().to_vec(),
            supervised: vec![false; encoding.len()],
        };
        let mut ended = false;
        for answer in &answers {
            ended = self.supervise(&text, answer, &encoding, &mut tokens.supervised);
        }
        if let (false, Some(eos)) = (ended, self.eos) {
            // A template without an end-of-turn token: the model would never learn to stop.
            tokens.ids.push(eos);
            tokens.supervised.push(true);
        }
        self.with_runs(tokens, images)
    }

    /// The text with each placeholder replaced; `answers` move along.
    fn with_markers(
        &self,
        text: &str,
        answers: &mut [Range<usize>],
        images: &[Expansion],
    ) -> Result<String> {
        let pieces: Vec<&str> = text.split(self.placeholder.text.as_str()).collect();
        let found = pieces.len() - 1;
        if found != images.len() {
            return Err(Error::Data(format!(
                "the text holds `{}` {found} times but the record has {} images; remove that \
                 special token from the text",
                self.placeholder.text,
                images.len()
            )));
        }
        let mut expanded = String::with_capacity(text.len());
        let (mut start, mut rest) = (0, answers);
        for (index, piece) in pieces.iter().enumerate() {
            // Answers hold no placeholder, so that each lies in one piece.
            let end = start + piece.len();
            let inside = rest.iter().take_while(|answer| answer.end <= end).count();
            let (here, later) = std::mem::take(&mut rest).split_at_mut(inside);
            for answer in here {
                let place = |at: usize| at - start + expanded.len();
                *answer = place(answer.start)..place(answer.end);
            }
            rest = later;
            start += piece.len() + self.placeholder.text.len();
            expanded.push_str(piece);
            expanded.push_str(images.get(index).map_or("", |image| &image.text));
        }
        Ok(expanded)
    }

    /// Each image token repeated as often as its run is long.
    fn with_runs(&self, tokens: ChatTokens, images: &[Expansion]) -> Result<ChatTokens> {
        let runs: Vec<usize> = images
            .iter()
            .flat_map(|image| &image.runs)
            .copied()
            .collect();
        let image_token = self.image_token.id;
        let found = tokens.ids.iter().filter(|id| **id == image_token).count();
        if found != runs.len() {
            return Err(Error::Data(format!(
                "the text holds `{}` {found} times where its images have {} runs of it; remove \
                 that special token from the text",
                self.image_token.text,
                runs.len()
            )));
        }
        let mut runs = runs.into_iter();
        let mut expanded = ChatTokens::default();
        for (&id, &supervised) in tokens.ids.iter().zip(&tokens.supervised) {
            let count = match id == image_token {
                true => runs.next().unwrap_or(1),
                false => 1,
            };
            let length = expanded.ids.len() + count;
            expanded.ids.resize(length, id);
            expanded.supervised.resize(length, supervised);
        }
        Ok(expanded)
    }

    /// Where the assistant's turns stand in `text`, bytes: its words, and the white space between
    /// them and where the template lets the assistant begin, which it will have to write itself.
    /// Rendering once more with a mark in the place of each answer works for any template that
    /// writes an answer as it is (or trimmed), whatever it writes around it.
    fn answers(&self, messages: &[Message], text: &str) -> Result<Vec<Range<usize>>> {
        let marked = self.template.render(&with_marks(messages), false)?;
        let pieces: Vec<&str> = marked.split(MARK).collect();
        let words: Vec<String> = answers_of(messages).map(Message::words).collect();
        let trimmed: Vec<&str> = words.iter().map(|words| words.trim()).collect();
        let verbatim: Vec<&str> = words.iter().map(String::as_str).collect();
        let found = [verbatim, trimmed]
            .into_iter()
            .find_map(|answers| located(&pieces, &answers, text));
        let mut answers = found.ok_or_else(|| {
            Error::User(
                "the chat template changes or leaves out the assistant's words, so that they \
                 cannot be supervised; use a template that writes them as they are"
                    .into(),
            )
        })?;
        let turns = messages.iter().enumerate();
        let turns = turns.filter(|(_, message)| message.role == Role::Assistant);
        for ((turn, _), answer) in turns.zip(&mut answers) {
            let before = messages.get(..turn).unwrap_or_default();
            answer.start = self.turn_start(before, text, answer.start)?;
        }
        Ok(answers)
    }

    /// Where the assistant begins after the messages `before`, if only white space separates that
    /// from its words at `words`; else `words`.
    fn turn_start(&self, before: &[Message], text: &str, words: usize) -> Result<usize> {
        // A conversation that the assistant opens has no prompt.
        if before.is_empty() {
            return Ok(words);
        }
        let prompt = self.template.render(before, true)?;
        let between = text.get(prompt.len()..words);
        let begins = text.starts_with(&prompt) && between.is_some_and(|b| b.trim().is_empty());
        Ok(if begins { prompt.len() } else { words })
    }

    /// Marks an answer's tokens, and the special token that follows it (after white space at most)
    /// as the end of the turn. Returns whether there was one. A token that begins with the white
    /// space before the answer is its first word: many tokenizers have it in one.
    fn supervise(
        &self,
        text: &str,
        answer: &Range<usize>,
        encoding: &Encoding,
        supervised: &mut [bool],
    ) -> bool {
        let tokens = encoding
            .get_offsets()
            .iter()
            .zip(encoding.get_ids())
            .zip(supervised);
        for ((&(start, end), id), supervised) in tokens {
            let before = text.get(start..answer.start).unwrap_or_default();
            if start < answer.end && end > answer.start && before.trim().is_empty() {
                *supervised = true;
            } else if start >= answer.end {
                let between = text.get(answer.end..start).unwrap_or_default();
                if !between.trim().is_empty() {
                    return false;
                }
                if self.special.contains(id) {
                    *supervised = true;
                    return true;
                }
            }
        }
        false
    }

    /// Tokenises as processors of transformers do: special tokens are added unless the template
    /// has already written the first.
    fn encode(&self, text: &str) -> Result<Encoding> {
        let begun = self
            .bos
            .as_ref()
            .is_some_and(|bos| text.starts_with(bos.as_str()));
        let encoded = self.tokenizer.encode(text, !begun);
        encoded.map_err(|error| Error::User(format!("tokenizer.json: cannot encode: {error}")))
    }

    /// Both image tokens must be one token each with config.json's ids, and the template must
    /// write the placeholder.
    fn check_placeholder(&self, folder: &Path) -> Result<()> {
        for Placeholder { text, id } in [&self.placeholder, &self.image_token] {
            let known = self.tokenizer.token_to_id(text);
            if known != Some(*id) {
                let known = known.map_or("does not have it".to_owned(), |known| {
                    format!("says {known}")
                });
                return Err(Error::User(format!(
                    "{}: config.json says that `{text}` is token {id}, but tokenizer.json {known}; \
                     take both files from the same model",
                    folder.display()
                )));
            }
        }
        let parts = vec![Part::Image, Part::Text("?".into())];
        let question = Message {
            role: Role::User,
            parts,
        };
        let text = self.template.render(&[question], true)?;
        match text.matches(self.placeholder.text.as_str()).count() {
            1 => Ok(()),
            count => Err(Error::User(format!(
                "{}: the chat template writes `{}` {count} times for one image; use the model's \
                 own chat_template.jinja",
                folder.display(),
                self.placeholder.text
            ))),
        }
    }
}

/// Stands in for an answer; made of private-use characters that no data should contain.
const MARK: &str = "\u{f8f0}answer\u{f8f1}";

fn answers_of(messages: &[Message]) -> impl Iterator<Item = &Message> {
    messages
        .iter()
        .filter(|message| message.role == Role::Assistant)
}

fn with_marks(messages: &[Message]) -> Vec<Message> {
    let marked = messages.iter().map(|message| match message.role {
        Role::Assistant => Message::text(Role::Assistant, MARK),
        _ => message.clone(),
    });
    marked.collect()
}

/// The ranges of `answers` in `text`, if putting them between `pieces` gives exactly `text`.
fn located(pieces: &[&str], answers: &[&str], text: &str) -> Option<Vec<Range<usize>>> {
    if pieces.len() != answers.len() + 1 {
        return None;
    }
    let mut ranges = Vec::with_capacity(answers.len());
    let mut rest = text;
    for (piece, answer) in pieces.iter().zip(answers) {
        let after = rest.strip_prefix(piece)?;
        let start = text.len() - after.len();
        rest = after.strip_prefix(answer)?;
        ranges.push(start..start + answer.len());
    }
    (Some(&rest) == pieces.last()).then_some(ranges)
}

fn open_tokenizer(folder: &Path) -> Result<Tokenizer> {
    let file = folder.join("tokenizer.json");
    if !file.is_file() {
        return Err(Error::User(format!(
            "{}: the checkpoint has no tokenizer.json; copy it from the model it was made from, or \
             write it with transformers' AutoTokenizer.from_pretrained(...).save_pretrained(...)",
            folder.display()
        )));
    }
    let mut tokenizer = Tokenizer::from_file(&file)
        .map_err(|error| Error::User(format!("{}: {error}", file.display())))?;
    tokenizer.with_padding(None);
    tokenizer
        .with_truncation(None)
        .map_err(|error| Error::User(format!("{}: {error}", file.display())))?;
    Ok(tokenizer)
}

fn special_ids(tokenizer: &Tokenizer) -> HashSet<u32> {
    let added = tokenizer.get_added_tokens_decoder().into_iter();
    added
        .filter(|(_, token)| token.special)
        .map(|(id, _)| id)
        .collect()
}

/// A special token is written as text or as an object with `content`.
fn special_tokens(config: &Value) -> SpecialTokens {
    let token = |name: &str| {
        let value = config.get(name)?;
        let text = value.as_str().or_else(|| value.get("content")?.as_str())?;
        Some(text.to_owned())
    };
    SpecialTokens {
        bos: token("bos_token"),
        eos: token("eos_token"),
        pad: token("pad_token"),
        unk: token("unk_token"),
    }
}

/// The JSON of a checkpoint file; a user error names the file.
pub fn read_json(file: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Error::Storage(format!("{}: {error}", file.display())))?;
    serde_json::from_str(&text)
        .map_err(|error| Error::User(format!("{}: not JSON: {error}", file.display())))
}
